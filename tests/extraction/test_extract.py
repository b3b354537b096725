"""Extraction: complete shards are never computed again, bad samples are named, and backbones keep their promises."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial

import pytest
import torch
from PIL import Image

from sparc.config import PluginRef
from sparc.errors import (
    BadFeatures,
    BadSample,
    CorruptFile,
    InvalidConfig,
    MissingData,
    OutOfMemory,
    PluginError,
    SparcError,
    UnknownName,
)
from sparc.extraction import Job, JobOptions, Share, plan
from sparc.extraction.batch_size import fitting_inputs, fitting_memory
from sparc.extraction.estimate import estimate, pace
from sparc.extraction.features import ComputeOptions, FeatureExtractor
from sparc.extraction.preprocessing import BatchReader, ItemBatch
from sparc.extraction.shards import Destination
from sparc.extraction.supervise import Progress, extract, following
from sparc.extraction.work import Work
from sparc.plugins.contracts import Sample
from sparc.plugins.registry import discover
from sparc.storage.store import open_patches, open_streams, read_shard, shard_path
from sparc_plugins.image_folder import ImageFolder, ImageFolderParams


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


def extract_stream(dataset, backbone, directory, *, modality="image", skip_bad=False, **kwargs):
    """One stream of its own."""
    destination = Destination(directory, "brightness", {}, "", "image-folder", "train")
    extractor = FeatureExtractor({"s": backbone}, modality, ComputeOptions(skip_bad=skip_bad))
    return Work(dataset, extractor, {"s": destination}, **kwargs).run()["s"]


@pytest.fixture
def dataset(photos):
    return ImageFolder(ImageFolderParams(root=str(photos)), "train")


def test_features_are_those_of_the_samples_in_order(dataset, tmp_path):
    manifest = extract_stream(dataset, Brightness(), tmp_path / "s", shard_rows=16)
    assert len(dataset) == 53
    assert [shard.rows for shard in manifest.shards] == [16, 16, 16, 5]
    store = open_streams({"brightness": tmp_path / "s"})
    assert store.ids == tuple(dataset.ids)
    expected = mean_colours([dataset[row] for row in range(len(dataset))])
    assert torch.equal(store.in_memory()["brightness"], expected)


def test_the_progress_counts_what_was_there_already(dataset, tmp_path):
    extract_stream(dataset, Brightness(), tmp_path / "s", shard_rows=16)
    (tmp_path / "s" / "manifest.json").unlink()
    shard_path(tmp_path / "s", 1).unlink()
    seen = []
    extract_stream(
        dataset, Brightness(), tmp_path / "s", shard_rows=16, on_rows=lambda done, total: seen.append((done, total))
    )
    assert seen == [(37, 53), (53, 53)]


def test_a_shard_of_other_samples_or_a_broken_one_is_made_anew(dataset, tmp_path):
    extract_stream(dataset, Brightness(), tmp_path / "s", shard_rows=16)
    (tmp_path / "s" / "manifest.json").unlink()
    broken = shard_path(tmp_path / "s", 0)
    broken.write_bytes(broken.read_bytes()[:-7])
    swapped = shard_path(tmp_path / "s", 1)
    swapped.write_bytes(shard_path(tmp_path / "s", 2).read_bytes())
    extract_stream(dataset, Brightness(), tmp_path / "s", shard_rows=16)
    assert open_streams({"brightness": tmp_path / "s"}).ids == tuple(dataset.ids)


def test_a_flipped_bit_in_a_shard_of_an_interrupted_extraction_is_noticed_and_the_shard_made_anew(dataset, tmp_path):
    whole = extract_stream(dataset, Brightness(), tmp_path / "s", shard_rows=16)
    path = shard_path(tmp_path / "s", 1)
    content = path.read_bytes()
    for place in (len(content) - 1, len(content) - 60, content.index(b'"ids') - 9, content.index(b"sha256")):
        (tmp_path / "s" / "manifest.json").unlink()
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        assert extract_stream(dataset, Brightness(), tmp_path / "s", shard_rows=16).shards == whole.shards
        assert path.read_bytes() == content


KILLED = """
import sys, time, torch
from pathlib import Path
from tests.extraction.test_extract import Brightness, extract_stream
from sparc_plugins.image_folder import ImageFolder, ImageFolderParams

class Slow(Brightness):
    def forward(self, batch):
        time.sleep(0.3)
        return batch

dataset = ImageFolder(ImageFolderParams(root=sys.argv[1]), "train")
extract_stream(dataset, Slow(), Path(sys.argv[2]), shard_rows=8)
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
    manifest = extract_stream(dataset, Brightness(), tmp_path / "s", shard_rows=8)
    assert {path: path.stat().st_mtime_ns for path in survivors} == before
    whole = extract_stream(dataset, Brightness(), tmp_path / "whole", shard_rows=8)
    assert manifest.shards == whole.shards
    assert not list((tmp_path / "s").glob(".*"))


def test_an_image_that_does_not_decode_is_named(dataset, photos, tmp_path):
    (photos / dataset.groups[20]).write_bytes(b"\x89PNG but not really")
    with pytest.raises(BadSample, match=f"the image of sample '{dataset.ids[20]}'") as error:
        extract_stream(dataset, Brightness(), tmp_path / "s", shard_rows=16)
    assert "--skip-bad" in error.value.hint
    assert shard_path(tmp_path / "s", 0).exists()
    assert not shard_path(tmp_path / "s", 1).exists()


def test_a_skipped_sample_lacks_the_stream_and_is_recorded(dataset, photos, tmp_path):
    (photos / dataset.groups[20]).unlink()
    manifest = extract_stream(dataset, Brightness(), tmp_path / "s", skip_bad=True)
    assert manifest.skipped == (dataset.ids[20],)
    features, *_ = read_shard(shard_path(tmp_path / "s", 0))
    assert (features[20] == 0).all()
    assert (features[21] > 0).all()


def test_what_was_skipped_is_tried_again_unless_skipping_is_asked_for(dataset, photos, tmp_path):
    image = photos / dataset.groups[20]
    content = image.read_bytes()
    image.write_bytes(b"no image")
    extract_stream(dataset, Brightness(), tmp_path / "s", shard_rows=16, skip_bad=True)
    again = extract_stream(dataset, Brightness(), tmp_path / "s", shard_rows=16, skip_bad=True)
    assert again.skipped == (dataset.ids[20],)
    with pytest.raises(BadSample, match="is a text, which is not read"):
        extract_stream(dataset, Brightness(), tmp_path / "s", shard_rows=16)
    image.write_bytes(content)
    untouched = shard_path(tmp_path / "s", 0).stat().st_mtime_ns
    assert extract_stream(dataset, Brightness(), tmp_path / "s", shard_rows=16).skipped == ()
    assert (open_streams({"s": tmp_path / "s"}).in_memory()["s"] > 0).all()
    assert shard_path(tmp_path / "s", 0).stat().st_mtime_ns == untouched


def test_half_written_files_of_others_at_work_are_left_alone(dataset, tmp_path):
    (tmp_path / "s").mkdir()
    young, old = (tmp_path / "s" / f".shard-00000.safetensors.{pid}.tmp" for pid in (1, 2))
    for leftover in (young, old):
        leftover.write_bytes(b"half")
    os.utime(old, (0, 0))
    extract_stream(dataset, Brightness(), tmp_path / "s")
    assert young.exists()
    assert not old.exists()


def test_an_empty_caption_is_named_when_a_text_stream_reads_it(dataset, tmp_path):
    dataset.rows[3] = dataset.rows[3]._replace(caption="  ")
    with pytest.raises(BadSample, match=f"sample '{dataset.ids[3]}' has an empty caption"):
        extract_stream(dataset, Brightness(), tmp_path / "s", modality="text")


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
    with pytest.raises(PluginError, match=f"backbone 's': .*{message}"):
        extract_stream(dataset, backbone, tmp_path / "s")


def test_a_feature_that_is_not_finite_names_its_sample(dataset, tmp_path):
    backbone = Brightness()
    backbone.forward = lambda batch: torch.where(torch.arange(len(batch))[:, None] == 5, torch.nan, batch)
    with pytest.raises(BadFeatures, match=f"'s' has a feature that is not finite at sample '{dataset.ids[5]}'"):
        extract_stream(dataset, backbone, tmp_path / "s")


def test_an_image_is_decoded_once_however_often_a_backbone_looks(dataset, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(Image, "open", _counting(Image.open, opened))
    preprocess = dict.fromkeys("ab", lambda samples: [sample.image() for sample in samples for _ in range(3)])
    assert BatchReader(dataset, preprocess, "image")[ItemBatch([0], ("a", "b"))].failure is None
    assert len(opened) == 1


def _counting(function, calls):
    def wrapper(*args, **kwargs):
        calls.append(args)
        return function(*args, **kwargs)

    return wrapper


class Pairs:
    """Five samples of three images and two captions, none of them in order."""

    ids = ("e", "d", "c", "b", "a")
    groups = ids
    taxonomy = None
    images = ("red", "blue", "red", "green", "blue")
    captions = ("one", "two", "two", "one", "two")

    def __len__(self):
        return 5

    def __getitem__(self, index):
        colour = self.images[index]
        return Sample(self.ids[index], lambda: Image.new("RGB", (4, 4), colour), self.captions[index], image_id=colour)


class Lengths:
    """Length of a caption, and how many were asked for."""

    width = 1

    def __init__(self):
        self.seen = 0
        self.preprocess = lambda samples: torch.tensor(
            [[len(sample.text()) + ord(sample.text()[0])] for sample in samples]
        )

    def forward(self, batch):
        self.seen += len(batch)
        return batch.float()


def test_an_image_or_caption_of_several_samples_is_computed_and_stored_once(tmp_path):
    colours, lengths = Brightness(), Lengths()
    manifest = extract_stream(Pairs(), colours, tmp_path / "colours", shard_rows=2)
    extract_stream(Pairs(), lengths, tmp_path / "lengths", modality="text")
    assert [shard.rows for shard in manifest.shards] == [2, 1]
    assert lengths.seen == 2
    store = open_streams({"colours": tmp_path / "colours", "lengths": tmp_path / "lengths"})
    assert store.ids == Pairs.ids
    assert torch.equal(store.in_memory()["colours"], mean_colours([Pairs()[row] for row in range(5)]))
    assert store.in_memory()["lengths"].flatten().tolist() == [
        3 + ord("o"),
        3 + ord("t"),
        3 + ord("t"),
        3 + ord("o"),
        3 + ord("t"),
    ]


def test_samples_of_one_image_that_cannot_be_read_lack_it_all(tmp_path):
    class Broken(Pairs):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            return sample if sample.image_id != "red" else replace(sample, open_image=None)

    manifest = extract_stream(Broken(), Brightness(), tmp_path / "s", skip_bad=True)
    assert manifest.skipped == ("e", "c")
    store = open_streams({"s": tmp_path / "s"})
    assert store.missing() == {"s": 2}
    assert (store.in_memory()["s"] == 0).all(dim=1).tolist() == [True, False, True, False, False]


def test_streams_of_one_modality_are_extracted_together_each_as_if_alone(dataset, tmp_path):
    class Twice(Brightness):
        def forward(self, batch):
            return 2 * batch

    destinations = {
        name: Destination(tmp_path / name, name, {}, "", "image-folder", "train") for name in ("once", "twice")
    }
    extractor = FeatureExtractor({"once": Brightness(), "twice": Twice()}, "image")
    # One stream has a shard already: it is not computed again.
    Work(dataset, extractor, {"once": destinations["once"]}, shard_rows=16, share=Share(1, 4)).run()
    before = shard_path(tmp_path / "once", 1).stat().st_mtime_ns
    Work(dataset, extractor, destinations, shard_rows=16).run()
    store = open_streams({name: tmp_path / name for name in destinations})
    assert torch.equal(store.in_memory()["twice"], 2 * store.in_memory()["once"])
    assert shard_path(tmp_path / "once", 1).stat().st_mtime_ns == before


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_processes_that_share_the_work_leave_the_same_bytes_in_any_order_of_finishing(dataset, tmp_path, order):
    extract_stream(dataset, Brightness(), tmp_path / "whole", shard_rows=8)
    for number in order:
        manifest = extract_stream(dataset, Brightness(), tmp_path / "parts", shard_rows=8, share=Share(number, 3))
        assert (manifest is None) == (number != order[-1])
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def too_much_for_a_gpu():
    raise torch.OutOfMemoryError("CUDA out of memory")


def too_much_for_any_machine():
    torch.empty(2**55)


@pytest.mark.parametrize("ask_for_too_much", [too_much_for_a_gpu, too_much_for_any_machine])
def test_a_batch_that_is_too_large_for_the_memory_is_halved_until_it_fits(dataset, tmp_path, ask_for_too_much):
    class Small(Brightness):
        largest = 0

        def forward(self, batch):
            if len(batch) > 5:
                ask_for_too_much()
            self.largest = max(self.largest, len(batch))
            return batch

    backbone = Small()
    extract_stream(dataset, backbone, tmp_path / "s", shard_rows=64)
    extract_stream(dataset, Brightness(), tmp_path / "whole", shard_rows=64)
    assert backbone.largest == 4
    assert contents(tmp_path / "s") == contents(tmp_path / "whole")


def test_the_batch_is_what_the_memory_holds_a_power_of_two():
    photo, square_of_518, token_ids = 3 * 224 * 224 * 4, 3 * 518 * 518 * 4, 77 * 8
    assert [fitting_inputs(size, 1024) for size in (photo, square_of_518, token_ids)] == [256, 64, 1024]
    assert fitting_inputs(token_ids, 32) == 32
    assert fitting_inputs(10**12, 32) == 1
    # 100 bytes and 10 per sample, where 500 of 1,000 may be taken: 40 samples fit
    assert fitting_memory(lambda count: 100 + 10 * count, free=1000, largest=1024) == 32
    assert fitting_memory(lambda count: 100 + 10 * count, free=1000, largest=16) == 16
    assert fitting_memory(lambda count: 100 + 10 * count, free=150, largest=16) == 1
    assert fitting_memory(lambda count: 100, free=1000, largest=16) == 16


def test_the_batch_is_found_from_the_first_sample_that_can_be_read(dataset, photos):
    class Large(Brightness):
        def __init__(self):
            self.preprocess = lambda samples: mean_colours(samples).repeat(1, 2**20)  # 12 MiB each

    extractor = FeatureExtractor({"a": Large(), "b": Brightness()}, "image")
    (photos / dataset.groups[0]).write_bytes(b"no image")
    assert extractor.batch_size(dataset, [0, 1]) == 16  # of 256 MiB
    assert extractor.batch_size(dataset, [0]) == 32
    assert FeatureExtractor({"b": Brightness()}, "image").batch_size(dataset, [1]) == 32


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_a_batch_that_would_fill_the_memory_is_computed_in_parts(dataset):
    class Hungry(Brightness):
        def forward(self, batch):
            each = torch.cuda.mem_get_info()[1] // 64  # bytes per sample: 32 of them are half of all
            return batch + torch.zeros(len(batch), each, dtype=torch.uint8, device=batch.device)[:, :1]

    extractor = FeatureExtractor({"s": Hungry()}, "image", ComputeOptions("cuda"))
    assert extractor.batch_size(dataset, [0]) == 1024
    assert extractor._at_once["s"] in (8, 16)


def test_memory_that_one_sample_does_not_fit_is_an_error(dataset, tmp_path):
    class Never(Brightness):
        def forward(self, batch):
            too_much_for_any_machine()

    with pytest.raises(OutOfMemory, match="'s': one sample does not fit in the memory of this machine"):
        extract_stream(dataset, Never(), tmp_path / "s")


def test_features_are_stored_and_computed_as_exactly_as_asked_for(dataset, tmp_path):
    class Product(Brightness):
        def forward(self, batch):
            self.dtype = (batch @ torch.eye(3)).dtype
            return batch @ torch.eye(3) / 3

    backbone = Product()
    destination = Destination(
        tmp_path / "s", "s", {}, "", "image-folder", "train", dtype="float16", precision="bfloat16"
    )
    extractor = FeatureExtractor({"s": backbone}, "image", ComputeOptions(precision="bfloat16"))
    manifest = Work(dataset, extractor, {"s": destination}).run()["s"]
    assert backbone.dtype == torch.bfloat16
    assert (manifest.dtype, manifest.precision) == ("float16", "bfloat16")
    features = open_streams({"s": tmp_path / "s"}).in_memory()["s"]
    assert features.dtype == torch.float16
    exact = mean_colours([dataset[row] for row in range(len(dataset))]) / 3
    torch.testing.assert_close(features.float(), exact, rtol=0.02, atol=0)


def test_a_feature_that_float16_cannot_hold_is_the_largest_that_it_can(dataset, tmp_path):
    class Huge(Brightness):
        def forward(self, batch):
            return torch.full((len(batch), 3), -1e9)

    destination = Destination(tmp_path / "s", "s", {}, "", "image-folder", "train", dtype="float16")
    Work(dataset, FeatureExtractor({"s": Huge()}, "image"), {"s": destination}).run()
    assert (open_streams({"s": tmp_path / "s"}).in_memory()["s"] == -65504).all()


def test_the_pace_of_an_extraction_is_that_of_its_middle_because_the_last_batch_ends_with_the_one_before():
    # Five batches of 10 rows and 1 s each, after 3 s; a batch ends when the next is computed.
    assert pace([0, 5, 6, 7, 8, 8], [0, 10, 20, 30, 40, 50], 1) == (10, 3)
    assert pace([0, 2, 2], [0, 10, 20], 1) == (10, 0)


def test_a_probe_says_what_all_will_take_and_writes_nothing(dataset):
    found = estimate(dataset, FeatureExtractor({"s": Brightness()}, "image"), "float16")
    assert (found.samples, found.rows, found.bytes) == (53, 53, 53 * 3 * 2)
    assert 0 < found.seconds < 60


KILLED_OFTEN = """
import os, random, signal, sys, time
from pathlib import Path
from tests.extraction.test_extract import Brightness, extract_stream
from sparc_plugins.image_folder import ImageFolder, ImageFolderParams

class Slow(Brightness):
    def forward(self, batch):
        os.write(at_work, b".")
        time.sleep(0.1)
        return batch

dataset = ImageFolder(ImageFolderParams(root=sys.argv[1]), "train")
random.seed(0)
for _ in range(20):
    begun, at_work = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        extract_stream(dataset, Slow(), Path(sys.argv[2]), shard_rows=2)
        os._exit(0)
    os.close(at_work)
    if random.random() < 0.8:  # else while it starts
        os.read(begun, 1)
    time.sleep(random.uniform(0.01, 0.35))
    os.close(begun)
    try:
        os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:
        pass
    os.waitpid(child, 0)
    print(len(list(Path(sys.argv[2]).glob("shard-*"))))
"""


def test_killed_at_twenty_random_moments_it_ends_with_the_same_bytes(dataset, photos, tmp_path, environment):
    command = [sys.executable, "-c", KILLED_OFTEN, str(photos), str(tmp_path / "s")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    survivors = [int(line) for line in done.stdout.split()]
    assert survivors == sorted(survivors)
    assert len(set(survivors)) > 3  # it was killed at work, and went on: how often depends on the machine
    extract_stream(dataset, Brightness(), tmp_path / "s", shard_rows=2)
    extract_stream(dataset, Brightness(), tmp_path / "whole", shard_rows=2)
    found = {name: content for name, content in contents(tmp_path / "s").items() if not name.startswith(".")}
    assert found == contents(tmp_path / "whole")


def test_planning_loads_nothing_and_refuses_what_cannot_work(photos, tmp_path, use_example):
    registry = discover()
    dataset = PluginRef(name="image-folder", alias="image-folder", params={"root": str(photos)})

    def planned(*names, params=None):
        streams = [PluginRef(name=name, alias=name, params=params or {}) for name in names]
        return plan(registry, dataset, streams, root=tmp_path, options=JobOptions())

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
    begun = following(Progress(), {"event": "begin", "streams": ["a", "b"], "split": "train"})
    assert following(begun, {"event": "load", "stream": "b"}).streams == ("b",)
    spent = {"data": 1.0, "device": 2.0, "disk": 0.5}
    half = following(begun, {"event": "progress", "done": 4, "total": 9, "spent": spent})
    assert half == Progress(("a", "b"), "train", 4, 9, spent)
    ended = following(half, {"event": "end", "skipped": ["x"], "spent": spent})
    assert ended == Progress(("a", "b"), "train", 9, 9, spent, finished=True, skipped=("x",))
    with pytest.raises(BadSample, match="broken") as error:
        following(
            begun, {"event": "error", "kind": "BadSample", "message": "broken", "hint": "mend", "traceback": "where"}
        )
    assert error.value.hint == "mend"
    with pytest.raises(SparcError, match="stream 'a, b': KeyError: 3") as error:
        following(begun, {"event": "error", "kind": "crash", "message": "KeyError: 3", "traceback": "where"})
    assert "where" in str(error.value.__cause__)


def test_what_is_being_loaded_is_heard_at_once_then_the_split_and_its_rows(photos, tmp_path, environment, monkeypatch):
    for name in ("PYTHONPATH", "SPARC_CACHE", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, environment[name])
    monkeypatch.syspath_prepend(environment["PYTHONPATH"].split(os.pathsep)[0])
    folder = PluginRef(name="image-folder", alias="image-folder", params={"root": str(photos)})
    colours = PluginRef(name="tiny-image", alias="colours")
    jobs = plan(discover(), folder, [colours], root=tmp_path, options=JobOptions())["train"]
    seen = []
    extract(jobs.values(), seen.append)
    assert seen[0] == Progress(("colours",))
    assert [progress.loading for progress in seen[:3]] == [True, False, False]
    assert (seen[1].streams, seen[1].split, seen[1].total) == (("colours",), "train", 0)
    assert seen[-1].finished
    assert seen[-1].total == 53
    assert jobs["colours"].done
    extract(jobs.values(), seen.append)
    assert len(seen) == len(set(map(str, seen)))  # nothing to do, nothing to hear


def test_an_error_of_the_worker_comes_after_the_stream_that_it_was_loading(tmp_path, photos):
    folder = PluginRef(name="image-folder", alias="image-folder", params={"root": str(photos)})
    nobody = PluginRef(name="nobody", alias="nobody")
    options = JobOptions()
    job = Job(dataset=folder, split="train", stream=nobody, directory=tmp_path / "s", weights="", options=options)
    seen = []
    with pytest.raises(UnknownName, match="no plugin offers a stream named 'nobody'"):
        extract([job], seen.append)
    assert seen == [Progress(("nobody",))]


class Patched(Brightness):
    """A grid of one row and two columns; patches are the colour, and its negative."""

    grid = (1, 2)

    def forward_tokens(self, batch):
        return batch, torch.stack([batch, -batch], dim=1)


def with_tokens(dataset, backbone, directory, **kwargs):
    destination = Destination(directory, "patched", {}, "", "image-folder", "train", dtype="float16")
    extractor = FeatureExtractor({"s": backbone}, "image", ComputeOptions(tokens=torch.float16, **kwargs))
    return Work(dataset, extractor, {"s": destination}, shard_rows=16).run()["s"]


def test_features_of_patches_are_stored_beside_those_of_images(dataset, photos, tmp_path):
    (photos / dataset.groups[20]).unlink()
    manifest = with_tokens(dataset, Patched(), tmp_path / "s", skip_bad=True)
    assert manifest.tokens.grid == (1, 2)
    patches = open_patches(tmp_path / "s")
    tokens = torch.cat(patches.shards)[patches.rows]
    features = open_streams({"s": tmp_path / "s"}).in_memory()["s"]
    assert tokens.dtype == torch.float16
    assert tokens.shape == (53, 2, 3)
    assert torch.equal(tokens[:, 0], features)
    assert torch.equal(tokens[:, 1], -features)
    assert (tokens[20] == 0).all()


def test_features_of_patches_are_made_where_only_those_of_images_are_there(dataset, tmp_path):
    destination = Destination(tmp_path / "s", "patched", {}, "", "image-folder", "train", dtype="float16")
    Work(dataset, FeatureExtractor({"s": Patched()}, "image"), {"s": destination}, shard_rows=16).run()
    with pytest.raises(MissingData, match="has no features of patches"):
        open_patches(tmp_path / "s")
    with_tokens(dataset, Patched(), tmp_path / "s")
    path = tmp_path / "s" / "tokens-00001.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(CorruptFile, match=r"tokens-00001.safetensors is truncated or altered"):
        open_patches(tmp_path / "s")
    with_tokens(dataset, Patched(), tmp_path / "s")
    assert len(open_patches(tmp_path / "s").shards) == 4


def test_features_of_patches_made_beside_other_features_are_made_anew(dataset, photos, tmp_path):
    """A sample that was skipped and has been mended since has zeros among the patches."""
    image = photos / dataset.groups[20]
    content = image.read_bytes()
    image.unlink()
    with_tokens(dataset, Patched(), tmp_path / "s", skip_bad=True)
    image.write_bytes(content)
    extract_stream(dataset, Patched(), tmp_path / "s", shard_rows=16)
    with_tokens(dataset, Patched(), tmp_path / "s")
    patches = open_patches(tmp_path / "s")
    assert (torch.cat(patches.shards)[20, 0] > 0).all()


def test_a_shard_without_a_readable_sample_has_zeros_for_patches(dataset, photos, tmp_path):
    for image in dataset.groups[48:]:
        (photos / image).unlink()
    with_tokens(dataset, Patched(), tmp_path / "s", skip_bad=True)
    assert (open_patches(tmp_path / "s").shards[3] == 0).all()


def test_a_patch_that_float16_cannot_hold_is_the_largest_that_it_can(dataset, tmp_path):
    class Huge(Patched):
        def forward_tokens(self, batch):
            return batch, torch.full((len(batch), 2, 3), 1e9)

    with_tokens(dataset, Huge(), tmp_path / "s")
    assert (open_patches(tmp_path / "s").shards[0] == 65504).all()


def test_a_sample_that_cannot_be_preprocessed_is_named_and_skipped_on_request(dataset, tmp_path):
    picky = Brightness()
    picky.preprocess = partial(refusing, dataset.ids[7])
    with pytest.raises(
        BadSample, match=f"stream 's' cannot preprocess sample '{dataset.ids[7]}': ValueError: too odd"
    ) as error:
        extract_stream(dataset, picky, tmp_path / "s")
    assert "--skip-bad" in error.value.hint
    assert extract_stream(dataset, picky, tmp_path / "s", skip_bad=True).skipped == (dataset.ids[7],)


def refusing(odd, samples):
    if any(sample.id == odd for sample in samples):
        raise ValueError("too odd")
    return mean_colours(samples)


def test_a_dataset_of_which_nothing_can_be_read_is_an_error_though_skipping_is_asked_for(dataset, photos, tmp_path):
    for image in photos.glob("*.png"):
        image.unlink()
    for _ in range(2):
        with pytest.raises(BadSample, match="none of the 53 samples of the split 'train' can be read"):
            extract_stream(dataset, Brightness(), tmp_path / "s", skip_bad=True)


def test_two_that_make_the_same_shard_leave_the_first_as_it_is(dataset, tmp_path):
    class Slow(Brightness):
        """While it computes, another process makes all shards."""

        def forward(self, batch):
            if not (tmp_path / "s").exists():
                extract_stream(dataset, Brightness(), tmp_path / "s", shard_rows=16)
            return batch + 1

    extract_stream(dataset, Slow(), tmp_path / "s", shard_rows=16)
    expected = mean_colours([dataset[row] for row in range(len(dataset))])
    assert torch.equal(open_streams({"s": tmp_path / "s"}).in_memory()["s"], expected)


def test_a_dataset_without_samples_is_an_error(tmp_path):
    class Empty(Pairs):
        ids = ()

        def __len__(self):
            return 0

    with pytest.raises(MissingData, match="the dataset has no samples"):
        extract_stream(Empty(), Brightness(), tmp_path / "s")


def test_a_backbone_without_patches_is_refused_where_they_are_asked_for(dataset, tmp_path):
    with pytest.raises(InvalidConfig, match="stream 's': its backbone has no patches"):
        with_tokens(dataset, Brightness(), tmp_path / "s")
