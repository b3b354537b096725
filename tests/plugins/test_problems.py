"""What is wrong with a dataset is known before models load, for every dataset that reads files."""

import io
import json
import tarfile
import warnings

import pytest
from PIL import Image

from sparc.errors import BadSample, InvalidConfig, MissingData, Problems
from sparc.plugins import DatasetSpec, Sample
from sparc.plugins.problems import find_problems
from sparc.plugins.registry import discover

BOTH = {"image", "text"}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("SPARC_CACHE", str(tmp_path_factory.mktemp("cache")))


def png():
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, "png")
    return file.getvalue()


def lines(name, root, modalities=BOTH, **params):
    """Return the problems that are found, without the paths of the folder; warnings that repeat them are an error."""
    spec = discover().dataset(name)
    given = spec.params(root=str(root), **params)
    spec.identify(given)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = find_problems(spec, given, modalities)
    return [line.replace(f"{root}/", "") for line in found.lines()]


def write_coco(root, split, images, captions):
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / f"{split}2017").mkdir()
    content = {
        "images": [{"id": number, "file_name": name} for number, name in images],
        "annotations": [{"image_id": number, "caption": caption} for number, caption in captions],
    }
    (root / "annotations" / f"captions_{split}2017.json").write_text(json.dumps(content))


def test_coco_lists_images_that_are_missing_or_empty_and_records_at_fault_of_both_splits(tmp_path):
    write_coco(tmp_path, "train", [(1, "a.jpg"), (2, "b.jpg"), (3, "c.jpg")], [(1, "x"), (2, "y"), (3, "z")])
    write_coco(tmp_path, "val", [(1, "a.jpg"), (1, "a.jpg"), (2, "b.jpg"), (2, "b.jpg")], [])
    (tmp_path / "train2017" / "a.jpg").write_bytes(png())
    (tmp_path / "train2017" / "b.jpg").touch()
    assert lines("coco", tmp_path) == [
        "the image of sample '000000000002' is empty: train2017/b.jpg",
        "image of sample '000000000003' not found: train2017/c.jpg",
        "annotations/captions_val2017.json: expected unique ids in 'images', found 1 twice",
        "annotations/captions_val2017.json: expected unique ids in 'images', found 2 twice",
    ]


def test_open_images_lists_lines_without_an_image_and_lines_that_are_no_narrative(tmp_path):
    for split, records in (
        ("train", [("a", "x"), ("b", "y"), ("c", " "), ("d", "z")]),
        ("test", [("e", "x")]),
    ):
        (tmp_path / split).mkdir()
        text = "".join(json.dumps({"image_id": image, "caption": caption}) + "\n\n" for image, caption in records)
        (tmp_path / f"open_images_{split}_captions.jsonl").write_text(text)
    (tmp_path / "train" / "a.jpg").write_bytes(png())
    (tmp_path / "train" / "c.jpg").touch()
    with (tmp_path / "open_images_test_captions.jsonl").open("a") as file:
        file.write("[]\n{}\n")
    assert lines("open-images", tmp_path) == [
        "open-images: 2 of 4 narratives of the split 'train' have no image in train, such as b.jpg, d.jpg".replace(
            "in train,", f"in {tmp_path / 'train'},"
        ).replace(f"{tmp_path}/", ""),
        "open_images_train_captions.jsonl, line 3: no b.jpg",
        "open_images_train_captions.jsonl, line 7: no d.jpg",
        "open_images_test_captions.jsonl, line 3: expected a JSON object with texts image_id and caption, found b'[]'",
        "open_images_test_captions.jsonl, line 4: expected a JSON object with texts image_id and caption, found b'{}'",
    ]
    (tmp_path / "train" / "b.jpg").write_bytes(png())
    (tmp_path / "train" / "d.jpg").write_bytes(png())
    (tmp_path / "test" / "e.jpg").write_bytes(png())
    (tmp_path / "open_images_test_captions.jsonl").write_text(json.dumps({"image_id": "e", "caption": "x"}))
    assert lines("open-images", tmp_path) == [
        "the image of sample 'c#0' is empty: train/c.jpg",
        "sample 'c#0' has an empty caption",
    ]
    assert lines("open-images", tmp_path, {"text"}) == ["sample 'c#0' has an empty caption"]


def write_shard(path, files):
    with tarfile.open(path, "w") as tar:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def test_webdataset_lists_what_samples_lack_and_every_shard_at_fault(tmp_path):
    whole = [("a.png", png()), ("a.txt", b"x")]
    write_shard(
        tmp_path / "train-0.tar", [*whole, ("b.png", png()), ("c.txt", b"z"), ("d.png", png()), ("d.txt", b" ")]
    )
    write_shard(tmp_path / "test-0.tar", [("e.png", png()), ("e.txt", b"x")])
    assert lines("webdataset", tmp_path) == [
        "sample 'b' has an empty caption",
        "sample 'c' has no image",
        "sample 'd' has an empty caption",
    ]
    (tmp_path / "train-1.tar").write_bytes(b"no tar file" * 100)
    (tmp_path / "train-2.tar").write_bytes(b"\x1f\x8b\x08" + bytes(600))
    found = lines("webdataset", tmp_path)
    assert [line.partition(" ")[0].rstrip(":") for line in found] == ["train-1.tar", "train-2.tar"]
    for name in ("train-1.tar", "train-2.tar"):
        (tmp_path / name).unlink()
    write_shard(tmp_path / "train-1.tar", [*whole, ("b.png", png())])
    found = lines("webdataset", tmp_path)
    assert "expected unique keys, found 2 twice, such as 'a' in train-0.tar and in train-1.tar" in found[0]
    assert found[1:] == ["'b' in train-0.tar and in train-1.tar"]


def test_hf_lists_rows_without_image_file_or_caption_and_every_repeated_id(tmp_path):
    pytest.importorskip("datasets")
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(png())
    (tmp_path / "empty.png").touch()
    rows = ["a.png,x,1", "gone.png,y,2", "empty.png,z,3", ",w,4", "b.png,,5"]
    (tmp_path / "train.csv").write_text("\n".join(["image,caption,name", *rows]) + "\n")
    (tmp_path / "test.csv").write_text("image,caption,name\na.png,x,6\n")
    assert lines("hf", tmp_path) == [
        "the image of sample 'train/1' is not found: gone.png",
        "the image of sample 'train/2' is empty: empty.png",
        "sample 'train/3' has no image",
        "sample 'train/4' has an empty caption",
    ]
    (tmp_path / "test.csv").write_text("image,caption,name\na.png,x,6\nb.png,y,6\nb.png,y,7\nb.png,y,7\n")
    assert lines("hf", tmp_path, id="name")[-2:] == [
        "hf: expected unique ids, found '6' in the rows 0 and 1",
        "hf: expected unique ids, found '7' in the rows 2 and 3",
    ]


class Made:
    """Three samples: the second lacks its image, and the third its caption."""

    ids = groups = ("a", "b", "c")
    taxonomy = None

    def __init__(self, params, split):
        warnings.warn("a note of the dataset", stacklevel=2)
        if split == "test":
            raise MissingData("no test split", hint="add one")

    def __len__(self):
        return 3

    def __getitem__(self, index):
        opener = None if index == 1 else lambda: Image.new("RGB", (4, 4))
        return Sample("abc"[index], opener, None if index == 2 else "x")

    def labels(self):
        return None


def test_any_dataset_is_looked_at_and_its_warnings_come_if_nothing_is_wrong():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = find_problems(DatasetSpec("made", Made), None, BOTH)
    assert found.lines() == [
        "sample 'b' has no image",
        "sample 'c' has an empty caption",
        "no test split",
    ]
    with pytest.warns(UserWarning, match="a note of the dataset"):
        assert not find_problems(DatasetSpec("made", Made, splits=("train", "train")), None, ())


def test_one_error_for_all_problems_can_be_added_to_others():
    inner, outer = Problems("f, "), Problems("f, ")
    for number in range(25):
        inner.add(InvalidConfig(f"f, line {number}", hint="h"))
    outer.add(BadSample("f, line x", hint="skip"))
    outer.add(inner.joined())
    assert (len(outer), len(outer.grave), len(outer.first)) == (26, 25, 20)
    assert outer.lines()[:2] == ["line x", "line 0"]
    assert outer.lines()[-1] == "and 6 more"
    error = outer.joined()
    assert isinstance(error, InvalidConfig)
    assert error.message == "f, line x; and 25 more problems"
    assert "--skip-bad alone leaves out the 1 sample that cannot be read" in error.hint
