"""What a dataset keeps in the cache belongs to its own files: two folders never share it."""

import json
import os
import shutil
import tarfile

import pytest
from PIL import Image

from sparc.errors import CorruptFile
from sparc.plugins import cache_key
from sparc_plugins import coco
from sparc_plugins.open_images import OpenImages, OpenImagesParams
from sparc_plugins.webdataset import WebDataset, WebDatasetParams


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARC_CACHE", str(tmp_path / "cache"))


def shards(root, key):
    """Write a shard of one sample whose size and time depend on nothing."""
    root.mkdir(exist_ok=True)
    (root / f"{key}.txt").write_text(f"caption {key}")
    with tarfile.open(root / "train-0.tar", "w") as tar:
        tar.add(root / f"{key}.txt", f"{key}.txt")
    os.utime(root / "train-0.tar", (0, 0))
    return root


def narratives(root, caption):
    """Write narratives of one image whose size and time depend on nothing."""
    (root / "train").mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(root / "train" / "a.jpg")
    path = root / "open_images_train_captions.jsonl"
    path.write_text(json.dumps({"image_id": "a", "caption": caption}))
    os.utime(path, (0, 0))
    return root


def captions_of_shards(root, **params):
    dataset = WebDataset(WebDatasetParams(root=str(root), image="", holdout=0, **params), "train")
    return [(dataset[n].id, dataset[n].caption) for n in range(len(dataset))]


def captions_of_narratives(root):
    dataset = OpenImages(OpenImagesParams(root=str(root)), "train")
    return [dataset[n].caption for n in range(len(dataset))]


@pytest.mark.parametrize("digest", ["sample", "all"])
def test_shards_of_equal_names_sizes_and_times_have_their_own_samples(tmp_path, digest):
    one, other = shards(tmp_path / "one", "a"), shards(tmp_path / "other", "b")
    assert captions_of_shards(one, digest=digest) == [("a", "caption a")]
    assert captions_of_shards(other, digest=digest) == [("b", "caption b")]


def test_a_shard_that_is_replaced_in_its_place_has_its_own_samples(tmp_path):
    root = shards(tmp_path / "one", "a")
    assert captions_of_shards(root) == [("a", "caption a")]
    shards(root, "b")
    assert captions_of_shards(root) == [("b", "caption b")]


def test_shards_behind_a_link_that_is_turned_have_their_own_samples(tmp_path):
    link = tmp_path / "data"
    for key in ("a", "b"):
        link.unlink(missing_ok=True)
        link.symlink_to(shards(tmp_path / key, key))
        assert captions_of_shards(link) == [(key, f"caption {key}")]


def test_narratives_of_equal_names_sizes_and_times_have_their_own_captions(tmp_path):
    one, other = narratives(tmp_path / "one", "first"), narratives(tmp_path / "other", "other")
    assert captions_of_narratives(one) == ["first"]
    assert captions_of_narratives(other) == ["other"]
    assert captions_of_narratives(narratives(one, "third")) == ["third"]


def test_what_is_parsed_once_is_not_parsed_again(tmp_path):
    root = narratives(tmp_path / "one", "first")
    captions_of_narratives(root)
    (kept,) = (tmp_path / "cache" / "open-images").iterdir()
    before = kept.stat().st_mtime_ns
    captions_of_narratives(root)
    assert [path.stat().st_mtime_ns for path in (tmp_path / "cache" / "open-images").iterdir()] == [before]


def test_a_broken_instances_file_of_a_checked_one_s_name_size_and_time_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(coco, "LARGE", 1)
    path = tmp_path / "instances_val2017.json"
    good = json.dumps({"categories": [{"id": 1, "name": "dog"}], "annotations": []})
    for content in (good, good.replace("[]", "[}")):
        path.write_text(content)
        os.utime(path, (0, 0))
        if content == good:
            coco._check(path)
        else:
            with pytest.raises(CorruptFile, match=r"instances_val2017\.json"):
                coco._check(path)


def test_a_key_is_the_same_for_unchanged_files_and_another_for_any_other(tmp_path):
    one, copy = tmp_path / "one", tmp_path / "copy"
    one.write_text("a")
    shutil.copy2(one, copy)
    keys = [cache_key([one]), cache_key([copy]), cache_key([one, copy]), cache_key([one], "all", 1)]
    assert keys == [cache_key([one]), cache_key([copy]), cache_key([one, copy]), cache_key([one], "all", 1)]
    assert len(set(keys)) == 4
