"""Progress of long work: a bar on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

PLAIN_SECONDS = 5.0

console = Console(highlight=False, soft_wrap=False)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(_speed(speed) if speed else "", style="dim")


def _speed(rate: float) -> str:
    return f"{rate:.0f}/s" if rate >= 1 else f"{1 / rate:.0f} s each"


class Bar:
    """Progress of one piece of work; a context manager."""

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
                _Rate(),
                TimeRemainingColumn(),
                TextColumn("[dim]{task.fields[note]}"),
                console=console,
            )
        self._task = self._fancy.add_task(title, total=None, note="") if self._fancy else None
        self._begin: tuple[float, int] | None = None
        self._said = time.monotonic()
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
        """Show that `done` of `total` are done, and a note such as the loss."""
        if self._fancy is not None and self._task is not None:
            self._fancy.update(self._task, completed=done, total=total)
            if note:
                self._fancy.update(self._task, note=note)
            return
        now = time.monotonic()
        # What a first report finds done was done before: a resumed part says nothing about the speed.
        self._begin = self._begin or (now, done)
        if done != self._done and (done == total or now - self._said > PLAIN_SECONDS):
            self._said, self._done = now, done
            console.print(self._line(done, total, now, note), soft_wrap=True)

    def _line(self, done: int, total: int, now: float, note: str) -> str:
        assert self._begin is not None
        begin, first = self._begin
        line = f"{self.title}  {done}/{total} {self.unit}"
        if now > begin and done > first:
            rate = (done - first) / (now - begin)
            line += f"  {_speed(rate)}"
            if done < total:
                line += f"  {(total - done) / rate:.0f} s left"
        return line + (f"  {note}" if note else "")
