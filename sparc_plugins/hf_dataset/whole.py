"""CSV and JSON files in pieces of many records, by Arrow's parsers: several times faster than record by record.

Only files in which nothing is odd are read so. Whatever needs a closer look raises `Odd`: a quote inside a text, a
record of other fields, a cell of another type. records.py then reads the file, and words the errors.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any

from sparc_plugins.hf_dataset.folders import suffix_of
from sparc_plugins.hf_dataset.records import separator_of, warn_of_blank

PIECE = 1 << 24
"""Bytes that are parsed at a time."""
SEARCHED = 1000
"""Line ends of a piece that are tried for one outside of quotes."""
PROBED = 100
"""Records at the start of a JSON file whose cells say the types of the columns."""
CSV = {".csv", ".tsv"}
BLANK = "".join(filter(str.isspace, map(chr, range(0x3001))))
MARK = b"\xef\xbb\xbf"
LINE = re.compile(rb"[^\r\n]*(?:\r\n|\r|\n)?")
UNUSUAL = (b"\xff\xfe", b"\xfe\xff")


class Odd(Exception):
    """A file, or a part of it, that must be read record by record."""


def whole_tables(paths: Sequence[Path], columns: Mapping[str, str], separator: str | None) -> Iterator[Any]:
    """Yield the used columns of the files, piece by piece: texts, lists of texts, and images.

    Raises Odd.
    """
    import pyarrow as pa

    used = list(dict.fromkeys(columns.values()))
    kinds: dict[str, Any] = {}
    blank: Counter[Path] = Counter()
    header: set[str] = set()
    try:
        for path in paths:
            rows = 0
            if suffix_of(path) in CSV:
                names = _header(path, used, separator)
                if set(names[1]) != (header := header or set(names[1])):
                    raise Odd
                found = _csv_tables(path, names, used, blank)
            else:
                kinds = kinds or _kinds(path, used)
                found = _json_tables(path, kinds)
            for table in found:
                rows += len(table)
                yield _as_stored(table, columns)
            if not rows:
                raise Odd
    except (pa.ArrowInvalid, UnicodeDecodeError, OSError, EOFError, csv.Error, ValueError) as error:
        raise Odd from error
    for path, count in blank.items():
        warn_of_blank(path, count)


def _as_stored(table: Any, columns: Mapping[str, str]) -> Any:
    """Return texts in place of numbers and truth values, and images in place of their paths."""
    import pyarrow as pa
    import pyarrow.compute as pc

    cells = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        listed = pa.types.is_list(column.type)
        if listed and name in [columns.get(one) for one in ("image", "id", "group")]:
            raise Odd
        if name == columns["image"]:
            if not pa.types.is_string(column.type):
                raise Odd
            empty = pc.equal(column, "").fill_null(True)
            parts = [pa.nulls(len(column), pa.binary()), column]
            column = pa.StructArray.from_arrays(parts, ["bytes", "path"], mask=empty)
        else:
            column = column.cast(pa.list_(pa.string()) if listed else pa.string())
        cells[name] = column
    return pa.table(cells)


def _pieces(path: Path, *, quoted: bool) -> Iterator[bytes]:
    """Yield a file in pieces that end with a record, without a byte order mark. Raises Odd if they are no UTF-8."""
    opener: Any = gzip.open if path.suffix.lower() == ".gz" else open
    file: IO[bytes]
    with opener(path, "rb") as file:
        rest = file.read(len(MARK))
        if rest.startswith(UNUSUAL):
            raise Odd
        rest = rest.removeprefix(MARK)
        while len(read := file.read(PIECE)) == PIECE:
            piece = rest + read
            end = _end(piece, quoted=quoted)
            yield _checked(piece[:end])
            rest = piece[end:]
        if piece := rest + read:
            yield _checked(piece)


def _checked(piece: bytes) -> bytes:
    if b"\0" in piece:
        raise Odd
    if not piece.isascii():
        piece.decode()
    return piece


def _end(piece: bytes, *, quoted: bool) -> int:
    """Return where the last whole record of a piece ends."""
    end = len(piece)
    for _ in range(SEARCHED):
        end = piece.rfind(b"\n", 0, end) + 1
        if not end:
            break
        if not quoted or piece.count(b'"', 0, end) % 2 == 0:
            return end
        end -= 1
    raise Odd


def _header(path: Path, used: Collection[str], separator: str | None) -> tuple[str, list[str]]:
    """Return the separator and the columns of a CSV file."""
    piece = next(_pieces(path, quoted=True), b"")
    first = LINE.match(piece)[0].decode()  # type: ignore[index]  # it matches any text
    if not first.strip() or first.count('"') % 2:
        raise Odd
    separator = separator or separator_of(path, first, used)
    header = [cell.strip() for cell in next(csv.reader([first], delimiter=separator, strict=True))]
    named = [name for name in header if name]
    if len(set(named)) < len(named) or not set(used) <= set(named) or len(separator.encode()) != 1:
        raise Odd
    return separator, header


def _csv_tables(path: Path, names: tuple[str, list[str]], used: Sequence[str], blank: Counter[Path]) -> Iterator[Any]:
    """Yield the used columns, without the records whose cells are all empty; `blank` counts these."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import csv as reader

    separator, header = names
    everything = list(map(str, range(len(header))))
    numbers = [str(header.index(name)) for name in used]
    parsing = reader.ParseOptions(delimiter=separator, newlines_in_values=True)
    converting = reader.ConvertOptions(
        column_types=dict.fromkeys(everything, pa.string()),
        include_columns=numbers,
        null_values=[""],
        strings_can_be_null=True,
    )
    ends = re.escape(separator.encode()) + rb"\r\n"
    text = re.compile(rb'(?<![^%b])"[^"]*+(?:""[^"]*+)*+"(?![^%b])' % (ends, ends))
    for number, part in enumerate(_pieces(path, quoted=True)):
        piece = part if number else LINE.sub(b"", part, count=1)
        if b'"' in piece and b'"' in text.sub(b"", piece):
            raise Odd
        if not piece:
            continue
        reading = reader.ReadOptions(use_threads=False, block_size=len(piece) + 1, column_names=everything)
        table = reader.read_csv(pa.BufferReader(piece), reading, parsing, converting)
        if _empty(table) is not None:
            converting.include_columns = everything
            table = reader.read_csv(pa.BufferReader(piece), reading, parsing, converting)
            converting.include_columns = numbers
            if (empty := _empty(table)) is not None:
                blank[path] += pc.sum(empty).as_py()
                table = table.filter(pc.invert(empty))
        yield table.select(numbers).rename_columns(list(used))


def _empty(table: Any) -> Any:
    """Return True for each record whose cells are all empty, None if there is no such record."""
    import pyarrow.compute as pc

    found = None
    for column in table.columns:
        empty = pc.equal(pc.utf8_trim(column, BLANK), "").fill_null(True)
        found = empty if found is None else pc.and_(found, empty)
        if not pc.any(found).as_py():
            return None
    return found


def _kinds(path: Path, used: Collection[str]) -> dict[str, Any]:
    """Return the types of the columns of a JSON file, as its first records have them."""
    start = next(_pieces(path, quoted=False), b"")
    records = [json.loads(line) for line in islice(io.BytesIO(start), PROBED) if line.strip()]
    if not all(isinstance(record, dict) for record in records):
        raise Odd
    kinds = {}
    for name in used:
        if not any(name in record for record in records):
            raise Odd
        kinds[name] = _kind([record[name] for record in records if record.get(name) is not None])
    return kinds


def _kind(cells: Sequence[Any]) -> Any:
    import pyarrow as pa

    if not cells:
        return pa.string()
    if isinstance(cells[0], list):
        return pa.list_(_kind([one for cell in cells if isinstance(cell, list) for one in cell if one is not None]))
    for kind, arrow in ((bool, pa.bool_()), (int, pa.int64()), (str, pa.string())):
        if isinstance(cells[0], kind):
            return arrow
    raise Odd


def _json_tables(path: Path, kinds: Mapping[str, Any]) -> Iterator[Any]:
    import pyarrow as pa
    from pyarrow import json as reader

    parsing = reader.ParseOptions(explicit_schema=pa.schema(kinds), unexpected_field_behavior="ignore")
    numbers = any(pa.types.is_integer(getattr(kind, "value_type", kind)) for kind in kinds.values())
    for piece in _pieces(path, quoted=False):
        if not (lines := piece.strip()):
            continue
        # Elsewhere -0 stays as written, and a carriage return ends a line.
        if (numbers and b"-0" in piece) or piece.count(b"\r") != piece.count(b"\r\n"):
            raise Odd
        reading = reader.ReadOptions(use_threads=False, block_size=len(piece) + 1)
        table = reader.read_json(pa.BufferReader(piece), reading, parsing)
        if len(table) != lines.count(b"\n") + 1:
            raise Odd
        yield table.select(list(kinds))
