"""Texts cut between what readers see as characters: an emoji or an accented letter may be several code points."""

from __future__ import annotations

import regex

_CLUSTER = regex.compile(r"\X")
_LONGEST = 64
"""Code points of a character that are kept together; texts can pile marks without end."""


def start_of(text: str, length: int) -> str:
    """Return the longest beginning of a text, at most `length` code points, that cuts no character in two.

    A first character of more than `length` code points is cut.
    """
    if len(text) <= length or text[: length + 1].isascii():
        return text[:length]
    end = 0
    for found in _CLUSTER.finditer(text[: length + _LONGEST]):
        if found.end() > length:
            break
        end = found.end()
    return text[: end or length]
