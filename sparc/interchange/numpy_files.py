"""Read arrays of numpy: .npy and .npz."""

from __future__ import annotations

import contextlib
import math
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparc.errors import InvalidConfig
from sparc.interchange.arrays import NAMELESS, Array, Arrays, block_rows, in_memory, kind_of, plain_values, table

_MEMBER = ".npy"


@contextlib.contextmanager
def open_npy(path: Path) -> Iterator[Arrays]:
    """Open the one array of an .npy file, whose size is that of the array."""
    array = _described(path, path.name, lambda: path.open("rb"))
    if array.kind == "real":
        with path.open("rb") as stream:
            shape, _, dtype = _header(stream)
            found = path.stat().st_size - stream.tell()
        if found != (expected := dtype.itemsize * math.prod(shape)):
            raise ValueError(f"expected {expected} bytes of numbers, for {shape} of {dtype}, found {found}")
    if array.fortran and array.kind == "real":  # its rows are not contiguous
        yield {NAMELESS: in_memory(np.load(path, mmap_mode="r", allow_pickle=False))}
    else:
        yield {NAMELESS: array.described}


@contextlib.contextmanager
def open_npz(path: Path) -> Iterator[Arrays]:
    """Open the arrays of an .npz file. Blocks stream from the archive, compressed or not; checksums are verified."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(_MEMBER)]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise InvalidConfig(
                f"{path}: expected one array of a name, found two named '{twice}'", hint="write it again"
            )
        yield {
            name.removesuffix(_MEMBER): _described(path, name, partial(archive.open, name)).described for name in names
        }


class _Described(NamedTuple):
    described: Array
    fortran: bool

    @property
    def kind(self) -> str:
        """Return the kind of the array's numbers."""
        return self.described.kind


def _described(path: Path, name: str, opened: Callable[[], IO[bytes]]) -> _Described:
    """Describe an array in the format of .npy. Blocks are read from the stream, so they do not stay in memory."""
    with opened() as stream:
        shape, fortran, dtype = _header(stream)

    def whole() -> NDArray[Any]:
        with opened() as stream:
            found: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
            _end(stream)
        return found

    def blocks(room: Path) -> Iterator[NDArray[Any]]:
        if fortran:
            yield from in_memory(whole()).blocks(room)
            return
        size = dtype.itemsize * math.prod(shape[1:])
        rows = block_rows(size)
        with opened() as stream:
            _header(stream)
            for low in range(0, shape[0], rows):
                count = min(rows, shape[0] - low)
                content = stream.read(count * size)
                if len(content) < count * size:
                    raise ValueError(f"'{name}' ends in row {low + len(content) // size} of {shape[0]}")
                yield np.frombuffer(content, dtype).reshape(count, *shape[1:])
            _end(stream)

    if dtype.names:
        load = f"t = np.load('{path.name}')" if path.suffix == _MEMBER else f"t = np.load('{path.name}')['{name[:-4]}']"
        hint = f"{load}; np.savez('features.npz', features=t['FEATURES'], ids=t['IDS'])"
        inside = "" if path.suffix == _MEMBER else name.removesuffix(_MEMBER)
        return _Described(table(path, inside, dtype, shape, hint=hint), False)
    array = Array(shape, str(dtype), kind_of(dtype), blocks, lambda: plain_values(whole()))
    return _Described(array, fortran)


def _end(stream: IO[bytes]) -> None:
    """Check that nothing follows an array; at the end of an archive's member, zipfile compares the checksum."""
    if stream.read(1):
        raise ValueError("an array is followed by other bytes")


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read shape, Fortran order and dtype at the beginning of a file in the format of .npy."""
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version := np.lib.format.read_magic(stream))
    if read is None:  # version 3 has structured arrays with fields in other scripts
        raise ValueError(f"expected numbers or texts, found an array in version {version} of the format")
    shape, fortran, dtype = read(stream)
    return shape, fortran and len(shape) > 1, dtype
