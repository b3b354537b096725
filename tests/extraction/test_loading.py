"""Loading: it fits the shared memory that there is, ends, and names the sample of a process that does not."""

import contextlib
import errno
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sparc.errors import BadSample, OutOfMemory, PluginError, StorageError
from sparc.extraction import loading
from sparc.extraction.features import ComputeOptions, FeatureExtractor
from sparc.extraction.loading import _Packed, load
from sparc.extraction.plan import Share
from sparc.extraction.preprocessing import BatchReader, ItemBatch, PreprocessedBatch, fault
from sparc.extraction.supervise import _death
from sparc.plugins import Sample
from sparc.plugins.images import ImageLimits
from sparc.storage.store import open_streams
from sparc_plugins.image_folder import ImageFolder, ImageFolderParams
from tests.extraction.test_extract import Brightness, extract_stream, mean_colours

FORTY = 40


def drawing(colour):
    return Image.new("RGB", (4, 4), (colour, colour, colour))


@dataclass
class Odd:
    """Forty small images, of which one does something odd when it is opened."""

    odd: int
    does: object
    taxonomy = None

    def __post_init__(self):
        self.ids = self.groups = [f"c{number}" for number in range(FORTY)]

    def __len__(self):
        return FORTY

    def __getitem__(self, index):
        return Sample(self.ids[index], self.does if index == self.odd else partial(drawing, index))


def slowly(colour, seconds):
    time.sleep(seconds)
    return drawing(colour)


def kill(how=signal.SIGKILL):
    os.kill(os.getpid(), how)


def kill_later():
    time.sleep(0.5)
    kill()


def end():
    os._exit(3)


def refuse(number):
    raise OSError(number, os.strerror(number))


def refuse_as_bad(number):
    try:
        refuse(number)
    except OSError as error:
        raise BadSample("cannot be opened", hint="mend it") from error


def no_memory():
    raise MemoryError("cannot allocate 9 GiB")


@pytest.fixture
def hasty(monkeypatch):
    """Short limits."""
    monkeypatch.setattr(loading, "POLL_SECONDS", 0.2)
    monkeypatch.setattr(loading, "SAMPLE_SECONDS", 1)
    monkeypatch.setattr(loading, "SECONDS_MORE", 0)
    monkeypatch.setattr(loading, "LOST_SECONDS", 1)


@pytest.mark.parametrize("odd", [0, 35])
@pytest.mark.parametrize(
    ("does", "kind", "how"),
    [
        (kill, OutOfMemory, r"was killed \(SIGKILL\)"),
        (partial(kill, signal.SIGBUS), StorageError, r"was killed \(SIGBUS\)"),
        (partial(kill, signal.SIGSEGV), BadSample, r"was killed \(SIGSEGV\)"),
        (end, BadSample, "ended with code 3"),
    ],
)
def test_a_killed_loading_process_names_the_sample_that_it_was_reading(tmp_path, hasty, odd, does, kind, how):
    with pytest.raises(kind, match=f"a loading process {how} while it was reading sample 'c{odd}'"):
        extract_stream(Odd(odd, does), Brightness(), tmp_path / "s", skip_bad=True)


def test_a_process_that_is_killed_while_features_are_computed_is_an_error_too(tmp_path, hasty):
    class Slow(Brightness):
        def forward(self, batch):
            deadline = time.monotonic() + 1
            while time.monotonic() < deadline:  # PyTorch's own handler would raise in here
                time.sleep(0.01)
            return batch

    with pytest.raises(OutOfMemory, match="while it was reading sample 'c35'"):
        extract_stream(Odd(35, kill_later), Slow(), tmp_path / "s")


def deadly(samples):
    for sample in samples:
        if sample.image().getpixel((0, 0)) == (35, 35, 35):
            kill()
    return mean_colours(samples)


def deadly_at_once(samples):
    images = [sample.image() for sample in samples]
    if any(image.getpixel((0, 0)) == (35, 35, 35) for image in images):
        kill()
    return mean_colours(samples)


@pytest.mark.parametrize(
    ("preprocess", "what"), [(deadly, "sample 'c35'"), (deadly_at_once, "8 samples, 'c32' to 'c39'")]
)
def test_a_process_killed_while_preprocessing_names_the_sample_or_the_batch(tmp_path, hasty, preprocess, what):
    backbone = Brightness()
    backbone.preprocess = preprocess
    with pytest.raises(OutOfMemory, match=f"while it was preprocessing {what}"):
        extract_stream(Odd(-1, None), backbone, tmp_path / "s")


@pytest.mark.parametrize("odd", [0, 35])
def test_a_sample_that_is_read_for_ever_is_named_and_its_process_ended(tmp_path, hasty, odd):
    before = set(multiprocessing.active_children())
    began = time.monotonic()
    with pytest.raises(StorageError, match=f"reading sample 'c{odd}' has taken more than 1 seconds") as error:
        extract_stream(Odd(odd, partial(time.sleep, 600)), Brightness(), tmp_path / "s", skip_bad=True)
    assert "check that the disk or the network answers" in error.value.hint
    assert time.monotonic() - began < 30
    while set(multiprocessing.active_children()) != before:
        assert time.monotonic() - began < 30
        time.sleep(0.05)


def test_samples_that_are_slow_but_come_are_waited_for(tmp_path, hasty):
    class Slow(Odd):
        def __getitem__(self, index):
            return Sample(self.ids[index], partial(slowly, index, 0.7 if index in (33, 34, 35) else 0))

    assert extract_stream(Slow(-1, None), Brightness(), tmp_path / "s").skipped == ()


def reader_of(dataset, preprocess=mean_colours, **kwargs):
    return BatchReader(dataset, {"s": preprocess}, "image", **kwargs)


TENS = [ItemBatch(list(range(low, low + 10)), ("s",)) for low in range(0, FORTY, 10)]


def test_a_batch_that_gets_lost_is_an_error(hasty, monkeypatch, capfd):
    """As when the thread of a queue cannot send it."""
    monkeypatch.setattr(PreprocessedBatch, "__reduce__", partial(refuse, errno.EMFILE), raising=False)
    with pytest.raises(StorageError, match="a batch of samples got lost on its way from a loading process"):
        list(load(reader_of(Odd(-1, None)), TENS, workers=2, pin=False))


@contextlib.contextmanager
def few_files(more):
    """Let this process, and those that it starts, open so many files more."""
    resource = pytest.importorskip("resource", reason="Windows has no such limit")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with open(os.devnull, "rb") as next_one:  # files are numbered without gaps only below this
        resource.setrlimit(resource.RLIMIT_NOFILE, (next_one.fileno() + more, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("more", [1, 8, 12, 16, 19, 26, 33, 40, 50])
def test_few_open_files_load_all_samples_or_end_in_an_error_that_names_the_limit(hasty, capfd, more):
    streams = ("s", "t", "u")
    reader = BatchReader(Odd(-1, None), dict.fromkeys(streams, mean_colours), "image")
    batches = [ItemBatch(batch.samples, streams) for batch in TENS]
    with warnings.catch_warnings(), few_files(more):
        warnings.filterwarnings("ignore", "one thread loads all images")
        try:
            found = [batch.failure or sum(batch.readable) for batch in load(reader, batches, workers=2, pin=False)]
        except (StorageError, RuntimeError, OSError) as error:
            found = [fault(error, "load images") if not isinstance(error, StorageError) else error]
    gone = [one for one in found if not isinstance(one, int)]
    assert found == [10, 10, 10, 10] or "the limit of open files is" in gone[0].message
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EDQUOT, errno.ENOSPC, errno.EACCES, errno.ENOTCONN])
@pytest.mark.parametrize("odd", [0, 35])
def test_what_the_machine_refuses_is_never_skipped_as_bad_data(tmp_path, number, odd):
    with pytest.raises(StorageError, match=f"read the image of sample 'c{odd}'"):
        extract_stream(Odd(odd, partial(refuse, number)), Brightness(), tmp_path / "s", skip_bad=True)


def test_a_plugin_that_takes_a_refusal_for_bad_data_does_not_make_it_so(tmp_path):
    with pytest.raises(StorageError, match="cannot read sample 'c35': Input/output error"):
        extract_stream(Odd(35, partial(refuse_as_bad, errno.EIO)), Brightness(), tmp_path / "s", skip_bad=True)
    bad = extract_stream(Odd(35, partial(refuse_as_bad, errno.ENOENT)), Brightness(), tmp_path / "t", skip_bad=True)
    assert bad.skipped == ("c35",)


def test_a_lack_of_memory_is_never_skipped_as_bad_data(tmp_path):
    with pytest.raises(OutOfMemory, match="read the image of sample 'c35': cannot allocate 9 GiB"):
        extract_stream(Odd(35, no_memory), Brightness(), tmp_path / "s", skip_bad=True)


def greedy(samples):
    if any(sample.id == "c35" for sample in samples):
        torch.empty(2**55)
    return mean_colours(samples)


def test_preprocessing_that_lacks_memory_names_the_samples_and_their_size(tmp_path):
    backbone = Brightness()
    backbone.preprocess = greedy
    with pytest.raises(OutOfMemory) as error:
        extract_stream(Odd(-1, None), backbone, tmp_path / "s", skip_bad=True)
    assert "preprocess 8 samples, 'c32' to 'c39' (up to 4 x 4 pixels) for stream 's'" in error.value.message
    assert "tried to allocate" in error.value.message


def test_a_dataset_that_vanishes_is_not_skipped_sample_by_sample(photos, tmp_path):
    dataset = ImageFolder(ImageFolderParams(root=str(photos)), "train")

    class Unmounted(Brightness):
        def forward(self, batch):
            if photos.exists():
                photos.rename(tmp_path / "gone")
            return batch

    read_later = [ItemBatch([number], ("s",)) for number in range(len(dataset))]
    extractor = FeatureExtractor({"s": Unmounted()}, "image", ComputeOptions(skip_bad=True))
    extractor.batch_size(dataset, [0])
    with pytest.raises(StorageError, match=r"cannot be read now: the image of .* image not found"):
        list(extractor(dataset, read_later))


def test_a_dataset_that_vanished_since_the_first_shards_is_not_skipped(photos, tmp_path):
    dataset = ImageFolder(ImageFolderParams(root=str(photos)), "train")
    extract_stream(dataset, Brightness(), tmp_path / "s", shard_rows=8, share=Share(0, 2))
    photos.rename(tmp_path / "gone")
    with pytest.raises(StorageError, match=r"cannot be read now: the image of .* image not found"):
        extract_stream(dataset, Brightness(), tmp_path / "s", shard_rows=8, skip_bad=True)


def test_a_missing_image_is_skipped_while_the_others_are_there(photos, tmp_path):
    dataset = ImageFolder(ImageFolderParams(root=str(photos)), "train")
    for number in (3, 4, 40):
        (photos / dataset.groups[number]).unlink()
    manifest = extract_stream(dataset, Brightness(), tmp_path / "s", skip_bad=True)
    assert manifest.skipped == tuple(dataset.ids[number] for number in (3, 4, 40))


def test_an_image_beyond_the_limits_is_skipped_as_bad_data(tmp_path):
    dataset = Odd(35, partial(Image.new, "L", (50, 1)))
    extractor = FeatureExtractor(
        {"s": Brightness()}, "image", ComputeOptions(skip_bad=True, limits=ImageLimits(side_ratio=20))
    )
    [batch] = extractor(dataset, [ItemBatch([34, 35, 36], ("s",))])
    assert batch.readable == [True, False, True]


class Broken(Odd):
    def __getitem__(self, index):
        return super().__getitem__(index) if index != self.odd else {}[index]


def test_a_fault_of_the_dataset_names_the_sample_and_keeps_its_traceback(tmp_path):
    with pytest.raises(PluginError, match="cannot read sample 'c35': KeyError: 35"):
        extract_stream(Broken(35, None), Brightness(), tmp_path / "s", skip_bad=True)
    extractor = FeatureExtractor({"s": Brightness()}, "image", ComputeOptions(skip_bad=True))
    with pytest.raises(PluginError, match="cannot read sample 'c35': KeyError: 35") as error:
        list(extractor(Broken(35, None), [ItemBatch([34, 35], ("s",))]))
    assert "in __getitem__" in str(error.value.__cause__)


def faulty(samples):
    if len(samples) > 1:
        raise ValueError("only one at a time")
    return mean_colours(samples)


def test_a_stream_that_fails_on_several_samples_but_on_none_alone_is_at_fault_itself(tmp_path):
    backbone = Brightness()
    backbone.preprocess = faulty
    with pytest.raises(PluginError, match="stream 's' cannot preprocess 32 samples, 'c0' to 'c31': ValueError: only"):
        extract_stream(Odd(-1, None), backbone, tmp_path / "s", skip_bad=True)


IN_A_CONTAINER = """
import subprocess, sys
from pathlib import Path
from tests.extraction.test_extract import Brightness, extract_stream, mean_colours
from tests.extraction.test_loading import Odd

class Large(Brightness):
    width = 3 * 2**16

    def __init__(self):
        self.preprocess = large

def large(samples):
    return mean_colours(samples).repeat(1, 2**16)

for size in ("20m", "16k"):
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", "/dev/shm"], check=True)
    extract_stream(Odd(-1, None), Large(), Path(sys.argv[1]) / size)
"""


@pytest.mark.slow
def test_loading_needs_no_shared_memory(tmp_path):
    """Docker gives 64 MB, and a batch of two streams takes 45. Here a batch takes 25.

    20 MB hold the second batch, which is smaller, but not the first. 16 kB do not even hold the semaphores of a queue.
    """
    inside = ["unshare", "-rm"]
    if not shutil.which("unshare") or subprocess.run([*inside, "mount", "-t", "tmpfs", "tmpfs", "/dev/shm"]).returncode:
        pytest.skip("this machine does not allow a mount in a user namespace")
    command = [*inside, sys.executable, "-c", IN_A_CONTAINER, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "one thread loads all images" in done.stderr
    expected = mean_colours([Odd(-1, None)[row] for row in range(FORTY)])
    for size in ("20m", "16k"):
        assert torch.equal(open_streams({"s": tmp_path / size}).in_memory()["s"][:, -3:], expected)


@pytest.mark.slow
def test_processes_that_are_spawned_load_too(hasty, monkeypatch):
    """As on macOS and Windows."""
    spawning = multiprocessing.get_context("spawn")
    monkeypatch.setattr(multiprocessing.context._default_context, "_actual_context", spawning)
    monkeypatch.setattr(loading, "SAMPLE_SECONDS", 60)
    (batch,) = load(reader_of(Odd(-1, None)), TENS[:1], workers=1, pin=False)
    assert torch.equal(batch.inputs["s"], mean_colours(list(Odd(-1, None))[:10]))
    with pytest.raises(OutOfMemory, match="reading sample 'c13'"):
        list(load(reader_of(Odd(13, kill)), TENS[:2], workers=1, pin=False))


def test_an_extraction_process_that_is_killed_says_where():
    assert "was killed in stream 'a'" in str(_death(-9, "a"))
    assert isinstance(_death(-9, "a"), OutOfMemory)
    assert "ended with code 3 in stream 'a'" in str(_death(3, "a"))


@pytest.fixture
def no_processes(monkeypatch):
    """A machine that starts no more processes."""

    def refused(*_):
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(multiprocessing.Process, "start", refused)


def test_without_processes_a_thread_loads(hasty, no_processes):
    with pytest.warns(UserWarning, match="one thread loads all images, since no process can be started"):
        found = list(load(reader_of(Odd(-1, None)), TENS, workers=2, pin=False))
    assert torch.equal(torch.cat([one.inputs["s"] for one in found]), mean_colours(list(Odd(-1, None))[:FORTY]))


def test_a_thread_has_a_time_limit_too(hasty, no_processes):
    released = threading.Event()
    dataset = Odd(15, released.wait)
    with warnings.catch_warnings(action="ignore"), pytest.raises(StorageError, match="reading sample 'c15' has taken"):
        list(load(reader_of(dataset), TENS, workers=2, pin=False))
    released.set()


DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]
TENSORS = st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 5), min_size=1, max_size=4)).map(
    lambda drawn: torch.randint(0, 2, drawn[1]).to(drawn[0])
)
INPUTS = st.dictionaries(
    st.text(max_size=5), TENSORS | st.dictionaries(st.text(max_size=5), TENSORS, max_size=3), max_size=3
)


@settings(max_examples=20, deadline=None)
@given(INPUTS, st.lists(st.booleans(), max_size=3))
def test_a_batch_that_takes_the_pipe_comes_back_whole(inputs, readable):
    batch = PreprocessedBatch(inputs, readable, [BadSample("broken", hint="mend")], tuple(inputs))
    again = _Packed.of(batch).unpacked()
    assert again[1:] == batch[1:]
    assert list(again.inputs) == list(inputs)
    for name, one in inputs.items():
        pairs = (
            [(one, again.inputs[name])]
            if not isinstance(one, dict)
            else [(one[key], again.inputs[name][key]) for key in one]
        )
        assert all(torch.equal(before, after) and before.dtype == after.dtype for before, after in pairs)


def test_tensors_that_share_memory_take_the_pipe_too():
    whole = torch.arange(6.0)
    batch = PreprocessedBatch({"a": whole[:4], "b": whole[2:], "c": whole.view(2, 3).T}, [True], [], ("a", "b", "c"))
    again = _Packed.of(batch).unpacked().inputs
    assert all(torch.equal(again[name], batch.inputs[name]) for name in "abc")
