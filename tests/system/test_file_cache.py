"""The cache of remote files keeps its limit, never removes what is read, and survives killed downloads."""

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from sparc.errors import InvalidConfig, MissingData, StorageError
from sparc.system import remote
from sparc.system.file_cache import FileCache
from sparc.system.liveness import hear
from sparc.system.remote import RemoteFile, describe, list_files

SIZE = 1000


@pytest.fixture
def files(tmp_path):
    """Four files of 1,000 bytes behind URLs; the content of each is its number."""
    folder = tmp_path / "server"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.tar").write_bytes(bytes([number]) * SIZE)
    return list(list_files(folder.as_uri()).values())


@pytest.fixture
def cache(tmp_path):
    return FileCache(tmp_path / "cache", 2 * SIZE)


def held(cache):
    """The numbers of the files in the cache."""
    return sorted(path.read_bytes()[0] for path in cache.folder.glob("*.file"))


def read(cache, file):
    with cache.open(file) as opened:
        return opened.read()


def test_files_that_were_not_read_for_longest_go_first(cache, files):
    for number in (0, 1, 0, 2):
        assert read(cache, files[number]) == bytes([number]) * SIZE
        time.sleep(0.01)
    assert held(cache) == [0, 2]
    assert sorted(path.suffix for path in cache.folder.iterdir()) == [".file", ".file"]


def test_a_file_in_use_is_never_removed_and_who_needs_its_room_waits(files, tmp_path):
    cache = FileCache(tmp_path / "cache", SIZE)
    got = []
    with cache.open(files[0]) as opened:
        waiting = threading.Thread(target=lambda: got.append(read(cache, files[1])))
        waiting.start()
        waiting.join(0.5)
        assert (got, held(cache)) == ([], [0])
        assert opened.read() == bytes(SIZE)
    waiting.join(10)
    assert (got, held(cache)) == ([b"\1" * SIZE], [1])


def test_a_file_larger_than_the_cache_is_refused_before_it_is_downloaded(files, tmp_path):
    with pytest.raises(InvalidConfig, match=r"0\.tar has 1,000 bytes, more than the cache, 999"):
        read(FileCache(tmp_path / "cache", SIZE - 1), files[0])
    assert not (tmp_path / "cache").exists()


def test_a_file_that_a_crash_left_too_short_is_downloaded_again(cache, files):
    read(cache, files[0])
    next(cache.folder.glob("*.file")).write_bytes(b"")
    assert read(cache, files[0]) == bytes(SIZE)


KILLED = """
import os, signal, sys
from pathlib import Path
import fsspec
from sparc.system.file_cache import FileCache
from sparc.system.liveness import hear
from sparc.system.remote import RemoteFile
fsspec.filesystem("memory").pipe("/a.tar", bytes(1000))
hear(lambda: os.kill(os.getpid(), signal.SIGKILL))  # at the first bytes
with FileCache(Path(sys.argv[1]), 1000).open(RemoteFile("memory://a.tar", 1000, "")):
    pass
"""


def test_a_killed_download_leaves_nothing_that_blocks_or_takes_room(tmp_path, files):
    cache = FileCache(tmp_path / "cache", SIZE)
    done = subprocess.run([sys.executable, "-c", KILLED, cache.folder], env=os.environ, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert [path.suffix for path in cache.folder.glob("*.part")] == [".part"]
    assert read(cache, files[0]) == bytes(SIZE)
    assert [path.suffix for path in cache.folder.glob("*.*")] == [".file"]


SEVERAL = """
import random, sys
from pathlib import Path
from sparc.system.file_cache import FileCache
from sparc.system.remote import list_files
files = list(list_files(sys.argv[2]).values())
order = random.Random(int(sys.argv[3]))
for _ in range(40):
    number = order.randrange(len(files))
    with FileCache(Path(sys.argv[1]), 2000).open(files[number]) as opened:
        assert opened.read() == bytes([number]) * 1000
"""


def test_several_processes_share_a_cache_that_is_too_small_for_them(cache, files):
    place = files[0].url.rpartition("/")[0]
    started = [
        subprocess.Popen([sys.executable, "-c", SEVERAL, cache.folder, place, str(number)], env=os.environ)
        for number in range(3)
    ]
    most = 0
    while any(process.poll() is None for process in started):
        sizes = []
        for path in cache.folder.glob("*.*"):
            with contextlib.suppress(FileNotFoundError):
                if path.suffix in (".file", ".part"):
                    sizes.append(path.stat().st_size)
        most = max(most, sum(sizes))
        time.sleep(0.002)
    assert [process.returncode for process in started] == [0, 0, 0]
    assert 0 < most <= 2 * SIZE + SIZE  # a glob may see a file that replaced another one
    assert sum(path.stat().st_size for path in cache.folder.glob("*.file")) <= 2 * SIZE


def test_a_long_download_gives_signs_of_life(cache):
    import fsspec

    fsspec.filesystem("memory").pipe("/long.tar", bytes(3 * SIZE))
    beats = []
    hear(lambda: beats.append(1))
    try:
        read(FileCache(cache.folder, 3 * SIZE), describe("memory://long.tar"))
    finally:
        hear(lambda: None)
    assert beats


def test_a_file_that_changed_since_it_was_listed_is_an_error(cache, files, tmp_path):
    (tmp_path / "server" / "0.tar").write_bytes(b"new" + bytes(SIZE - 3))
    with pytest.raises(StorageError, match="changed since it was listed"):
        read(cache, files[0])
    assert not list(cache.folder.glob("*"))


def test_secrets_in_a_url_are_neither_shown_nor_part_of_the_key():
    file = RemoteFile("https://me:secret@host/a/b.tar?X-Amz-Signature=abc", 3, "")
    assert (str(file), file.name) == ("https://host/a/b.tar", "b.tar")
    assert file.key == RemoteFile("https://host/a/b.tar?X-Amz-Signature=xyz", 3, "").key
    assert remote.below("https://host/a?sig=1", "b.tar") == "https://host/a/b.tar?sig=1"


@pytest.mark.skipif(importlib.util.find_spec("gcsfs") is not None, reason="gcsfs is installed")
def test_what_is_not_there_or_not_installed_is_said_with_what_to_do(tmp_path):
    with pytest.raises(MissingData, match="does not exist"):
        describe((tmp_path / "none.tar").as_uri())
    with pytest.raises(InvalidConfig, match="no library reads foo://"):
        describe("foo://a/b.tar")
    with pytest.raises(MissingData, match="a package that reads gs:// is not installed") as raised:
        describe("gs://a/b.tar")
    assert raised.value.hint == "pip install gcsfs"
