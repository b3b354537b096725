"""The console of all commands, which shows control characters to no terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from sparc.system.cells import without_controls


class PlainConsole(Console):
    """A console that drops control characters of texts: names, ids and labels come from strangers' files.

    Colours and the movements of progress bars are no part of a text, and stay.
    """

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments of something to print."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(without_controls(segment.text), segment.style, segment.control)
