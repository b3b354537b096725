"""Extraction: complete shards are never computed again, bad samples are named, and backbones keep their promises."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from PIL import Image

from sparc.config import PluginRef
from sparc.errors import BadFeatures, BadSample, InvalidConfig, PluginError, SparcError, UnknownName
from sparc.extract import plan
from sparc.extract.stream import Origin, extract_stream
from sparc.extract.supervise import Progress, _next
from sparc.plugins import discover
from sparc.store import open_streams, read_shard, shard_path
from sparc_plugins.image_folder import ImageFolder, ImageFolderParams

ORIGIN = Origin("brightness", "image", {}, "", "image-folder", "train", {})


class Brightness:
    """Mean colour of an image: three features."""

    width = 3

    def __init__(self):
        self.preprocess = mean_colours

    def forward(self, batch):
        return batch


def mean_colours(samples):
    colours = [sample.image().resize((1, 1)).getpixel((0, 0)) for sample in samples]
    return torch.tensor(colours).float() + 1


@pytest.fixture
def dataset(photos):
    return ImageFolder(ImageFolderParams(root=str(photos)), "train")


def test_features_are_those_of_the_samples_in_order(dataset, tmp_path):
    manifest = extract_stream(dataset, Brightness(), tmp_path / "s", ORIGIN, shard_rows=16)
    assert len(dataset) == 53
    assert [shard.rows for shard in manifest.shards] == [16, 16, 16, 5]
    store = open_streams({"brightness": tmp_path / "s"})
    assert store.ids == tuple(dataset.ids)
    expected = mean_colours([dataset[row] for row in range(len(dataset))])
    assert torch.equal(store.features["brightness"], expected)


def test_the_progress_counts_what_was_there_already(dataset, tmp_path):
    extract_stream(dataset, Brightness(), tmp_path / "s", ORIGIN, shard_rows=16)
    (tmp_path / "s" / "manifest.json").unlink()
    shard_path(tmp_path / "s", 1).unlink()
    seen = []
    extract_stream(dataset, Brightness(), tmp_path / "s", ORIGIN, shard_rows=16, report=seen.append)
    assert seen == [16, 32, 32, 48, 53]


def test_a_shard_of_other_samples_or_a_broken_one_is_made_anew(dataset, tmp_path):
    extract_stream(dataset, Brightness(), tmp_path / "s", ORIGIN, shard_rows=16)
    (tmp_path / "s" / "manifest.json").unlink()
    broken = shard_path(tmp_path / "s", 0)
    broken.write_bytes(broken.read_bytes()[:-7])
    swapped = shard_path(tmp_path / "s", 1)
    swapped.write_bytes(shard_path(tmp_path / "s", 2).read_bytes())
    extract_stream(dataset, Brightness(), tmp_path / "s", ORIGIN, shard_rows=16)
    assert open_streams({"brightness": tmp_path / "s"}).ids == tuple(dataset.ids)


KILLED = """
import sys, time, torch
from pathlib import Path
from tests.test_extract import Brightness, ORIGIN
from sparc.extract.stream import extract_stream
from sparc_plugins.image_folder import ImageFolder, ImageFolderParams

class Slow(Brightness):
    def forward(self, batch):
        time.sleep(0.3)
        return batch

dataset = ImageFolder(ImageFolderParams(root=sys.argv[1]), "train")
extract_stream(dataset, Slow(), Path(sys.argv[2]), ORIGIN, shard_rows=8)
"""


def test_kill_9_loses_only_the_shard_in_work(dataset, photos, tmp_path, environment):
    command = [sys.executable, "-c", KILLED, str(photos), str(tmp_path / "s")]
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    deadline = time.monotonic() + 60
    while not shard_path(tmp_path / "s", 1).exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    survivors = sorted((tmp_path / "s").glob("shard-*"))
    assert 2 <= len(survivors) < len(dataset) // 8
    assert not (tmp_path / "s" / "manifest.json").exists()
    before = {path: path.stat().st_mtime_ns for path in survivors}
    manifest = extract_stream(dataset, Brightness(), tmp_path / "s", ORIGIN, shard_rows=8)
    assert {path: path.stat().st_mtime_ns for path in survivors} == before
    whole = extract_stream(dataset, Brightness(), tmp_path / "whole", ORIGIN, shard_rows=8)
    assert manifest.shards == whole.shards
    assert not list((tmp_path / "s").glob(".*"))


def test_an_image_that_does_not_decode_is_named(dataset, photos, tmp_path):
    (photos / dataset.groups[20]).write_bytes(b"\x89PNG but not really")
    with pytest.raises(BadSample, match=f"the image of sample '{dataset.ids[20]}' does not decode") as error:
        extract_stream(dataset, Brightness(), tmp_path / "s", ORIGIN, shard_rows=16)
    assert "--skip-bad" in error.value.hint
    assert shard_path(tmp_path / "s", 0).exists()
    assert not shard_path(tmp_path / "s", 1).exists()


def test_a_skipped_sample_lacks_the_stream_and_is_recorded(dataset, photos, tmp_path):
    (photos / dataset.groups[20]).unlink()
    manifest = extract_stream(dataset, Brightness(), tmp_path / "s", ORIGIN, skip_bad=True)
    assert manifest.skipped == (dataset.ids[20],)
    features, _, _ = read_shard(shard_path(tmp_path / "s", 0))
    assert (features[20] == 0).all()
    assert (features[21] > 0).all()


def test_what_was_skipped_is_tried_again_unless_skipping_is_asked_for(dataset, photos, tmp_path):
    image = photos / dataset.groups[20]
    content = image.read_bytes()
    image.write_bytes(b"no image")
    extract_stream(dataset, Brightness(), tmp_path / "s", ORIGIN, shard_rows=16, skip_bad=True)
    again = extract_stream(dataset, Brightness(), tmp_path / "s", ORIGIN, shard_rows=16, skip_bad=True)
    assert again.skipped == (dataset.ids[20],)
    with pytest.raises(BadSample, match="does not decode"):
        extract_stream(dataset, Brightness(), tmp_path / "s", ORIGIN, shard_rows=16)
    image.write_bytes(content)
    untouched = shard_path(tmp_path / "s", 0).stat().st_mtime_ns
    assert extract_stream(dataset, Brightness(), tmp_path / "s", ORIGIN, shard_rows=16).skipped == ()
    assert (open_streams({"s": tmp_path / "s"}).features["s"] > 0).all()
    assert shard_path(tmp_path / "s", 0).stat().st_mtime_ns == untouched


def test_half_written_files_of_others_at_work_are_left_alone(dataset, tmp_path):
    (tmp_path / "s").mkdir()
    young, old = (tmp_path / "s" / f".shard-00000.safetensors.{pid}.tmp" for pid in (1, 2))
    for leftover in (young, old):
        leftover.write_bytes(b"half")
    os.utime(old, (0, 0))
    extract_stream(dataset, Brightness(), tmp_path / "s", ORIGIN)
    assert young.exists()
    assert not old.exists()


def test_an_empty_caption_is_named_when_a_text_stream_reads_it(dataset, tmp_path):
    dataset.rows[3] = replace(dataset.rows[3], caption="  ")
    origin = replace(ORIGIN, modality="text")
    with pytest.raises(BadSample, match=f"sample '{dataset.ids[3]}' has an empty caption"):
        extract_stream(dataset, Brightness(), tmp_path / "s", origin)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (lambda batch: batch[:, :2], r"expected a floating-point tensor of shape \(32, 3\), found .* \(32, 2\)"),
        (lambda batch: batch[:-1], r"found torch.float32 \(31, 3\)"),
        (lambda batch: batch.long(), "found torch.int64"),
        (lambda batch: batch.numpy(), "found ndarray"),
    ],
)
def test_a_backbone_that_breaks_its_promise_is_named(dataset, tmp_path, output, message):
    backbone = Brightness()
    backbone.forward = output
    with pytest.raises(PluginError, match=f"backbone 'brightness': .*{message}"):
        extract_stream(dataset, backbone, tmp_path / "s", ORIGIN)


def test_a_feature_that_is_not_finite_names_its_sample(dataset, tmp_path):
    backbone = Brightness()
    backbone.forward = lambda batch: torch.where(torch.arange(len(batch))[:, None] == 5, torch.nan, batch)
    with pytest.raises(
        BadFeatures, match=f"'brightness' has a feature that is not finite at sample '{dataset.ids[5]}'"
    ):
        extract_stream(dataset, backbone, tmp_path / "s", ORIGIN)


def test_an_image_is_decoded_once_however_often_a_backbone_looks(dataset, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(Image, "open", _counting(Image.open, opened))
    from sparc.extract.stream import _Read

    _Read(lambda samples: [sample.image() for sample in samples for _ in range(3)], "image")([dataset[0]])
    assert len(opened) == 1


def _counting(function, calls):
    def wrapper(*args, **kwargs):
        calls.append(args)
        return function(*args, **kwargs)

    return wrapper


def test_planning_loads_nothing_and_refuses_what_cannot_work(photos, tmp_path, use_example):
    registry = discover()
    dataset = PluginRef(name="image-folder", alias="image-folder", params={"root": str(photos)})

    def planned(*names, params=None):
        streams = [PluginRef(name=name, alias=name, params=params or {}) for name in names]
        return plan(registry, dataset, streams, root=tmp_path, device="cpu")

    assert list(planned("timm", params={"model": "test_vit", "weights": "random"})) == ["train", "test"]
    with pytest.raises(InvalidConfig, match="at least one stream, found none"):
        planned()
    with pytest.raises(UnknownName, match="no plugin offers a stream named 'din'"):
        planned("din")
    with pytest.raises(InvalidConfig, match="'dinov2': unknown parameter 'mode'") as error:
        planned("dinov2", params={"mode": "x"})
    assert "did you mean 'model'?" in error.value.hint
    assert not list(tmp_path.glob("image-folder*"))


def test_the_workers_events_become_progress_and_errors():
    begun = _next(Progress("", "", 0, 0), {"event": "begin", "stream": "a", "split": "train", "total": 9})
    assert _next(begun, {"event": "load", "stream": "b"}).stream == "b"
    assert _next(begun, {"event": "progress", "done": 4}) == Progress("a", "train", 4, 9)
    assert _next(begun, {"event": "end", "skipped": ["x"]}) == Progress("a", "train", 9, 9, ("x",))
    with pytest.raises(BadSample, match="broken") as error:
        _next(begun, {"event": "error", "kind": "BadSample", "message": "broken", "hint": "mend"})
    assert error.value.hint == "mend"
    with pytest.raises(SparcError, match="stream 'a': KeyError: 3") as error:
        _next(begun, {"event": "error", "kind": "crash", "message": "KeyError: 3", "traceback": "where"})
    assert "where" in str(error.value.__cause__)
