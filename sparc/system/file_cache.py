"""A cache of whole remote files with a limit of size, for several processes at a time.

    <folder>/KEY.file          a file
    <folder>/KEY.SIZE.part     a download, which counts with its whole size
    <folder>/KEY.lock          owned by the process that downloads
    <folder>/room.lock         owned by the process that makes room

A reader holds a shared lock on the file itself. Whoever makes room removes only files that it can lock alone, those
that were not read for longest first. The system frees the locks of a killed process, so its download blocks nobody.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from sparc.errors import InvalidConfig
from sparc.system.files import sync_folder
from sparc.system.liveness import beat
from sparc.system.locks import POLL, Lock, take
from sparc.system.refusals import writing
from sparc.system.remote import RemoteFile, download

try:
    import fcntl
except ImportError:  # Windows: an open file cannot be removed there
    _HAS_LOCKS = False
else:
    _HAS_LOCKS = True

FILE, PART, LOCK, ROOM = ".file", ".part", ".lock", "room.lock"


@dataclass(frozen=True)
class FileCache:
    """Whole files in one folder, with at most `limit` bytes together."""

    folder: Path
    limit: int

    def check(self, file: RemoteFile) -> None:
        """Raise InvalidConfig for a file that is larger than the cache."""
        if file.size > self.limit:
            raise InvalidConfig(
                f"{file} has {file.size:,} bytes, more than the cache, {self.limit:,}",
                hint=f"give it more room: cache={-(-file.size // 10**9) * 2}GB",
            )

    @contextlib.contextmanager
    def open(self, file: RemoteFile) -> Iterator[BufferedReader]:
        """Open a file for reading, downloaded if it is not there. It is not removed inside the block.

        Raises as `check` and `remote.download`, and StorageError if the folder cannot be written.
        """
        opened = None
        while opened is None:
            opened = self._taken(file) or self._fetched(file)
        with opened:
            yield opened

    def _place(self, file: RemoteFile) -> Path:
        return self.folder / f"{hashlib.sha256(json.dumps(file.key).encode()).hexdigest()[:40]}{FILE}"

    def _taken(self, file: RemoteFile) -> BufferedReader | None:
        """Open and lock a file that is there; None if it is not, or was just removed."""
        path = self._place(file)
        try:
            opened = path.open("rb")
        except FileNotFoundError:
            return None
        try:
            _share(opened)
            status = os.fstat(opened.fileno())
            if status.st_size == file.size and os.path.samestat(status, os.stat(path)):
                os.utime(path)  # its place in the order of removal
                return opened
        except FileNotFoundError:
            pass
        except BaseException:
            opened.close()
            raise
        opened.close()
        with contextlib.suppress(OSError):
            if status.st_size != file.size:  # the machine stopped while it was written
                path.unlink()
        return None

    def _fetched(self, file: RemoteFile) -> BufferedReader | None:
        """Download and lock a file; None if another process has done so meanwhile."""
        self.check(file)
        path = self._place(file)
        lock = _waited(path.with_suffix(LOCK))
        part = path.with_suffix(f".{file.size}{PART}")
        try:
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_size == file.size:
                    return None
            self._reserve(part, file.size)
            download(file, part)
            with writing(path):
                opened = part.open("rb")
                _share(opened)  # before it can be seen and removed
                os.fsync(opened.fileno())
                part.replace(path)
                sync_folder(self.folder)
            return opened
        finally:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            lock.release()

    def _reserve(self, part: Path, size: int) -> None:
        """Make room for a download and count it; wait while all other files are in use."""
        alive = beat()
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        while True:
            lock = _waited(self.folder / ROOM)
            try:
                if self._make_room(size):
                    with writing(part):
                        part.touch()
                    return
            finally:
                lock.release()
            alive()
            time.sleep(POLL)

    def _make_room(self, size: int) -> bool:
        """Remove files that were not read for longest until `size` more bytes fit. Return False if they do not."""
        found = []
        for path in self.folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if path.suffix == FILE:
                    status = path.stat()
                    found.append((status.st_mtime_ns, status.st_size, path))
                elif path.suffix == PART and not _remove_left(path):
                    found.append((time.time_ns(), int(path.suffixes[-2][1:]), path))
        total = sum(length for _, length, _ in found)
        for _, length, path in sorted(found):
            if total + size <= self.limit:
                break
            if path.suffix == FILE and _remove_unused(path):
                total -= length
        return total + size <= self.limit


def _share(opened: BufferedReader) -> None:
    if _HAS_LOCKS:
        with contextlib.suppress(OSError):  # a file system without locks: there a removed file stays readable
            fcntl.flock(opened.fileno(), fcntl.LOCK_SH)


def _waited(path: Path) -> Lock:
    """Take a lock, however long another process keeps it: it downloads."""
    alive = beat()
    while (lock := take(path, patience=1.0)) is None:
        alive()
    return lock


def _remove_unused(path: Path) -> bool:
    """Remove a file unless a process reads it, and return whether it is gone."""
    try:
        with path.open("rb") as opened:
            if _HAS_LOCKS:
                fcntl.flock(opened.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _remove_left(part: Path) -> bool:
    """Remove the download of a process that was killed, and return True; False if a process downloads."""
    lock = take(part.with_name(f"{part.name.partition('.')[0]}{LOCK}"), patience=0)
    if lock is None:
        return False
    try:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
    finally:
        lock.release()
    return True
