"""Lists of labels as programs write them into a cell of a table: pandas, NumPy, JSON."""

from __future__ import annotations

import ast
import contextlib
import json
import re

_QUOTED = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
_ITEM = re.compile(rf"(?P<quoted>{_QUOTED})|(?P<nothing>None|nan|NaN|null|<NA>)|(?P<number>[-+]?\d[\w.+-]*)", re.DOTALL)
_BETWEEN = re.compile(r"\s*,\s*|\s+")
_QUOTES_IN_BRACKETS = re.compile(r"""\[\s*(['"]).*\1\s*,?\s*\]""", re.DOTALL)
_NOTHING = ("nan", "<na>")


def is_nothing(cell: str) -> bool:
    """Return True for what pandas writes in place of a missing value."""
    return cell.strip().casefold() in _NOTHING


def listed(cell: str) -> list[str] | None:
    """Return the texts of a list, `['a', 'b']` or NumPy's `['a' 'b']`, without None and nan; None for any other text.

    Raises ValueError for a list of quoted texts that cannot be read, such as one that NumPy has shortened.
    """
    text = cell.strip()
    if text[:1] + text[-1:] not in ("[]", "()", "{}") or len(text) < 2:
        return None
    with contextlib.suppress(ValueError, RecursionError):  # JSON escapes letters in another way than Python
        parts = json.loads(text, parse_int=str, parse_float=str, parse_constant=lambda _: None)
        if isinstance(parts, list) and all(isinstance(part, str | None) for part in parts):
            return [part for part in parts if part is not None]
    found = _items(text[1:-1].strip())
    if found is not None and (text[0] == "[" or (found and all(quoted for quoted, _ in found))):
        return [value for _, value in found if value is not None]
    if _QUOTES_IN_BRACKETS.fullmatch(text):
        raise ValueError(f"{text!r:.80}")
    return None


def _items(text: str) -> list[tuple[bool, str | None]] | None:
    """Return for each item whether it is quoted, and its text, None of a missing value; None if the text is no list."""
    found: list[tuple[bool, str | None]] = []
    place = 0
    while place < len(text):
        if (item := _ITEM.match(text, place)) is None:
            return None
        if item["quoted"]:
            try:
                found.append((True, ast.literal_eval(_on_one_line(item["quoted"]))))
            except (ValueError, SyntaxError):
                return None
        else:
            found.append((False, item["number"]))
        place = item.end()
        if place < len(text):
            if (between := _BETWEEN.match(text, place)) is None:
                return None
            place = between.end()
    return found


def _on_one_line(quoted: str) -> str:
    return quoted.replace("\r", "\\r").replace("\n", "\\n").replace("\\/", "/")
