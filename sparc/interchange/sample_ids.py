"""Ids of samples: texts by which rows of several files are joined.

Ids that look the same are the same: they are compared in Unicode's composed form, without surrounding blanks.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sparc.errors import InvalidConfig, MissingData
from sparc.interchange.arrays import readable, wrong_rows
from sparc.system.names import same_name

_BLANK = "\ufeff"
"""The byte order mark, which a text file may leave in front of the first id."""
_HINT = "every row needs an id: a text, or a whole number"
_ENCODINGS = ((codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


def texts(values: Iterable[Any], path: Path) -> list[str]:
    """Return the ids of rows as texts. Raises InvalidConfig, with the row, for one that is missing, empty or no id."""
    found = []
    for row, value in enumerate(values):
        if isinstance(value, str):
            text = value
        elif isinstance(value, bytes):
            try:
                text = value.decode()
            except UnicodeDecodeError:
                raise wrong_rows(path, row, "an id in UTF-8", repr(value), "write the ids as UTF-8") from None
        elif isinstance(value, int | np.integer) and not isinstance(value, bool):
            text = str(value)
        else:
            shown = "an empty cell" if value is None else f"{type(value).__name__} {value!r}"
            raise wrong_rows(path, row, "an id", shown, _HINT)
        text = clean(text)
        if not text:
            raise wrong_rows(path, row, "an id", "an empty text", _HINT)
        if not text.isascii() and not _in_utf8(text):
            raise wrong_rows(path, row, "an id in UTF-8", repr(text), "write the ids as UTF-8")
        found.append(text)
    return found


def clean(text: str) -> str:
    """Return an id in the form in which ids are compared."""
    return same_name(text.strip().strip(_BLANK).strip())


def _in_utf8(text: str) -> bool:
    """Return False for half of a surrogate pair, which JSON can hold and UTF-8 cannot."""
    try:
        return bool(text.encode())
    except UnicodeEncodeError:
        return False


def lines(path: Path) -> list[str]:
    """Return the ids in a text file, one per line, with or without a byte order mark.

    Raises:
        MissingData: the file does not exist.
        InvalidConfig: a line is empty, or the file is no text.
    """
    try:
        with readable(path):
            try:
                content = path.read_bytes()
            except FileNotFoundError as error:
                raise MissingData(f"ids not found: {path}", hint="a text file with one id per line") from error
        encoding = next((name for mark, name in _ENCODINGS if content.startswith(mark)), "utf-8-sig")
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise InvalidConfig(f"{path} is not UTF-8 text: {error}", hint="save it as UTF-8, one id per line") from error
    if "\0" in text:
        raise InvalidConfig(f"{path} is not UTF-8 text: it holds zeros", hint="save it as UTF-8, one id per line")
    # `splitlines` would also split at characters that an id may hold.
    found = [clean(line) for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    while found and not found[-1]:
        found.pop()
    if "" in found:
        raise InvalidConfig(
            f"{path}, line {found.index('') + 1}: expected an id, found an empty line", hint="one id per line"
        )
    return found


def check_unique(ids: Sequence[str], path: Path) -> None:
    """Raise InvalidConfig if two rows have the same id."""
    if len(set(ids)) == len(ids):
        return
    first: dict[str, int] = {}
    for row, one in enumerate(ids):
        if (before := first.setdefault(one, row)) != row:
            raise InvalidConfig(
                f"{path}: expected unique ids, found '{one}' twice, in rows {before} and {row}",
                hint="remove one of the two; ids that differ in blanks around them or in Unicode's form are the same",
            )
