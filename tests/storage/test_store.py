"""Features on disk: what is written is what is read, and nothing half-written or altered is believed."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sparc.errors import BadFeatures, CorruptFile, IncompatibleFormat, MisalignedStreams, MissingData, StorageError
from sparc.storage.manifest import Manifest, Shard, digest_ids, fingerprint, read_manifest, write_manifest
from sparc.storage.store import ShardContent, open_streams, read_shard, shard_path, write_samples, write_shard
from sparc.system.files import sha256, write_atomically, write_together


def write_stream(directory, features, ids, *, rows=4, weights="sha256:1"):
    shards = []
    for number, start in enumerate(range(0, len(ids), rows)):
        path = shard_path(directory, number)
        write_shard(path, ShardContent(features[start : start + rows], ids[start : start + rows]), stream="photo")
        shards.append(Shard(file=path.name, rows=len(ids[start : start + rows]), sha256=sha256(path)))
    manifest = Manifest(
        backbone="photo",
        params={},
        weights=weights,
        dataset="toy",
        split="train",
        width=features.shape[1],
        dtype="float32",
        samples=len(ids),
        samples_sha256=digest_ids(ids),
        samples_file_sha256=write_samples(directory, ids, np.arange(len(ids))),
        shards=tuple(shards),
    )
    write_manifest(directory, manifest)
    return directory


@pytest.fixture
def ids():
    return [f"sample {number}" for number in range(10)]


@pytest.fixture
def stream(tmp_path, ids):
    torch.manual_seed(0)
    return write_stream(tmp_path / "photo", torch.randn(10, 3), ids)


def test_features_come_back_as_they_were_with_their_ids(tmp_path, ids):
    features = {"photo": torch.randn(10, 3), "words": torch.randn(10, 2)}
    directories = {name: write_stream(tmp_path / name, rows, ids) for name, rows in features.items()}
    store = open_streams(directories)
    assert store.ids == tuple(ids)
    assert store.widths == {"photo": 3, "words": 2}
    assert len(store) == 10
    assert repr(store) == "FeatureStore({'photo': 3, 'words': 2}, 10 samples)"
    for name, rows in features.items():
        assert torch.equal(store.in_memory()[name], rows)


def test_streams_of_different_samples_are_refused_even_if_as_many(tmp_path, ids):
    first = write_stream(tmp_path / "a", torch.ones(10, 3), ids)
    second = write_stream(tmp_path / "b", torch.ones(10, 3), ids[::-1])
    with pytest.raises(MisalignedStreams, match=r"a: 10 samples.*b: 10 samples"):
        open_streams({"a": first, "b": second})


def test_a_truncated_shard_is_named(stream):
    path = shard_path(stream, 1)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(CorruptFile, match=r"shard-00001.safetensors is truncated or altered") as error:
        open_streams({"photo": stream})
    assert "extract it again" in error.value.hint


def test_a_shard_altered_in_one_bit_is_named(stream):
    path = shard_path(stream, 2)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptFile, match=r"shard-00002.safetensors .* checksum differs"):
        open_streams({"photo": stream})


def test_a_missing_shard_is_named(stream):
    shard_path(stream, 0).unlink()
    with pytest.raises(MissingData, match=r"a shard is missing: .*shard-00000"):
        open_streams({"photo": stream})


def test_a_feature_that_is_not_finite_is_never_written_and_names_stream_and_sample(tmp_path, ids):
    features = torch.ones(10, 3)
    features[6, 1] = float("nan")
    with pytest.raises(BadFeatures, match=r"stream 'photo' .* sample 'sample 6'"):
        write_stream(tmp_path / "photo", features, ids)
    assert not shard_path(tmp_path / "photo", 1).exists()


def test_a_feature_that_is_not_finite_in_a_foreign_store_is_named(stream, ids):
    path = shard_path(stream, 1)
    features, shard_ids, *_ = read_shard(path)
    features[2, 0] = float("inf")
    save_file({"features": features}, path, metadata={"samples": json.dumps({"ids": shard_ids, "skipped": []})})
    manifest = read_manifest(stream)
    shards = [*manifest.shards]
    shards[1] = shards[1].model_copy(update={"sha256": sha256(path)})
    write_manifest(stream, manifest.model_copy(update={"shards": tuple(shards)}))
    with pytest.raises(BadFeatures, match=r"stream 'photo' .* sample 'sample 6'"):
        open_streams({"photo": stream})


def test_a_store_of_a_newer_format_is_refused(stream):
    content = json.loads((stream / "manifest.json").read_text())
    (stream / "manifest.json").write_text(json.dumps({**content, "format_version": 99}))
    with pytest.raises(IncompatibleFormat, match="format version 99, this sparc reads up to 2"):
        read_manifest(stream)


def test_a_manifest_that_is_no_manifest_is_refused(stream):
    (stream / "manifest.json").write_text('{"format_version": 2}')
    with pytest.raises(CorruptFile, match="is not a manifest"):
        read_manifest(stream)
    (stream / "manifest.json").write_text('{"format_')
    with pytest.raises(CorruptFile, match="not valid JSON"):
        read_manifest(stream)


def test_the_fingerprint_tells_what_features_depend_on_and_nothing_else():
    one = fingerprint("vit", {"model": "a", "weights": "/here/w.pt"}, "sha256:1")
    assert one.startswith("vit-")
    assert one == fingerprint("vit", {"weights": "/moved/w.pt", "model": "a"}, "sha256:1")
    assert one != fingerprint("vit", {"model": "b", "weights": "/here/w.pt"}, "sha256:1")
    assert one != fingerprint("vit", {"model": "a", "weights": "/here/w.pt"}, "sha256:2")
    assert one != fingerprint("vot", {"model": "a", "weights": "/here/w.pt"}, "sha256:1")
    assert fingerprint("own", {"root": "/2023"}, "digest") == fingerprint("own", {"root": "/2024"}, "digest")
    assert fingerprint("own", {"taxonomy": "/a"}, "digest") == fingerprint("own", {"taxonomy": "/b"}, "digest")
    here, there = {"model": "local-dir:/here"}, {"model": "local-dir:/there"}
    assert fingerprint("vit", here, "sha256:1") == fingerprint("vit", there, "sha256:1")
    assert fingerprint("vit", here, "sha256:1") != fingerprint("vit", here, "sha256:2")
    assert fingerprint("vit", here, "sha256:1") != fingerprint("vit", {"model": "vit"}, "sha256:1")
    assert fingerprint("vit", here, "random") != fingerprint("vit", there, "random")
    # A plugin that identifies nothing has only its parameters to tell its data apart.
    assert fingerprint("own", {"root": "/2023"}, "") != fingerprint("own", {"root": "/2024"}, "")


def test_shards_in_another_order_than_their_samples_are_refused(tmp_path, ids):
    directory = write_stream(tmp_path / "a", torch.ones(10, 3), ids)
    manifest = read_manifest(directory)
    write_manifest(directory, manifest.model_copy(update={"shards": manifest.shards[::-1]}))
    with pytest.raises(CorruptFile, match="do not hold the samples of their manifest"):
        open_streams({"a": directory})


def test_a_list_of_samples_that_is_altered_or_gone_is_named(stream):
    path = stream / "samples.json"
    content = path.read_text()
    path.write_text(content.replace("sample 3", "sample 4"))
    with pytest.raises(CorruptFile, match=r"samples.json is truncated or altered: its checksum differs"):
        open_streams({"photo": stream})
    path.unlink()
    with pytest.raises(MissingData, match=r"the list of a stream's samples is missing: .*samples.json"):
        open_streams({"photo": stream})


def test_rows_that_are_not_in_the_order_of_their_samples_are_refused(stream, ids):
    digest = write_samples(stream, ids, np.arange(10)[::-1])
    write_manifest(stream, read_manifest(stream).model_copy(update={"samples_file_sha256": digest}))
    with pytest.raises(CorruptFile, match="do not hold the samples of their manifest"):
        open_streams({"photo": stream})


def test_the_same_features_are_the_same_bytes(tmp_path, ids):
    first, again = (write_stream(tmp_path / name / "photo", torch.ones(10, 3), ids) for name in "ab")
    assert shard_path(first, 0).read_bytes() == shard_path(again, 0).read_bytes()


def test_rows_of_zeros_are_counted_as_missing(tmp_path, ids):
    features = torch.ones(10, 3)
    features[[1, 4]] = 0
    assert open_streams({"photo": write_stream(tmp_path / "a", features, ids)}).missing() == {"photo": 2}


def test_a_shard_is_as_readable_as_any_file_of_the_user(tmp_path, ids):
    (tmp_path / "any").touch()
    write_stream(tmp_path / "a", torch.ones(10, 3), ids)
    modes = {file.stat().st_mode for file in (tmp_path / "a").iterdir()}
    assert modes == {(tmp_path / "any").stat().st_mode}


def test_a_full_disk_is_an_error_that_leaves_the_old_file_and_no_other(tmp_path):
    """/dev/full is a real full disk: every write to it fails with ENOSPC."""
    path = tmp_path / "kept.json"
    path.write_text("old")

    def write(temporary):
        temporary.unlink()
        temporary.symlink_to("/dev/full")
        temporary.write_text("new")

    with pytest.raises(StorageError, match="no space left"):
        write_atomically(path, write)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["kept.json"]


def test_a_file_that_cannot_be_renamed_is_an_error_of_sparc_and_leaves_nothing_temporary(tmp_path):
    (tmp_path / "b").mkdir()
    with pytest.raises(StorageError, match=f"cannot write {tmp_path / 'b'}: Is a directory"):
        write_together({tmp_path / name: lambda path: path.write_text("new") for name in "ab"})
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "b"]


def test_a_full_disk_while_a_shard_is_written_is_an_error_of_sparc(tmp_path, monkeypatch):
    """The same through safetensors, whose errors carry no errno: the limit on file size stands in for the disk."""
    import resource
    import signal

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        content = ShardContent(torch.ones(1000, 30), ["x"] * 1000)
        with pytest.raises(StorageError):
            write_shard(tmp_path / "shard-00000.safetensors", content, stream="photo")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert list(tmp_path.iterdir()) == []


def edited(path, change):
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **change(content)}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda old: {"width": 4}, "the manifest says width 4 and float32, it holds width 3 and float32"),
        (lambda old: {"dtype": "float16"}, "the manifest says width 3 and float16, it holds width 3 and float32"),
        (lambda old: {"samples": 11}, "expected 11 samples, found 10 ids and 10 rows"),
        (lambda old: {"shards": [{**old["shards"][0], "rows": 3}]}, "the manifest says 3 rows, it holds 4"),
        (lambda old: {"shards": [{**old["shards"][0], "file": "../photo/shard-00000.safetensors"}]}, "not a manifest"),
        (lambda old: {"width": 0}, "not a manifest"),
        (lambda old: {"shards": old["shards"][:2]}, "do not hold the samples"),
    ],
)
def test_a_manifest_that_does_not_describe_its_shards_is_refused(stream, change, message):
    edited(stream / "manifest.json", change)
    with pytest.raises(CorruptFile, match=message):
        open_streams({"photo": stream})


@pytest.mark.parametrize(
    "content",
    [[], {"ids": 3}, {"ids": ["a"], "rows": "b"}, {"ids": ["a"], "rows": [2**70]}, {"ids": [["a"]], "rows": [0]}, 0],
)
def test_a_list_of_samples_that_is_none_is_refused_though_its_checksum_fits(stream, content):
    (stream / "samples.json").write_text(json.dumps(content))
    edited(stream / "manifest.json", lambda old: {"samples_file_sha256": sha256(stream / "samples.json")})
    with pytest.raises(CorruptFile, match=r"samples\.json is truncated or altered"):
        open_streams({"photo": stream})


def test_every_bit_of_a_shard_counts_when_its_digest_is_checked(stream):
    path = shard_path(stream, 2)
    whole = path.read_bytes()
    for place in range(8, len(whole), 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << place % 8)]) + whole[place + 1 :])
        with pytest.raises(CorruptFile, match=r"shard-00002"):
            read_shard(path, checked=True)
    path.write_bytes(whole)
    assert read_shard(path, checked=True).ids == ["sample 8", "sample 9"]


def test_a_shard_without_a_digest_passes_only_with_the_checksum_of_its_manifest(stream):
    path = shard_path(stream, 2)
    save_file(
        {"features": torch.ones(2, 3)}, path, metadata={"samples": json.dumps({"ids": ["a", "b"], "skipped": []})}
    )
    with pytest.raises(CorruptFile, match="has no digest"):
        read_shard(path, checked=True)
    assert read_shard(path, checked=True, sha=sha256(path)).ids == ["a", "b"]
