"""Starts the worker process that extracts, and listens to it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sparc import errors
from sparc.errors import PluginError, SparcError
from sparc.extract.plan import Job


@dataclass(frozen=True)
class Progress:
    """How far a job is."""

    stream: str
    split: str
    done: int
    total: int
    skipped: tuple[str, ...] | None = None
    """Samples that could not be read; None until the job is finished."""


def extract(jobs: Iterable[Job], on_progress: Callable[[Progress], None] = lambda progress: None) -> None:
    """Do what the store lacks of `jobs`, in a worker process.

    Interrupting loses at most the shard in work. Raises the SparcError that the worker met; an error that is no
    SparcError becomes a PluginError, with the worker's traceback as its cause.
    """
    waiting = [job for job in jobs if not job.done]
    if not waiting:
        return
    # A backbone is loaded once for all its splits; the streams keep the order in which they were named.
    order = list(dict.fromkeys(job.stream.alias for job in waiting))
    todo = sorted(waiting, key=lambda job: order.index(job.stream.alias))
    worker = subprocess.Popen(
        [sys.executable, "-m", "sparc.extract.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    assert worker.stdin is not None
    assert worker.stdout is not None
    try:
        worker.stdin.write(json.dumps([job.model_dump(mode="json") for job in todo]))
        worker.stdin.close()
        current = Progress("", "", 0, 0)
        for line in worker.stdout:
            current = _next(current, json.loads(line))
            on_progress(current)
        if worker.wait() != 0:
            raise PluginError(
                f"the extracting process ended with code {worker.returncode} in stream '{current.stream}'",
                hint="run the same command again: complete shards are kept; if it was killed, use less memory",
            )
    finally:
        worker.terminate()
        worker.wait()
        worker.stdout.close()


def _next(current: Progress, event: dict[str, object]) -> Progress:
    """The progress after an event. Raises the error that the event reports."""
    match event:
        case {"event": "load", "stream": str(stream)}:
            return Progress(stream, "", 0, 0)
        case {"event": "begin", "stream": str(stream), "split": str(split), "total": int(total)}:
            return Progress(stream, split, 0, total)
        case {"event": "progress", "done": int(done)}:
            return Progress(current.stream, current.split, done, current.total)
        case {"event": "end", "skipped": list(skipped)}:
            return Progress(current.stream, current.split, current.total, current.total, tuple(skipped))
        case {"event": "error", "kind": "crash", "message": str(message), "traceback": str(trace)}:
            where = f"stream '{current.stream}': " if current.stream else ""
            raise PluginError(
                f"{where}{message}", hint="this may be a bug in the plugin; --debug shows where"
            ) from RuntimeError(trace)
        case {"event": "error", "kind": str(kind), "message": str(message), "hint": str(hint)}:
            error = SparcError.__new__(getattr(errors, kind, SparcError))
            SparcError.__init__(error, message, hint=hint)
            raise error
    raise RuntimeError(f"unknown event of the worker: {event}")
