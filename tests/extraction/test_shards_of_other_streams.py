"""Shards say for which stream and split they were written, so that an extraction signs none of another one."""

import json
import shutil

import pytest

from sparc.config import PluginRef
from sparc.errors import CorruptFile
from sparc.extraction.plan import JobOptions, Order, plan
from sparc.extraction.worker import run
from sparc.plugins.registry import discover
from sparc.storage.manifest import read_manifest, write_manifest
from sparc.storage.store import open_streams, read_shard, shard_path
from sparc.storage.tensor_files import write_tensors
from sparc.storage.verify import verify_stream

DATA = PluginRef(name="synthetic", alias="synthetic", params={"samples": 40, "held_out": 40})


def jobs_in(store, *seeds):
    streams = [PluginRef(name="synthetic", alias=f"s{seed}", params={"width": 6, "view": seed}) for seed in seeds]
    return plan(discover(), DATA, streams, root=store, options=JobOptions())["train"]


def extract(jobs):
    """Extract in this process."""
    events = []
    run(Order(jobs=list(jobs)), discover(), events.append)
    return events


def shard_of(job):
    return shard_path(job.directory, 0)


@pytest.fixture
def streams(tmp_path):
    """Two streams of the same samples and width, the first of which is extracted."""
    one, other = jobs_in(tmp_path / "store", 1, 2).values()
    extract([one])
    return one, other


@pytest.fixture
def expected(tmp_path, streams):
    """The shard of the second stream, as an extraction makes it that meets nothing."""
    (job,) = jobs_in(tmp_path / "elsewhere", 2).values()
    extract([job])
    return shard_of(job).read_bytes()


def test_a_shard_says_its_split_and_stream_and_has_the_same_bytes_in_any_store(streams, expected):
    one, other = streams
    assert read_shard(shard_of(one)).folder == f"train/{one.directory.name}"
    extract([other])
    assert shard_of(other).read_bytes() == expected


def test_a_shard_of_another_stream_with_the_same_samples_and_width_is_computed_again(streams, expected):
    one, other = streams
    other.directory.mkdir()
    shutil.copy(shard_of(one), shard_of(other))
    (message,) = [doubt.message for doubt in verify_stream(other.directory).doubts if doubt.is_error]
    assert message.startswith(f"{shard_of(other)} was written for the folder train/{one.directory.name}, so it is of")
    extract([other])
    assert shard_of(other).read_bytes() == expected
    assert read_manifest(other.directory).shards != read_manifest(one.directory).shards
    assert not verify_stream(other.directory).doubts


def test_a_shard_that_does_not_say_its_stream_is_taken_as_before(streams):
    one, other = streams
    found = read_shard(shard_of(one))
    other.directory.mkdir()
    samples = json.dumps({"ids": found.ids, "skipped": []}, ensure_ascii=False)
    write_tensors(shard_of(other), {"features": found.features.clone()}, {"samples": samples})
    old = shard_of(other).read_bytes()
    extract([other])
    assert shard_of(other).read_bytes() == old
    assert not verify_stream(other.directory).doubts


def test_the_folder_of_another_stream_in_the_place_of_this_one_is_refused(streams):
    one, other = streams
    shutil.copytree(one.directory, other.directory)
    with pytest.raises(CorruptFile, match=f"was written for the folder train/{one.directory.name}"):
        open_streams({"s": other.directory})
    ((is_error, message, _),) = verify_stream(other.directory).doubts
    assert is_error
    assert "is of another stream or split" in message
    manifest = read_manifest(one.directory)
    write_manifest(other.directory, manifest.model_copy(update={"backbone": "timm"}))
    with pytest.raises(CorruptFile, match="expected the backbone 'synthetic', found 'timm'"):
        _ = other.done


def test_a_folder_that_was_renamed_outside_of_a_store_is_read(streams, tmp_path):
    one, _ = streams
    shutil.copytree(one.directory, tmp_path / "mine")
    assert not verify_stream(tmp_path / "mine").doubts
    open_streams({"s": tmp_path / "mine"})
