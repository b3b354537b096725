"""CSV and JSON files of a split as one memory-mapped table of texts, in place of the library's readers."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from sparc.plugins import InvalidConfig, MissingData, cache_dir, sha256, write_atomically
from sparc_plugins.hf_dataset.folders import METADATA, suffix_of
from sparc_plugins.hf_dataset.records import Decimal, Record, csv_records, json_records
from sparc_plugins.hf_dataset.whole import CSV, Odd, whole_tables

VERSION = 1
"""Part of the name of a table in the cache. Raise it when the content of the table changes."""
EXACT = 2**53
"""Whole numbers below it are floats of their own."""
ROWS = 1000
"""Rows of a batch in the table."""


class TextFiles(NamedTuple):
    """Files of one split."""

    root: Path
    paths: Sequence[Path]
    separator: str | None = None
    """Separator of CSV files; None: it is found in the header."""
    classes: Mapping[str, Sequence[str]] = MappingProxyType({})
    """Names of the classes whose numbers a column holds, as the dataset's card has them."""

    def open(self, columns: Mapping[str, str], role: str) -> Any:
        """Return the used columns as a memory-mapped table; it is read once, as long as the files are the same.

        Raises InvalidConfig, CorruptFile, MissingData, StorageError.
        """
        import datasets

        named = [os.path.relpath(path, self.root) for path in self.paths]
        content = [sha256(path) for path in self.paths]
        known = json.dumps([VERSION, dict(columns), self.separator, dict(self.classes), named, content])
        path = cache_dir("hf", f"{hashlib.sha256(known.encode()).hexdigest()[:16]}.arrow")
        if not path.is_file():
            write_atomically(path, partial(self._write, columns, role))
        return datasets.Dataset.from_file(str(path))

    def _write(self, columns: Mapping[str, str], role: str, path: Path) -> None:
        """Write the rows to an Arrow file, again from the start if a column turns out to hold lists."""
        if self._is_written_whole(columns, path):
            return
        listed: set[str] = set()
        while not self._is_written(columns, role, listed, path):
            pass

    def _is_written_whole(self, columns: Mapping[str, str], path: Path) -> bool:
        """Write the rows in large pieces; return False if there is something that only `_is_written` can read."""
        import pyarrow as pa

        if self.classes or any(map(is_metadata, self.paths)):
            return False
        with path.open("wb") as file, contextlib.ExitStack() as stack:
            writer = None
            try:
                for table in whole_tables(self.paths, columns, self.separator):
                    writer = writer or stack.enter_context(pa.ipc.new_stream(file, table.schema))
                    writer.write_table(table)
            except Odd:
                return False
        return True

    def _is_written(self, columns: Mapping[str, str], role: str, listed: set[str], path: Path) -> bool:
        """Write the rows; return False, with the column in `listed`, if a cell is a list and the column holds texts."""
        import pyarrow as pa

        image = pa.struct({"bytes": pa.binary(), "path": pa.string()})
        kinds = {name: pa.list_(pa.string()) if name in listed else pa.string() for name in columns.values()}
        schema = pa.schema({**kinds, columns["image"]: image})
        rows = self._rows(columns, role)
        with path.open("wb") as file, pa.ipc.new_stream(file, schema) as writer:
            while batch := list(islice(rows, ROWS)):
                cells = {name: [row[name] for row in batch] for name in schema.names}
                found = {name for name in schema.names if any(isinstance(cell, list) for cell in cells[name])}
                if found - listed:
                    listed |= found
                    return False
                for name in listed:
                    cells[name] = [cell if cell is None or isinstance(cell, list) else [cell] for cell in cells[name]]
                try:
                    writer.write_table(pa.table(cells, schema))
                except UnicodeEncodeError as error:
                    raise InvalidConfig(
                        f"hf: the {role} split has half of a surrogate pair, {error.object[error.start]!a}, in a text "
                        f"that begins with '{error.object[: error.start][:40]}'",
                        hint="write the file again: the program that wrote it cut a character in two",
                    ) from error
        return True

    def _rows(self, columns: Mapping[str, str], role: str) -> Iterator[dict[str, Any]]:
        """Yield the cells of the used columns, row by row."""
        # Two parameters may name one column: the first says how it is read.
        readers = {name: _READERS.get(parameter, _text) for parameter, name in reversed(list(columns.items()))}
        header: list[str] = []
        rows = 0
        for path in self.paths:
            names: dict[str, None] = {}
            for record in self._records(path, columns):
                if not rows or record.cells.keys() - names.keys():
                    names.update(dict.fromkeys(record.cells))
                rows += 1
                yield {column: read(record, column) for column, read in readers.items()}
            if not names:
                warnings.warn(f"hf: {path} has no records", stacklevel=2)
                continue
            header = header or list(names)
            if suffix_of(path) in CSV and set(names) != set(header):
                message = f"columns {', '.join(header)} in {self.paths[0]}, and {', '.join(names)} in {path}"
                raise InvalidConfig(
                    f"hf: expected the same columns in all CSV files, found {message}", hint="make them alike"
                )
            check_columns(columns, list(names), role)
        if not rows:
            raise MissingData(f"hf: the {role} split has no rows", hint="choose other files or another split")

    def _records(self, path: Path, columns: Mapping[str, str]) -> Iterator[Record]:
        """Yield the records of a file; images that a metadata file names lie in the folder of that file."""
        described = is_metadata(path)
        wanted = {*columns.values(), *(("file_name",) if described else ())}
        found = csv_records(path, wanted, self.separator) if suffix_of(path) in CSV else json_records(path)
        folder = path.parent.relative_to(self.root)
        for record in found:
            one = _described(record, columns["image"], folder) if described else record
            yield _classified(one, self.classes) if self.classes else one


def is_metadata(path: Path) -> bool:
    """Return True for a file that describes the images of its folder."""
    return path.name.lower() in METADATA


def check_columns(columns: Mapping[str, str], present: Sequence[str], role: str) -> None:
    """Raise InvalidConfig if a column that a parameter names is not there."""
    for name, column in columns.items():
        if column not in present:
            raise InvalidConfig(
                f"hf: no column '{column}' in the {role} split", hint=f"set '{name}'; columns: {', '.join(present)}"
            )


def _described(record: Record, image: str, folder: Path) -> Record:
    name_of = {"file_name": "image"}
    cells = {name_of.get(name, name.removesuffix("_file_name")): cell for name, cell in record.cells.items()}
    named = cells.get(image)
    if isinstance(named, str):
        inside = os.path.normpath(named.replace("\\", "/"))
        if os.path.isabs(inside) or inside.split("/")[0] == ".." or "://" in named:
            raise InvalidConfig(
                f"{record.place}: expected a file name inside the folder of the metadata, found {named[:80]}",
                hint="write the path relative to the folder of the metadata file",
            )
        cells[image] = (folder / inside).as_posix()
    return record._replace(cells=cells)


def _classified(record: Record, classes: Mapping[str, Sequence[str]]) -> Record:
    """Put names of classes in place of their numbers; -1 is an empty cell, as in the library."""

    def named(cell: Any, names: Sequence[str], column: str) -> Any:
        if isinstance(cell, list):
            return [named(one, names, column) for one in cell]
        if cell is None or cell in names:
            return cell
        try:
            number = int(cell)
        except (TypeError, ValueError):
            number = len(names)
        if not -1 <= number < len(names):
            raise _wrong(record, column, f"a class from 0 to {len(names) - 1} or its name")
        return None if number == -1 else names[number]

    known = {column: named(record.cells.get(column), names, column) for column, names in classes.items()}
    return record._replace(
        cells={**record.cells, **{name: cell for name, cell in known.items() if name in record.cells}}
    )


def _wrong(record: Record, column: str, expected: str) -> InvalidConfig:
    found = json.dumps(record.cells[column], ensure_ascii=False)[:60]
    return InvalidConfig(
        f"{record.place}: expected {expected} in the column '{column}', found {found}",
        hint="change the file, or name another column",
    )


def _image(record: Record, column: str) -> dict[str, str | bytes | None] | None:
    cell = record.cells.get(column)
    if isinstance(cell, dict) and cell.keys() <= {"path", "bytes"}:
        cell = cell.get("bytes") or cell.get("path")
    if cell is None or cell == "":
        return None
    if not isinstance(cell, str) or isinstance(cell, Decimal):
        raise _wrong(record, column, "the path of an image")
    return {"bytes": None, "path": cell}


def _text(record: Record, column: str) -> str | list[str | None] | None:
    cell = record.cells.get(column)
    if type(cell) is str:
        return cell
    if isinstance(cell, list):
        return [_one(record, column, one) for one in cell]
    return _one(record, column, cell)


def _one(record: Record, column: str, cell: Any) -> str | None:
    if cell is None or isinstance(cell, str):
        return cell if cell is None else str(cell)
    if isinstance(cell, bool):
        return "true" if cell else "false"
    raise _wrong(record, column, "a text, a number, or a list of these")


def _label(record: Record, column: str) -> str | list[str | None] | None:
    cell = record.cells.get(column)
    if type(cell) is str:
        return cell
    whole = [_whole(one) for one in cell] if isinstance(cell, list) else _whole(cell)
    return _text(record._replace(cells={column: whole}), column)


def _whole(cell: Any) -> Any:
    """Return 1.0 as 1: pandas writes whole numbers among empty cells so."""
    if isinstance(cell, Decimal) and float(cell).is_integer() and abs(float(cell)) < EXACT:
        return str(int(float(cell)))
    return cell


def _name(record: Record, column: str) -> str | None:
    if isinstance(record.cells.get(column), list | dict):
        raise _wrong(record, column, "a text or a number")
    return _one(record, column, record.cells.get(column))


_READERS = {"image": _image, "labels": _label, "id": _name, "group": _name}
