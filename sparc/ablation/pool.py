"""Train the runs of an ablation in parallel processes, as many as memory and cores allow."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
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
from sparc.system.processes import safe_path

OVERHEAD = 9 * 10**8
"""Measured bytes of a process beyond its tables: libraries, a batch, its logits."""
ON_CUDA = 4
"""Trainings that share one GPU at a time; more would only queue for it."""
POLL = 0.1
"""Seconds between two checks for an interruption."""


@dataclass(frozen=True)
class Work:
    """One run to train and evaluate."""

    cell: Cell
    run: Run
    config: RunConfig


class Ends(Protocol):
    """Receiver of finished and failed runs, in any order."""

    def done(self, work: Work) -> None:
        """Record a run that is trained and evaluated."""

    def failed(self, work: Work, error: BadFeatures) -> None:
        """Record a run that diverged."""


@dataclass(frozen=True)
class Room:
    """Share of the machine: runs in parallel, and threads of each."""

    workers: int
    threads: int


def room(works: Sequence[Work], widths: Mapping[str, int], held_out: int, device: str) -> Room:
    """Divide the machine among runs, assuming that each needs as much memory as the largest.

    `held_out` is the number of held-out samples.
    """
    cores = _cores()
    need = max(needed_bytes(work.config.space(widths), work.config.adam_state, held_out=held_out) for work in works)
    if device.startswith("cuda"):
        free, _ = torch.cuda.mem_get_info(device)
        most = min(ON_CUDA, free // need)
    else:
        most = min(cores, available_bytes() // need)
    workers = max(1, min(len(works), most))
    # torch.get_num_threads follows OMP_NUM_THREADS: respect a user's limit.
    return Room(workers, max(1, min(cores // workers, torch.get_num_threads())))


def needed_bytes(space: SpaceConfig, adam_state: str, *, held_out: int) -> int:
    """Estimate bytes of a training: parameters, two moments of each, counters, held-out samples, and OVERHEAD."""
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
    """Train and evaluate runs in worker processes.

    Returns True if all runs ended, False if `should_stop` stopped them; unfinished runs are then saved. A run whose
    loss or weights are not finite is reported as failed, and the others continue. Any other error ends the pool after
    the other workers have saved their runs. On KeyboardInterrupt nothing is saved.

    Raises:
        SparcError: a run failed in another way, or a worker was killed.
    """
    others = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")
    with safe_path():  # this may start a process that watches over semaphores
        executor = ProcessPoolExecutor(room.workers, context, initializer=start, initargs=(task,))
    try:
        with safe_path(), _settings_of_workers(room.threads):
            futures = {executor.submit(make, work.run, work.config): work for work in works}
        pending = set(futures)
        while pending and not should_stop():
            done, pending = wait(pending, timeout=POLL, return_when=FIRST_COMPLETED)
            for future in done:
                try:
                    future.result()
                except BadFeatures as error:  # only this run diverged; other settings may not
                    report.failed(futures[future], error)
                else:
                    report.done(futures[future])
        return not pending
    except BrokenProcessPool as error:
        time.sleep(POLL)  # a signal to the whole process group may reach the workers before this process
        if should_stop():
            return False
        raise SparcError(
            "a training process was killed, perhaps because memory ran out",
            hint="run the same command with the same --out, which keeps finished runs; or lower --n-latents",
        ) from error
    except KeyboardInterrupt:
        for worker in set(multiprocessing.active_children()) - others:
            worker.kill()
        raise
    finally:
        for worker in set(multiprocessing.active_children()) - others:
            worker.terminate()  # the worker saves its run before it exits
        executor.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _settings_of_workers(threads: int) -> Iterator[None]:
    """Set what worker processes inherit: the threads of all libraries, a blocked SIGINT, and no script to run again.

    A terminal sends SIGINT to all its processes, and a worker cannot handle it before its libraries are loaded.
    """
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(threads)
    # A worker would run the caller's script again, which may call `sparc.ablate` outside of a __main__ guard.
    main = sys.modules["__main__"]
    spec, file = main.__spec__, main.__dict__.pop("__file__", None)
    main.__spec__ = None
    blocks = hasattr(signal, "pthread_sigmask")
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if blocks else None
    try:
        yield
    finally:
        main.__spec__ = spec
        if file is not None:
            main.__file__ = file
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
