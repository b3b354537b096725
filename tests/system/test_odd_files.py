"""A pipe, a socket or a device in place of a file is refused at once: opening it could wait for ever."""

import os
import signal
import socket
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sparc.errors import BadSample, InvalidConfig, MissingData
from sparc.interchange.feature_files import open_source
from sparc.plugins import read_weights
from sparc.session.files import read_options
from sparc.system.files import read_json, sha256
from sparc.system.refusals import reading
from sparc_plugins.coco import open_image as open_coco
from sparc_plugins.hf_dataset import open_image as open_hf
from sparc_plugins.image_folder import ImageFolderParams, _identify, read_index
from sparc_plugins.image_folder.images import open_image
from sparc_plugins.open_images import open_image as open_open_images

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes in folders")


@contextmanager
def soon():
    """Fail a block that waits."""

    def stop(number, frame):
        raise AssertionError("it waits for the pipe")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 5)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def hf(path):
    return open_hf([{"image": {"bytes": None, "path": path.name}}], 0, "image", str(path.parent))


def features_with_ids(path):
    np.save(path.parent / "features.npy", np.ones((2, 3)))
    return open_source(path.parent / "features.npy", path)


READERS = {
    "run.toml": read_options,
    "samples.csv": lambda path: read_index(ImageFolderParams(root=str(path.parent))),
    "x.npy": open_source,
    "x.npz": open_source,
    "x.h5": open_source,
    "x.pt": open_source,
    "x.parquet": open_source,
    "x.safetensors": open_source,
    "ids.txt": features_with_ids,
    "ids.json": features_with_ids,
    "model.safetensors": read_weights,
    "model.bin": read_weights,
    "any": sha256,
    "config.json": lambda path: read_json(path, what="the file"),
}
IMAGES = {"coco": lambda path: open_coco(path.parent, path.name), "open-images": open_open_images, "hf": hf}
IMAGES |= {"image-folder": lambda path: open_image(path.parent, path.name)}


@pytest.mark.parametrize("name", READERS)
def test_a_pipe_is_no_file(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with soon(), pytest.raises(InvalidConfig, match="expected a file, found a pipe") as error:
        READERS[name](tmp_path / name)
    assert error.value.hint == "save what it holds as a file, and give that file"


@pytest.mark.parametrize("name", IMAGES)
def test_a_pipe_is_no_image_and_can_be_skipped(tmp_path, name):
    os.mkfifo(tmp_path / "a.png")
    with soon(), pytest.raises(BadSample, match=r"a\.png: expected a file, found a pipe"):
        IMAGES[name](tmp_path / "a.png")


def test_a_listed_image_that_is_a_pipe_is_found_before_anything_is_extracted(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    os.mkfifo(tmp_path / "b.png")
    (tmp_path / "samples.csv").write_text("image,caption\na.png,x\nb.png,y\n")
    with soon(), pytest.raises(MissingData, match=r"b\.png: expected a file, found a pipe"):
        _identify(ImageFolderParams(root=str(tmp_path)))


def test_a_socket_and_a_device_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the path of a socket may have about 100 characters
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("s")
        with pytest.raises(InvalidConfig, match="s: expected a file, found a socket"), reading("s"):
            pass
    with soon(), pytest.raises(InvalidConfig, match="/dev/zero: expected a file, found a device"):
        read_options(Path("/dev/zero"))


def test_files_folders_links_and_missing_paths_pass(tmp_path):
    (tmp_path / "a").write_text("x")
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "nowhere").symlink_to("b")
    for path in (tmp_path, *map(tmp_path.joinpath, ("a", "link", "nowhere", "missing", "x" * 300, "a/b"))):
        with reading(path):
            pass
