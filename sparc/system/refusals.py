"""The machine's refusals in words: a full disk, a missing permission, a lost mount, a lock, a lack of memory.

Libraries hide the operating system's error in types and texts of their own. A reader asks `refusal` first: an error
that is no refusal says that the data are at fault.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Collection
from contextlib import AbstractContextManager
from pathlib import Path

from sparc.errors import InvalidConfig, OutOfMemory, SparcError, StorageError

_NUMBER = re.compile(r"\(os error (\d+)\)|\berrno ?= ?(\d+)|\[Errno (\d+)\]")
"""The operating system's number in the texts of safetensors, HDF5 and others."""
_MEMORY = re.compile(
    r"can't allocate memory|cannot allocate memory|not enough memory|out of memory|malloc of size"
    r"|failed to map segment from shared object$|could not create a primitive$",  # of the loader and of oneDNN
    re.IGNORECASE,
)
_MANY = os.strerror(errno.EMFILE)
"""Start of PyTorch's error, which is no OSError, for a process that can open no more files."""
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_LOCKED = {errno.EAGAIN, errno.EBUSY, errno.ETXTBSY, errno.EDEADLK, errno.ENOLCK}
_MANY_FILES = {errno.EMFILE, errno.ENFILE}
_NO_NAME = {errno.ENAMETOOLONG, errno.ELOOP}
"""Numbers of names that no file can have, such as an image as text, and of links that lead to themselves."""
CONTENT = {errno.ENOENT, errno.EINVAL, errno.EDOM, errno.ERANGE, errno.EILSEQ}
"""Numbers of a missing file and of wrong content."""
_AMISS = {*CONTENT, *_NO_NAME}
"""Numbers that say nothing about the machine: the file is missing, or its content is wrong."""
_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
"""Kinds of path that are neither a file nor a folder. Opening one may wait for ever, or its content never end."""


def refusal(error: BaseException, doing: str, passed: Collection[int] = _AMISS) -> SparcError | None:
    """Return `error` as a StorageError or OutOfMemory if the machine caused it, else None.

    `doing` is an infinitive with its object, such as `read a/b.tar`. The causes of `error` are searched too. The
    numbers in `passed` are no refusal: by default those of a missing file and of wrong content.
    """
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, MemoryError) or _lacks_memory(found):
            detail = " ".join(str(found).split())
            return OutOfMemory(
                f"not enough memory to {doing}{f': {detail}' if detail else ''}",
                hint="free some memory, use a machine with more of it, or less data at a time",
            )
        number = _number(found)
        if number is not None and number not in passed:
            path = getattr(found, "filename", None)
            about = f"{doing} ({path})" if isinstance(path, str | os.PathLike) and os.sep not in doing else doing
            message, hint = _said(number, about)
            return StorageError(message, hint=hint)
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)
    return None


def reading(path: str | Path) -> AbstractContextManager[None]:
    """Raise what the machine refuses inside the block as StorageError or OutOfMemory; other errors pass.

    A missing file and wrong content pass too: the caller knows what they mean. A name that no file can have is a
    missing file, FileNotFoundError, and content nested too deep to be parsed is a ValueError. A pipe, a socket or a
    device is refused as `check_kind` does.
    """
    check_kind(path)
    return _Worded("read", path, _AMISS)


def check_kind(path: str | Path) -> None:
    """Raise InvalidConfig for a pipe, a socket or a device. A missing path passes, and so does a folder."""
    if (found := odd_kind(path)) is not None:
        raise InvalidConfig(
            f"{path}: expected a file, found {found}", hint="save what it holds as a file, and give that file"
        )


def odd_kind(path: str | Path) -> str | None:
    """Return `a pipe`, `a socket` or `a device` if a path names one; None for anything else."""
    try:
        return _KINDS.get(stat.S_IFMT(os.stat(path).st_mode))
    except (OSError, ValueError):  # it does not exist, or no path can be named so: opening it says which
        return None


def writing(path: Path) -> AbstractContextManager[None]:
    """Raise any error of the operating system inside the block as StorageError or OutOfMemory; other errors pass."""
    return _Worded("write", path, ())


class _Worded(AbstractContextManager[None]):
    """Puts what the machine refuses into words. Samples are read in it one by one, so it does little without errors."""

    def __init__(self, verb: str, path: str | Path, passed: Collection[int]) -> None:
        self._verb, self._path, self._passed = verb, path, passed

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, Exception) or isinstance(error, SparcError):
            return
        if isinstance(error, OSError) and error.errno in _NO_NAME and error.errno in self._passed:
            raise FileNotFoundError(error.errno, error.strerror, error.filename) from error
        if self._passed and "\0" in str(self._path):  # no file has such a name
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self._path)) from error
        if isinstance(error, RecursionError):
            raise ValueError("it is nested too deep") from error
        if (found := refusal(error, f"{self._verb} {self._path}", self._passed)) is not None:
            raise found from error


def _lacks_memory(error: BaseException) -> bool:
    """Return True for a lack of memory that a library reports as RuntimeError or as an error of its own."""
    return not isinstance(error, OSError | SparcError) and _MEMORY.search(str(error)) is not None


def file_limit() -> int | None:
    """Return the number of files that this process may have open at a time; None if the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def _number(error: BaseException) -> int | None:
    """Return the operating system's number of an error, from its text if it is not an OSError."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    in_text = _NUMBER.search(str(error))
    if in_text is None:
        return errno.EMFILE if str(error).startswith(_MANY) else None
    return int(next(filter(None, in_text.groups())))


def _said(number: int, doing: str) -> tuple[str, str]:
    """Return message and hint for a number of the operating system."""
    if number in _FULL:
        return (
            f"no space left to {doing}",
            "free some space, or choose another disk (--store, --out), and run the same command again",
        )
    because = f"cannot {doing}: {os.strerror(number)}"
    if number in (errno.EISDIR, errno.ENOTDIR, errno.EEXIST):
        return because, "check the path: a file is expected there, or a folder where its parent is"
    if number in _FORBIDDEN:
        return because, "check the path and its permissions"
    if number in _LOCKED:
        return f"{because}; another program has it open", "wait until that program is done with it, or close it"
    if number in _NO_NAME:
        return because, "check the paths that you gave"
    if number in _MANY_FILES:
        limit = file_limit()
        return (
            because if limit is None else f"{because}; the limit of open files is {limit}",
            "raise the limit of open files (ulimit -n 4096), or close other programs",
        )
    return because, "check that the disk or the network folder is there and answers, and run the same command again"
