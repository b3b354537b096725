"""Arrays of a file, described without reading them, and read block by block in storage order.

The readers of formats return a mapping of names to arrays. An array without a name has the name "".
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparc.errors import CorruptFile, InvalidConfig, SparcError
from sparc.system.refusals import reading

BLOCK_BYTES = 32 << 20
"""Bytes of features that are read at a time."""
NAMELESS = ""
TEMPORARY = "importing-"
"""Beginning of the names of temporary folders."""
SHOWN = 12
"""Arrays of a file that an error lists."""


@dataclass(frozen=True)
class Array:
    """An array of a file: N rows, each of shape `shape[1:]`."""

    shape: tuple[int, ...]
    dtype: str
    kind: str
    """`real` for real numbers, `object` for Python objects, else `other`."""
    blocks: Callable[[Path], Iterator[NDArray[Any]]]
    """`blocks(room)` iterates over consecutive rows, each once, in storage order; `room` is for temporary files."""
    values: Callable[[], list[Any]]
    """Return all values as Python objects; meant for ids."""
    fault: InvalidConfig | None = None
    """Error to raise if the array is used as features."""
    room: int = 0
    """Bytes of temporary files that exist while blocks are read."""


Arrays = Mapping[str, Array]


def only_values(
    shape: tuple[int, ...],
    dtype: str,
    values: Callable[[], list[Any]],
    kind: str = "other",
    fault: InvalidConfig | None = None,
) -> Array:
    """Describe an array that holds no real numbers, but may hold ids."""
    return Array(shape, dtype, kind, lambda room: iter(()), values, fault)


def table(path: Path, name: str, dtype: np.dtype[Any], shape: tuple[int, ...], *, hint: str) -> Array:
    """Describe a structured array of numpy, or a compound dataset of HDF5, which holds several columns in one array.

    Its use as features or as ids raises InvalidConfig with the hint, in which FEATURES and IDS stand for its columns.
    """
    columns = {column: dtype[column] for column in dtype.names or ()}
    numbers = next((column for column, kind in columns.items() if kind.subdtype), "features")
    others = next((column for column in columns if column != numbers), "ids")
    fault = InvalidConfig(
        f"{path}: expected one array, found a table{f' in {name!r}' if name else ''} with the columns "
        f"{', '.join(columns)}",
        hint=hint.replace("FEATURES", numbers).replace("IDS", others),
    )

    def values() -> list[Any]:
        raise fault

    return only_values(shape, f"table of {', '.join(columns)}", values, fault=fault)


def block_rows(row_bytes: int) -> int:
    """Return how many rows of this size a block holds."""
    return max(1, BLOCK_BYTES // max(1, row_bytes))


def in_memory(found: NDArray[Any]) -> Array:
    """Describe a numpy array, which may be memory-mapped."""
    rows = block_rows(found[:1].nbytes) if found.ndim else 1
    return Array(
        tuple(found.shape),
        str(found.dtype),
        kind_of(found.dtype),
        lambda room: (found[low : low + rows] for low in range(0, len(found), rows)),
        lambda: plain_values(found),
    )


def plain_values(found: NDArray[Any]) -> list[Any]:
    """Return the values of an array as Python objects. Raises ValueError for texts with characters that there are not.

    NumPy makes texts of them on which Python's own functions fail, or crash.
    """
    if found.dtype.kind == "U" and found.dtype.itemsize:
        codes = np.ascontiguousarray(found).view(np.dtype(np.uint32).newbyteorder(found.dtype.byteorder))
        if codes.size and (largest := int(codes.max())) > sys.maxunicode:
            raise ValueError(f"a text in it holds the character {largest:#x}, which does not exist")
    return list(found.tolist())


def item_bytes(dtype: str) -> int:
    """Return the size of a number in blocks of an array, by the name of its type in any format."""
    if re.search(r"64|double|[<>][fiu]8$", dtype):
        return 8
    return 2 if re.search(r"float16|half|F16|[<>]f2$", dtype) and "BF" not in dtype and "bf" not in dtype else 4


def kind_of(dtype: np.dtype[Any]) -> str:
    """Return the kind of a numpy dtype, as in `Array.kind`."""
    return "object" if dtype.hasobject else "real" if dtype.kind in "fiu" else "other"


def listing(arrays: Arrays) -> str:
    """Return names, types and shapes of arrays, for errors."""
    found = [f"{name} {array.dtype} {array.shape}".strip() for name, array in arrays.items()]
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return ", ".join(found[:SHOWN]) + more if found else "no array"


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Raise errors of the libraries of file formats as CorruptFile, unless the machine refuses to read.

    Raises:
        StorageError, OutOfMemory: the machine refuses.
        CorruptFile: the content is at fault.
    """
    try:
        with reading(path):
            yield
    except SparcError:
        raise
    except Exception as error:  # each of six libraries raises a dozen unrelated types for broken files
        reason = " ".join(str(error).split())
        reason = reason if " " in reason else f"{type(error).__name__} {reason}".strip()
        raise CorruptFile(f"{path} cannot be read: {reason}", hint="download or write it again") from error


def wrong_rows(path: Path, row: int, expected: str, found: str, hint: str) -> InvalidConfig:
    """Return the error of one row of a file. Rows count from 0."""
    return InvalidConfig(f"{path}, row {row}: expected {expected}, found {found}", hint=hint)
