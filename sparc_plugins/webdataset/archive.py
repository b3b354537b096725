"""Members of a tar file, with their positions: the files of concatenated archives, and links within an archive."""

from __future__ import annotations

import posixpath
import tarfile
from collections.abc import Iterator
from typing import IO, NamedTuple

from sparc.plugins import CorruptFile, InvalidConfig, MissingData
from sparc_plugins.webdataset.remote import Shard, opened, remembered

MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"(\xb5/\xfd": "zstd", b"PK\x03\x04": "zip"}
"""First bytes of compressed files."""
PIECE = 1 << 20
"""Bytes of padding that are read at a time."""
LINKS = 64
"""Most links that lead to a file one after the other."""


class Member(NamedTuple):
    """One file of an archive."""

    name: str
    offset: int
    """Position of the content; -1 if the content cannot be used."""
    size: int
    reason: str = ""
    """Reason why the content cannot be used."""


class _Link(NamedTuple):
    name: str
    target: str


def read_members(path: Shard) -> list[Member]:
    """Return the files of an archive in order. A link stands for the file in the archive that it leads to.

    Folders are left out. Nothing of a truncated archive is used, so that a dataset always has the same samples.

    Raises:
        CorruptFile: the file is not a tar file or is truncated.
        InvalidConfig: the file is compressed.
        MissingData, StorageError: the file does not exist, or the machine refuses to read it.
    """
    return [Member(*one) for one in remembered(path, "members", lambda: _read(path))]


def _read(path: Shard) -> list[Member]:
    try:
        with opened(path) as file:
            _refuse_compressed(file, path)
            return _resolved(list(_headers(file)))
    except FileNotFoundError as error:
        raise MissingData(f"{path} does not exist, or is a link to a file that does not", hint="restore it") from error
    except (tarfile.TarError, ValueError, OverflowError, OSError) as error:  # a size or a place that no file can have
        raise CorruptFile(
            f"{path} is truncated, or not a tar file: {error}",
            hint="download or write it again; or leave it out, train=PATTERN",
        ) from error


def _refuse_compressed(file: IO[bytes], path: Shard) -> None:
    start = file.read(6)
    file.seek(0)
    for magic, kind in MAGIC.items():
        if start.startswith(magic):
            raise InvalidConfig(
                f"{path}: expected a plain tar file, found {kind}",
                hint="decompress it to .tar, since sparc reads samples by their position",
            )


def _headers(file: IO[bytes]) -> Iterator[Member | _Link]:
    """Yield the files and links of all archives that a file holds one after the other. Raises tarfile.TarError."""
    while True:
        # A name that is not UTF-8 must still become distinct, writable text.
        with tarfile.open(fileobj=file, mode="r:", errors="backslashreplace") as tar:
            while (member := tar.next()) is not None:
                if member.size < 0 or tar.offset <= member.offset:  # tarfile would read the same headers for ever
                    raise tarfile.ReadError(f"the file '{member.name}' has a size of {member.size} bytes")
                tar.members.clear()  # type: ignore[attr-defined]  # it would keep all headers
                if found := _described(member):
                    yield found
            file.seek(tar.offset)
        # tarfile takes a truncated or altered header for the end.
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError(f"expected a file or the end mark at byte {tar.offset}")
        if not _skip_padding(file):
            return


def _described(member: tarfile.TarInfo) -> Member | _Link | None:
    name = member.name.removeprefix("./")
    if member.isdir():
        return None
    if member.islnk():
        return _Link(name, posixpath.normpath(member.linkname))
    if member.issym():
        return _Link(name, posixpath.normpath(posixpath.join(posixpath.dirname(member.name), member.linkname)))
    if member.issparse():
        return Member(name, -1, 0, "stored as sparse files (tar --sparse)")
    if not member.isreg():
        return Member(name, -1, 0, "devices or other special files")
    return Member(name, member.offset_data, member.size)


def _skip_padding(file: IO[bytes]) -> bool:
    """Move to the next block that is not zero. Return False if there is none."""
    while piece := file.read(PIECE):
        if rest := piece.lstrip(b"\0"):
            start = len(piece) - len(rest)
            file.seek(-len(piece) + start - start % tarfile.BLOCKSIZE, 1)
            return True
    return False


def _resolved(found: list[Member | _Link]) -> list[Member]:
    """Replace each link by the file that it leads to."""
    if not any(isinstance(one, _Link) for one in found):
        return [one for one in found if isinstance(one, Member)]
    by_name = {posixpath.normpath(one.name): one for one in reversed(found)}
    members = []
    for one in found:
        end, steps = one, 0
        while isinstance(end, _Link) and steps < min(len(found), LINKS):
            end, steps = (
                by_name.get(end.target, Member(one.name, -1, 0, "links that lead out of the archive")),
                steps + 1,
            )
        if isinstance(end, _Link):
            end = Member(one.name, -1, 0, "links in a circle")
        members.append(end._replace(name=one.name))
    return members
