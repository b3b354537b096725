"""The work of an evaluation in parts: one process does all of them, or several processes each do some."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

Part = TypeVar("Part")
Found = TypeVar("Found")
OnPart = Callable[[int, int, str], None]
"""Callback that receives the number of parts done, their total, and the name of the part that begins."""


class Spread(Protocol):
    """Does the parts of some work, and yields what was found in each, in their order.

    Where several processes share the work, each calls this with the same parts, and all get everything. What is found
    travels between them, so it lies in the memory of the host.
    """

    def __call__(self, work: Callable[[Part], Found], parts: Iterable[Part], /) -> Iterator[Found]:
        """Do `work` on each part."""


def alone(work: Callable[[Part], Found], parts: Iterable[Part], /) -> Iterator[Found]:
    """Do all parts in this process."""
    return map(work, parts)


@dataclass(frozen=True)
class Work:
    """Functions that an evaluation calls to do its work in parts, and to tell how far it is."""

    spread: Spread = alone
    on_part: OnPart = lambda done, total, part: None
