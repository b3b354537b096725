"""Data files of the site: one JavaScript statement each, which hands JSON to the page.

A page that was opened from a disk may not fetch files, but may load scripts. The texts in the JSON are untrusted, so
every character that could end a script or a statement is escaped.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sparc.system.graphemes import start_of

DIGITS = 4
"""Significant digits of floats."""
_ENDING = re.compile("[<>&\u2028\u2029\u007f]")


def statement(name: str, content: Any) -> str:
    """Return the statement that hands `content` to the page under a name. Floats must be finite: see `significant`."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return f"sparcData({json.dumps(name)}, {_ENDING.sub(_escaped, text)});\n"


def _escaped(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def write_statement(folder: Path, name: str, content: Any) -> None:
    """Write the statement of `name` into `folder`; a name such as `latent/3` gives the file `latent-3.js`."""
    text = statement(name, content)
    try:
        written = text.encode()
    except UnicodeEncodeError:  # a name in a damaged log or evaluation
        written = clean(text).encode()
    (folder / f"{name.replace('/', '-')}.js").write_bytes(written)


def significant(value: int | float | None, digits: int = DIGITS) -> int | float | None:
    """Round to some significant digits, integers not at all; None for None, NaN and infinity."""
    if isinstance(value, int):
        return value
    return None if value is None or not math.isfinite(value) else float(f"{value:.{digits}g}")


def significants(values: Iterable[float | None]) -> list[int | float | None]:
    """Round each of some numbers as `significant` does. Arrays are faster as lists: pass `array.tolist()`."""
    return [significant(value) for value in values]


def clean(text: str) -> str:
    """Return a text as UTF-8 can hold it: half a surrogate pair, which JSON files may contain, becomes U+FFFD."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def shortened(text: str, length: int) -> str:
    """Return at most `length` characters of a text; a cut text ends in an ellipsis, and no emoji is cut."""
    if len(text) <= length:
        return text
    return f"{start_of(text, length - 1).rstrip()}…"
