"""One owner per folder: an advisory lock on a file in it, which the system frees when its process ends in any way.

The file names its owner, for the message of whoever comes second. It is removed with the lock; one that a killed
process leaves is taken over. `flock` holds between machines on NFS and on most cluster file systems. Some mounts keep
locks to one machine: there a file that another machine left is never taken over, because nobody can tell whether that
process lives. The library filelock does not fit: it empties the file that names the owner.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sparc.errors import InUse, StorageError
from sparc.system.refusals import writing

try:
    import fcntl
except ImportError:  # Windows: there sparc takes no locks
    HAS_LOCKS = False
else:
    HAS_LOCKS = True

LOCK = ".sparc.lock"
PATIENCE = 0.3
"""Seconds to wait for a lock by default: whoever asks for its owner holds it for a moment."""
POLL = 0.05
"""Seconds between two attempts to take a lock."""
MOUNTS = Path("/proc/self/mountinfo")
"""Table of the mounts of this process; only Linux has one."""
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL}
_ONE_MACHINE = {
    "nfs": ("nolock", "local_lock=all", "local_lock=flock"),
    "nfs4": ("nolock", "local_lock=all", "local_lock=flock"),
    "lustre": ("localflock",),
    "cifs": ("nobrl",),
    "smb3": ("nobrl",),
    **dict.fromkeys(("9p", "fuse.sshfs", "fuse.s3fs", "fuse.rclone", "fuse.gcsfuse", "fuse.goofys"), ("",)),
}
"""Network file systems that keep locks to one machine: always, or with one of these options of the mount."""
_held: set[int] = set()
"""Descriptors of the locks of this process."""


@dataclass(frozen=True)
class Owner:
    """The process that holds a lock, as it described itself."""

    host: str = ""
    boot: str = ""
    """Identity of the running system: a new one with each start of the machine."""
    pid: int = 0
    since: str = ""
    command: str = ""

    @classmethod
    def me(cls) -> Owner:
        """Describe this process."""
        name = Path(sys.argv[0]).name if sys.argv else ""
        words = " ".join(["sparc" if name == "__main__.py" else name, *sys.argv[1:]])
        return cls(socket.gethostname(), _boot(), os.getpid(), time.strftime("%Y-%m-%d %H:%M:%S"), words[:200])

    @classmethod
    def read(cls, path: Path) -> Owner:
        """Return the owner that a lock file names; an empty one if it names none."""
        try:
            content = json.loads(path.read_text(encoding="utf-8", errors="replace"))
            texts = {name: str(content[name]) for name in ("host", "boot", "since", "command")}
            return cls(pid=int(content["pid"]), **texts)
        except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError):
            return cls()

    def __str__(self) -> str:
        """Name the process, its machine, its start and its command."""
        if not self.pid:
            return "another process"
        return f"process {self.pid} on {self.host}, started {self.since}: {self.command}"


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


class Lock:
    """A lock that this process holds."""

    def __init__(self, path: Path, descriptor: int) -> None:
        """Store the descriptor; `release` closes it."""
        self._path, self._descriptor = path, descriptor
        _held.add(descriptor)

    def alone(self) -> bool:
        """Make a shared lock exclusive if nobody else shares it, and return whether this worked.

        If it did not, the lock may be lost.
        """
        if HAS_LOCKS:
            with contextlib.suppress(OSError):
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
        return False

    def release(self) -> None:
        """Remove the file, unless others share the lock, then free the lock."""
        if self._descriptor not in _held:
            return
        if self.alone():
            with contextlib.suppress(OSError):
                self._path.unlink()
        _held.discard(self._descriptor)
        os.close(self._descriptor)


@contextlib.contextmanager
def owned(folder: Path, hint: str, *, patience: float = PATIENCE) -> Iterator[None]:
    """Own a folder inside the block; create it and its parents if they do not exist, and remove those that stay empty.

    Waits up to `patience` seconds for another owner. Raises InUse, with `hint`, and StorageError if the machine
    refuses, or has no locks.
    """
    with writing(folder):
        made = [one for one in (folder, *folder.parents) if not one.exists()]
    lock = None
    try:
        lock = take(folder / LOCK, patience=patience)
        if lock is None:
            raise in_use(folder, Owner.read(folder / LOCK), hint)
        yield
    finally:
        if lock is not None:
            lock.release()
        with contextlib.suppress(OSError):  # it has files
            for one in made:
                one.rmdir()


def in_use(folder: Path, owner: Owner, hint: str) -> InUse:
    """Return the error of a folder that another process works in."""
    return InUse(f"{folder} is in use by {owner}", hint=hint)


def take(path: Path, *, shared: bool = False, patience: float | None = PATIENCE) -> Lock | None:
    """Take the lock of a file, which is created with its folder; return None if another process keeps it.

    Waits up to `patience` seconds, or without end if that is None. Raises StorageError if the machine refuses.
    """
    began = time.monotonic()
    while True:
        with contextlib.suppress(FileNotFoundError):  # its owner has just removed the file or the folder: again
            with writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
            if (lock := _attempt(path, shared=shared)) is not None:
                return lock
            if patience is not None and time.monotonic() - began >= patience:
                return None
            time.sleep(POLL)


def holder(folder: Path) -> Owner | None:
    """Return the living process that owns a folder, or None. A lock file that a dead process left is removed."""
    path = folder / LOCK
    if not os.path.lexists(path):
        return None
    try:
        lock = _attempt(path, create=False)
    except (FileNotFoundError, StorageError):  # removed just now, or in a place in which no process can write
        return None
    if lock is None:
        return Owner.read(path)
    lock.release()
    return None


def _attempt(path: Path, *, shared: bool = False, create: bool = True) -> Lock | None:
    """Try once to take a lock. Raises FileNotFoundError if the file is removed meanwhile."""
    if not HAS_LOCKS:
        return Lock(path, os.open(os.devnull, os.O_RDWR))
    with _refused(path):
        descriptor = _opened(path, create=create)
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(descriptor), os.stat(path)):
                raise FileNotFoundError(path)
            if create:
                _sign(path, descriptor)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
    return Lock(path, descriptor)


def _sign(path: Path, descriptor: int) -> None:
    """Write this process into its lock file, or remove the file: a disk may be full."""
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(vars(Owner.me())).encode(), 0)
    except OSError:
        with contextlib.suppress(OSError):
            path.unlink()
        raise


@contextlib.contextmanager
def _refused(path: Path) -> Iterator[None]:
    """Raise StorageError for all that the machine refuses but a missing file."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in _NO_LOCKS:
            raise StorageError(
                f"the file system of {path.parent} has no locks, so two processes could write there at a time: "
                f"{os.strerror(error.errno or 0)}",
                hint="choose a folder on another disk (--out, --store), or mount this one with locks",
            ) from error
        with writing(path):
            raise


def _opened(path: Path, *, create: bool) -> int:
    """Open a lock file. Raises StorageError if another machine left it on a mount that keeps locks to one machine."""
    flags = os.O_RDWR | (os.O_CREAT if create else 0)
    if not _kept_to_one_machine(path.parent):
        return os.open(path, flags, 0o666)
    try:
        return os.open(path, flags | os.O_EXCL, 0o666) if create else os.open(path, flags)
    except FileExistsError:
        before, me = Owner.read(path), Owner.me()
        if not before.pid:  # its owner has just made it, and writes its name
            time.sleep(POLL)
            before = Owner.read(path)
        known = before.boot == me.boot or before.host == me.host  # of this system, or of this machine before it started
        if known and before.pid:
            return os.open(path, os.O_RDWR)
        raise StorageError(
            f"{path} was left by {before}, and locks of this mount do not reach other machines",
            hint=f"if that process has ended, remove {path}; to be safe, mount the folder with locks",
        ) from None


def _kept_to_one_machine(folder: Path) -> bool:
    """Return True if locks in a folder do not reach other machines that mount it."""
    kind, options = _mount(folder.resolve())
    return any(option in options or not option for option in _ONE_MACHINE.get(kind, ()))


def _mount(folder: Path) -> tuple[str, list[str]]:
    """Return the file system of a folder and the options of its mount; empty where the system does not say."""
    best: tuple[int, str, list[str]] = (-1, "", [])
    with contextlib.suppress(OSError):
        for line in MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
            mount, _, kind = line.partition(" - ")
            place = Path(mount.split()[4].replace("\\040", " "))
            if folder.is_relative_to(place) and len(place.parts) >= best[0]:
                name, _, options = kind.split(maxsplit=2)
                best = (len(place.parts), name, [*mount.split()[5].split(","), *options.split(",")])
    return best[1], best[2]


def _forget() -> None:
    """Close the locks of the parent in a process that was forked: a lock ends with the process that took it."""
    for descriptor in _held:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
