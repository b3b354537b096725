"""Files among the images that are none say what they are, in every dataset of files."""

import io
import json
import tarfile

import pytest
from PIL import Image

from sparc.errors import BadSample, MissingData
from sparc.plugins.registry import discover

FTYP = b"\0\0\0\x18ftyp"
FILES = {
    b"": "it is empty",
    FTYP + b"heic" + b"\0" * 100: "is an HEIC image, which is not read",
    FTYP + b"isom" + b"\0" * 100: "is a video, which is not read",
    b"<?xml version='1.0'?>\n<svg xmlns='http://www.w3.org/2000/svg'/>": "is an SVG drawing, which is not read",
    b"<!DOCTYPE HTML><title>404</title>": "is a web page, as a failed download leaves it",
    b"%PDF-1.7": "is a PDF document",
    b"\x07 nobody knows": "is of a format that Pillow does not know",
}


def folder_of(dataset, root, content):
    """Write a folder in which one sample has `content` as its image."""
    good = io.BytesIO()
    Image.new("RGB", (4, 4)).save(good, "JPEG")
    for split, data in (("train", content), ("test", good.getvalue())):
        if dataset == "webdataset":
            with tarfile.open(root / f"{split}-0.tar", "w") as tar:
                for name, one in (("a.jpg", data), ("a.txt", b"text")):
                    header = tarfile.TarInfo(name)
                    header.size = len(one)
                    tar.addfile(header, io.BytesIO(one))
            continue
        folder = root / {"coco": {"train": "train2017", "test": "val2017"}}.get(dataset, {}).get(split, split)
        folder.mkdir()
        (folder / "a.jpg").write_bytes(data)
        if dataset == "open-images":
            (root / f"open_images_{split}_captions.jsonl").write_text(json.dumps({"image_id": "a", "caption": "x"}))
        if dataset == "coco":
            (root / "annotations").mkdir(exist_ok=True)
            found = {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": 1, "caption": "x"}]}
            (root / "annotations" / f"captions_{folder.name}.json").write_text(json.dumps(found))
    if dataset == "image-folder":
        (root / "samples.csv").write_text("image,caption,split\ntrain/a.jpg,x,train\ntest/a.jpg,x,test\n")
    return root


@pytest.mark.parametrize("dataset", ["coco", "image-folder", "open-images", "webdataset"])
@pytest.mark.parametrize(("content", "kind"), FILES.items(), ids=FILES.values())
def test_a_file_that_is_no_image_says_what_it_is_and_to_convert_it(tmp_path, monkeypatch, dataset, content, kind):
    monkeypatch.setenv("SPARC_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    spec = discover().dataset(dataset)
    opened = spec.open(spec.params(root=str(folder_of(dataset, tmp_path / "data", content))), "train")
    with pytest.raises(BadSample, match=kind) as error:
        opened[0].image()
    advice = "copy or download it again" if not content else "convert it to JPEG or PNG"
    assert advice in f"{error.value} {error.value.hint}"
    assert "skip-bad" in error.value.hint


@pytest.mark.parametrize("dataset", ["coco", "image-folder", "open-images", "webdataset"])
def test_a_data_root_that_is_a_file_says_so(tmp_path, dataset):
    spec = discover().dataset(dataset)
    for name, advice in (("all.zip", "unpack it"), ("a.tar.gz", "unpack it"), ("a.csv", f"--data-root {tmp_path}")):
        (tmp_path / name).write_bytes(b"PK")
        with pytest.raises(MissingData, match=rf"{dataset}: .*{name} is a file, not a folder") as error:
            spec.open(spec.params(root=str(tmp_path / name)), "train")
        assert advice in error.value.hint
    with pytest.raises(MissingData, match=rf"{dataset}: no folder at "):
        spec.open(spec.params(root=str(tmp_path / "nowhere")), "train")
