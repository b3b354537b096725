"""What the machine refuses to read is not called damage, and nobody is told to remove it."""

import contextlib
import os

import pytest
import torch

from sparc.config import ExtractionOptions, SpaceConfig
from sparc.errors import CorruptFile, MissingData, StorageError
from sparc.extraction.plan import JobOptions, imported
from sparc.storage.checkpoint import SharedLatentSpace, load
from sparc.storage.latent_names import read_latent_names
from sparc.storage.manifest import IMPORTED, is_complete, read_manifest, write_manifest
from sparc.storage.run import Run
from sparc.storage.store import open_streams, read_shard, shard_path
from tests.storage.test_store import write_stream

IDS = [f"sample {number}" for number in range(10)]


@contextlib.contextmanager
def forbidden(path):
    """Take the permission to read a path away for the length of the block."""
    if not hasattr(os, "geteuid"):
        pytest.skip("this system has no permissions that a test could take away")
    if os.geteuid() == 0:  # root may read everything; `nobody` may not even enter pytest's folder
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)
        return
    mode = path.stat().st_mode
    path.chmod(0)
    try:
        yield
    finally:
        path.chmod(mode)


def unreadable(path):
    """Replace a file by one whose reading is an error of input and output."""
    if not os.path.exists("/proc/self/mem"):
        pytest.skip("this system has no file that exists and cannot be read")
    path.unlink()
    path.symlink_to("/proc/self/mem")


@pytest.fixture
def stream(tmp_path):
    return write_stream(tmp_path / "train" / "photo", torch.ones(10, 3), IDS)


@pytest.fixture
def space(tmp_path):
    directory = tmp_path / "space"
    SharedLatentSpace(SpaceConfig(streams={"a": 4, "b": 4}, n_latents=16, k=2)).save_pretrained(directory)
    return directory


@pytest.mark.parametrize("name", ["shard-00001.safetensors", "samples.json", "manifest.json"])
def test_a_file_of_a_stream_that_may_not_be_read_is_no_damaged_stream(stream, name):
    with forbidden(stream / name), pytest.raises(StorageError, match="Permission denied") as raised:
        open_streams({"photo": stream})
    assert "remove" not in raised.value.hint
    unreadable(stream / name)
    with pytest.raises(StorageError, match=rf"cannot read .*{name}: (Input/output error|No such device)") as raised:
        open_streams({"photo": stream})
    assert "remove" not in raised.value.hint


def test_a_shard_that_may_not_be_read_is_neither_missing_nor_damaged(stream):
    # safetensors calls it missing.
    with forbidden(shard_path(stream, 0)), pytest.raises(StorageError, match=r"cannot read .*shard-00000"):
        read_shard(shard_path(stream, 0))


def test_features_in_a_folder_that_may_not_be_listed_are_not_taken_for_missing(stream, tmp_path):
    with forbidden(stream), pytest.raises(StorageError, match="Permission denied"):
        is_complete(stream)
    options = JobOptions(**ExtractionOptions().model_dump())
    with forbidden(stream.parent), pytest.raises(StorageError, match="Permission denied"):
        imported(tmp_path, [], options)


def test_damaged_features_are_made_again_in_the_way_in_which_they_were_made(stream, tmp_path):
    path = shard_path(stream, 1)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(CorruptFile) as raised:
        open_streams({"photo": stream})
    assert raised.value.hint == f"remove {stream} to extract it again"
    write_manifest(stream, read_manifest(stream).model_copy(update={"dataset": IMPORTED}))
    again = f"remove {tmp_path} and import the features again: sparc import features"
    with pytest.raises(CorruptFile) as raised:
        open_streams({"photo": stream})
    assert raised.value.hint == again
    path.unlink()
    with pytest.raises(MissingData, match="a shard is missing") as raised:
        open_streams({"photo": stream})
    assert raised.value.hint == again
    (stream / "samples.json").unlink()
    with pytest.raises(MissingData, match="list of a stream's samples is missing") as raised:
        open_streams({"photo": stream})
    assert raised.value.hint == again
    for content, message in (('{"dataset": "imported"}', "is not a manifest"), ('{"data', "is not valid JSON")):
        (stream / "manifest.json").write_text(content)
        with pytest.raises(CorruptFile, match=message) as raised:
            open_streams({"photo": stream})
        assert raised.value.hint == again
    extracted = stream.rename(stream.with_name("photo-0123456789ab"))
    with pytest.raises(CorruptFile, match="is not valid JSON") as raised:
        open_streams({"photo": extracted})
    assert raised.value.hint == f"remove {extracted} to extract it again"


def test_a_checkpoint_that_may_not_be_read_is_no_damaged_checkpoint(space):
    path = space / "model.safetensors"
    for refused in (path, space):
        with forbidden(refused), pytest.raises(StorageError, match="Permission denied"):
            load(space)
    unreadable(path)
    with pytest.raises(StorageError, match=r"cannot read .*model.safetensors"):
        load(space)


def test_a_run_that_may_not_be_looked_into_is_neither_missing_nor_free(tmp_path):
    run = Run.create(tmp_path / "run")
    run.log({"step": 1})
    for look in (
        lambda: Run.open(run.path),
        lambda: Run.check_free(run.path),
        lambda: run.begun,
        lambda: run.finished,
    ):
        with forbidden(run.path), pytest.raises(StorageError, match="Permission denied"):
            look()
    with forbidden(run.metrics), pytest.raises(StorageError, match="Permission denied"):
        run.forget_metrics_after(0)


def test_a_table_of_latents_that_may_not_be_read_is_neither_missing_nor_damaged(tmp_path):
    path = tmp_path / "latents.csv"
    assert read_latent_names(path) == {}
    path.write_text("latent,name\n")
    with forbidden(path), pytest.raises(StorageError, match="Permission denied"):
        read_latent_names(path)


def test_a_space_whose_weights_are_not_finite_is_refused_with_the_tensor(tmp_path):
    space = SharedLatentSpace(SpaceConfig(streams={"a": 3}, n_latents=8, k=2))
    with torch.no_grad():
        space.decoder[0, 0] = torch.nan
    space.save_pretrained(tmp_path)
    with pytest.raises(CorruptFile, match="expected finite weights, found decoder, in which 1 of 24 numbers"):
        SharedLatentSpace.from_pretrained(tmp_path)
