"""Records of CSV and JSON files, in which every text and number stays as written.

The library's readers guess types: `007` becomes 7, `NA` an empty cell, `2021-03-01` a time, and a whole number above
2**63 a float.
"""

from __future__ import annotations

import csv
import json
import warnings
from collections.abc import Collection, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from sparc.plugins import CorruptFile, InvalidConfig, open_text, read_text

SEPARATORS = ",;\t|"
QUOTES = "put a text that holds the separator into double quotes; each record has one field per column"


class Decimal(str):
    """A number with a fraction or an exponent, as written in a JSON file."""

    __slots__ = ()


class Record(NamedTuple):
    """One record of a file: its cells by column, and where it is, such as `a/b.csv, line ` and 7."""

    where: str
    number: int
    cells: dict[str, Any]

    @property
    def place(self) -> str:
        """Place of the record, for a message."""
        return f"{self.where}{self.number}"


def csv_records(path: Path, wanted: Collection[str], separator: str | None) -> Iterator[Record]:
    """Yield the records of a CSV file; an empty cell is None, and a record of empty cells is passed over.

    Without a `separator` it is the one that finds the `wanted` columns in the header, by default a comma, or a tab in
    a `.tsv` file. Raises InvalidConfig if a record has another number of fields than the header.
    """
    before = csv.field_size_limit(2**31 - 1)  # of the process, so it is set back
    line = blank = 0
    where = f"{path}, line "
    try:
        with open_text(path, newline="") as file:
            first = next(file, "")
            separator = separator or separator_of(path, first, wanted)
            reader = csv.reader(chain([first], file), delimiter=separator, strict=True)
            header: list[str] | None = None
            for record in reader:
                line = reader.line_num
                if not (record and record[0].strip()) and not any(cell.strip() for cell in record):
                    blank += len(record) > 0
                    continue
                if header is None:
                    header = [cell.strip() for cell in record]
                    _check_header(f"{path}, line {line}", header)
                elif len(record) != len(header):
                    shown = " | ".join(record)[:80]
                    raise InvalidConfig(
                        f"{path}, line {line}: expected {len(header)} fields ({', '.join(header)}), "
                        f"found {len(record)}: {shown}",
                        hint=QUOTES,
                    )
                else:
                    yield Record(where, line, dict(zip(header, [cell or None for cell in record], strict=True)))
            if blank:
                warn_of_blank(path, blank)
            if header is None:
                raise InvalidConfig(f"{path} is empty: expected a header with the names of columns", hint="remove it")
    except csv.Error as error:
        raise InvalidConfig(
            f"{path}, the record after line {line}: {error}", hint='a text with quotes doubles them: "say ""hi"""'
        ) from error
    finally:
        csv.field_size_limit(before)


def warn_of_blank(path: Path, count: int) -> None:
    """Warn about records that are passed over."""
    warnings.warn(f"hf: {count} records of {path} are empty in all cells and no samples", stacklevel=2)


def separator_of(path: Path, header: str, wanted: Collection[str]) -> str:
    """Return the separator that finds the most of the wanted columns in a header."""
    usual = "\t" if ".tsv" in (suffix.lower() for suffix in path.suffixes) else ","

    def found(separator: str) -> int:
        cells = next(csv.reader([header], delimiter=separator), [])
        return len({cell.strip() for cell in cells} & set(wanted))

    candidates: list[str] = [usual, *SEPARATORS]
    return max(candidates, key=found)


def _check_header(place: str, header: list[str]) -> None:
    named = [name for name in header if name]  # pandas writes its index without a name
    if len(set(named)) < len(named):
        raise InvalidConfig(f"{place}: expected columns of different names, found {', '.join(header)}", hint=QUOTES)


def json_records(path: Path) -> Iterator[Record]:
    """Yield the records of a JSON file, one in each line or all in one list.

    Numbers are texts as written, NaN is None. Raises CorruptFile for what is not JSON, and for a name that repeats.
    """
    decoder = json.JSONDecoder(
        parse_int=str, parse_float=Decimal, parse_constant=_constant, object_pairs_hook=_without_repeats
    )
    with open_text(path) as file:
        start = next((line for line in file if line.strip()), "")
    if start.lstrip().startswith("["):
        listed = _decoded(decoder, read_text(path), str(path))
        yield from (_record(f"{path}, record ", number, one) for number, one in enumerate(listed))
        return
    where = f"{path}, line "
    with open_text(path) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield _record(where, number, _decoded(decoder, line, where, number))


def _decoded(decoder: json.JSONDecoder, text: str, where: str, number: int | str = "") -> Any:
    try:
        return decoder.decode(text.strip())
    except (ValueError, RecursionError) as error:
        raise CorruptFile(
            f"hf: expected a JSON record in each line: {where}{number}: {error}",
            hint="repair or remove it; one line holds one record, as df.to_json(PATH, orient='records', lines=True) "
            "writes it",
        ) from error


def _constant(name: str) -> str | None:
    return None if name == "NaN" else name


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it names '{next(name for name in names if names.count(name) > 1)}' twice")
    return found


def _record(where: str, number: int, found: Any) -> Record:
    if not isinstance(found, dict):
        raise InvalidConfig(
            f'{where}{number}: expected a record, such as {{"image": ..., "caption": ...}}, found {str(found)[:60]}',
            hint="write one JSON object per sample",
        )
    return Record(where, number, found)
