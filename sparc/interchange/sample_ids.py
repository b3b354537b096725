"""Ids of samples: texts by which rows of several files are joined.

Ids that look the same are the same: they are compared in Unicode's composed form, without surrounding blanks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from sparc.errors import InvalidConfig, MissingData
from sparc.interchange.arrays import wrong_rows
from sparc.system.names import same_name
from sparc.system.nearby import meant
from sparc.system.texts import read_text

_BLANK = "\ufeff"
"""The byte order mark, which a text file may leave in front of the first id."""
_HINT = "every row needs an id: a text, or a whole number"


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
        elif (isinstance(value, int | np.integer) and not isinstance(value, bool)) or isinstance(value, PurePath):
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
    """Return the ids in a text file, one per line, in any encoding that has a byte order mark, or in UTF-8.

    Raises:
        MissingData: the file does not exist.
        InvalidConfig: a line is empty, or the file is no text.
    """
    try:
        text = read_text(path)
    except FileNotFoundError as error:
        hint = meant(path, "a text file with one id per line", folder=False)
        raise MissingData(f"ids not found: {path}", hint=hint) from error
    found = [clean(line) for line in text.split("\n")]  # `splitlines` also splits at characters that an id may hold
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
