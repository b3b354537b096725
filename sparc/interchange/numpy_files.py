"""Read arrays of numpy: .npy and .npz."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from sparc.interchange.arrays import NAMELESS, Array, Arrays, block_rows, in_memory, kind_of, only_values

_MEMBER = ".npy"


@contextlib.contextmanager
def open_npy(path: Path) -> Iterator[Arrays]:
    """Open the one array of an .npy file, memory-mapped unless it holds Python objects or nothing."""
    with path.open("rb") as stream:
        shape, _, dtype = _header(stream)
    if dtype.hasobject or 0 in shape:
        yield {NAMELESS: only_values(shape, str(dtype), list, kind_of(dtype))}
    else:
        yield {NAMELESS: in_memory(np.load(path, mmap_mode="r", allow_pickle=False))}


@contextlib.contextmanager
def open_npz(path: Path) -> Iterator[Arrays]:
    """Open the arrays of an .npz file. Blocks stream from the archive, compressed or not; checksums are verified."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(_MEMBER)]
        yield {name.removesuffix(_MEMBER): _member(archive, name) for name in names}


def _member(archive: zipfile.ZipFile, name: str) -> Array:
    with archive.open(name) as stream:
        shape, fortran, dtype = _header(stream)

    def whole() -> NDArray[Any]:
        with archive.open(name) as stream:
            found: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
            _end(stream)
        return found

    def blocks(room: Path) -> Iterator[NDArray[Any]]:
        if fortran:  # its rows are not contiguous
            yield from in_memory(whole()).blocks(room)
            return
        size = dtype.itemsize * int(np.prod(shape[1:]))
        rows = block_rows(size)
        with archive.open(name) as stream:
            _header(stream)
            for low in range(0, shape[0], rows):
                count = min(rows, shape[0] - low)
                content = stream.read(count * size)
                if len(content) < count * size:
                    raise ValueError(f"'{name}' ends in row {low + len(content) // size} of {shape[0]}")
                yield np.frombuffer(content, dtype).reshape(count, *shape[1:])
            _end(stream)

    return Array(shape, str(dtype), kind_of(dtype), blocks, lambda: list(whole().tolist()))


def _end(stream: IO[bytes]) -> None:
    """Read the end of an archive's member, at which zipfile compares the checksum."""
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
