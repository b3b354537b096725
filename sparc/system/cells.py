"""Text that leaves sparc: without what a terminal obeys, and in cells that no spreadsheet takes for a formula."""

from __future__ import annotations

import re

_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Control characters without tab and line feed, and the characters that reverse the direction of a text."""
_FORMULA = re.compile("'*[=+\\-@\t\r]")
"""Start of a cell that a spreadsheet takes for a formula, or took before it was quoted."""


def without_controls(text: str) -> str:
    """Return a text without characters that a terminal obeys instead of showing them."""
    return text if text.isprintable() else _CONTROLS.sub("", text)


def csv_cell(value: object) -> object:
    """Return a value for a cell of a CSV file. A text that begins as a formula does gets a quote in front of it."""
    if not isinstance(value, str):
        return value
    text = without_controls(value)
    return f"'{text}" if _FORMULA.match(text) else text


def csv_text(written: str) -> str:
    """Return the text of a cell that `csv_cell` made."""
    return written[1:] if written.startswith("'") and _FORMULA.match(written, 1) else written
