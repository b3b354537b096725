"""The identity of a dataset's files by their content: a copy elsewhere, with other times, is the same."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import zlib
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal

from sparc.errors import MissingData
from sparc.system.files import sha256
from sparc.system.names import same_name
from sparc.system.refusals import odd_kind, reading

Digest = Literal["sample", "all"]
"""Part of the content that is read: a sample of blocks, or all of it."""
FILES, BLOCKS, BLOCK = 128, 8, 1 << 16
"""At most 128 files are sampled, each by 8 blocks of 64 KiB: 64 MiB in all."""


def identify_files(
    root: Path, files: Iterable[str | Path] | Mapping[str, int | None], digest: Digest = "sample"
) -> str:
    """Return a digest of the files' names below `root`, their sizes, and a sample of their content, or all of it.

    A mapping holds the size of each file, which is then not looked up; None: it is.

    The sample is drawn by the names, so equal folders give equal digests. A change that keeps a file's size and lies
    outside of the sample goes unnoticed; `digest="all"` notices any change.

    Raises StorageError; MissingData for what is no file any more.
    """
    start = os.path.join(root, "")
    sizes = files if isinstance(files, Mapping) else {}
    found = _named(start, [os.fspath(path) for path in files])
    sampled = set(sorted([name for name, _ in found], key=_draw)[:FILES])
    rows = []
    for name, path in found:
        try:
            known = sizes.get(path)
            size = _size(path) if known is None else known
            read = digest == "all" or name in sampled
            rows.append((name, size, _digest(path, size, digest) if read else ""))
        except FileNotFoundError as error:
            raise MissingData(
                f"{path} does not exist any more, or is a link to a file that does not",
                hint="restore it, or wait until the folder no longer changes, and run the same command again",
            ) from error
    return f"sha256:{hashlib.sha256(json.dumps(rows).encode()).hexdigest()}"


def _named(start: str, paths: Sequence[str]) -> list[tuple[str, str]]:
    """Return the name of each file below the folder `start`, in one spelling, and its path, by name."""
    if "".join(paths).isascii() and os.sep == "/" and all(path.startswith(start) for path in paths):
        return [(path[len(start) :], path) for path in sorted(paths)]
    return sorted((same_name(path.removeprefix(start).replace(os.sep, "/")), path) for path in paths)


def _draw(name: str) -> int:
    return zlib.crc32(name.encode() if name.isascii() else os.fsencode(name))


def _size(path: str) -> int:
    """Return the size of a file. Raises MissingData for what is no file, and StorageError."""
    try:
        status = os.stat(path)
    except OSError:
        with reading(path):  # words the error
            raise
    if not stat.S_ISREG(status.st_mode):
        raise MissingData(f"{path}: expected a file, found {odd_kind(path) or 'a folder'}", hint="remove or replace it")
    return status.st_size


def _digest(path: str, size: int, digest: Digest) -> str:
    with reading(path):
        return sha256(Path(path)) if digest == "all" else _sample(path, size)


def cache_key(files: Sequence[Path], digest: Digest = "sample", *more: object) -> str:
    """Return the key under which a cache keeps what was made of these files, and of `more`, which JSON can write.

    The key holds each file's absolute path, size, time and inode, and the content as `identify_files` sees it: files of
    equal names, sizes and times in two folders have different keys.

    Raises StorageError; FileNotFoundError if a file does not exist.
    """
    stamps = []
    for path in files:
        with reading(path):
            status = path.stat()
        name = os.path.abspath(path)
        stamps.append((name, status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns))
    content = _content(tuple(stamps), digest) if stamps else ""
    seen = [[os.fsencode(os.path.realpath(name)).hex(), size, time, inode] for name, size, time, inode, _ in stamps]
    return hashlib.sha256(json.dumps([seen, content, *more]).encode()).hexdigest()


@lru_cache(maxsize=64)
def _content(stamps: tuple[tuple[str, int, int, int, int], ...], digest: Digest) -> str:
    """Return the digest of files by their content, read once as long as their stamps do not change."""
    files = [Path(name) for name, *_ in stamps]
    return identify_files(Path(os.path.commonpath([path.parent for path in files])), files, digest)


def _sample(path: str, size: int) -> str:
    """Return the digest of evenly spaced blocks of a file, its first and last included, or of all of a small file."""
    if size <= BLOCKS * BLOCK:
        return sha256(Path(path))
    found = hashlib.sha256()
    with open(path, "rb") as file:
        for number in range(BLOCKS):
            file.seek(number * (size - BLOCK) // (BLOCKS - 1))
            found.update(file.read(BLOCK))
    return found.hexdigest()
