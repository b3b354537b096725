"""The console of all commands, which shows control characters to no terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.cells import cell_len
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


def say(output: Console, text: str, *, indent: int = 4, style: str = "") -> None:
    """Print a line; on a terminal, words that do not fit go to the next one, which begins with `indent` spaces.

    Output that is no terminal gets one line, for programs that read it.
    """
    if not output.is_terminal or cell_len(text) <= output.width:
        output.print(text, style=style, markup=False, soft_wrap=True)
        return
    start = text[: len(text) - len(text.lstrip())]
    first, *words = text[len(start) :].split(" ")  # spaces that align columns stay
    lines = [start + first]
    for word in words:
        if word and cell_len(lines[-1]) + 1 + cell_len(word) > output.width:
            lines.append(" " * (len(start) + indent) + word)
        else:
            lines[-1] += " " + word
    for line in lines:
        output.print(line.rstrip(), style=style, markup=False, soft_wrap=True)
