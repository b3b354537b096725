"""A set in which no sample has both an image and a caption is an error before any backbone is loaded."""

import io
import tarfile

import pytest
from PIL import Image

from sparc.config import ExtractionOptions, PluginRef
from sparc.errors import MissingData
from sparc.extraction.items import check_paired
from sparc.extraction.plan import Job, JobOptions, Order
from sparc.extraction.worker import run
from sparc.plugins.contracts import Sample
from sparc.plugins.registry import discover


def image():
    raise AssertionError("no image needs to be opened")


def samples(*pairs):
    return [Sample(f"s{n}", image if has_image else None, caption) for n, (has_image, caption) in enumerate(pairs)]


@pytest.mark.parametrize("caption", [None, "", " \n"])
def test_images_and_captions_that_never_meet_are_counted(caption):
    alone = samples((True, caption), (False, "a dog"), (True, None), (False, None), (True, None))
    with pytest.raises(
        MissingData,
        match=r"none of the 5 samples of the split 'train' has both an image and a caption: "
        r"3 with an image \(s0, s2, s4\), 1 with a caption \(s1\)",
    ):
        check_paired(alone, "train")
    check_paired([*alone, *samples((True, "a cat"))], "train")


class Watched(list):
    """Samples that note which of them are read."""

    def __init__(self, *args):
        super().__init__(*args)
        self.read = []

    def __getitem__(self, index):
        self.read.append(index)
        return super().__getitem__(index)


def test_samples_after_the_first_pair_are_not_read():
    watched = Watched(samples((True, None), (True, "a dog"), (True, "a cat")))
    check_paired(watched, "train")
    assert watched.read == [0, 1]


def archive(folder, *names):
    file = io.BytesIO()
    Image.new("RGB", (16, 12)).save(file, "JPEG")
    with tarfile.open(folder / "train-0.tar", "w") as tar:
        for name in names:
            data = file.getvalue() if name.endswith("jpg") else name.encode()
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))


@pytest.mark.filterwarnings("ignore:webdataset:UserWarning")
def test_the_extraction_says_so_before_it_loads_a_backbone(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARC_CACHE", str(tmp_path / "cache"))
    archive(tmp_path, *(f"photo_{n}.jpg" for n in range(3)), *(f"text_{n}.txt" for n in range(3)))
    options = JobOptions(**{**ExtractionOptions().model_dump(), "skip_bad": True})
    jobs = [
        Job(
            dataset=PluginRef(name="webdataset", alias="webdataset", params={"root": str(tmp_path), "holdout": 0}),
            split="train",
            stream=PluginRef(name=name, alias=name),
            directory=tmp_path / name,
            weights="",
            options=options,
        )
        for name in ("dinov2", "minilm")
    ]
    events = []
    with pytest.raises(MissingData, match=r"3 with an image \(photo_0, photo_1, photo_2\), 3 with a caption"):
        run(Order(jobs=jobs), discover(), events.append)
    assert events == []
