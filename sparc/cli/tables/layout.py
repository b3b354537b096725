"""The layout of tables of numbers: what yields if a table is wider than the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

NARROWEST = 12
"""Least width of the first column, in characters, in which names wrap. A table that needs more room is turned."""


class NumberTable(Table):
    """A table without rules: names in the first column, numbers in the others.

    Numbers are never cut. In a narrow terminal the names wrap; if that does not suffice, the table is turned: each row
    becomes a paragraph with a line per number. The first line of a header with several is a group, which continues
    where that line is empty; the others are a name.
    """

    def __init__(self, title: str | None, first: str, *others: str) -> None:
        """Make a table with a header per column."""
        super().__init__(
            title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim"
        )
        self.add_column(Text(first), overflow="fold")
        for header in others:
            self.add_column(Text(header), justify="right", no_wrap=True)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render the table, or the turned one if this one does not fit."""
        first, *others = (self._measure_column(console, options.update(width=10_000), one) for one in self.columns)
        numbers = sum(one.maximum for one in others)
        if numbers + min(first.maximum, max(NARROWEST + 1, first.minimum)) > options.max_width and len(others) > 1:
            yield from self._turned()
        else:
            yield from super().__rich_console__(console, options)

    def _turned(self) -> Iterator[Text]:
        """Yield a paragraph per row."""
        if self.title:
            yield Text(str(self.title), style="bold")
        headers = _flat([str(column.header) for column in self.columns])
        width = max(map(len, headers[1:]))
        for cells in zip(*(column.cells for column in self.columns), strict=True):
            name, *numbers = map(_text, cells)
            prefix = f"{headers[0]} " if headers[0] and name.plain.isdigit() else ""
            yield Text.assemble(prefix, name)
            for header, number in zip(headers[1:], numbers, strict=True):
                if number.plain:
                    yield Text.assemble(("  " + header.ljust(width + 2), "dim"), number)


def _flat(headers: list[str]) -> list[str]:
    """Return headers of several lines as one line each: a group continues where its line is empty."""
    flat, group = [], ""
    for header in headers:
        first, *name = header.split("\n")
        group = (first or group) if name else ""
        flat.append(" ".join(filter(None, [group, *name])) if name else header)
    return flat


def _text(cell: object) -> Text:
    return cell if isinstance(cell, Text) else Text.from_markup(str(cell))
