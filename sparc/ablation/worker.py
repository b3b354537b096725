"""What a worker process of an ablation does: train one run, or the rest of it, measure it, and take the next.

On SIGTERM it finishes the step under way, saves, and ends; so it does when its parent dies.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from dataclasses import dataclass
from functools import cached_property

from sparc.config import RunConfig
from sparc.errors import say_warnings
from sparc.extraction import Job
from sparc.plugins.registry import discover
from sparc.session import Data, Session
from sparc.storage.run import Run
from sparc.system.memory import keep_freed_memory

TERMINATED = 128 + signal.SIGTERM


@dataclass(frozen=True)
class Task:
    """What all runs of an ablation have in common."""

    config: RunConfig
    jobs: dict[str, dict[str, Job]]
    """Split to stream to job, all done."""
    device: str
    command: list[str]
    """Words that the user typed."""


class Worker:
    """One worker process, with the data that it opened for all its runs."""

    def __init__(self, task: Task) -> None:
        """Open nothing yet: an error of the task belongs to a run."""
        self.task = task
        self._busy = False
        self._terminated = False

    @cached_property
    def data(self) -> Data:
        """Features and held-out samples of all runs."""
        config = self.task.config.model_copy(update={"device": self.task.device})
        return Data(config, discover(), jobs=self.task.jobs)

    def terminate(self) -> None:
        """End at once, or as soon as the run under way is saved."""
        self._terminated = True
        if not self._busy:
            os._exit(TERMINATED)

    def make(self, run: Run, config: RunConfig) -> None:
        """Train and measure a run, unless that was done; ends the process if it was told to."""
        self._busy = True
        try:
            session = Session(config, self.data, run, command=self.task.command)
            if not run.begun:
                session.create()
            space = session.train(lambda: self._terminated)
            if space is not None and not run.evaluation.is_file():
                session.evaluate(space)
        finally:
            self._busy = False
        if self._terminated:
            os._exit(TERMINATED)


_worker: Worker


def start(task: Task) -> None:
    """Make this process a worker."""
    global _worker
    _worker = Worker(task)
    say_warnings()
    keep_freed_memory()
    # A terminal interrupts all processes; the parent alone decides what follows.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: _worker.terminate())
    threading.Thread(target=_end_with_parent, daemon=True).start()


def make(run: Run, config: RunConfig) -> None:
    """Make a run in this process, which `start` made a worker."""
    _worker.make(run, config)


def _end_with_parent() -> None:
    """End with the parent: a worker whose parent was killed would wait for its next run for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
