"""An interrupted extraction keeps the rows of the shard in work, and the shard gets the bytes of an unbroken one."""

import contextlib
import shutil

import pytest
import torch

from sparc.extraction import parts, shards
from sparc.extraction.features import ComputeOptions, FeatureExtractor
from sparc.extraction.shards import Destination
from sparc.extraction.work import Work
from sparc.storage.manifest import is_complete
from sparc.storage.store import part_path, part_paths, shard_path
from sparc_plugins.image_folder import ImageFolder, ImageFolderParams


def colours(samples):
    found = [sample.image().resize((1, 1)).getpixel((0, 0)) for sample in samples]
    return torch.tensor(found).float() / 3 + 1


class Colours:
    """Mean colour of an image, with two patches; it stops at batch `last`, as Ctrl-C does."""

    width, grid, preprocess = 3, (1, 2), staticmethod(colours)

    def __init__(self, last=None):
        self.last, self.seen = last, 0

    def forward(self, batch):
        if self.last == 0:
            raise KeyboardInterrupt
        self.last = None if self.last is None else self.last - 1
        self.seen += len(batch)
        return batch

    def forward_tokens(self, batch):
        return self.forward(batch), torch.stack([batch, batch + 1], 1)


@pytest.fixture
def dataset(photos):
    return ImageFolder(ImageFolderParams(root=str(photos)), "train")


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(FeatureExtractor, "batch_size", lambda self, dataset, samples: 4)


def extracted(dataset, folder, last=None, *, names=("a",), dtype="float16", **options):
    """Extract streams that share a backbone; return the number of samples that were computed."""
    backbone = Colours(last)
    options = ComputeOptions(**{"tokens": getattr(torch, dtype), **options})
    extractor = FeatureExtractor(dict.fromkeys(names, backbone), "image", options)
    places = {
        name: Destination(folder / name, name, {}, "", "image-folder", "train", dtype, mark=name) for name in names
    }
    with contextlib.suppress(KeyboardInterrupt):
        Work(dataset, extractor, places, shard_rows=32).run()
    return backbone.seen


def content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.safetensors")}


@pytest.mark.parametrize(("dtype", "tokens"), [("float16", True), ("bfloat16", False), ("float32", False)])
def test_an_interruption_loses_the_batches_in_flight_and_changes_no_byte(dataset, tmp_path, dtype, tokens):
    given = {} if tokens else {"tokens": None}
    extracted(dataset, tmp_path / "whole", dtype=dtype, **given)
    first = extracted(dataset, tmp_path / "s", 4, dtype=dtype, **given)
    (part, *_) = part_paths(tmp_path / "s" / "a", 0)
    assert part == part_path(tmp_path / "s" / "a", 0, 0)
    assert not shard_path(tmp_path / "s" / "a", 0).exists()
    second = extracted(dataset, tmp_path / "s", 3, dtype=dtype, **given)  # interrupted once more
    assert [path.name[:16] for path in part_paths(tmp_path / "s" / "a", 0)][:: 1 + tokens] == [
        "part-00000-00000",
        "part-00000-00012",
    ]
    third = extracted(dataset, tmp_path / "s", dtype=dtype, **given)
    assert first + second + third <= len(dataset) + 2 * 4  # a batch that is computed, and not yet copied, is lost
    assert content(tmp_path / "s") == content(tmp_path / "whole")
    assert is_complete(tmp_path / "s" / "a")


def test_rows_are_kept_while_the_work_goes_on(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "KEEP_SECONDS", 0.0)
    written = []
    write = shards.write_shard

    def noted(path, *args, **kwargs):
        written.append(path.name)
        write(path, *args, **kwargs)

    monkeypatch.setattr(shards, "write_shard", noted)
    extracted(dataset, tmp_path / "s", tokens=None)
    assert written[:3] == [f"part-00000-{start:05d}-features.safetensors" for start in (0, 4, 8)]
    extracted(dataset, tmp_path / "whole", tokens=None)
    assert content(tmp_path / "s") == content(tmp_path / "whole")
    assert not part_paths(tmp_path / "s" / "a")


def test_streams_go_on_from_the_rows_that_all_of_them_have(dataset, tmp_path):
    names = ("a", "b")
    extracted(dataset, tmp_path / "whole", names=names)
    extracted(dataset, tmp_path / "s", 10, names=names)
    for path in part_paths(tmp_path / "s" / "b"):
        path.write_bytes(path.read_bytes()[:-1])  # damaged: that stream begins again, and the other one with it
    seen = extracted(dataset, tmp_path / "s", names=names)
    assert seen == 2 * len(dataset)
    assert content(tmp_path / "s") == content(tmp_path / "whole")


def test_rows_of_other_samples_another_width_or_with_skipped_samples_are_not_taken(dataset, photos, tmp_path):
    bad = photos / dataset.rows[1].image
    good = bad.read_bytes()
    bad.write_bytes(b"no image")
    extracted(dataset, tmp_path / "s", 4, skip_bad=True)
    assert part_paths(tmp_path / "s" / "a")
    assert extracted(dataset, tmp_path / "s", 4, skip_bad=True) <= len(dataset) - 12  # the bad sample stays skipped
    bad.write_bytes(good)
    assert extracted(dataset, tmp_path / "s") == len(dataset)  # it is tried again
    extracted(dataset, tmp_path / "whole")
    assert content(tmp_path / "s") == content(tmp_path / "whole")
    extracted(dataset, tmp_path / "t", 4)
    dataset.rows[0], dataset.rows[1] = dataset.rows[1], dataset.rows[0]
    dataset.ids = [row.id for row in dataset.rows]
    dataset.groups = [row.image for row in dataset.rows]
    assert extracted(dataset, tmp_path / "t") == len(dataset)


@pytest.mark.parametrize("last", [9, None], ids=["rows and a shard", "shards"])
def test_those_of_another_stream_of_the_same_width_are_computed_again(dataset, tmp_path, last):
    extracted(dataset, tmp_path / "s", last)
    place = tmp_path / "s" / "b"
    shutil.copytree(tmp_path / "s" / "a", place, ignore=shutil.ignore_patterns("*.json"))
    assert len(list(place.iterdir())) >= 2
    assert extracted(dataset, tmp_path / "s", names=("b",)) == len(dataset)
    extracted(dataset, tmp_path / "whole", names=("b",))
    assert content(place) == content(tmp_path / "whole" / "b")
