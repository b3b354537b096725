"""Files are written as a whole, also where the system is stricter than Linux."""

import errno
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sparc.errors import StorageError
from sparc.system.files import check_no_folder, check_writable, read_json, write_json, write_output


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


def test_what_a_killed_process_left_of_an_output_is_removed_and_that_of_a_living_one_stays(tmp_path):
    code = "import os, signal, sys; from pathlib import Path; from sparc.system.files import write_output\n"
    code += "write_output(Path(sys.argv[1]), lambda path: os.kill(os.getpid(), signal.SIGKILL))"
    path = tmp_path / "found.html"
    assert subprocess.run([sys.executable, "-c", code, path]).returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    living = tmp_path / re.sub(r"-\d+-", f"-{os.getpid()}-", left.name)
    other = tmp_path / left.name.replace("found.html", "other.html")
    for one in (living, other):
        one.touch()
    write_output(path, lambda temporary: temporary.write_text("x"))
    assert {one.name for one in tmp_path.iterdir()} == {"found.html", living.name, other.name}


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="only Linux has files without a name")
def test_whether_a_folder_is_writable_is_found_without_a_file_that_a_kill_would_leave(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "touch", lambda path: pytest.fail("a file with a name"))
    check_writable(tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []


def test_a_folder_in_the_place_of_a_file_is_refused_before_the_work(tmp_path):
    check_no_folder(tmp_path / "none", tmp_path / "none" / "deeper")
    with pytest.raises(StorageError, match="Is a directory") as error:
        check_no_folder(tmp_path / "none", tmp_path)
    assert "a file is expected there" in error.value.hint
