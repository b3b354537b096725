"""Read columns of Parquet files. A column of features holds a list of numbers in each row, all of one length."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparc.errors import InvalidConfig, MissingData, install
from sparc.interchange.arrays import Array, Arrays, only_values, wrong_rows

READ_ROWS = 1024
"""Rows that are converted at a time."""
BUFFER_BYTES = 8 << 20
"""Bytes of a column that are read at a time; by default, pyarrow reads a whole row group."""
_NUMBERS = {"halffloat", "float", "double", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))}
"""Types of columns that hold a number in each row, as pyarrow names them."""
_HINT = "every row needs as many numbers as the first; leave out samples that have no features"


@contextlib.contextmanager
def open_parquet(path: Path) -> Iterator[Arrays]:
    """Open the columns of a Parquet file. Checksums of its pages are verified, if it has them."""
    try:
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise MissingData("reading Parquet needs pyarrow", hint=install("parquet")) from error
    reading = {"buffer_size": BUFFER_BYTES, "pre_buffer": False, "page_checksum_verification": True}
    with pyarrow.parquet.ParquetFile(path, **reading) as file:
        fields = list(file.schema_arrow)
        counts = Counter(field.name for field in fields)
        columns = {
            field.name: _column(path, file, field)
            if counts[field.name] == 1
            else _ambiguous(path, field.name, counts[field.name], file.metadata.num_rows)
            for field in fields
        }
        yield _numbered(path, file, columns) | columns


def _ambiguous(path: Path, name: str, count: int, rows: int) -> Array:
    """Describe columns of one name, of which none can be chosen."""
    fault = InvalidConfig(
        f"{path}: expected one column '{name}', found {count}", hint="rename one of them, and write the file again"
    )

    def values() -> list[Any]:
        raise fault

    return only_values((rows,), f"{count} columns", values, fault=fault)


def _numbered(path: Path, file: Any, columns: Mapping[str, Array]) -> dict[str, Array]:
    """Return an array `f*` for columns `f0`, `f1`, ... of numbers, one for each dimension, numbered from 0 or 1."""
    groups: dict[str, dict[int, list[str]]] = {}
    for name, array in columns.items():
        if (parts := re.fullmatch(r"(.*?)(\d+)", name, re.DOTALL)) and array.dtype in _NUMBERS:
            groups.setdefault(parts[1], {}).setdefault(int(parts[2]), []).append(name)
    found = {}
    for prefix, group in groups.items():
        names = [name for number in sorted(group) for name in group[number]]
        first = min(group)
        complete = first in (0, 1) and len(names) == len(group) == max(group) - first + 1
        if complete and len(names) > 1 and f"{prefix}*" not in columns:
            dtypes = sorted({columns[name].dtype for name in names})
            blocks = _Columns(path, file, names)
            shape = (file.metadata.num_rows, len(names))
            found[f"{prefix}*"] = Array(shape, "/".join(dtypes), "real", blocks.read, list)
    return found


class _Columns(NamedTuple):
    """Blocks of columns, one for each dimension."""

    path: Path
    file: Any
    names: list[str]

    def read(self, room: Path) -> Iterator[NDArray[Any]]:
        """Iterate over arrays of rows. Raises InvalidConfig for an empty cell."""
        done = 0
        for batch in self.file.iter_batches(columns=self.names, batch_size=READ_ROWS):
            for name in self.names:
                if batch.column(name).null_count:
                    row = batch.column(name).is_null().to_pylist().index(True)
                    raise wrong_rows(self.path, done + row, f"a number in '{name}'", "an empty cell", _HINT)
            yield np.column_stack([batch.column(name).to_numpy(zero_copy_only=False) for name in self.names])
            done += batch.num_rows


def _column(path: Path, file: Any, field: Any) -> Array:
    """Describe a column. One whose values are lists of numbers has the width of its first row."""
    import pyarrow
    import pyarrow.types as kinds

    kind = getattr(field.type, "storage_type", field.type)
    rows = file.metadata.num_rows
    is_list = any(is_a(kind) for is_a in (kinds.is_list, kinds.is_large_list, kinds.is_fixed_size_list))
    if not is_list or not (kinds.is_floating(kind.value_type) or kinds.is_integer(kind.value_type)):
        return only_values((rows,), str(field.type), _values(file, field.name))
    width, fault = kind.list_size if kinds.is_fixed_size_list(kind) else _first_width(file, field.name), None
    if width is None:
        width, fault = 0, wrong_rows(path, 0, f"a list of numbers in '{field.name}'", "an empty cell", _HINT)
    blocks = _Lists(path, file, field.name, width)
    # A tensor's values are stored in the order of its shape; `permutation` only says how its axes are called.
    inner = tuple(field.type.shape) if isinstance(field.type, pyarrow.FixedShapeTensorType) else (width,)
    return Array((rows, *inner), str(kind.value_type), "real", blocks.read, _values(file, field.name), fault)


def _values(file: Any, name: str) -> Any:
    return lambda: [one for part in _parts(file, name, READ_ROWS * 16) for one in part.to_pylist()]


def _parts(file: Any, name: str, rows: int) -> Iterator[Any]:
    """Iterate over pieces of a top-level column."""
    import pyarrow

    for batch in file.iter_batches(columns=[name], batch_size=rows):
        column = batch.column(name)
        yield column.storage if isinstance(column, pyarrow.ExtensionArray) else column


def _first_width(file: Any, name: str) -> int | None:
    """Return how many numbers the first row has, or None if it is null."""
    import pyarrow.compute

    for part in _parts(file, name, 1):
        found: int | None = pyarrow.compute.list_value_length(part)[0].as_py()
        return found
    return 0


class _Lists:
    """Blocks of a column of lists, all of one width."""

    def __init__(self, path: Path, file: Any, name: str, width: int) -> None:
        self.path, self.file, self.name, self.width = path, file, name, width

    def read(self, room: Path) -> Iterator[NDArray[Any]]:
        """Iterate over arrays of rows. Raises InvalidConfig for a row of another width, or with an empty cell."""
        done = 0
        for part in _parts(self.file, self.name, READ_ROWS):
            self._check(part, done)
            yield part.flatten().to_numpy(zero_copy_only=False).reshape(len(part), self.width)
            done += len(part)

    def _check(self, part: Any, done: int) -> None:
        import pyarrow.compute

        lengths = pyarrow.compute.list_value_length(part).to_numpy(zero_copy_only=False)
        wrong = np.flatnonzero(lengths != self.width)
        if wrong.size or part.null_count:
            row = int(wrong[0]) if wrong.size else part.is_null().to_pylist().index(True)
            length = part[row].as_py()
            found = "an empty cell" if length is None else str(len(length))
            raise wrong_rows(self.path, done + row, f"{self.width} numbers in '{self.name}'", found, _HINT)
        values = part.flatten()
        if values.null_count:
            row = values.is_null().to_pylist().index(True) // self.width
            raise wrong_rows(self.path, done + row, f"{self.width} numbers in '{self.name}'", "an empty one", _HINT)
