"""Progress of long work: a bar on a terminal; elsewhere a line when work begins, for each tenth of it, and at its end.

Work that lasts has a line at least every 30 s.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.status import Status
from rich.table import Table
from rich.text import Text

from sparc.cli.output import PlainConsole
from sparc.errors import counted
from sparc.session import Listener

if TYPE_CHECKING:
    from sparc.extraction import Progress as Extracting
    from sparc.training.trainer import Step

QUIET = 30.0
"""Seconds without a line after which the present step is printed again, if the output is not a terminal."""
TENTH, BETWEEN = 0.1, 2.0
"""Share of the work after which a bar has another line there, and the least seconds between two of them."""
FEW_PARTS = 20
"""Most parts that have a line each, with their names."""
SHORT_TITLE = 20
"""Width of a title that is cut no more while the time elapsed is shown."""
SHORT_BAR, LONG_BAR = 10, 40
"""Least and largest width of a bar in characters."""
PIPED = 1000
"""Width of an output that is not a terminal."""
WAITING = 0.05
"""Smallest share of the time spent waiting for data that the bar shows."""
BOTTLENECK = {
    "data": "reading and preprocessing samples",
    "device": "the backbones",
    "disk": "writing features",
}


def _width() -> int | None:
    """Return the width of the output: that of its terminal, or enough for any table if the output is a file or pipe."""
    return None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPED


console = PlainConsole(highlight=False, soft_wrap=False, width=_width())


def rate(speed: float, unit: str) -> str:
    """Return parts per second, in at most three digits, with their unit; below one, the seconds of each."""
    if speed < 1:
        return f"{1 / speed:,.0f} s each"
    shown = f"{speed:.1f}" if speed < 10 else f"{float(f'{speed:.3g}'):,.0f}"
    return f"{shown} {unit}/s"


class SpeedColumn(ProgressColumn):
    """Parts per second, or seconds per part if that is below one."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        """Return the speed of the last 30 s, or of a finished task at its end; nothing until two parts are done."""
        speed = task.finished_speed or task.speed
        return Text(rate(speed, self._unit) if speed else "", style="progress.data.speed")


class LeftColumn(TimeRemainingColumn):
    """Time that the rest will take."""

    def render(self, task: Task) -> Text:
        """Return the time with its name; nothing at the end."""
        return Text() if task.finished else super().render(task).append(" left")


class ElapsedColumn(TimeElapsedColumn):
    """Time since the work began."""

    def render(self, task: Task) -> Text:
        """Return the time with its name."""
        return super().render(task).append(" elapsed")


class NoteColumn(ProgressColumn):
    """Notes of a task, divided by two spaces: as many as fit, the first ones."""

    room = 0
    """Columns of the terminal that are left for them."""

    def render(self, task: Task) -> Text:
        """Return the notes that fit, whole."""
        parts = task.fields["note"].split("  ")
        while parts and cell_len("  ".join(parts)) > self.room:
            parts.pop()
        return Text("  ".join(parts), style="dim")


class FittingProgress(Progress):
    """A progress bar of one task that fits its terminal: title, bar, count, unit, speed, times, notes.

    Count, speed and time left stay whole. In a narrow terminal the bar gets shorter; then these yield, in this order:
    the notes, the end of a long title, the time elapsed, the unit of the count if the speed has it too, and the title.
    """

    def make_tasks_table(self, tasks: Iterable[Task]) -> Table:
        """Return the table of the bar, with its columns as wide as the terminal permits."""
        tasks = list(tasks)
        if not tasks:  # while it is being made, it has no console
            return super().make_tasks_table(tasks)
        cells = {column: column(tasks[0]) for column in self.columns if isinstance(column, ProgressColumn)}
        title, bar, _, unit, *pace, elapsed, notes = cells
        assert isinstance(notes, NoteColumn)
        widths = {column: cell_len(cell.plain) for column, cell in cells.items() if isinstance(cell, Text)}
        widths[bar], widths[notes] = SHORT_BAR, 0
        speed = widths[pace[0]] if pace else 0

        def room() -> int:
            return self.console.width - sum(width + 1 for width in widths.values() if width)

        whole, widths[title] = widths[title], min(widths[title], SHORT_TITLE)
        for column in (elapsed, *([unit] if speed else [])):
            if room() < 0:
                widths[column] = 0
        widths[title] = max(1, min(whole, widths[title] + room()))
        note = cell_len(tasks[0].fields["note"])
        widths[bar] = max(SHORT_BAR, min(LONG_BAR, SHORT_BAR + room() - (note + 1 if note else 0)))
        notes.room = max(0, room() - 1)
        cells[notes] = notes.render(tasks[0])
        widths[notes] = notes.room if note else 0
        table = Table.grid(padding=(0, 1))
        shown = [column for column in cells if widths[column]]
        for column in shown:
            table.add_column(width=widths[column], no_wrap=True, overflow="ellipsis")
        table.add_row(*(cells[column] for column in shown))
        return table


class Bar:
    """Progress of one piece of work: a live bar on a terminal, elsewhere a line to print."""

    def __init__(self, output: Console, title: str, unit: str) -> None:
        self._title, self._unit = title, unit
        self._speed, self._left, self._elapsed = SpeedColumn(unit), LeftColumn(), ElapsedColumn()
        # The parts of an evaluation differ in length, so their speed says nothing.
        self._paced = unit != "parts"
        self._progress = FittingProgress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn(unit),
            *((self._speed, self._left) if self._paced else ()),
            self._elapsed,
            NoteColumn(),
            console=output,
            disable=not output.is_terminal,
        )
        self._progress.add_task(escape(title), total=None, note="")
        self._task = self._progress.tasks[0]
        self._progress.start()
        self.seen: tuple[int, int, str] | None = None
        """Parts done, their total, and the note, as last reported."""
        self.printed = 0
        """Parts done when the last line was printed."""
        self._since = time.monotonic()

    def stop(self) -> None:
        """Leave the bar as it is."""
        self._progress.stop()

    def update(self, done: int, total: int, note: str = "") -> None:
        """Take in that `done` of `total` parts are done, and a note such as the loss."""
        if self.seen != (done, total, note):
            self._since = time.monotonic()
        self.seen = done, total, note
        self._progress.update(self._task.id, completed=done, total=total, note=note)

    def line(self) -> str:
        """Return the bar as a line of markup, with the seconds since the last report if they are many."""
        task = self._task
        count = "" if self.seen is None else f"{self.seen[0]}/{self.seen[1]} {self._unit}"
        speed = str(self._speed.render(task)) if self._paced else ""
        left = str(self._left.render(task)) if self._paced and task.time_remaining else ""
        elapsed = str(self._elapsed.render(task)) if (task.elapsed or 0) >= 1 else ""
        waited = time.monotonic() - self._since
        now = f"{waited:.0f} s since" if waited >= QUIET and not task.finished else ""
        parts = (escape(self._title), count, speed, left, elapsed, escape(task.fields["note"]), now)
        return "  ".join(filter(None, parts))


class Screen(Listener):
    """Listener that prints: one bar or step at a time, notes and warnings between them. A context manager.

    Each step is printed when it begins. A step that takes long, such as importing PyTorch or one batch of a large
    model, cannot report: on a terminal it has a spinner, elsewhere its line is repeated with the seconds so far.
    """

    def __init__(self, output: Console = console, *, extracting: str = "extract") -> None:
        """Print to `output`. `extracting` is the word for what an extraction does."""
        self._output = output
        self._extracting = extracting
        self._bar: Bar | None = None
        self._key: object = None
        self._losses = ""
        self._step = ""
        """The step that is being done, if it has no bar; empty between steps."""
        self._spinner: Status | None = None
        self._began = self._printed = time.monotonic()
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._repeating = threading.Thread(target=self._repeat, daemon=True)

    def __enter__(self) -> Self:
        if not self._output.is_terminal:
            self._repeating.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self.close()
        if self._repeating.ident is not None:
            self._repeating.join()

    def loading(self, what: str) -> None:
        """Print that something is being loaded."""
        self.doing(f"loading {what}")

    def doing(self, what: str) -> None:
        """Print that a step begins; it lasts until the next report."""
        with self._lock:
            self.close()
            self._step, self._began = escape(what), time.monotonic()
            if self._output.is_terminal:
                self._spinner = self._output.status(f"[dim]{self._step} ...[/dim]")
                self._spinner.start()
            else:
                self._print(f"[dim]{self._step} ...[/dim]")

    def waiting(self, what: str) -> None:
        """Print a step only if it lasts, for many short steps whose results are printed."""
        with self._lock:
            self.close()
            self._step, self._began = escape(what), time.monotonic()

    def note(self, text: str) -> None:
        """Print a line."""
        self._line(f"[dim]{escape(text)}[/dim]")

    def warn(self, text: str) -> None:
        """Print a line in yellow."""
        self._line(f"[yellow]{escape(text)}[/yellow]")

    def extracting(self, progress: Extracting) -> None:
        """Show a bar for the streams that are extracted together, and at the end where the time went."""
        title = f"{self._extracting} {', '.join(progress.streams)} ({progress.split} split)"
        if not progress.total:
            self.doing(title)
        elif not progress.finished:
            note = f"waiting: {_shares(progress.spent)}"
            self._show(title, "samples", progress.done, progress.total, note)
        else:
            self._line(f"[dim]{_bottleneck(progress.spent)}[/dim]")
        if progress.skipped:
            some = ", ".join(progress.skipped[:3]) + (", ..." if len(progress.skipped) > 3 else "")
            self.warn(
                f"skipped {counted(len(progress.skipped), 'sample')} that could not be read in "
                f"{', '.join(progress.streams)}: {some}"
            )

    def step(self, step: Step) -> None:
        """Show the step, the last logged losses, and the time spent waiting for data if it is not small."""
        if step.losses is not None:
            means = step.losses.means
            self._losses = f"loss {step.losses.loss:.3f}  self {means['self']:.3f}  cross {means['cross']:.3f}"
        waiting = f"waiting for data {step.waiting:.0%}" if step.waiting >= WAITING else ""
        note = "  ".join(filter(None, (self._losses, waiting)))
        self._show("train", "steps", step.number, step.total, note)

    def progress(self, title: str, unit: str, done: int, total: int, note: str = "") -> None:
        """Show a bar. Elsewhere than on a terminal each of a few parts has a line when it begins, with its name."""
        self._show(title, unit, done, total, note, named=bool(note) and total <= FEW_PARTS)

    def _show(self, title: str, unit: str, done: int, total: int, note: str, *, named: bool = False) -> None:
        with self._lock:
            begins = self._bar is None or self._key != (title, unit)
            if self._bar is None or begins:
                self.close()
                self._key, self._bar = (title, unit), Bar(self._output, title, unit)
            bar = self._bar
            begins |= named and (bar.seen is None or bar.seen[0] != done)
            further = done - bar.printed >= TENTH * total and time.monotonic() - self._printed >= BETWEEN
            bar.update(done, total, note)
            if not self._output.is_terminal and (begins or further or done == total):
                self._print(bar.line())
            if done == total:
                self.close()

    def _line(self, markup: str) -> None:
        with self._lock:
            self.close()
            self._print(markup)

    def _print(self, markup: str) -> None:
        # On a terminal rich breaks a line between words; a file or pipe gets one line.
        self._output.print(markup, soft_wrap=not self._output.is_terminal)
        self._printed = time.monotonic()
        if self._bar is not None and self._bar.seen is not None:
            self._bar.printed = self._bar.seen[0]

    def _repeat(self) -> None:
        """Print the present step again whenever nothing was printed for a while."""
        while not self._ended.wait(max(0.1, self._printed + QUIET - time.monotonic())):
            with self._lock:
                now = time.monotonic()
                if self._ended.is_set() or now - self._printed < QUIET:
                    continue
                if self._bar is not None:
                    self._print(self._bar.line())
                elif self._step:
                    self._print(f"[dim]{self._step} ...  {now - self._began:.0f} s so far[/dim]")

    def close(self) -> None:
        """End the bar or the step, so that other output follows it."""
        with self._lock:
            if self._bar is not None:
                self._bar.stop()
            if self._spinner is not None:
                self._spinner.stop()
                self._print(f"[dim]{self._step} ...[/dim]")
            self._bar = self._spinner = self._key = None
            self._step = ""


def _bottleneck(spent: dict[str, float]) -> str:
    return f"  waiting: {_shares(spent)}; bottleneck: {BOTTLENECK[max(spent, key=spent.__getitem__)]}"


def _shares(spent: dict[str, float]) -> str:
    total = sum(spent.values()) or 1.0
    return ", ".join(f"{kind} {seconds / total:.0%}" for kind, seconds in spent.items())
