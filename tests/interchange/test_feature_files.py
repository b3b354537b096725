"""Features and ids as people save them: read whole in every format, or refused with the row and what to do."""

import json
import os
import subprocess
import sys
import unicodedata

import h5py
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from sparc.errors import BadFeatures, CorruptFile, InvalidConfig, MissingData, SparcError, StorageError
from sparc.interchange import arrays as arrays_module
from sparc.interchange import hdf5_files
from sparc.interchange.feature_files import Keys, open_source
from sparc.interchange.import_features import import_features
from sparc.storage.store import open_streams

FEATURES = np.arange(8, dtype=np.float32).reshape(4, 2) + 1
IDS = ["b", "é", "a", "10"]


def rows_of(source, room):
    return np.concatenate(list(source.blocks(room)))


def parquet(path, **columns):
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def written(path, features, ids):
    """Write features and ids in the format of the suffix, as its own library does."""
    match path.suffix:
        case ".npy":
            np.save(path, features)
            path.with_suffix(".txt").write_text("\n".join(ids), encoding="utf-8", newline="")
        case ".npz":
            np.savez_compressed(path, features=features, ids=np.array(ids))
        case ".safetensors":
            save_file({"features": torch.from_numpy(features)}, path, metadata={"ids": json.dumps(ids)})
        case ".parquet":
            table = pyarrow.table({"ids": ids, "features": list(features)})
            pyarrow.parquet.write_table(table, path, row_group_size=3, write_page_checksum=True)
        case ".h5":
            with h5py.File(path, "w", libver="latest") as file:
                chunks = (min(2, len(features)), 2)
                file.create_dataset("features", data=features, compression="gzip", chunks=chunks, fletcher32=True)
                file.create_dataset("ids", data=[one.encode() for one in ids])
        case ".pt":
            torch.save({"features": torch.from_numpy(features), "ids": ids}, path)  # noqa: TID251
    return path


SUFFIXES = (".npy", ".npz", ".safetensors", ".parquet", ".h5", ".pt")
# An id has no blanks around it and is in the composed form; numpy drops zeros at its end, and a text file has lines.
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n\ufeff"), min_size=1, max_size=12)
IDS_OF_FILES = st.lists(
    TEXTS.map(lambda text: unicodedata.normalize("NFC", text).strip()).filter(bool), min_size=1, max_size=9, unique=True
)


def lines_of(path):
    return path.with_suffix(".txt") if path.suffix == ".npy" else None


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ids=IDS_OF_FILES, kind=st.sampled_from(["f2", "f4", "f8"]), seed=st.integers(0, 99))
def test_what_a_library_wrote_comes_back_whole(suffix, tmp_path, ids, kind, seed):
    features = np.random.default_rng(seed).standard_normal((len(ids), 3)).astype(kind)
    path = written(tmp_path / f"some{suffix}", features, ids)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays_module, "BLOCK_BYTES", 16)  # several blocks
        source = open_source(path, lines_of(path))
        assert source.ids == ids
        assert np.array_equal(rows_of(source, tmp_path), features)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_was_cut_anywhere_loses_no_row_silently(suffix, tmp_path):
    ids = [f"sample {number}" for number in range(40)]
    features = np.random.default_rng(0).standard_normal((40, 8)).astype(np.float32)
    whole = written(tmp_path / f"whole{suffix}", features, ids)
    content = whole.read_bytes()
    cut = tmp_path / f"cut{suffix}"
    for end in range(0, len(content), max(1, len(content) // 60)):
        cut.write_bytes(content[:end])
        try:
            found = rows_of(open_source(cut, lines_of(whole)), tmp_path)
        except SparcError as error:
            found = error
        assert str(cut) in str(found) if isinstance(found, SparcError) else np.array_equal(found, features)


@pytest.mark.parametrize("suffix", [".npz", ".parquet", ".h5"])
def test_a_byte_that_changed_is_noticed_in_formats_with_checksums(suffix, tmp_path, monkeypatch):
    monkeypatch.setattr(hdf5_files, "SECONDS", 1)  # one of the changes makes a heap that HDF5 reads for ever
    ids = [f"sample {number}" for number in range(40)]
    features = np.random.default_rng(0).standard_normal((40, 8)).astype(np.float32)
    whole = written(tmp_path / f"whole{suffix}", features, ids)
    content = bytearray(whole.read_bytes())
    noticed = 0
    for place in range(0, len(content), max(1, len(content) // 60)):
        changed = content.copy()
        changed[place] ^= 0x55
        whole.write_bytes(changed)
        try:
            source = open_source(whole)
            assert np.array_equal(rows_of(source, tmp_path), features)
        except SparcError:
            noticed += 1
    assert noticed > 20


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ([[1.0, 2, 3, 4], [1.0, 2, 3], [4.0, 5, 6, 7, 8]], "row 1: expected 4 numbers in 'features', found 3"),
        ([[1.0, 2], [3.0, 4], None], "row 2: expected 2 numbers in 'features', found an empty cell"),
        ([[1.0, 2], [], [3.0, 4]], "row 1: expected 2 numbers in 'features', found 0"),
        ([[1.0, 2], [3.0, None], [5.0, 6]], "row 1: expected 2 numbers in 'features', found an empty one"),
    ],
)
def test_a_parquet_row_of_another_width_is_an_error_with_its_number(lists, message, tmp_path):
    """Three and five numbers were reshaped to two rows of four."""
    source = open_source(parquet(tmp_path / "some.parquet", ids=["a", "b", "c"], features=lists))
    with pytest.raises(InvalidConfig, match=message):
        import_features({"s": source}, tmp_path / "out", split="train")
    assert not list((tmp_path / "out").rglob("manifest.json"))


def test_parquet_lists_without_numbers_and_columns_of_other_kinds_are_refused(tmp_path):
    empty = pyarrow.array([[], []], pyarrow.list_(pyarrow.float32()))
    for features, message in (
        (empty, r"expected features in 'features', found none, \(2, 0\)"),
        ([[], [1.0]], r"expected features in 'features', found none, \(2, 0\)"),
        ([b"12", b"34"], "expected real numbers as 'features', found binary"),
        ([["x"], ["y"]], "expected real numbers as 'features', found list<"),
    ):
        with pytest.raises(InvalidConfig, match=message):
            open_source(parquet(tmp_path / "some.parquet", ids=["a", "b"], features=features))


def test_parquet_columns_of_all_list_types_are_read(tmp_path):
    types = (
        pyarrow.list_(pyarrow.float16()),
        pyarrow.large_list(pyarrow.float64()),
        pyarrow.list_(pyarrow.float32(), 2),
        pyarrow.list_(pyarrow.int8()),
    )
    for kind in types:
        features = pyarrow.array(FEATURES.tolist()).cast(kind)
        path = parquet(tmp_path / "some.parquet", ids=pyarrow.array(IDS).dictionary_encode(), features=features)
        source = open_source(path)
        assert source.ids == IDS
        assert np.array_equal(rows_of(source, tmp_path), FEATURES)
    tensors = pyarrow.FixedShapeTensorArray.from_numpy_ndarray(FEATURES)
    assert np.array_equal(
        rows_of(open_source(parquet(tmp_path / "t.parquet", ids=IDS, features=tensors)), tmp_path), FEATURES
    )


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["a", None, "c"], "row 1: expected an id, found an empty cell"),
        (["a", "b", ""], "row 2: expected an id, found an empty text"),
        (["a", " ", "c"], "row 1: expected an id, found an empty text"),
        ([1.0, 2.0, 3.0], "row 0: expected an id, found float 1.0"),
        ([1, None, 3], "row 1: expected an id, found an empty cell"),
        ([True, False, True], "row 0: expected an id, found bool True"),
        ([b"a", b"\xe9", b"c"], "row 1: expected an id in UTF-8"),
        (["a", "b", "a"], "expected unique ids, found 'a' twice, in rows 0 and 2"),
        (["a", "b", "a "], "expected unique ids, found 'a' twice, in rows 0 and 2"),
        (["é", "b", "e\u0301"], "expected unique ids, found 'é' twice, in rows 0 and 2"),
    ],
)
def test_an_id_that_is_missing_or_no_id_is_an_error_with_its_row(ids, message, tmp_path):
    path = parquet(tmp_path / "some.parquet", ids=ids, features=[[1.0], [2.0], [3.0]])
    with pytest.raises(InvalidConfig, match=message):
        open_source(path)


def test_ids_of_all_types_are_read(tmp_path):
    for ids, expected in (
        (np.array(["a", "bc"], dtype="S4"), ["a", "bc"]),
        (np.array(["ä", "bc"]), ["ä", "bc"]),
        (np.array([7, 2**62]), ["7", str(2**62)]),
        (np.array([7, 8], dtype=">u2"), ["7", "8"]),
    ):
        np.savez(tmp_path / "some.npz", features=FEATURES[:2], ids=ids)
        assert open_source(tmp_path / "some.npz").ids == expected
    with h5py.File(tmp_path / "some.h5", "w") as file:
        file["features"] = FEATURES
        file["ids"] = np.array(["a   ", "b   ", "c   ", "d   "], dtype="S4")  # Fortran and MATLAB pad with blanks
    assert open_source(tmp_path / "some.h5").ids == ["a", "b", "c", "d"]
    save_file({"features": torch.ones(2, 2), "ids": torch.tensor([5, 6])}, tmp_path / "some.safetensors")
    assert open_source(tmp_path / "some.safetensors").ids == ["5", "6"]
    save_file({"features": torch.ones(2, 2)}, tmp_path / "none.safetensors", metadata={"ids": json.dumps(["a", None])})
    with pytest.raises(InvalidConfig, match="row 1: expected an id, found an empty cell"):
        open_source(tmp_path / "none.safetensors")


def test_ids_that_look_the_same_are_joined(tmp_path):
    """macOS decomposes names: "e" and an accent. A join left both streams without that sample."""
    one = written(tmp_path / "one.npz", FEATURES[:2], ["é", "x"])
    two = written(tmp_path / "two.npz", FEATURES[:2], ["x", unicodedata.normalize("NFD", "é")])
    (found,) = import_features({"a": open_source(one), "b": open_source(two)}, tmp_path / "out", split="train")
    assert (found.samples, found.lacking) == (2, {"a": [], "b": []})


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_of_ids_are_read_as_any_editor_writes_them(encoding, end, tmp_path):
    """Unicode's own line separators are part of an id, as they are for editors."""
    np.save(tmp_path / "some.npy", FEATURES)
    ids = ["photo 1", "ф\u2028x", "a,b", '"q"']
    (tmp_path / "ids.txt").write_bytes((end.join(ids) + end + end).encode(encoding))
    assert open_source(tmp_path / "some.npy", tmp_path / "ids.txt").ids == ids


def test_lines_without_an_id_or_in_another_encoding_are_refused(tmp_path):
    np.save(tmp_path / "some.npy", FEATURES)
    for content, message in (
        (b"a\n\nc\nd\n", "ids.txt, line 2: expected an id, found an empty line"),
        (b"a\nb\nc\n", "expected as many ids as features, found 3 and 4"),
        ("ä\nb\nc\nd".encode("latin-1"), "is not UTF-8 text"),
        ("a\nb\nc\nd".encode("utf-16-le"), "is not text: line 1 holds a zero byte"),
    ):
        (tmp_path / "ids.txt").write_bytes(content)
        with pytest.raises(InvalidConfig, match=message):
            open_source(tmp_path / "some.npy", tmp_path / "ids.txt")
    with pytest.raises(MissingData, match="ids not found"):
        open_source(tmp_path / "some.npy", tmp_path / "gone.txt")


def test_a_row_of_zeros_is_not_taken_for_a_missing_stream(tmp_path):
    """A file of HDF5 whose writer stopped ends in zeros."""
    with h5py.File(tmp_path / "some.h5", "w") as file:
        file.create_dataset("features", (4, 2), np.float32, chunks=(1, 2))
        file["features"][:2] = 1
        file["ids"] = ["a", "b", "c", "d"]
    with pytest.raises(
        BadFeatures,
        match=r"stream 's': .* rows of zeros, 2 in all, the first in row 2 of .*some.h5 \(sample 'c'\)",
    ):
        import_features({"s": open_source(tmp_path / "some.h5")}, tmp_path / "out", split="train")
    assert not list((tmp_path / "out").rglob("manifest.json"))


def test_numbers_too_small_or_too_large_for_float32_are_no_zeros_and_no_infinities(tmp_path):
    for value, message in ((1e-60, "rows of zeros, 1 in all"), (1e60, "not finite at sample 'b'")):
        features = FEATURES.astype(np.float64)
        features[1] = value
        source = open_source(written(tmp_path / "some.npz", features, ["a", "b", "c", "d"]))
        with pytest.raises(BadFeatures, match=message):
            import_features({"s": source}, tmp_path / "out", split="train")


def test_features_of_other_types_and_layouts_keep_their_values(tmp_path):
    small = FEATURES.astype(np.int8)
    for features in (
        FEATURES.astype(">f4"),
        np.asfortranarray(FEATURES),
        small,
        FEATURES[:, None, :],
        FEATURES[..., None],
    ):
        np.save(tmp_path / "some.npy", features)
        np.savez(tmp_path / "some.npz", features=features, ids=np.array(IDS))
        (tmp_path / "ids.txt").write_text("\n".join(IDS), encoding="utf-8")
        for source in (open_source(tmp_path / "some.npy", tmp_path / "ids.txt"), open_source(tmp_path / "some.npz")):
            assert np.array_equal(rows_of(source, tmp_path), FEATURES)
    for kind in (torch.bfloat16, torch.float8_e4m3fn, torch.int16):
        tensor = torch.from_numpy(FEATURES).to(kind)
        torch.save({"features": tensor, "ids": IDS}, tmp_path / "some.pt")  # noqa: TID251
        save_file({"features": tensor}, tmp_path / "some.safetensors", metadata={"ids": json.dumps(IDS)})
        for name in ("some.pt", "some.safetensors"):
            assert np.array_equal(rows_of(open_source(tmp_path / name), tmp_path), FEATURES)
    np.save(tmp_path / "some.npy", np.ones((4, 3, 2)))
    with pytest.raises(InvalidConfig, match=r"of shape \(samples, width\), found \(4, 3, 2\)"):
        open_source(tmp_path / "some.npy", tmp_path / "ids.txt")
    np.save(tmp_path / "some.npy", np.ones((0, 2)))
    with pytest.raises(InvalidConfig, match=r"found none, \(0, 2\)"):
        open_source(tmp_path / "some.npy", tmp_path / "ids.txt")


def test_features_under_another_name_are_listed_and_can_be_named(tmp_path):
    np.savez(tmp_path / "some.npz", img=FEATURES, txt=FEATURES * 2, names=np.array(IDS))
    with pytest.raises(
        InvalidConfig, match=r"it has img float32 \(4, 2\), txt float32 \(4, 2\), names <U2 \(4,\)"
    ) as error:
        open_source(tmp_path / "some.npz")
    assert error.value.hint.startswith("--features-key img")
    with pytest.raises(InvalidConfig, match="has no ids") as error:
        open_source(tmp_path / "some.npz", keys=Keys(features="img"))
    assert "--ids-key NAME" in error.value.hint
    with pytest.raises(InvalidConfig, match="no ids named 'nams'; it has img"):
        open_source(tmp_path / "some.npz", keys=Keys("img", "nams"))
    source = open_source(tmp_path / "some.npz", keys=Keys("txt", "names"))
    assert source.ids == IDS
    assert np.array_equal(rows_of(source, tmp_path), FEATURES * 2)
    with h5py.File(tmp_path / "some.h5", "w") as file:
        file["clip/image/features"], file["clip/image/ids"], file["ids"] = FEATURES, IDS, IDS[::-1]
    with pytest.raises(InvalidConfig, match=r"it has clip/image/features float32 \(4, 2\)"):
        open_source(tmp_path / "some.h5")
    assert open_source(tmp_path / "some.h5", keys=Keys("clip/image/features")).ids == IDS


def test_pt_files_of_tensors_lists_and_dicts_are_read(tmp_path):
    path, lines = tmp_path / "some.pt", tmp_path / "ids.txt"
    lines.write_text("\n".join(IDS), encoding="utf-8")
    tensor = torch.from_numpy(FEATURES)
    for content in (
        tensor,
        tensor.requires_grad_(),
        FEATURES,
        list(tensor.detach()),
        [tensor.detach()[:1], tensor.detach()[1:]],
        {"features": FEATURES, "score": np.float64(0.3)},
        {"features": tuple(tensor.detach())},
    ):
        torch.save(content, path)  # noqa: TID251
        assert np.array_equal(rows_of(open_source(path, lines), tmp_path), FEATURES)
    torch.save(tensor, path, _use_new_zipfile_serialization=False)  # noqa: TID251
    assert np.array_equal(rows_of(open_source(path, lines), tmp_path), FEATURES)
    for ids in (
        torch.tensor([3, 1, 2, 0]),
        np.array(["3", "1", "2", "0"]),
        [torch.tensor(one) for one in (3, 1, 2, 0)],
    ):
        torch.save({"data": {"features": tensor, "ids": ids}}, path)  # noqa: TID251
        assert open_source(path, keys=Keys("data/features")).ids == ["3", "1", "2", "0"]


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("was-run",)


def test_pt_files_of_other_objects_are_refused_and_nothing_in_them_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for content, error, message in (
        ({"features": torch.ones(2, 2), "trainer": Harmful()}, CorruptFile, "found a Python object, posix.mkdir"),
        ({"features": np.array([Harmful()], object)}, CorruptFile, "found a Python object|cannot be read"),
        ([torch.ones(2), torch.ones(3)], InvalidConfig, r"found \(2,\) and, as number 1, \(3,\)"),
        ([torch.ones(4, 2), torch.ones(4)], InvalidConfig, "expected tensors of one width"),
        ("text", InvalidConfig, "expected a tensor, a list of tensors, or a dict of them, found str"),
        (
            {f"photo {number}": torch.ones(3 + number % 2) for number in range(40)},
            InvalidConfig,
            r"photo 0 float32 \(3,\).*and 28 more",
        ),
    ):
        torch.save(content, "some.pt")  # noqa: TID251
        with pytest.raises(error, match=message) as found:
            open_source(tmp_path / "some.pt")
        assert found.value.message.isprintable()
    (tmp_path / "some.pt").write_bytes(b"no tensor")
    with pytest.raises(CorruptFile, match=r"some.pt cannot be read"):
        open_source(tmp_path / "some.pt")
    assert not (tmp_path / "was-run").exists()


def test_a_file_that_the_machine_refuses_is_not_called_damaged(tmp_path):
    """Reading address 0 of a process is an input/output error, as of a failing disk. It has no size, as others need."""
    (tmp_path / "ids.txt").write_text("a")
    for suffix in (".npy", ".safetensors", ".h5", ".pt"):
        path = tmp_path / f"some{suffix}"
        path.symlink_to("/proc/self/mem")
        with pytest.raises(StorageError, match=r"cannot read .*: (Input/output error|No such device)"):
            open_source(path, tmp_path / "ids.txt")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path):
    folder = tmp_path / "private"
    folder.mkdir(mode=0o700)
    paths = [written(folder / f"some{suffix}", FEATURES, IDS) for suffix in SUFFIXES]
    os.seteuid(65534)
    try:
        for path in (*paths, folder):
            with pytest.raises(StorageError, match=r"cannot read .*: Permission denied"):
                open_source(path)
    finally:
        os.seteuid(0)


LOCK = """
import sys, h5py
file = h5py.File(sys.argv[1], "a")
print("open", flush=True)
sys.stdin.read()
"""


def test_a_file_of_hdf5_that_is_being_written_is_not_called_damaged(tmp_path):
    path = written(tmp_path / "some.h5", FEATURES, IDS)
    with subprocess.Popen([sys.executable, "-c", LOCK, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout.readline() == b"open\n"
        with pytest.raises(StorageError, match="another program has it open"):
            open_source(path)
    assert open_source(path).ids == IDS


KILLED = """
import os, sys, h5py
file = h5py.File(sys.argv[1], "w", libver="latest")
file["features"] = [[1.0]]
file.flush()
os._exit(0)
"""


def test_a_file_of_hdf5_whose_writer_was_killed_is_told_from_a_damaged_one(tmp_path):
    path = tmp_path / "some.h5"
    subprocess.run([sys.executable, "-c", KILLED, path], check=True)
    with pytest.raises(StorageError, match="it is marked as open for writing") as error:
        open_source(path)
    assert "h5clear -s" in error.value.hint


@pytest.mark.parametrize("chunks", [None, (3, 5), (40, 1), (1, 7), True])
@pytest.mark.parametrize("band", [1 << 20, 100], ids=["rows", "columns first"])
def test_every_chunk_of_hdf5_is_read_once(chunks, band, tmp_path, monkeypatch):
    """HDF5 decompresses a whole chunk for each read that touches it."""
    monkeypatch.setattr(hdf5_files, "BAND_BYTES", band)
    monkeypatch.setattr(arrays_module, "BLOCK_BYTES", 64)
    features = np.random.default_rng(0).standard_normal((40, 7)).astype(np.float16)
    with h5py.File(tmp_path / "some.h5", "w") as file:
        file.create_dataset("features", data=features, chunks=chunks, compression="gzip" if chunks else None)
        file["ids"] = [str(row) for row in range(40)]
    touched = []
    read = h5py.Dataset.__getitem__

    def counted(dataset, where, *rest):
        if dataset.name == "/features":
            rows, columns = where if isinstance(where, tuple) else (where, slice(None))
            high, wide = dataset.chunks or (1, 7)
            touched.extend(
                (row, column)
                for row in sorted({row // high for row in range(40)[rows]})
                for column in sorted({column // wide for column in range(7)[columns]})
            )
        return read(dataset, where, *rest)

    monkeypatch.setattr(h5py.Dataset, "__getitem__", counted)
    assert np.array_equal(rows_of(open_source(tmp_path / "some.h5"), tmp_path), features)
    assert touched
    assert len(touched) == len(set(touched))


def test_a_compression_that_is_not_installed_is_named(tmp_path):
    """Filter 32001 is Blosc. The file claims it without having it, as it looks to a machine without the filter."""
    with h5py.File(tmp_path / "some.h5", "w") as file:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((2, 2))
        properties.set_filter(32001, h5py.h5z.FLAG_OPTIONAL, (2, 2, 4))
        space = h5py.h5s.create_simple((4, 2))
        h5py.h5d.create(file.id, b"features", h5py.h5t.IEEE_F32LE, space, properties)
        file["ids"] = IDS
    source = open_source(tmp_path / "some.h5")
    with pytest.raises(MissingData, match="compressed with a filter that HDF5 lacks, 32001") as error:
        rows_of(source, tmp_path)
    assert "pip install hdf5plugin" in error.value.hint


def authors_file(path, order, value):
    """Write a file as the paper's code does: `features` and `indices`, which count the samples of a split from 0."""
    with h5py.File(path, "w") as file:
        file["features"] = np.array(order, np.float32)[:, None] + value
        file["indices"] = np.array(order)
    return path


def test_the_train_and_the_test_file_of_the_authors_both_count_from_0(tmp_path):
    for split, value in (("train", 10), ("test", 20)):
        sources = {
            "a": open_source(authors_file(tmp_path / "a.h5", [0, 1, 2], value)),
            "b": open_source(authors_file(tmp_path / "b.h5", [2, 0, 1], value)),
        }
        import_features(sources, tmp_path / "out", split=split)
    for split, value in (("train", 10), ("test", 20)):
        store = open_streams({name: tmp_path / "out" / split / name for name in "ab"})
        assert store.ids == (f"{split}/0", f"{split}/1", f"{split}/2")
        for features in store.in_memory().values():
            assert features[:, 0].tolist() == [value, value + 1, value + 2]


def test_positions_number_the_lines_of_a_text_file(tmp_path):
    """`--ids` was ignored for files with `indices`."""
    path = authors_file(tmp_path / "a.h5", [2, 0], 1)
    (tmp_path / "ids.txt").write_text("x\ny\nz\n")
    source = open_source(path, tmp_path / "ids.txt")
    assert (source.ids, source.positions, source.from_lines) == (["z", "x"], False, True)
    (tmp_path / "ids.txt").write_text("x\ny\n")
    with pytest.raises(InvalidConfig, match=r"row 0: expected a position below 2, the number of lines in .*, found 2"):
        open_source(path, tmp_path / "ids.txt")


def test_positions_join_with_ids_that_are_the_same_numbers(tmp_path):
    """The prefix is for imports in which all numbers are positions; it would hide the samples in common."""
    sources = {
        "a": open_source(authors_file(tmp_path / "a.h5", [0, 1], 1)),
        "b": open_source(written(tmp_path / "b.npz", FEATURES[:2], ["1", "0"])),
    }
    (found,) = import_features(sources, tmp_path / "out", split="train")
    assert found.lacking == {"a": [], "b": []}
    with pytest.raises(InvalidConfig, match=r"the sample '0' is in .*train too") as error:
        import_features(sources, tmp_path / "out", split="test")
    assert "save numbers that count the rows of each split as 'indices'" in error.value.hint


def test_arrays_that_were_saved_one_after_the_other_into_a_file_are_not_cut_to_the_first(tmp_path):
    with (tmp_path / "some.npy").open("wb") as file:
        np.save(file, FEATURES)
        np.save(file, FEATURES)
    (tmp_path / "ids.txt").write_text("a\nb\nc\nd\n")
    with pytest.raises(CorruptFile, match=r"expected 32 bytes of numbers, for \(4, 2\) of float32, found 192"):
        open_source(tmp_path / "some.npy", tmp_path / "ids.txt")


def test_datasets_of_hdf5_that_link_in_a_circle_or_hold_no_numbers_are_listed(tmp_path):
    with h5py.File(tmp_path / "some.h5", "w") as file:
        file["group/data"] = FEATURES
        file["group/up"] = h5py.SoftLink("/")
        file["group/gone"] = h5py.ExternalLink("elsewhere.h5", "/data")
        file["group/again"] = file["group"]
        ragged = file.create_dataset("ragged", (4,), h5py.vlen_dtype(np.float32))
        ragged[0] = [1.0, 2.0]
        file["scalar"] = 3.0
        file["ids"] = IDS
    with pytest.raises(InvalidConfig, match=r"it has group/data float32 \(4, 2\), ids object"):
        open_source(tmp_path / "some.h5")
    with pytest.raises(InvalidConfig, match="row 1: expected 2 numbers in 'ragged', found 0"):
        rows_of(open_source(tmp_path / "some.h5", keys=Keys("ragged")), tmp_path)
    with pytest.raises(InvalidConfig, match=r"expected 'scalar' of shape \(samples, width\), found \(\)"):
        open_source(tmp_path / "some.h5", keys=Keys("scalar"))


def test_temporary_files_for_long_chunks_are_counted(tmp_path, monkeypatch):
    with h5py.File(tmp_path / "some.h5", "w") as file:
        file.create_dataset("features", data=FEATURES, chunks=(4, 1))
        file["ids"] = IDS
    assert open_source(tmp_path / "some.h5").parts[0].room == 0
    monkeypatch.setattr(hdf5_files, "BAND_BYTES", 1)
    assert open_source(tmp_path / "some.h5").parts[0].room == FEATURES.nbytes


def test_what_a_killed_import_left_is_removed_by_the_next(tmp_path):
    source = open_source(written(tmp_path / "some.npz", FEATURES, IDS))
    left = tmp_path / "out" / "train" / "s" / f"{arrays_module.TEMPORARY}x" / "0"
    left.parent.mkdir(parents=True)
    left.write_text("rows")
    (tmp_path / "out" / "importing.json").write_text('["train/s"]')
    import_features({"s": source}, tmp_path / "out", split="train")
    assert not left.parent.exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no copies of processes")
def test_a_damaged_heap_of_texts_which_hdf5_never_ends_reading_is_an_error(tmp_path, monkeypatch):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["features"], file["ids"] = np.ones((3, 2), np.float32), ["a", "b", "ö"]
    assert open_source(path).ids == ["a", "b", "ö"]
    content = bytearray(path.read_bytes())
    start = content.index(b"GCOL") + 16
    content[start : start + 16] = bytes(16)  # the first object is free space of no length
    path.write_bytes(content)
    monkeypatch.setattr(hdf5_files, "SECONDS", 1)
    with pytest.raises(CorruptFile, match=r"x\.h5 cannot be read"):
        open_source(path)


def test_groups_that_hold_each_other_in_countless_ways_are_refused(tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("first")
        for number in range(40):
            below = file.create_group(f"group {number}")
            group["a"] = group["b"] = below
            group = below
    with pytest.raises(CorruptFile, match="has more than 1000 names"):
        open_source(path)


@pytest.mark.parametrize("order", "<>")
def test_an_id_with_a_character_that_does_not_exist_is_a_damaged_file(tmp_path, order):
    ids = np.array(["a", "bö", "\U0010ffff"], dtype=f"{order}U2")
    np.savez(tmp_path / "x.npz", features=np.ones((3, 2), np.float32), ids=ids)
    assert open_source(tmp_path / "x.npz").ids == ["a", "bö", "\U0010ffff"]
    codes = ids.view(f"{order}u4").copy()
    codes[2] = 0x110000
    np.savez(tmp_path / "x.npz", features=np.ones((3, 2), np.float32), ids=codes.view(f"{order}U2"))
    with pytest.raises(CorruptFile, match=r"x\.npz cannot be read: a text in it holds the character 0x110000"):
        open_source(tmp_path / "x.npz")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no copies of processes")
def test_a_damaged_heap_of_lists_is_an_error_in_bounded_time(tmp_path, monkeypatch):
    path = tmp_path / "x.h5"
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    with h5py.File(path, "w") as file:
        lists = file.create_dataset("features", 4, dtype=h5py.vlen_dtype(np.float32))
        for number, row in enumerate(rows):
            lists[number] = row
    (ids := tmp_path / "ids.txt").write_text("a\nb\nc\nd\n")
    assert np.array_equal(np.concatenate(list(open_source(path, ids).blocks(tmp_path))), rows)
    whole = path.read_bytes()
    start = whole.index(b"GCOL") + 16
    monkeypatch.setattr(hdf5_files, "SECONDS", 1)
    for damage in (bytes(16), (2**40).to_bytes(8, "little") * 2):  # free space of no length; an object of a terabyte
        path.write_bytes(whole[:start] + damage + whole[start + 16 :])
        with pytest.raises(CorruptFile, match=r"x\.h5 cannot be read"):
            list(open_source(path, ids).blocks(tmp_path))
