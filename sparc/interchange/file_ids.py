"""Ids in files of features, and in files of ids alone, which `--ids` gives."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import NamedTuple

from sparc.errors import InvalidConfig, MissingData
from sparc.interchange.arrays import NAMELESS, Array, Arrays, listing, readable
from sparc.interchange.numpy_files import open_npy
from sparc.interchange.sample_ids import lines, texts
from sparc.system.files import read_json
from sparc.system.nearby import meant
from sparc.system.texts import read_text

IDS, INDICES, ID = "ids", "indices", "id"
"""Names under which a file may hold its ids, or the positions of its rows in a split."""
PICKLING = (".npy", ".npz")
"""Formats that pickle arrays of Python objects."""
SAVE = "np.savez(file, features=x, ids=ids)"
_TABLES = (".csv", ".tsv")
_DELIMITERS = ",;\t"
_NO_TEXT = (".npz", ".pt", ".pth", ".safetensors", ".parquet", ".h5", ".hdf5", ".pkl", ".pickle", ".jsonl", ".xlsx")
_FORMS = "a text with one id per line, a list in .json, an array in .npy, or the column 'id' or 'ids' of a .csv"


class StoredIds(NamedTuple):
    """Ids that a file holds."""

    texts: list[str]
    positions: list[int] | None = None
    """The ids as numbers, if they are positions."""


def stored_ids(path: Path, arrays: Arrays, features: str, key: str | None, known: tuple[str, ...]) -> StoredIds | None:
    """Return the ids in a file; in the group of the features, if they are in one."""
    group = features[: features.rfind("/") + 1]
    candidates = [key] if key else [name for one in known for name in dict.fromkeys((group + one, one))]
    for name in candidates:
        if name in arrays and name != NAMELESS:
            return read_ids(path, name, arrays[name])
    if key and NAMELESS not in arrays:
        raise InvalidConfig(f"{path}: no ids named '{key}'; it has {listing(arrays)}", hint="--ids-key NAME")
    return None


def read_ids(path: Path, name: str, array: Array) -> StoredIds:
    """Return the ids in an array (N) or (N, 1), or in a list of batches. Raises InvalidConfig if it holds none."""
    shown = name or IDS
    real = array.kind == "real" and array.dtype.lstrip("<>=|").lower().startswith(("f", "bf"))
    if array.kind == "object" and path.suffix.lower() in PICKLING:
        raise InvalidConfig(
            f"{path}: '{shown}' are Python objects, and pickle is never read", hint=f"save {shown}.astype(str)"
        )
    column = array.shape[1:] == (1,)
    if not (len(array.shape) == 1 or column or array.dtype.startswith("list")) or real:
        raise InvalidConfig(
            f"{path}: expected '{shown}' as texts or whole numbers, one per row, found {array.dtype} of shape "
            f"{array.shape}",
            hint="convert them, such as x.astype(int) or x.astype(str)",
        )
    values = array.values()
    if column:
        values = [inner for one in values for inner in (one if isinstance(one, list) else [one])]
    found = texts(values, path)
    numbers = name.rpartition("/")[2] == INDICES and not any(isinstance(one, str | bytes) for one in values)
    return StoredIds(found, [int(one) for one in values] if numbers else None)


def no_ids(path: Path, named: str) -> InvalidConfig:
    """Return the error of a file without ids."""
    line = f", or write them too: {SAVE}" if path.suffix == ".npz" else ""
    return InvalidConfig(
        f"{path} has no ids: expected 'ids' or 'indices' in it{f'; it has {named}' if named else ''}",
        hint=f"give them with --ids FILE{' or --ids-key NAME' if named else ''}{line}",
    )


def given_ids(path: Path) -> list[str]:
    """Return the ids in a file of ids alone: a text, a list in JSON, an array of numpy, or a column of a CSV.

    Raises:
        MissingData: the file does not exist.
        CorruptFile: the file cannot be read.
        InvalidConfig: the file is in another format, or a row has no id.
        StorageError, OutOfMemory: the machine refuses.
    """
    suffix = path.suffix.lower()
    with readable(path):
        exists = path.exists()
    if not exists:
        raise MissingData(f"ids not found: {path}", hint=meant(path, _FORMS, folder=False))
    if suffix == ".npy":
        with readable(path), open_npy(path) as arrays:
            return read_ids(path, NAMELESS, arrays[NAMELESS]).texts
    if suffix == ".json":
        content = read_json(path, what="ids")
        if not isinstance(content, list):
            raise InvalidConfig(f"{path}: expected a list of ids, found a {type(content).__name__}", hint=_FORMS)
        return texts(content, path)
    if suffix in _TABLES:
        return _of_table(path)
    if suffix in _NO_TEXT:
        raise InvalidConfig(f"{path}: expected a file of ids, found '{suffix}'", hint=_FORMS)
    return lines(path)


def _of_table(path: Path) -> list[str]:
    """Return the column `id` or `ids` of a table, or all lines of one that has a single column without a name."""
    text = read_text(path)
    first = text.partition("\n")[0]
    delimiter = max(_DELIMITERS, key=first.count)
    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if row]
    except csv.Error as error:
        raise InvalidConfig(f"{path} cannot be read as a table: {error}", hint=_FORMS) from error
    header = [name.strip().lower() for name in rows[0]] if rows else []
    columns = [number for number, name in enumerate(header) if name in (ID, IDS)]
    if not columns and all(len(row) == 1 for row in rows):
        return lines(path)
    if len(columns) != 1:
        raise InvalidConfig(
            f"{path}: expected one column named id or ids in the first line, found {', '.join(rows[0])}", hint=_FORMS
        )
    for number, row in enumerate(rows[1:]):
        if len(row) != len(header):
            raise InvalidConfig(
                f"{path}, row {number}: expected {len(header)} columns, found {len(row)}", hint="write the table again"
            )
    return texts((row[columns[0]] for row in rows[1:]), path)


def numbered(path: Path, positions: list[int], ids: list[str], file: Path) -> list[str]:
    """Return the ids of positions, which number the lines of the text file from 0."""
    if ids[:1] and ids[0].lower() in (ID, IDS):
        raise InvalidConfig(
            f"{file}: expected the id of position 0, found '{ids[0]}', which looks like a header",
            hint="remove that line",
        )
    for row, position in enumerate(positions):
        if not 0 <= position < len(ids):
            raise InvalidConfig(
                f"{path}, row {row}: expected a position below {len(ids)}, the number of lines in {file}, found "
                f"{position}",
                hint="--ids needs the ids of all samples of this split, in the order that 'indices' numbers",
            )
    return [ids[position] for position in positions]
