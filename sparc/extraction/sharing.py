"""Extractions that meet in the store: one process computes a stream's features, the others wait and take them.

Processes that share the work, each with a share of its own, work at the same time: they share the lock of the folder,
and each owns the lock of its share, and of the shards that it computes (`work`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from sparc.errors import StorageError
from sparc.extraction.plan import Job, Share
from sparc.storage.manifest import is_complete
from sparc.system.files import remove_temporaries
from sparc.system.locks import LOCK, Lock, Owner, take


@contextlib.contextmanager
def locked(jobs: Sequence[Job], share: Share, say: Callable[[str], None]) -> Iterator[None]:
    """Own the folders of some jobs inside the block, or this process's share of them; `say` hears for whom it waits.

    Raises StorageError if the machine refuses, or has no locks.
    """
    with contextlib.ExitStack() as stack:
        for folder in sorted({job.directory for job in jobs}):  # one order for all processes, so none waits for another
            stack.callback(_remove_empty, folder)
            lock = _waited(folder / LOCK, share.of > 1, say)
            stack.callback(lock.release)
            if share.of > 1:
                stack.callback(_waited(folder / f"{LOCK}.{share.number}-of-{share.of}", False, say).release)
            else:
                _remove_left(folder)
            stack.callback(_sweep_alone, folder, lock)
        yield


def _waited(path: Path, shared: bool, say: Callable[[str], None]) -> Lock:
    """Take a lock, however long another process keeps it."""
    if (lock := take(path, shared=shared)) is None:
        say(f"{path.parent} is in use by {Owner.read(path)}; this process waits for its features")
        lock = take(path, shared=shared, patience=None)
    assert lock is not None
    return lock


def _remove_empty(folder: Path) -> None:
    """Remove a folder of the store and those above it, of the split and the dataset, if nothing was written."""
    with contextlib.suppress(OSError):
        for one in (folder, *folder.parents[:2]):
            one.rmdir()


def _sweep_alone(folder: Path, lock: Lock) -> None:
    """Remove the temporary files of killed processes, unless others work in the folder. The lock is released next."""
    if lock.alone():
        _remove_left(folder)


def _remove_left(folder: Path) -> None:
    """Remove temporary files and the locks of shares and shards, which nobody holds while a process owns the folder."""
    remove_temporaries(folder)
    for path in folder.glob(f"{LOCK}.*"):
        path.unlink(missing_ok=True)


def sweep(jobs: Sequence[Job]) -> None:
    """Remove what a process that was killed at its very end left beside complete features."""
    for job in jobs:
        left = [*job.directory.glob(".*.tmp"), *job.directory.glob(f"{LOCK}*"), *job.directory.glob("part-*")]
        if left:
            with contextlib.suppress(StorageError):  # the store may be read only
                if (lock := take(job.directory / LOCK)) is not None:
                    _remove_left(job.directory)
                    for part in job.directory.glob("part-*") if is_complete(job.directory) else ():
                        part.unlink(missing_ok=True)  # killed between a shard and the end of its parts
                    lock.release()
