"""Shards behind URLs, such as `s3://bucket/prefix`: listed by their server, and read from a cache of whole files."""

from __future__ import annotations

import contextlib
import fnmatch
import gzip
import hashlib
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

from sparc.plugins import (
    FileCache,
    InvalidConfig,
    MissingData,
    Problems,
    RemoteFile,
    below,
    cache_dir,
    can_list,
    describe_all,
    list_files,
    read_whole,
    reading,
    shown,
    write_atomically,
)

TAXONOMY = "taxonomy.json"
PATTERNS = "expected patterns as 'train-{000..099}.tar', relative to the folder"
"""Advice for a pattern that matches nothing."""


@dataclass(frozen=True, order=True)
class RemoteShard:
    """A shard behind a URL, and the cache that it is read from."""

    file: RemoteFile
    cache: FileCache

    @property
    def name(self) -> str:
        """Last part of the URL."""
        return self.file.name

    def __str__(self) -> str:
        return str(self.file)


Shard = Path | RemoteShard


@contextlib.contextmanager
def opened(shard: Shard) -> Iterator[IO[bytes]]:
    """Open a shard for reading. Raises FileNotFoundError for a local one that is gone, MissingData for a remote one.

    Raises StorageError and OutOfMemory as `reading`.
    """
    if isinstance(shard, RemoteShard):
        with shard.cache.open(shard.file) as file, reading(shard.cache.folder):
            yield file
    else:
        with reading(shard), shard.open("rb") as file:
            yield file


def remembered(shard: Shard, about: str, make: Callable[[], Any]) -> Any:
    """Return what `make` finds in a shard, as JSON has it; for a remote one from a cache, so that it is found once."""
    if not isinstance(shard, RemoteShard):
        return make()
    name = hashlib.sha256(json.dumps([shard.file.key, about]).encode()).hexdigest()[:32]
    path = cache_dir("webdataset", "shards", f"{name}.json.gz")
    with contextlib.suppress(OSError, ValueError, EOFError):  # an unreadable one is made again
        return json.loads(gzip.decompress(path.read_bytes()))
    found = make()
    data = gzip.compress(json.dumps(found).encode())
    write_atomically(path, lambda temporary: temporary.write_bytes(data))
    return found


def texts_of(shard: RemoteShard, places: Sequence[Sequence[int]]) -> dict[int, bytes]:
    """Return the content of small files in a shard by offset, from their offsets and sizes; the shard is read once."""

    def read_all() -> list[str]:
        with opened(shard) as file:
            return [_piece(file, offset, size).decode("latin-1") for offset, size in places]  # any bytes, as JSON

    found = remembered(shard, f"texts {[list(place) for place in places]}", read_all)
    return {place[0]: text.encode("latin-1") for place, text in zip(places, found, strict=True)}


def _piece(file: IO[bytes], offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)


@dataclass(frozen=True)
class RemoteFolder:
    """A folder of shards behind a URL."""

    url: str
    cache: FileCache
    skip: bool
    """True leaves out what a server refuses or does not have, with a warning."""

    def __str__(self) -> str:
        return shown(self.url)

    def tars(self) -> list[RemoteShard]:
        """Return the tar files that the server lists. Raises InvalidConfig for a web server, which has no lists."""
        if self.url.partition("?")[0].lower().endswith(".tar"):
            folder, _, name = shown(self.url).rpartition("/")
            raise InvalidConfig(
                f"webdataset: {shown(self.url)} is a shard, not a folder of shards",
                hint=f"--data-root {folder} and train={name}",
            )
        if not can_list(self.url):
            raise InvalidConfig(
                f"webdataset: {shown(self.url)} has no list of its files",
                hint="name the shards: train=train-{000..099}.tar, and test=...",
            )
        found = list_files(self.url)
        return [RemoteShard(found[name], self.cache) for name in sorted(found) if is_tar(name)]

    def matching(self, patterns: Sequence[str]) -> list[RemoteShard]:
        """Return the shards of patterns whose braces are expanded, in their order.

        Raises MissingData, with all that are missing or refused, unless `skip` is set.
        """
        problems, files = Problems(), dict[RemoteFile, None]()
        listed: dict[str, dict[str, RemoteFile] | MissingData] = {}
        alone: list[str] = []
        for pattern in patterns:
            folder, _, name = pattern.rpartition("/")
            if folder not in listed:
                listed[folder] = self._listed(folder)
            there = listed[folder]
            if isinstance(there, MissingData):
                if any(mark in name for mark in "*?["):
                    raise there
                alone.append(below(self.url, pattern))
            elif found := fnmatch.filter([one for one in sorted(there) if not one.startswith(".")], name):
                files.update(dict.fromkeys(there[one] for one in found))
            else:
                problems.add(MissingData(f"webdataset: {shown(self.url)} has no {pattern}", hint=PATTERNS))
        for one in describe_all(alone):
            if isinstance(one, MissingData):
                problems.add(one)
            else:
                files[one] = None
        if problems and not self.skip:
            raise problems.joined()
        if problems:
            some = "; ".join(one.message for one in problems.first[:3]) + ("; ..." if len(problems) > 3 else "")
            warnings.warn(f"webdataset: {len(problems)} shards are left out, bad_shards=skip: {some}", stacklevel=3)
        return [RemoteShard(file, self.cache) for file in files]

    def _listed(self, folder: str) -> dict[str, RemoteFile] | MissingData:
        """Return the files of a folder by name, or the error where the server does not list, or not to this user."""
        url = below(self.url, folder) if folder else self.url
        if not can_list(url):
            return MissingData(
                f"webdataset: {shown(url)} has no list of its files",
                hint="name the shards by braces: train=train-{000..099}.tar",
            )
        try:
            return list_files(url)
        except MissingData as error:  # a user may have the right to read, and none to list
            return error

    def taxonomy(self) -> Path | None:
        """Return a copy of the folder's `taxonomy.json`; None without it. Raises StorageError."""
        found = next(iter(describe_all([below(self.url, TAXONOMY)])))
        if isinstance(found, MissingData):
            return None
        path = cache_dir(
            "webdataset", "taxonomies", hashlib.sha256(repr(found.key).encode()).hexdigest()[:32], TAXONOMY
        )
        if not path.is_file():
            content = read_whole(found)
            write_atomically(path, lambda temporary: temporary.write_bytes(content))
        return path


def is_tar(name: str) -> bool:
    """Return True for the name of a tar file that is not hidden."""
    return name.lower().endswith(".tar") and not name.startswith(".")


def identify_remote(root: str, shards: Sequence[RemoteShard], *, whole: bool) -> str:
    """Return a digest of the shards' names below `root`, their sizes, and their stamps; `whole`: their content.

    Warns of shards about which the server says nothing but the size.
    """
    start = shown(root).rstrip("/") + "/"
    rows: list[tuple[str, int, str]] = []
    for shard in shards:
        stamp = str(remembered(shard, "sha256", partial(_digest, shard))) if whole else shard.file.stamp
        rows.append((str(shard).removeprefix(start), shard.file.size, stamp))
    if not all(stamp for _, _, stamp in rows):
        warnings.warn(
            f"webdataset: {start} gives no checksum, ETag or time of its files, so that a change that keeps the size "
            "goes unnoticed; digest=all notices it",
            stacklevel=3,
        )
    return f"sha256:{hashlib.sha256(json.dumps(sorted(rows)).encode()).hexdigest()}"


def _digest(shard: RemoteShard) -> str:
    with shard.cache.open(shard.file) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
