"""Read the records of a CSV or JSONL file, each checked against the header."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from sparc.plugins import InvalidConfig, SparcError, open_text
from sparc_plugins.image_folder.columns import COLUMNS, FORM, REQUIRED, near_misses
from sparc_plugins.image_folder.images import is_image

SEPARATORS = (",", ";", "\t")
JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
NAMED = {"\t": "tab", ",": "','", ";": "';'"}
SHOWN = 3
"""Number of lines, names or texts that a message shows of many."""
Record = dict[str, Any]


class Fault(NamedTuple):
    """Fault of a line of the index."""

    line: int
    error: SparcError


class Notes(NamedTuple):
    """Sentences on a table that is not wrong: those on its columns hold whatever is wrong with its rows."""

    columns: list[str]
    rows: list[str]


def read_records(path: Path, notes: Notes, faults: list[Fault]) -> Iterator[tuple[int, Record]]:
    """Yield the line number and the cells of each record, by column name.

    A row without text is left out and counted in `notes.rows`, one sentence for each reason. A record that does not
    fit the header is added to `faults`; behind a quote that is not closed, nothing more is read.

    Raises:
        InvalidConfig: the header lacks a column. The error names file and line.
        CorruptFile, StorageError: the file is truncated, or the machine refuses to read it.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    json_lines = bool(suffixes) and suffixes[-1] in JSON_SUFFIXES
    with open_text(path, newline=None if json_lines else "") as file:
        read = _json_records if json_lines else _csv_records
        yield from read(path, file, notes, faults)


def wrong(path: Path, line: int, message: str, hint: str = f"correct that line; {FORM}") -> InvalidConfig:
    """Return the error for a line that makes no sense."""
    return InvalidConfig(f"{path}, line {line}: {message}", hint=hint)


def some(found: Sequence[object]) -> str:
    """Return the first few of many, for a message."""
    return ", ".join(f"{one!s:.80}" for one in found[:SHOWN]) + (", ..." if len(found) > SHOWN else "")


def _csv_records(path: Path, file: TextIO, notes: Notes, faults: list[Fault]) -> Iterator[tuple[int, Record]]:
    if (found := _header(path, file)) is None:
        return
    lines, header, dialect = found
    names = _names(path, lines, header)
    notes.columns.extend(f"{path} has {said}" for said in near_misses(names))
    kept = [(column, name) for column, name in enumerate(names) if name in COLUMNS]
    unnamed = [column for column, name in enumerate(names) if not name and column]  # pandas writes row numbers first
    # A caption with a bare separator fills the next cell too, which shows by the space that follows a comma.
    caption = names.index("caption")
    beside = caption + 1 if caption + 1 < len(names) and not dialect["skipinitialspace"] else 0
    blank: list[int] = []
    repeated: list[int] = []
    reader = csv.reader(_whole_lines(file, dialect.pop("end")), strict=True, **dialect)
    while True:
        line = lines + reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            faults.append(Fault(line, _unreadable(path, line, error)))
            break
        if not cells:
            continue
        if not cells[0].strip() and not any(cell.strip() for cell in cells):
            blank.append(line)
            continue
        if lines + reader.line_num > line and (merged := _second_row(path, cells, names, dialect["delimiter"])):
            message = f"a quote opens here and takes in what looks like another row: {merged!r:.80}"
            hint = "close the quote in its row; write a text with a quote in it as " + '"5"" of wood"'
            faults.append(Fault(line, wrong(path, line, message, hint)))
            break
        if len(cells) != len(names):
            faults.append(Fault(line, _misfit(path, line, cells, names, dialect["delimiter"])))
            continue
        if cells == header or (cells[0][:1] == "\ufeff" and [cells[0][1:], *cells[1:]] == header):
            repeated.append(line)
            continue
        if (column := next((one for one in unnamed if cells[one].strip()), None)) is not None:
            message = f"cell {column + 1} holds {cells[column]:.40}, and that column has no name"
            hint = "name the column in the first line, or quote a text with separators"
            faults.append(Fault(line, wrong(path, line, message, hint)))
            continue
        if beside and cells[beside][:1] == " " != cells[caption][:1] and cells[beside].strip():
            message = f"the cell '{names[beside]}' begins with a space, as the rest of a caption does"
            faults.append(
                Fault(line, wrong(path, line, message, f"{_quoted(dialect['delimiter'])}, or remove that space"))
            )
            continue
        yield line, {name: cells[column] for column, name in kept}
    if blank:
        notes.rows.append(f"left out rows of {path} without any text: {len(blank)} (lines {some(blank)})")
    if repeated:
        notes.rows.append(f"left out rows of {path} that repeat its header: {len(repeated)} (lines {some(repeated)})")


def _header(path: Path, file: TextIO) -> tuple[int, list[str], dict[str, Any]] | None:
    """Return the number of lines up to the header, its cells, and how cells are separated; None of an empty file.

    The separator is the one with which the header has the required columns: nothing is guessed from the data.
    """
    number, separators, line = 0, list(SEPARATORS), ""
    for number, line in enumerate(file, start=1):
        said = line.strip().strip('"\ufeff').lower()
        if number == 1 and said.startswith("sep=") and len(said.strip()) <= len("sep=;"):
            separators = [said[4:] or "\t"]  # the line with which Excel is told the separator
        elif line.strip():
            break
    else:
        return None
    for separator in separators:
        try:
            cells = next(csv.reader([line], delimiter=separator, strict=True))
            spaced = any(cell.startswith(" ") for cell in cells[1:])
            dialect: dict[str, Any] = {"delimiter": separator, "skipinitialspace": spaced}
            cells = next(csv.reader([line], strict=True, **dialect))
        except csv.Error:
            continue
        if set(REQUIRED) <= {_name(cell) for cell in cells}:
            return number, cells, {**dialect, "end": "\r" if line.endswith("\r") else "\n"}
    raise wrong(
        path,
        number,
        f"expected a header with columns image and caption, separated by ',', ';' or tab, found {line.strip()!r:.80}",
        f"write it as the first line: {FORM}{_renamed(line)}",
    )


def _renamed(line: str) -> str:
    """Return how to rename the columns of a header whose names are near those that are read."""
    separator = max(SEPARATORS, key=line.count)
    said = near_misses([_name(cell.strip(' "')) for cell in line.split(separator)])
    return f"; it has {'; '.join(said)}" if said else ""


def _whole_lines(file: TextIO, end: str) -> Iterator[str]:
    r"""Yield lines that end as the header does: some writers leave a lone `\r` of a text without quotes."""
    if end == "\r":
        yield from file
    for line in file:
        if line[-1] != "\r":
            yield line
            continue
        whole = line
        while whole.endswith("\r") and (more := next(file, "")):
            whole += more
        yield whole


def _name(cell: str) -> str:
    return cell.strip().strip("\ufeff\u200b").strip().casefold()  # marks that no editor shows


def _names(path: Path, line: int, header: Sequence[str]) -> list[str]:
    names = [_name(cell) for cell in header]
    for name in COLUMNS:
        if names.count(name) > 1:
            message = f"expected one column '{name}', found {names.count(name)}"
            raise wrong(path, line, message, "rename or remove the others")
    return names


def _second_row(path: Path, cells: Sequence[str], names: Sequence[str], separator: str) -> str | None:
    """Return a line of a record of several lines if two of them look like rows, as where a quote is not closed.

    A row has a cell for each column, and the name of an image in its place.
    """
    image = names.index("image")
    rows = []
    for text in "".join(separator.join(cells).split("\r")).split("\n"):
        parts = text.split(separator)
        if len(parts) == len(names) and is_image(path.parent, parts[image].strip(' "')):
            rows.append(text)
    return rows[1] if len(rows) > 1 else None


def _misfit(path: Path, line: int, cells: Sequence[str], names: Sequence[str], separator: str) -> InvalidConfig:
    """Return the error for a record with more or fewer cells than the header."""
    message = f"expected {len(names)} cells ({', '.join(names)}), found {len(cells)}: {separator.join(cells)!r:.80}"
    if len(cells) > len(names):
        return wrong(path, line, message, _quoted(separator))
    said = NAMED.get(separator, repr(separator))
    return wrong(path, line, message, f"write a cell for each column, {said} between them, also if it is empty")


def _quoted(separator: str) -> str:
    example = f'"a dog{separator if separator == ";" else ","} running"'
    return f"put quotes around a text that contains {NAMED.get(separator, repr(separator))}: {example}"


def _unreadable(path: Path, line: int, error: csv.Error) -> InvalidConfig:
    """Return the error for a record whose quotes do not fit; it begins in `line`."""
    text = str(error)
    if "unexpected end" in text:
        return wrong(path, line, "a quote opens here and is not closed", "close it; write two quotes for one in a text")
    if "expected after" in text:
        message = "a cell begins with a quote and goes on behind the closing one"
        return wrong(path, line, message, 'quote the whole cell, and write two quotes for one in it: "say ""hi"" now"')
    if "field limit" in text:
        message = f"a cell has more than {csv.field_size_limit():,} characters"
        return wrong(path, line, message, "check that the quote that opens there is closed, or shorten the text")
    if "new-line" in text:
        message = "a cell holds a line end (carriage return) outside quotes"
        return wrong(path, line, message, "put quotes around that cell, or remove the line end")
    return wrong(path, line, text)


def _json_records(path: Path, file: TextIO, notes: Notes, faults: list[Fault]) -> Iterator[tuple[int, Record]]:
    named: dict[tuple[str, ...], list[str]] = {}
    said: dict[tuple[str, ...], list[str]] = {}
    """By the keys of a record, what to say of those that are not read."""
    near: dict[str, list[int]] = {}
    # Objects become tuples of pairs, so that a key that comes twice is seen. Numbers stay as they are written: as ids
    # and captions they are texts.
    decoder = json.JSONDecoder(
        object_pairs_hook=tuple, parse_int=str, parse_float=str, parse_constant=_number_or_nothing
    )
    for line, written in enumerate(file, start=1):
        text = written.strip("\ufeff \t\r\n")
        if not text:
            continue
        try:
            pairs, end = decoder.raw_decode(text)
        except (ValueError, RecursionError):
            pairs, end = None, 0
        if end != len(text) or not isinstance(pairs, tuple):
            faults.append(Fault(line, _no_object(path, line, text)))
            continue
        keys, values = zip(*pairs, strict=True) if pairs else ((), ())
        if keys not in named:
            try:
                named[keys] = _names(path, line, keys)
            except InvalidConfig as error:
                faults.append(Fault(line, error))
                continue
            said[keys] = near_misses(named[keys])
        for one in said[keys]:
            near.setdefault(one, []).append(line)
        yield line, dict(zip(named[keys], values, strict=True))
    notes.columns.extend(f"{path} has {one}: {len(lines)} (lines {some(lines)})" for one, lines in near.items())


def _number_or_nothing(constant: str) -> str | None:
    """Return None for NaN, which pandas writes for an empty cell."""
    return None if constant == "NaN" else constant


def _no_object(path: Path, line: int, text: str) -> InvalidConfig:
    """Return the error for a line that is not one JSON object, with what to do about forms that people write."""
    found = f"expected a JSON object, found {text[:40]!r}"
    if (line == 1 and text[0] == "[") or text == "[":
        return wrong(path, line, found, f"write one object per line: jq -c '.[]' {path.name} > lines-{path.stem}.jsonl")
    if text == "{" or re.search(r"\}\s*\{", text):
        return wrong(path, line, found, f"write one object per line: jq -c . {path.name} > lines-{path.stem}.jsonl")
    if text.startswith(("//", "/*", "#")):
        return wrong(path, line, found, "JSON has no comments: remove that line")
    if re.search(r",\s*[\]}]", text):
        return wrong(path, line, found, "remove the comma before the closing bracket; JSON has none there")
    return wrong(path, line, found)
