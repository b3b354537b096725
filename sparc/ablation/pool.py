"""Trains the runs of an ablation side by side, as many as the machine holds."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Protocol

import torch

from sparc.ablation.grid import Cell
from sparc.ablation.worker import Task, make, start
from sparc.config import RunConfig, SpaceConfig
from sparc.errors import BadFeatures, SparcError
from sparc.storage.run import Run
from sparc.system.memory import available_bytes

OVERHEAD = 9 * 10**8
"""Bytes of a process beside its tables, as measured: libraries, a batch, its logits."""
ON_CUDA = 4
"""Trainings that one GPU is given at a time; more would only wait for each other."""
POLL = 0.1
"""Seconds after which an interruption is noticed."""


@dataclass(frozen=True)
class Work:
    """One run to be made."""

    cell: Cell
    run: Run
    config: RunConfig


class Ends(Protocol):
    """Hears of runs that end, in any order."""

    def done(self, work: Work) -> None:
        """Take note of a run that is trained and measured."""

    def failed(self, work: Work, error: BadFeatures) -> None:
        """Take note of a run that diverged."""


@dataclass(frozen=True)
class Room:
    """How many runs are trained side by side, and with how many threads each."""

    workers: int
    threads: int


def room(works: Sequence[Work], widths: Mapping[str, int], held_out: int, device: str) -> Room:
    """Share the machine among runs, each of which may be the largest; `held_out` is a number of samples."""
    cores = _cores()
    need = max(needed_bytes(work.config.space(widths), work.config.adam_state, held_out=held_out) for work in works)
    if device.startswith("cuda"):
        free, _ = torch.cuda.mem_get_info(device)
        most = min(ON_CUDA, free // need)
    else:
        most = min(cores, available_bytes() // need)
    workers = max(1, min(len(works), most))
    # A user who set OMP_NUM_THREADS means no process to have more.
    return Room(workers, max(1, min(cores // workers, torch.get_num_threads())))


def needed_bytes(space: SpaceConfig, adam_state: str, *, held_out: int) -> int:
    """Memory of a training: parameters, two moments of each, counters, held-out samples, and what any process needs."""
    n_streams, width, n_latents = len(space.streams), sum(space.streams.values()), space.n_latents
    n_parameters = 2 * n_latents * width + n_streams * n_latents + width
    moment = 2 if adam_state == "bfloat16" else 4
    return n_parameters * (4 + 2 * moment) + 8 * n_streams * n_latents + 4 * held_out * width + OVERHEAD


def make_all(
    works: Sequence[Work],
    task: Task,
    room: Room,
    *,
    report: Ends,
    should_stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Make runs in worker processes; returns False where `should_stop` said so, and half-trained runs were saved.

    A run whose loss or weights are not finite is reported as failed, and the others go on. Raises the SparcError of any
    other failure, or one that says that a worker was killed; the other workers save theirs first. On KeyboardInterrupt
    nothing is saved.
    """
    others = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(room.workers, context, initializer=start, initargs=(task,))
    try:
        with _settings_of_workers(room.threads):
            futures = {executor.submit(make, work.run, work.config): work for work in works}
        pending = set(futures)
        while pending and not should_stop():
            done, pending = wait(pending, timeout=POLL, return_when=FIRST_COMPLETED)
            for future in done:
                try:
                    future.result()
                except BadFeatures as error:  # of this run alone: the settings of others may do
                    report.failed(futures[future], error)
                else:
                    report.done(futures[future])
        return not pending
    except BrokenProcessPool as error:
        time.sleep(POLL)  # who ends all processes of a terminal or a job may reach the workers first
        if should_stop():
            return False
        raise SparcError(
            "a process that trained was killed, perhaps for want of memory",
            hint="run the same command with the same --out: what is complete is kept; or lower --n-latents",
        ) from error
    except KeyboardInterrupt:
        for worker in set(multiprocessing.active_children()) - others:
            worker.kill()
        raise
    finally:
        for worker in set(multiprocessing.active_children()) - others:
            worker.terminate()  # it saves first what it is at
        executor.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _settings_of_workers(threads: int) -> Iterator[None]:
    """What the processes that are started meanwhile inherit: threads of all libraries, and no interruption.

    A terminal interrupts all processes, and they could not handle it before they have loaded their libraries.
    """
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(threads)
    blocks = hasattr(signal, "pthread_sigmask")
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if blocks else None
    try:
        yield
    finally:
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1
