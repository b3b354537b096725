"""A worker process of an ablation: it trains and evaluates one run after the other, resuming those that are begun.

On SIGTERM, and when its parent dies, it finishes the current step, saves the run, and exits.
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
from sparc.system.locks import owned
from sparc.system.memory import keep_freed_memory

TERMINATED = 128 + signal.SIGTERM
PATIENCE = 60.0
"""Seconds in which the worker of an ablation that was killed saves its run."""


@dataclass(frozen=True)
class Task:
    """Inputs that all runs of an ablation share."""

    config: RunConfig
    jobs: dict[str, dict[str, Job]]
    """Jobs by split, then by stream, all of them done."""
    device: str
    command: list[str]
    """Words of the command that the user typed."""


class Worker:
    """One worker process, which opens the data once for all its runs."""

    def __init__(self, task: Task) -> None:
        """Store the task; the data open with the first run, so that an error is reported as that run's."""
        self.task = task
        self._busy = False
        self._terminated = False

    @cached_property
    def data(self) -> Data:
        """Features and held-out samples of all runs."""
        config = self.task.config.model_copy(update={"device": self.task.device})
        return Data(config, discover(), jobs=self.task.jobs)

    def terminate(self) -> None:
        """Exit at once, or as soon as the current run is saved."""
        self._terminated = True
        if not self._busy:
            os._exit(TERMINATED)

    def make(self, run: Run, config: RunConfig) -> None:
        """Train and evaluate a run, skipping what is done; then exit if `terminate` was called."""
        self._busy = True
        try:
            session = Session(config, self.data, run, command=self.task.command)
            with owned(run.path, "wait until it ends", patience=PATIENCE):
                run.sweep()
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
    # A terminal sends SIGINT to all its processes; only the parent handles it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: _worker.terminate())
    threading.Thread(target=_end_with_parent, daemon=True).start()


def make(run: Run, config: RunConfig) -> None:
    """Train and evaluate a run in this process, which `start` made a worker."""
    _worker.make(run, config)


def _end_with_parent() -> None:
    """Exit with the parent: without it, a worker would wait forever for its next run."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
