"""Notice files of features that change while a training reads them.

They are memory-mapped. A file that becomes shorter ends the process by SIGBUS as soon as what is missing is read, and
one that is written in place gives other features.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from sparc.errors import CorruptFile
from sparc.extraction import Job
from sparc.storage.manifest import how_to_remake, read_manifest
from sparc.system.files import sha256

EVERY = 1.0
"""Seconds between two looks."""


class Watch:
    """Looks at the sizes and times of the files of features, every second."""

    def __init__(self, jobs: Mapping[str, Mapping[str, Job]]) -> None:
        """Note the files of the training split, which `jobs` lists first."""
        self._digests: dict[Path, str] = {}
        self._seen: dict[Path, os.stat_result] = {}
        for job in next(iter(jobs.values())).values():
            for shard in read_manifest(job.directory).shards:
                path = job.directory / shard.file
                self._digests[path], self._seen[path] = shard.sha256, os.stat(path)
        self._next = time.monotonic() + EVERY

    def bus_errors(self) -> AbstractContextManager[None]:
        """Put into words, inside the block, that a file is cut between two looks."""
        return _bus_errors({path: seen.st_size for path, seen in self._seen.items()})

    def __call__(self) -> None:
        """Raise CorruptFile if a file was altered in place. One that was removed or replaced is still mapped whole."""
        if time.monotonic() < self._next:
            return
        for path, before in self._seen.items():
            try:
                now = os.stat(path)
            except OSError:
                continue
            if now.st_ino != before.st_ino or (now.st_size, now.st_mtime_ns) == (before.st_size, before.st_mtime_ns):
                continue
            if now.st_size == before.st_size and sha256(path) == self._digests[path]:  # somebody has only touched it
                self._seen[path] = now
                continue
            raise _altered(path, before.st_size, now.st_size)
        self._next = time.monotonic() + EVERY


def _altered(path: Path, before: int, now: int) -> CorruptFile:
    found = "other bytes" if before == now else f"{now:,} bytes instead of {before:,}"
    return CorruptFile(
        f"{path} was altered while the training read it: it has {found}",
        hint=f"{how_to_remake(path.parent)}; then resume",
    )


@contextlib.contextmanager
def _bus_errors(sizes: Mapping[Path, int]) -> Iterator[None]:
    """Have SIGBUS inside the block print the file that was cut, and end the process with code 1, instead of no word.

    Python's own handlers run between two instructions, to which a fault never returns, so this one is a C function.
    """

    def explain(number: int) -> None:
        message = "a file of features, or the disk with it, went away while the training read it"
        hint = "check the disk, then resume the run: the last checkpoint is kept"
        for path, size in sizes.items():
            with contextlib.suppress(OSError):
                if (now := os.stat(path).st_size) < size:
                    error = _altered(path, size, now)
                    message, hint = error.message, error.hint
                    break
        os.write(2, f"error: {message}\nhint:  {hint}\n".encode())
        os._exit(1)

    if not hasattr(signal, "SIGBUS"):
        yield
        return
    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(explain)
    install = ctypes.CDLL(None).signal
    install.argtypes, install.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    before = install(signal.SIGBUS, ctypes.cast(handler, ctypes.c_void_p))
    try:
        yield
    finally:
        install(signal.SIGBUS, before)
