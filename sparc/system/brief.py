"""A short `repr` for results that hold many numbers: one line in a notebook, not a page."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

LETTERS = 60
"""Most letters of a value that are shown."""
NAMED = 3
"""Most entries that are shown by their names or values."""
PLAIN = (str, int, float, bool, type(None))


class Brief:
    """Base class of a dataclass or a pydantic model whose `repr` names its fields, and counts what is in them.

    A dataclass needs `repr=False`, so that it keeps this one.
    """

    def __repr__(self) -> str:
        """Return one line: plain values as they are, the number of entries of others."""
        parts = [f"{name}={_shown(value)}" for name, value in _fields(self)]
        return f"{type(self).__name__}({', '.join(parts)})"

    def __str__(self) -> str:
        """Return the same line."""
        return repr(self)


def _fields(one: Any) -> Iterator[tuple[str, Any]]:
    if dataclasses.is_dataclass(one):
        names = [field.name for field in dataclasses.fields(one) if field.repr]
    else:
        names = [name for name in type(one).model_fields if name in one.model_fields_set]
    for name in names:
        yield name, getattr(one, name)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return f"<{len(value)}: {', '.join(map(str, list(value)[:NAMED]))}>" if value else "{}"
    if isinstance(value, list | tuple):
        whole = len(value) <= NAMED and all(isinstance(one, PLAIN) for one in value)
        return f"({', '.join(map(_shown, value))})" if whole else f"<{len(value)}>"
    text = repr(value)
    if len(text) <= LETTERS:
        return text
    return f"{text[:LETTERS]}..." if isinstance(value, PLAIN) else f"<{type(value).__name__}>"
