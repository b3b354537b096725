"""Processes that share an extraction: none computes what another does, and they do the work of slow and dead ones."""

import multiprocessing
import os
import signal
import time
from collections import Counter

import pytest
import torch

from sparc.extraction import parts, work
from sparc.extraction.features import ComputeOptions, FeatureExtractor
from sparc.extraction.plan import Share
from sparc.extraction.shards import Destination, StreamShards
from sparc.extraction.work import Work
from sparc.storage.store import part_paths, shard_path
from sparc.system.locks import LOCK, take
from sparc_plugins.image_folder import ImageFolder, ImageFolderParams

ROWS = 8
FORK = multiprocessing.get_context("fork")


class Bright:
    """Mean colour of an image; it computes a batch in some time, and kills its process after some batches."""

    width = 3

    def __init__(self, seconds=0.0, last=10**6):
        self.seconds, self.last = seconds, last

    @staticmethod
    def preprocess(samples):
        found = [sample.image().resize((1, 1)).getpixel((0, 0)) for sample in samples]
        return torch.tensor(found).float() + 1

    def forward(self, batch):
        time.sleep(self.seconds)
        if self.last == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.last -= 1
        return batch


@pytest.fixture
def dataset(photos):
    return ImageFolder(ImageFolderParams(root=str(photos)), "train")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(FeatureExtractor, "batch_size", lambda self, dataset, samples: 2)
    monkeypatch.setattr(FeatureExtractor, "workers", 0)
    monkeypatch.setattr(work, "POLL", 0.05)


def extracted(dataset, folder, share=work.WHOLE, backbone=None, on_rows=lambda done, total: None):
    destination = Destination(folder / "s", "bright", {}, "", "image-folder", "train")
    extractor = FeatureExtractor({"s": backbone or Bright()}, "image", ComputeOptions())
    place = {"s": destination}
    return Work(dataset, extractor, place, share=share, shard_rows=ROWS, on_rows=on_rows).run()["s"]


def process(dataset, folder, share, backbone):
    """Start an extraction that notes each shard and manifest that it writes, and its progress."""

    def run():
        torch.set_num_threads(1)
        log = (folder / f"log-{share.number}-{os.getpid()}").open("w", buffering=1)
        write, manifest = StreamShards.write, work.StreamShards.finish

        def noted(self, number, streams, computed):
            write(self, number, streams, computed)
            log.write(f"shard {number}\n")

        def finished(self, name):
            before = (folder / "s" / "manifest.json").exists()
            found = manifest(self, name)
            if found is not None and not before:
                log.write("manifest\n")
            return found

        StreamShards.write, StreamShards.finish = noted, finished
        extracted(dataset, folder, share, backbone, lambda done, total: log.write(f"rows {done} {total}\n"))
        os._exit(0)

    folder.mkdir(exist_ok=True)
    child = FORK.Process(target=run)
    child.start()
    return child


def logs(folder):
    """Lines of the logs by the number of the share."""
    return {int(path.name.split("-")[1]): path.read_text().splitlines() for path in folder.glob("log-*")}


def shards_of(lines):
    return [int(line.split()[1]) for line in lines if line.startswith("shard")]


def contents(folder):
    return {path.name: path.read_bytes() for path in (folder / "s").iterdir()}


def test_a_slow_process_is_helped_from_the_end_and_no_shard_is_computed_twice(dataset, tmp_path):
    extracted(dataset, tmp_path / "whole")
    both = [
        process(dataset, tmp_path / "two", Share(number, 2, helps=True), Bright(seconds))
        for number, seconds in ((0, 0.12), (1, 0.0))
    ]
    for one in both:
        one.join(30)
        assert one.exitcode == 0
    slow, fast = (logs(tmp_path / "two")[number] for number in (0, 1))
    count = -(-len(dataset) // ROWS)
    assert Counter(shards_of(slow) + shards_of(fast)) == Counter(range(count))
    helped = [number for number in shards_of(fast) if number % 2 == 0]
    assert helped == sorted(helped, reverse=True)
    assert helped[:2] == [6, 4]
    assert (slow + fast).count("manifest") == 1
    assert contents(tmp_path / "two") == contents(tmp_path / "whole")  # and no lock or part is left
    rows = [
        tuple(map(int, [line for line in lines if line.startswith("rows")][-1].split()[1:])) for lines in (slow, fast)
    ]
    assert all(done == total for done, total in rows)
    assert sum(total for _, total in rows) == len(dataset)


def test_shards_of_a_killed_process_are_computed_by_the_one_that_lives(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "KEEP_SECONDS", 0.0)
    extracted(dataset, tmp_path / "whole")
    killed = process(dataset, tmp_path / "two", Share(0, 2, helps=True), Bright(0.1, last=6))
    lives = process(dataset, tmp_path / "two", Share(1, 2, helps=True), Bright(0.05))
    killed.join(30)
    lives.join(30)
    assert (killed.exitcode, lives.exitcode) == (-signal.SIGKILL, 0)
    found = logs(tmp_path / "two")
    assert shards_of(found[0]) == [0]
    assert sorted(shards_of(found[1])) == list(range(1, -(-len(dataset) // ROWS)))
    assert contents(tmp_path / "two") == contents(tmp_path / "whole")


@pytest.mark.parametrize("size", [1, 3])
def test_a_restart_with_any_number_of_processes_goes_on_from_the_rows_that_dead_ones_kept(
    dataset, tmp_path, monkeypatch, size
):
    monkeypatch.setattr(parts, "KEEP_SECONDS", 0.0)
    extracted(dataset, tmp_path / "whole")
    for number in (0, 1):
        one = process(dataset, tmp_path / "two", Share(number, 2), Bright(last=6))
        one.join(30)
        assert one.exitcode == -signal.SIGKILL
    assert part_paths(tmp_path / "two" / "s", 2)
    for left in (tmp_path / "two").glob("log-*"):
        left.unlink()
    again = [process(dataset, tmp_path / "two", Share(number, size, helps=True), Bright()) for number in range(size)]
    for one in again:
        one.join(30)
        assert one.exitcode == 0
    written = [number for lines in logs(tmp_path / "two").values() for number in shards_of(lines)]
    assert sorted(written) == list(range(2, -(-len(dataset) // ROWS)))
    left = {name for name in contents(tmp_path / "two") if not name.startswith((LOCK, ".shard"))}
    assert left == set(contents(tmp_path / "whole"))


def test_a_share_that_was_asked_for_is_all_that_a_process_computes(dataset, tmp_path):
    assert extracted(dataset, tmp_path, Share(1, 2)) is None
    there = [number for number in range(-(-len(dataset) // ROWS)) if shard_path(tmp_path / "s", number).exists()]
    assert there == list(range(1, -(-len(dataset) // ROWS), 2))


def test_a_process_waits_for_a_shard_that_another_computes_and_says_for_whom(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(work, "QUIET", 0.0)
    lock = take(tmp_path / "s" / f"{LOCK}.shard-00003")
    said = []

    def hear(text):
        said.append(text)
        lock.release()

    destination = Destination(tmp_path / "s", "bright", {}, "", "image-folder", "train")
    extractor = FeatureExtractor({"s": Bright()}, "image")
    one = Work(dataset, extractor, {"s": destination}, share=Share(0, 2, helps=True), shard_rows=ROWS)
    assert one.go_on() == {"s": None}
    assert one.wait(hear)["s"].samples == len(dataset)
    assert said == [said[0]]
    assert f"lacks shard-00003, which process {os.getpid()} on " in said[0]


def test_a_damaged_shard_of_another_process_is_made_anew(dataset, tmp_path):
    extracted(dataset, tmp_path / "whole")
    assert extracted(dataset, tmp_path / "two", Share(1, 2)) is None
    damaged = shard_path(tmp_path / "two" / "s", 3)
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
    assert extracted(dataset, tmp_path / "two", Share(0, 2, helps=True)) is not None
    assert contents(tmp_path / "two") == contents(tmp_path / "whole")


def test_without_locks_a_process_computes_its_share_alone(dataset, tmp_path, monkeypatch):
    """As on Windows: two processes could compute the same shard."""
    monkeypatch.setattr(work, "HAS_LOCKS", False)
    assert extracted(dataset, tmp_path, Share(0, 2, helps=True)) is None
    assert not shard_path(tmp_path / "s", 1).exists()
    assert extracted(dataset, tmp_path, Share(1, 2, helps=True)) is not None
