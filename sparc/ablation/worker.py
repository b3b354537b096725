"""What a worker process of an ablation does: train one run, or what is left of it, measure it, and take the next.

A SIGTERM lets it finish the step under way, save, and end; so does the end of its parent.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from sparc.config import RunConfig
from sparc.errors import SparcDeprecationWarning, say_warnings
from sparc.evaluation import Samples
from sparc.extraction import Job
from sparc.plugins.registry import discover
from sparc.session_measure import held_out, measure, samples_of
from sparc.storage.checkpoint import SharedLatentSpace, load
from sparc.storage.provenance import provenance
from sparc.storage.run import Run
from sparc.storage.store import FeatureStore, open_streams
from sparc.system.memory import keep_freed_memory
from sparc.training.trainer import train

TERMINATED = 128 + signal.SIGTERM


@dataclass(frozen=True)
class Task:
    """What all runs of an ablation have in common."""

    features: dict[str, Path]
    """By stream, where the training features lie."""
    held_out: dict[str, Job]
    """By stream, what the held-out features are."""
    options: RunConfig
    device: str
    command: list[str]
    """What the user typed."""


class Worker:
    """What one worker process has opened, which serves for all its runs."""

    def __init__(self, task: Task) -> None:
        """Open nothing yet: an error of the task belongs to a run."""
        self.task = task
        self._busy = False
        self._terminated = False

    @cached_property
    def features(self) -> FeatureStore:
        """Raw training features."""
        return open_streams(self.task.features)

    @cached_property
    def held_out(self) -> tuple[FeatureStore, Samples]:
        """Held-out features, and the same laid out on the device."""
        registry = discover()
        features, dataset = held_out(self.task.options, registry, self.task.held_out)
        return features, samples_of(features, dataset, registry, self.task.held_out, self.task.device)

    def terminate(self) -> None:
        """End at once, or where a run is under way as soon as it is saved."""
        self._terminated = True
        if not self._busy:
            os._exit(TERMINATED)

    def make(self, run: Run, options: RunConfig) -> None:
        """Train and measure a run, unless that was done; ends the process where it shall stop."""
        self._busy = True
        try:
            space = self._trained(run, options)
            if space is not None and not run.evaluation.is_file():
                features, samples = self.held_out
                measure(run, space, samples, features, seed=options.seed)
        finally:
            self._busy = False
        if self._terminated:
            os._exit(TERMINATED)

    def _trained(self, run: Run, options: RunConfig) -> SharedLatentSpace | None:
        """The space of a run; None where the training was stopped and saved."""
        if run.finished:
            return load(run.path, device=self.task.device)
        if not run.begun:
            Run.create(run.path)
            run.write_provenance(provenance(options, self.features, device=self.task.device, command=self.task.command))
        space = SharedLatentSpace(options.space(self.features.widths), seed=options.seed).to(self.task.device)
        finished = train(space, options.training(), self.features, run, should_stop=lambda: self._terminated)
        return space if finished else None


_worker: Worker


def start(task: Task) -> None:
    """Make this process a worker."""
    global _worker
    _worker = Worker(task)
    say_warnings()
    warnings.simplefilter("ignore", SparcDeprecationWarning)  # the parent has said it
    keep_freed_memory()
    # A terminal interrupts all processes; the parent alone decides what that means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: _worker.terminate())
    threading.Thread(target=_end_with_parent, daemon=True).start()


def make(run: Run, options: RunConfig) -> None:
    """Make a run in this process, which `start` made a worker."""
    _worker.make(run, options)


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for its next run for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
