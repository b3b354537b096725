"""Features behind a URL are copied whole and checked, and copied again only where they changed."""

import json

import fsspec
import pytest
import torch

from sparc.errors import CorruptFile, InvalidConfig, MissingData
from sparc.extraction.plan import JobOptions, imported
from sparc.storage.manifest import IMPORTING, MANIFEST, is_complete
from sparc.storage.mirror import fetch_imported, fetch_stream, mirror_of
from sparc.storage.store import open_streams
from sparc.system import remote
from tests.storage.test_store import write_stream

IDS = [f"sample-{number}" for number in range(10)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "PAUSES", ())


@pytest.fixture
def served():
    """A function that uploads a folder to memory, and returns its URL."""
    system = fsspec.filesystem("memory")

    def upload(folder):
        for path in folder.rglob("*"):
            if path.is_file():
                system.pipe(f"/features/{path.relative_to(folder)}", path.read_bytes())
        return "memory://features"

    yield upload
    system.store.clear()


@pytest.fixture
def features(tmp_path):
    """Imported features: streams `a` and `b` in both splits."""
    folder = tmp_path / "imported"
    for split, name, seed in (("train", "a", 1), ("train", "b", 2), ("test", "a", 3), ("test", "b", 4)):
        (folder / split / name).mkdir(parents=True)
        write_stream(folder / split / name, torch.randn(10, 3, generator=torch.manual_seed(seed)), IDS)
    (folder / "test" / "labels.json").write_text("{}")
    return folder


def test_imported_features_behind_a_url_are_those_of_the_folder(served, features):
    root = fetch_imported(served(features), [], ("train", "test"), ("labels.json",))
    assert root == mirror_of("memory://features")
    copied = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    assert copied == {str(path.relative_to(features)) for path in features.rglob("*") if path.is_file()}
    for name in ("a", "b"):
        one, other = (open_streams({name: place / "train" / name}) for place in (root, features))
        assert torch.equal(one.in_memory()[name], other.in_memory()[name])
    assert {split: list(jobs) for split, jobs in imported(root, [], JobOptions()).items()} == {
        "train": ["a", "b"],
        "test": ["a", "b"],
    }
    fsspec.filesystem("memory").rm("/features/test/b", recursive=True)
    fetch_imported("memory://features", [], ("test",), ())
    assert [path.name for path in (root / "test").iterdir() if path.is_dir()] == ["a"]


def test_a_changed_shard_alone_is_copied_again(served, features):
    url = served(features)
    place = fetch_imported(url, ["a"], ("train",), ()) / "train" / "a"
    assert not (place.parent / "b").exists()
    before = {path.name: path.stat().st_ino for path in place.iterdir()}
    assert fetch_stream(f"{url}/train/a", place)
    assert {path.name: path.stat().st_ino for path in place.iterdir()} == before
    changed = torch.randn(10, 3, generator=torch.manual_seed(1))
    changed[9] = 1.0  # in the third shard of four rows
    write_stream(features / "train" / "a", changed, IDS)
    served(features)
    assert fetch_stream(f"{url}/train/a", place)
    assert torch.equal(open_streams({"a": place}).in_memory()["a"], changed)
    after = {path.name: path.stat().st_ino for path in place.iterdir()}
    assert sorted(name for name in after if after[name] != before[name]) == [MANIFEST, "shard-00002.safetensors"]


def test_a_shard_that_is_altered_or_gone_is_named_and_the_copy_is_not_complete(served, features):
    url = served(features)
    system, place = fsspec.filesystem("memory"), mirror_of(url) / "train" / "a"
    path = "/features/train/a/shard-00001.safetensors"
    content = system.cat_file(path)
    for altered in (content[:-1] + b"\0", content[:-1]):
        system.pipe(path, altered)
        with pytest.raises(CorruptFile, match=r"memory://features/train/a/shard-00001\.safetensors is truncated or"):
            fetch_stream(f"{url}/train/a", place)
        assert not is_complete(place)
    system.rm(path)
    with pytest.raises(MissingData, match=r"shard-00001\.safetensors does not exist"):
        fetch_stream(f"{url}/train/a", place)
    system.pipe(path, content)
    assert fetch_stream(f"{url}/train/a", place)
    assert is_complete(place)


def test_features_that_are_not_complete_are_refused(served, features, tmp_path):
    url = served(features)
    assert not fetch_stream(f"{url}/train/c", tmp_path / "c")
    assert not (tmp_path / "c").exists()
    with pytest.raises(MissingData, match="no imported features at memory://features/nowhere"):
        fetch_imported(f"{url}/nowhere", ["a"], ("train",), ())
    with pytest.raises(InvalidConfig, match="does not list its streams"):
        fetch_imported("https://localhost:1/x", [], ("train",), ())
    manifest = json.loads((features / "train" / "a" / MANIFEST).read_text())
    manifest["shards"][0]["file"] = "../../secret"
    fsspec.filesystem("memory").pipe("/features/train/a/manifest.json", json.dumps(manifest).encode())
    with pytest.raises(CorruptFile, match=r"train/a/manifest\.json is not a manifest"):
        fetch_stream(f"{url}/train/a", tmp_path / "c")
    fsspec.filesystem("memory").pipe(f"/features/{IMPORTING}", b"{}")
    with pytest.raises(MissingData, match="is not complete"):
        fetch_imported(url, [], ("train",), ())
