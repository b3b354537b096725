"""Shards of the webdataset format, written by its own library."""

import io
import json
import os
import pickle  # noqa: TID251
import shutil
import sys
import tarfile
import warnings

import pytest
from PIL import Image

from sparc.errors import BadSample, CorruptFile, InvalidConfig, MissingData
from sparc.plugins import install
from sparc.plugins.checks import check_dataset
from sparc.plugins.registry import discover
from sparc_plugins.webdataset import WebDataset, WebDatasetParams, _identify

TAR_BLOCK = 512


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "webdataset"


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "shards"
    folder.mkdir()
    return folder


def picture(colour="red", mode="RGB", form="JPEG"):
    file = io.BytesIO()
    Image.new(mode, (16, 12), colour).save(file, form)
    return file.getvalue()


def write(path, *samples):
    """Write a shard with the library. A sample is a dict of `__key__` and contents by extension."""
    from webdataset import TarWriter

    path.parent.mkdir(parents=True, exist_ok=True)
    with TarWriter(str(path), encoder=False) as writer:
        for sample in samples:
            encoded = {
                name: one.encode() if isinstance(one, str) and name != "__key__" else one
                for name, one in sample.items()
            }
            writer.write(encoded)
    return path


def numbered(first, last, **more):
    return [{"__key__": f"{n:04d}", "jpg": picture(), "txt": f"caption {n}", **more} for n in range(first, last)]


def opened(root, split="train", **params):
    return WebDataset(WebDatasetParams(root=str(root), **params), split)


def test_it_keeps_the_contract(root):
    write(root / "train-000.tar", *numbered(0, 4, cls="dog"))
    write(root / "test-000.tar", *numbered(4, 6, cls="cat"))
    check_dataset(discover().dataset("webdataset"), {"root": str(root), "labels": "cls"})


def test_shards_of_both_splits_are_read_in_the_order_of_their_names(root):
    write(root / "train-001.tar", *numbered(2, 4))
    write(root / "train-000.tar", *numbered(0, 2))
    write(root / "test-000.tar", *numbered(7, 8))
    train, test = opened(root), opened(root, "test")
    assert list(train.ids) == ["0000", "0001", "0002", "0003"]
    assert list(test.ids) == list(test.groups) == ["0007"]
    assert [train[n].caption for n in range(len(train))] == [f"caption {n}" for n in range(4)]
    assert train[3].id == train.ids[-1] == "0003"
    assert list(train.ids[1:3]) == ["0001", "0002"]
    assert train[3].image().size == (16, 12)
    assert train.taxonomy is None
    assert train.labels() is None


def test_the_files_of_a_sample_are_those_whose_names_agree_up_to_the_first_dot(root):
    shard = write(root / "a.tar", {"__key__": "dogs/n01.7", "jpg": picture(), "txt": "a dog"})
    with tarfile.open(shard) as tar:
        assert tar.getnames() == ["dogs/n01.7.jpg", "dogs/n01.7.txt"]
    write(
        root / "b.tar",
        {"__key__": "cats/2", "JPG": picture("blue"), "caption.txt": "a cat"},
        {"__key__": "dogs/2", "PNG": picture("red", form="PNG"), "caption.txt": "a dog"},
    )
    dataset = opened(root, train="b.tar", caption="caption.txt", test="a.tar")
    assert list(dataset.ids) == ["cats/2", "dogs/2"]
    assert dataset[0].text() == "a cat"
    assert dataset[0].image().getpixel((5, 5))[2] > 200
    assert dataset[1].image().getpixel((5, 5)) == (255, 0, 0)
    with pytest.raises(InvalidConfig, match=r"no file .txt in any of the 1 shards starting with .*b.tar") as raised:
        opened(root, train="b.tar", test="a.tar")
    assert "found: .caption.txt, .jpg, .png" in raised.value.hint
    with pytest.raises(InvalidConfig, match=r"no file .jpg or .jpeg or .* in any of .*a.tar") as raised:
        opened(root, "test", train="b.tar", test="a.tar", caption="7.txt")
    assert "found: .7.txt, .7.jpg" in raised.value.hint


def test_folders_without_test_shards_hold_out_a_fraction_by_the_key(root):
    write(root / "00000.tar", *numbered(0, 150))
    write(root / "00001.tar", *numbered(150, 200))
    train, test = opened(root), opened(root, "test")
    assert not set(train.ids) & set(test.ids)
    assert len(train) + len(test) == 200
    assert 25 <= len(test) <= 55
    assert list(test.ids) == sorted(test.ids)
    assert test[0].caption == f"caption {int(test.ids[0])}"
    assert list(opened(root, "test", split_seed=1).ids) != list(test.ids)
    assert len(opened(root, "test", holdout=0.5)) > len(test)
    (root / "00001.tar").unlink()
    assert list(opened(root, "test").ids) == [key for key in test.ids if int(key) < 150]


def test_patterns_name_shards_by_braces_and_wildcards(root):
    for number in range(4):
        write(root / f"part/{number:02d}.tar", *numbered(number, number + 1))
    dataset = opened(root, train="part/{03..01}.tar::part/02.tar", test="part/*0.tar")
    assert list(dataset.ids) == ["0003", "0002", "0001"]
    with pytest.raises(MissingData, match=r"has no part/04.tar"):
        opened(root, train="part/{03..04}.tar")
    with pytest.raises(InvalidConfig, match=r"00.tar is in train and in test"):
        opened(root, train="part/*.tar", test="part/00.tar")
    for pattern in ("/etc/*.tar", "part/{03"):
        with pytest.raises((InvalidConfig, MissingData), match=r"is not a pattern|has no part"):
            opened(root, train=pattern)


def test_captions_and_labels_come_from_fields_of_json(root):
    write(
        root / "train-0.tar",
        {"__key__": "a", "png": picture(form="PNG"), "json": json.dumps({"text": "größer", "tags": ["x", "y", "x"]})},
        {"__key__": "b", "png": picture(form="PNG"), "json": json.dumps({"text": "half \ud800", "tags": "y"})},
        {"__key__": "c", "png": picture(form="PNG"), "json": json.dumps({"text": None, "tags": [7]})},
        {"__key__": "d", "png": picture(form="PNG"), "json": json.dumps({"text": "nothing on it"})},
    )
    write(root / "test-0.tar", {"__key__": "e", "jpg": picture(), "json": json.dumps({"text": "e", "tags": ["z"]})})
    train = opened(root, caption="json.text", labels="json.tags")
    assert [train[n].caption for n in range(4)] == ["größer", "half ?", None, "nothing on it"]
    assert train.taxonomy.labels == ("7", "x", "y", "z")
    assert train.labels().toarray().tolist() == [[0, 1, 1, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    test = opened(root, "test", caption="json.text", labels="json.tags")
    assert test.taxonomy.labels == train.taxonomy.labels
    assert test.labels().toarray().tolist() == [[0, 0, 0, 1]]
    with pytest.raises(InvalidConfig, match=r"no text 'json.caption' in the first 4 samples of .*train-0") as raised:
        opened(root, caption="json.caption")
    assert '"tags"' in raised.value.hint
    with pytest.raises(InvalidConfig, match=r"no sample has labels in 'json.tag'"):
        opened(root, caption="json.text", labels="json.tag")
    with pytest.raises(InvalidConfig, match=r"no file .cls in any"):
        opened(root, caption="json.text", labels="cls")


def test_held_out_samples_keep_their_own_labels(root):
    write(root / "0.tar", *({**one, "cls": str(int(one["__key__"]) % 7)} for one in numbered(0, 50)))
    for split in ("train", "test"):
        dataset = opened(root, split, labels="cls")
        assert dataset.labels().toarray().argmax(axis=1).tolist() == [int(key) % 7 for key in dataset.ids]


def test_a_taxonomy_file_gives_labels_their_parents(root):
    write(root / "train-0.tar", *numbered(0, 2, cls="poodle"))
    write(root / "test-0.tar", *numbered(2, 3, cls="dog"))
    (root / "taxonomy.json").write_text(json.dumps({"animal": [], "dog": ["animal"], "poodle": ["dog"]}))
    dataset = opened(root, labels="cls")
    assert dataset.taxonomy.lift("poodle", 0) == "animal"
    assert dataset.labels().toarray().tolist() == [[0, 0, 1], [0, 0, 1]]
    (root / "taxonomy.json").write_text(json.dumps({"animal": []}))
    with pytest.raises(InvalidConfig, match=r"the label 'dog' is not in .*taxonomy.json"):
        opened(root, labels="cls")
    (root / "taxonomy.json").write_text("[]")
    with pytest.raises(InvalidConfig, match="is not a taxonomy"):
        opened(root, labels="cls")


def test_one_key_in_two_shards_is_refused_and_both_are_named(root):
    write(root / "train-0.tar", *numbered(0, 3))
    write(root / "train-1.tar", *numbered(2, 5))
    with pytest.raises(InvalidConfig, match=r"such as '0002' in .*train-0.tar and in .*train-1.tar"):
        opened(root)


@pytest.mark.parametrize("cut", [-1, 100, TAR_BLOCK + 100, -2 * TAR_BLOCK])
def test_a_shard_that_is_cut_off_is_named_wherever_the_cut_is(root, cut):
    shard = write(root / "train-0.tar", *numbered(0, 2))
    with tarfile.open(shard) as tar:
        last = tar.getmembers()[-1]
    end = last.offset_data + TAR_BLOCK  # end of the last file, where the end mark begins
    size = {-1: end - 600, 100: 100, TAR_BLOCK + 100: TAR_BLOCK + 100, -2 * TAR_BLOCK: end}[cut]
    os.truncate(shard, size)
    with pytest.raises(CorruptFile, match=r"train-0.tar is truncated, or not a tar file"):
        opened(root)


def test_what_is_no_plain_tar_file_is_named(root):
    with tarfile.open(root / "train-0.tar", "w:gz") as tar:
        tar.add(__file__, "a.txt")
    with pytest.raises(InvalidConfig, match=r"train-0.tar: expected a plain tar file, found gzip") as raised:
        opened(root)
    assert "decompress it" in raised.value.hint
    (root / "train-0.tar").write_text("no archive" * 100)
    with pytest.raises(CorruptFile, match=r"train-0.tar is truncated, or not a tar file"):
        opened(root)


def test_a_file_that_is_twice_in_a_sample_is_refused(root):
    with tarfile.open(root / "train-0.tar", "w") as tar:
        for name in ("a.jpg", "a.txt", "a.TXT"):
            tar.addfile(tarfile.TarInfo(name))
    with pytest.raises(InvalidConfig, match=r"train-0.tar holds two files .txt of 'a': a.txt and a.TXT"):
        opened(root)


def test_labels_that_are_none_are_refused_and_the_sample_is_named(root):
    write(root / "train-0.tar", *numbered(0, 1, json='{"tags": [{"name": "x"}]}'))
    with pytest.raises(CorruptFile, match=r"train-0.tar: expected texts or whole numbers as labels of sample '0000'"):
        opened(root, labels="json.tags")
    write(root / "train-0.tar", *numbered(0, 1, json='{"tags": ['))
    with pytest.raises(CorruptFile, match=r"labels of sample '0000'"):
        opened(root, labels="json.tags")


def test_a_sample_without_image_or_caption_says_so_only_when_it_is_asked_for(root):
    write(
        root / "train-0.tar",
        {"__key__": "README", "md": "about"},
        {"__key__": "a", "txt": "no image"},
        {"__key__": "b", "jpg": picture()},
        {"__key__": "c", "jpg": picture(), "txt": " "},
        {"__key__": "d", "jpg": picture(), "txt": "größer".encode("latin-1")},
        {"__key__": "e", "jpg": picture()[:300], "txt": "half an image"},
        {"__key__": "f", "jpg": b"no image", "txt": "f"},
    )
    write(root / "test-0.tar", *numbered(0, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = opened(root)
    assert list(dataset.ids) == ["a", "b", "c", "d", "e", "f"]
    assert [dataset[n].caption for n in range(6)] == ["no image", None, " ", None, "half an image", "f"]
    for n, message in ((0, "sample 'a' has no image"), (4, "image of sample 'e' does not decode"), (5, "sample 'f'")):
        with pytest.raises(BadSample, match=message):
            dataset[n].image()
    for n, message in ((1, "empty caption"), (2, "empty caption"), (3, "caption of sample 'd' .* codec can't decode")):
        with pytest.raises(BadSample, match=message):
            dataset[n].text()
        assert dataset[n].image().mode == "RGB"


@pytest.mark.parametrize(("mode", "colour"), [("L", 200), ("CMYK", (0, 255, 255, 0))])
def test_grey_and_cmyk_images_are_read_as_rgb(root, mode, colour):
    write(root / "train-0.tar", {"__key__": "a", "jpg": picture(colour, mode), "txt": "x"})
    write(root / "test-0.tar", *numbered(0, 1))
    red, green, _ = opened(root)[0].image().getpixel((3, 3))
    assert red > 190
    assert (green > 190) == (mode == "L")


def test_a_second_opening_reads_the_index_alone_until_a_shard_changes(root, own_cache, monkeypatch):
    shard = write(root / "train-0.tar", *numbered(0, 3))
    write(root / "test-0.tar", *numbered(3, 4))
    assert len(opened(root)) == 3
    (index,) = own_cache.glob("*.npz")
    read = tarfile.TarFile.next
    monkeypatch.setattr(tarfile.TarFile, "next", None)
    assert opened(root)[2].text() == "caption 2"
    monkeypatch.setattr(tarfile.TarFile, "next", read)
    index.write_bytes(index.read_bytes()[:100])
    assert opened(root)[2].text() == "caption 2"
    write(shard, *numbered(0, 5))
    assert len(opened(root)) == 5


def test_rewriting_a_shard_changes_the_identity_and_copying_the_folder_does_not(root, tmp_path):
    write(root / "train-0.tar", *numbered(0, 3))
    before = _identify(WebDatasetParams(root=str(root)))
    moved = shutil.copytree(root, tmp_path / "moved", copy_function=shutil.copyfile)
    assert _identify(WebDatasetParams(root=str(moved))) == before
    (moved / "taxonomy.json").write_text("{}")
    with_taxonomy = _identify(WebDatasetParams(root=str(moved)))
    write(moved / "train-0.tar", *numbered(1, 4))
    assert len({before, with_taxonomy, _identify(WebDatasetParams(root=str(moved)))}) == 3
    (root / "train-0.tar").rename(root / "test-0.tar")
    write(root / "a.tar", *numbered(7, 8))
    swapped = _identify(WebDatasetParams(root=str(root), train="test-0.tar", test="a.tar"))
    assert swapped != _identify(WebDatasetParams(root=str(root), train="a.tar", test="test-0.tar"))


def test_the_dataset_can_be_sent_to_a_worker_process(root):
    write(root / "0.tar", *numbered(0, 20))
    dataset = opened(root)
    copy = pickle.loads(pickle.dumps(dataset))
    assert list(copy.ids) == list(dataset.ids)
    assert copy[0].image().size == (16, 12)
    assert copy[0].text() == dataset[0].text()


def test_folders_shards_and_libraries_that_are_not_there_are_named(root, tmp_path, monkeypatch):
    with pytest.raises(MissingData, match=r"no folder at .*nowhere"):
        opened(tmp_path / "nowhere")
    with pytest.raises(MissingData, match="has no shards to train on"):
        opened(root)
    write(root / "0.tar", *numbered(0, 1))
    with pytest.raises(MissingData, match=r"none of 1 samples is in the split"):
        [opened(root, split) for split in ("train", "test")]
    dataset = opened(root, train="0.tar", holdout=0)
    (root / "0.tar").unlink()
    with pytest.raises(MissingData, match=r"0.tar does not exist any more"):
        dataset[0]
    monkeypatch.setitem(sys.modules, "webdataset", None)
    with pytest.raises(MissingData, match="'webdataset' is not installed") as raised:
        opened(root)
    assert raised.value.hint == install("webdataset")
