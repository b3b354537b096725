"""Start the worker process of an extraction, and turn its events into progress and errors."""

from __future__ import annotations

import json
import signal
import subprocess
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from sparc import errors
from sparc.errors import OutOfMemory, PluginError, SparcError, StorageError
from sparc.extraction.plan import AGAIN, WHOLE, Job, Order, Share
from sparc.extraction.sharing import sweep
from sparc.storage.manifest import IMPORTED
from sparc.system.processes import started

KILLED = -9
"""Exit code of a process that SIGKILL ended; Windows has none."""
PATIENCE = 10.0
"""Seconds in which a worker ends after SIGTERM."""


@dataclass(frozen=True)
class Progress:
    """Progress of the streams that are extracted together."""

    streams: tuple[str, ...] = ()
    """While backbones are loaded, the one stream being loaded."""
    split: str = ""
    """Empty while backbones are loaded."""
    done: int = 0
    total: int = 0
    """Number of distinct images or captions; 0 until it is known."""
    spent: dict[str, float] = field(default_factory=dict)
    """Seconds spent waiting for `data`, `device` and `disk` so far."""
    finished: bool = False
    skipped: tuple[str, ...] = ()
    """Samples that could not be read; known at the end."""

    @property
    def loading(self) -> bool:
        """True while the backbone of the one stream in `streams` is being loaded."""
        return not self.split


def extract(
    jobs: Iterable[Job],
    on_progress: Callable[[Progress], None] = lambda progress: None,
    *,
    share: Share = WHOLE,
) -> None:
    """Extract what the store lacks of `jobs`, in a worker process.

    Several processes can share the jobs: with the share (0, 2) this one writes every second shard, with (1, 2) the
    others.
    `on_progress` first hears at once which stream is being loaded. An interruption loses at most one shard's work.

    Raises the SparcError that the worker raised. Any other error becomes a PluginError, with the worker's traceback as
    its cause.
    """
    complete: list[Job] = []
    waiting: list[Job] = []
    for job in jobs:
        (complete if job.done else waiting).append(job)
    sweep([job for job in complete if job.dataset.name != IMPORTED])
    if not waiting:
        return
    current = Progress((waiting[0].stream.alias,))
    on_progress(current)  # before the worker has imported anything, which takes seconds
    for event in events(Order(jobs=waiting, share=share)):
        before, current = current, following(current, event)
        if current != before:
            on_progress(current)


def probe(
    jobs: Iterable[Job], on_progress: Callable[[Progress], None] = lambda progress: None
) -> list[tuple[Progress, dict[str, Any]]]:
    """Estimate what `extract` would take, from a few samples of what the store lacks of `jobs`.

    Returns for each group of streams that are computed together its `Progress` and its `Estimate` as a dict. Raises as
    `extract`.
    """
    passing = {"skip_bad": True}  # samples that cannot be read are part of the answer
    waiting = [
        job.model_copy(update={"options": job.options.model_copy(update=passing)}) for job in jobs if not job.done
    ]
    found: list[tuple[Progress, dict[str, Any]]] = []
    if not waiting:
        return found
    current = Progress((waiting[0].stream.alias,))
    on_progress(current)  # before the worker has imported anything, which takes seconds
    for event in events(Order(jobs=waiting, probe=True)):
        if event["event"] == "probed":
            found.append((current, event["found"]))
        else:
            before, current = current, following(current, event)
            if current != before:
                on_progress(current)
    return found


def events(order: Order) -> Iterator[dict[str, Any]]:
    """Start a worker with an order, yield its events, and repeat its warnings."""
    worker = started("sparc.extraction.worker")
    assert worker.stdin is not None
    assert worker.stdout is not None
    try:
        worker.stdin.write(order.model_dump_json())
        worker.stdin.close()
        at = ""
        for line in worker.stdout:
            event = json.loads(line)
            if event["event"] == "warning":
                warnings.warn(event["message"], stacklevel=2)
                continue
            at = event.get("stream") or ", ".join(event.get("streams", ())) or at
            yield event
        if worker.wait() != 0:
            raise _death(worker.returncode, at)
    finally:
        worker.terminate()
        try:
            worker.wait(PATIENCE)
        except subprocess.TimeoutExpired:  # it is stopped, or waits for a disk
            worker.kill()
            worker.wait()
        worker.stdout.close()


def _death(code: int, at: str) -> SparcError:
    """Return the error of a worker that ended without an error of its own, in the streams `at`."""
    where = f" in stream '{at}'" if at else ""
    if code == KILLED:
        return OutOfMemory(
            f"the extraction process was killed{where}",
            hint="the system kills processes when memory is short: free some, or extract fewer streams at a time; "
            + AGAIN,
        )
    if code == -signal.SIGTERM:
        return StorageError(
            f"the extraction process was ended by SIGTERM{where}", hint=f"another program did that; {AGAIN}"
        )
    how = f"was killed by {signal.Signals(-code).name}" if -code in set(signal.Signals) else f"ended with code {code}"
    return PluginError(
        f"the extraction process {how}{where}", hint=f"a library crashed, or memory or a disk failed; {AGAIN}"
    )


def following(current: Progress, event: dict[str, object]) -> Progress:
    """Return the progress after an event. Raises the error that the event reports."""
    match event:
        case {"event": "load", "stream": str(stream)}:
            return Progress((stream,))
        case {"event": "begin", "streams": list(streams), "split": str(split)}:
            return Progress(tuple(streams), split)
        case {"event": "progress", "done": int(done), "total": int(total), "spent": dict(spent)}:
            return Progress(current.streams, current.split, done, total, spent)
        case {"event": "end", "skipped": list(skipped), "spent": dict(spent)}:
            total = current.total
            return Progress(current.streams, current.split, total, total, spent, True, tuple(skipped))
        case {"event": "error", "kind": "crash", "message": str(message), "traceback": str(trace)}:
            where = f"stream '{', '.join(current.streams)}': " if current.streams else ""
            raise PluginError(
                f"{where}{message}", hint="this may be a bug in the plugin; --debug shows where"
            ) from RuntimeError(trace)
        case {"event": "error", "kind": str(kind), "message": str(message), "hint": str(hint), "traceback": str(trace)}:
            lines = event.get("details")
            details = tuple(map(str, lines)) if isinstance(lines, list) else ()
            raise errors.remade(getattr(errors, kind, SparcError), message, hint, details) from RuntimeError(trace)
    raise RuntimeError(f"unknown event of the worker: {event}")
