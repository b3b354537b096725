"""Progress of long work: a bar on a terminal, else a plain line every few seconds."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from sparc.session import Listener

if TYPE_CHECKING:
    from sparc.extraction import Progress as Extracting
    from sparc.training.trainer import Step

PLAIN_SECONDS = 5.0
"""Seconds between two lines if the output is not a terminal."""
WAITING = 0.05
"""Smallest share of the time spent waiting for data that the bar shows."""
BOTTLENECK = {
    "data": "reading and preprocessing samples",
    "device": "the backbones",
    "disk": "writing features",
}

console = Console(highlight=False, soft_wrap=False)


class Bar:
    """Progress bar of one piece of work; a context manager."""

    def __init__(self, title: str, unit: str) -> None:
        self.title = title
        self.unit = unit
        self._fancy: Progress | None = None
        if console.is_terminal:
            self._fancy = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn(unit),
                TextColumn("[dim]{task.fields[pace]}"),
                TextColumn("[dim]{task.fields[note]}"),
                console=console,
            )
        self._task = self._fancy.add_task(title, total=None, note="", pace="") if self._fancy else None
        self._begin: tuple[float, int] | None = None
        self._printed = time.monotonic()
        self._done = -1

    def __enter__(self) -> Self:
        if self._fancy:
            self._fancy.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._fancy:
            self._fancy.stop()

    def update(self, done: int, total: int, note: str = "") -> None:
        """Show that `done` of `total` parts are done, and a note such as the loss."""
        now = time.monotonic()
        # The pace counts from the first report: earlier work was done by another process.
        self._begin = self._begin or (now, done)
        pace = _pace(done - self._begin[1], total - done, now - self._begin[0])
        if self._fancy is not None and self._task is not None:
            self._fancy.update(self._task, completed=done, total=total, pace=pace)
            if note:
                self._fancy.update(self._task, note=note)
        elif done != self._done and (done == total or now - self._printed > PLAIN_SECONDS):
            self._printed, self._done = now, done
            parts = (self.title, f"{done}/{total} {self.unit}", pace, note)
            console.print("  ".join(filter(None, parts)), soft_wrap=True)


def _pace(done: int, left: int, seconds: float) -> str:
    """Return the rate and the time left, or an empty string before the first part is done."""
    if done <= 0 or seconds <= 0:
        return ""
    rate = done / seconds
    speed = f"{rate:.0f}/s" if rate >= 1 else f"{1 / rate:.0f} s each"
    return f"{speed}  {left / rate:.0f} s left" if left > 0 else speed


class Screen(Listener):
    """Listener that prints: one bar at a time, notes and warnings between bars. A context manager."""

    def __init__(self) -> None:
        self._bar: Bar | None = None
        self._key: object = None
        self._losses = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def loading(self, what: str) -> None:
        """Print that something is being loaded."""
        self._line(f"[dim]loading {escape(what)} ...[/dim]")

    def note(self, text: str) -> None:
        """Print a line."""
        self._line(f"[dim]{escape(text)}[/dim]")

    def warn(self, text: str) -> None:
        """Print a line in yellow."""
        self._line(f"[yellow]{escape(text)}[/yellow]")

    def extracting(self, progress: Extracting) -> None:
        """Show a bar for the streams that are extracted together, and at the end where the time went."""
        if not progress.total:
            return
        title = escape(f"extract {', '.join(progress.streams)} {progress.split}")
        bar = self._bar_of((progress.streams, progress.split), title, "samples")
        if not progress.finished:
            bar.update(progress.done, progress.total, f"waiting: {_shares(progress.spent)}")
            return
        self._line(f"[dim]{_bottleneck(progress.spent)}[/dim]")
        if progress.skipped:
            some = ", ".join(progress.skipped[:3]) + (", ..." if len(progress.skipped) > 3 else "")
            self.warn(
                f"skipped {len(progress.skipped)} samples that could not be read in "
                f"{', '.join(progress.streams)}: {some}"
            )

    def step(self, step: Step) -> None:
        """Show the step, the last logged losses, and the time spent waiting for data if it is not small."""
        if step.losses is not None:
            means = step.losses.means
            self._losses = f"loss {step.losses.loss:.3f}  self {means['self']:.3f}  cross {means['cross']:.3f}"
        waiting = f"waiting for data {step.waiting:.0%}" if step.waiting >= WAITING else ""
        note = "  ".join(filter(None, (self._losses, waiting)))
        self._bar_of("train", "train", "steps").update(step.number, step.total, note)

    def progress(self, title: str, unit: str, done: int, total: int, note: str = "") -> None:
        """Show a bar."""
        self._bar_of(title, title, unit).update(done, total, note)

    def _bar_of(self, key: object, title: str, unit: str) -> Bar:
        """Return the open bar if it has this key, else close it and open a new one."""
        if self._bar is None or self._key != key:
            self._close()
            self._key, self._bar = key, Bar(title, unit).__enter__()
        return self._bar

    def _line(self, markup: str) -> None:
        self._close()
        console.print(markup, soft_wrap=True)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
            self._bar = None


def _bottleneck(spent: dict[str, float]) -> str:
    return f"  waiting: {_shares(spent)}; bottleneck: {BOTTLENECK[max(spent, key=spent.__getitem__)]}"


def _shares(spent: dict[str, float]) -> str:
    total = sum(spent.values()) or 1.0
    return ", ".join(f"{kind} {seconds / total:.0%}" for kind, seconds in spent.items())
