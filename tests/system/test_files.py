"""Files are written as a whole, also where the system is stricter than Linux."""

import errno
import os

import pytest

from sparc.system.files import read_json, write_json


@pytest.fixture
def as_on_windows(monkeypatch):
    """Refuse to sync a handle opened for reading, as Windows does."""
    fcntl = pytest.importorskip("fcntl", reason="Windows refuses by itself")
    sync = os.fsync

    def strict(handle):
        if fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        sync(handle)

    monkeypatch.setattr(os, "fsync", strict)


@pytest.mark.usefixtures("as_on_windows")
def test_a_file_is_synced_through_a_handle_that_may_write(tmp_path):
    write_json(tmp_path / "a.json", {"name": "Zoë", "猫": 1})
    assert read_json(tmp_path / "a.json", what="the file") == {"name": "Zoë", "猫": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
