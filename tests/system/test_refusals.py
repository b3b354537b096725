"""The machine's refusals are told apart from damaged data, whichever library reports them."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from sparc.errors import BadSample, OutOfMemory, SparcError, StorageError
from sparc.plugins import Sample
from sparc.system.files import read_json, write_atomically
from sparc.system.refusals import file_limit, reading, refusal


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "no space left to read x"),
        (errno.EDQUOT, "no space left to read x"),
        (errno.EACCES, "cannot read x: Permission denied"),
        (errno.EIO, "cannot read x: Input/output error"),
        (errno.ESTALE, "cannot read x: Stale file handle"),
        (errno.ENOTCONN, "cannot read x: Transport endpoint is not connected"),
        (errno.EAGAIN, "cannot read x: Resource temporarily unavailable; another program has it open"),
    ],
)
def test_a_number_of_the_operating_system_becomes_words(number, words):
    found = refusal(OSError(number, os.strerror(number)), "read x")
    assert isinstance(found, StorageError)
    assert found.message == words


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EMFILE, os.strerror(errno.EMFILE)),
        RuntimeError("Too many open files. Communication with the workers is no longer possible."),
    ],
)
def test_a_lack_of_open_files_names_their_limit(error):
    found = refusal(error, "read x")
    limit = file_limit()
    assert found.message == f"cannot read x: Too many open files; the limit of open files is {limit}"
    assert found.hint == "raise the limit of open files (ulimit -n 4096), or close other programs"


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("I/O error: Permission denied (os error 13)"),
        OSError("Unable to synchronously open file (unable to lock file, errno = 11, error message = 'x')"),
        ValueError("[Errno 5] Input/output error"),
    ],
)
def test_the_number_is_found_in_a_librarys_text(error):
    assert isinstance(refusal(error, "read x"), StorageError)


def test_the_cause_of_an_error_is_searched():
    error = ValueError("no archive")
    error.__cause__ = PermissionError(errno.EACCES, "Permission denied")
    assert isinstance(refusal(error, "read x"), StorageError)


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "No such file or directory"),
        ValueError("expected 4 columns"),
        OSError("image file is truncated"),
        EOFError(),
    ],
)
def test_a_missing_file_and_wrong_content_are_no_refusal(error):
    assert refusal(error, "read x") is None


def test_a_lack_of_memory_says_what_was_too_large():
    expected = r"not enough memory to read x: Unable to allocate 4\.00 EiB"
    with pytest.raises(OutOfMemory, match=expected) as raised, reading(Path("x")):
        np.empty(2**59, np.float64)
    assert "less data" in raised.value.hint
    assert isinstance(refusal(RuntimeError("DefaultCPUAllocator: can't allocate memory"), "x"), OutOfMemory)


def test_an_hdf5_file_that_a_writer_has_locked_is_no_damaged_file(tmp_path):
    path = tmp_path / "x.h5"
    code = f"import h5py\nfile = h5py.File({str(path)!r}, 'w')\nprint('open', flush=True)\ninput()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        writer.stdout.readline()
        with pytest.raises(StorageError, match="another program has it open"), reading(path):
            h5py.File(path, "r")
        writer.communicate(b"\n")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission_is_no_damaged_file(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("{}")
    path.chmod(0)
    with pytest.raises(StorageError, match="Permission denied"):
        read_json(path, what="the manifest")


def test_what_is_no_file_is_named_with_the_systems_words(tmp_path):
    with pytest.raises(StorageError, match="Is a directory"):
        read_json(tmp_path, what="the manifest")
    with pytest.raises(StorageError, match="Is a directory"):
        write_atomically(tmp_path, lambda path: path.write_text("x"))
    (tmp_path / "a").write_text("x")
    with pytest.raises(StorageError, match="Not a directory"):
        read_json(tmp_path / "a" / "b", what="the manifest")


def test_an_image_that_the_machine_refuses_is_no_bad_sample():
    def lost():
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    def broken():
        raise OSError("image file is truncated")

    def large():
        raise MemoryError

    with pytest.raises(StorageError, match="cannot read the image of sample 'a': Stale file handle"):
        Sample("a", lost).image()
    with pytest.raises(OutOfMemory, match="not enough memory to read the image of sample 'a'"):
        Sample("a", large).image()
    with pytest.raises(BadSample, match="truncated"):
        Sample("a", broken).image()


def test_colours_and_control_characters_of_libraries_do_not_reach_the_terminal():
    error = SparcError("weights\x1b[1m only\x1b[0m\nload\tfailed\x07", hint="see \x1b[31mred")
    assert error.message == "weights only load failed "
    assert error.hint == "see red"


def test_what_the_loader_and_onednn_say_about_memory_is_a_lack_of_memory():
    for error in (
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        RuntimeError("could not create a primitive"),
    ):
        assert isinstance(refusal(error, "go on"), OutOfMemory)
    forbidden = ImportError("x.so: failed to map segment from shared object: Operation not permitted")
    assert refusal(forbidden, "go on") is None


def test_a_path_that_the_error_knows_is_named():
    error = PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/data/a")
    assert refusal(error, "go on").message == "cannot go on (/data/a): Permission denied"


def test_a_name_that_no_file_can_have_is_a_missing_file(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    for path in (tmp_path / ("x" * 300), tmp_path / "loop"):
        with pytest.raises(FileNotFoundError), reading(path):
            path.read_bytes()
        with pytest.raises(OSError, match=r"too long|symbolic links") as raised:
            path.read_bytes()
        assert refusal(raised.value, "read x") is None
