"""Read columns of Parquet files. A column of features holds a list of numbers in each row, all of one length."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparc.errors import MissingData, install
from sparc.interchange.arrays import Array, Arrays, only_values, wrong_rows

READ_ROWS = 1024
"""Rows that are converted at a time."""
BUFFER_BYTES = 8 << 20
"""Bytes of a column that are read at a time; by default, pyarrow reads a whole row group."""
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
        yield {field.name: _column(path, file, field) for field in file.schema_arrow}


def _column(path: Path, file: Any, field: Any) -> Array:
    """Describe a column. One whose values are lists of numbers has the width of its first row."""
    import pyarrow.types as kinds

    kind = getattr(field.type, "storage_type", field.type)
    rows = file.metadata.num_rows
    is_list = any(is_a(kind) for is_a in (kinds.is_list, kinds.is_large_list, kinds.is_fixed_size_list))
    if not is_list or not (kinds.is_floating(kind.value_type) or kinds.is_integer(kind.value_type)):
        return only_values((rows,), str(field.type), _values(file, field.name))
    width = kind.list_size if kinds.is_fixed_size_list(kind) else _first_width(file, field.name)
    blocks = _Lists(path, file, field.name, width)
    return Array((rows, width), str(kind.value_type), "real", blocks.read, _values(file, field.name))


def _values(file: Any, name: str) -> Any:
    return lambda: [one for part in _parts(file, name, READ_ROWS * 16) for one in part.to_pylist()]


def _parts(file: Any, name: str, rows: int) -> Iterator[Any]:
    """Iterate over pieces of a top-level column."""
    import pyarrow

    for batch in file.iter_batches(columns=[name], batch_size=rows):
        column = batch.column(name)
        yield column.storage if isinstance(column, pyarrow.ExtensionArray) else column


def _first_width(file: Any, name: str) -> int:
    import pyarrow.compute

    for part in _parts(file, name, 1):
        return pyarrow.compute.list_value_length(part)[0].as_py() or 0
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
