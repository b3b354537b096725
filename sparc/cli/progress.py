"""Progress of long work: a bar on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

PLAIN_SECONDS = 5.0

console = Console(highlight=False, soft_wrap=False)


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
                TextColumn("[dim]{task.fields[pace]}"),
                TextColumn("[dim]{task.fields[note]}"),
                console=console,
            )
        self._task = self._fancy.add_task(title, total=None, note="", pace="") if self._fancy else None
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
        now = time.monotonic()
        # What a first report finds done was done before: a resumed part says nothing about the speed.
        self._begin = self._begin or (now, done)
        pace = _pace(done - self._begin[1], total - done, now - self._begin[0])
        if self._fancy is not None and self._task is not None:
            self._fancy.update(self._task, completed=done, total=total, pace=pace)
            if note:
                self._fancy.update(self._task, note=note)
        elif done != self._done and (done == total or now - self._said > PLAIN_SECONDS):
            self._said, self._done = now, done
            said = (self.title, f"{done}/{total} {self.unit}", pace, note)
            console.print("  ".join(filter(None, said)), soft_wrap=True)


def _pace(done: int, left: int, seconds: float) -> str:
    """How fast it goes, and how long it takes, as far as can be said; parts that finish together are no rush."""
    if done <= 0 or seconds <= 0:
        return ""
    rate = done / seconds
    speed = f"{rate:.0f}/s" if rate >= 1 else f"{1 / rate:.0f} s each"
    return f"{speed}  {left / rate:.0f} s left" if left > 0 else speed
