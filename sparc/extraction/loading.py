"""Batches from loading processes, through whatever room there is, and never without an end.

A batch comes through shared memory, which is fastest. Containers often have only 64 MB of it: a batch that does not fit
comes through a pipe. Where processes cannot be started at all, a thread loads.

A sample that is read for too long, a batch that gets lost and a process that is killed end in an error that names the
samples. For this each process notes what it reads in a `ReadingLog`.
"""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import shutil
import signal
import threading
import warnings
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import count
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple, Protocol

import torch
from safetensors import torch as safetensors
from torch import Tensor
from torch.utils.data import DataLoader

from sparc.errors import BadSample, OutOfMemory, SparcError, StorageError
from sparc.extraction.plan import AGAIN
from sparc.extraction.preprocessing import BatchReader, ItemBatch, PreprocessedBatch
from sparc.extraction.reading_log import Entry, ReadingLog, Stage
from sparc.plugins.batches import mapped, tensors

POLL_SECONDS = 2
"""Time between two looks at the loading processes, while the next batch is being loaded."""
SAMPLE_SECONDS = 180
"""Longest time to read a sample. Network disks need seconds, and a minute when their server starts again."""
SECONDS_MORE = 10
"""Time that each sample of a batch adds, while the batch is preprocessed as a whole."""
LOST_SECONDS = 60
"""Longest time without a batch while no process reads any."""
SHARED_MEMORY = "/dev/shm"
KEPT_FREE = 1 / 8
"""Fraction of the shared memory that is left to other programs, such as those for several GPUs."""
FILES, SPARE = 4, 8
"""Files that are open for each tensor in shared memory, of this batch and the last, or for each process and its queue,
and those beside them."""
AHEAD = 2
"""Batches that each process loads ahead, which is PyTorch's default."""
KILLED, BUS_ERROR = -9, -getattr(signal, "SIGBUS", 7)
"""Exit codes of processes that a signal ended; Windows has none."""


class Batches(Protocol):
    """Batches in order. Each is asked for when a process is about to load it."""

    def __len__(self) -> int:
        """Return the most batches that there can be."""

    def __iter__(self) -> Iterator[ItemBatch]:
        """Yield the batches."""


class _Noted:
    """Batches that are iterated once, and the last of those that were handed out."""

    def __init__(self, batches: Batches, most: int) -> None:
        self._batches = batches
        self.last: deque[ItemBatch] = deque(maxlen=most)

    def __iter__(self) -> Iterator[ItemBatch]:
        for batch in self._batches:
            self.last.append(batch)
            yield batch


def load(reader: BatchReader, batches: Batches, *, workers: int, pin: bool) -> Generator[PreprocessedBatch]:
    """Yield batches in order, from `workers` processes; without any, from this one.

    pin: put tensors into pinned memory, for copies to a GPU.

    Raises:
        StorageError: a sample was read for too long, or a batch got lost.
        OutOfMemory, BadSample: a process was killed, or crashed. The error names the sample.
    """
    if not workers:
        yield from (reader[batch] for batch in batches)
        return
    workers = min(workers, len(batches))
    try:
        processes = _Processes(reader, batches, workers, pin=pin) if workers else None
    except OSError as error:  # no semaphores, no more processes, or no room for either
        warnings.warn(f"one thread loads all images, since no process can be started: {error}", stacklevel=2)
        yield from _from_thread(reader, batches)
        return
    if processes is not None:
        yield from processes


class _Processes:
    """PyTorch's DataLoader, with an end to all waiting."""

    def __init__(self, reader: BatchReader, batches: Batches, workers: int, *, pin: bool) -> None:
        log = ReadingLog(workers)
        noted = _Noted(batches, AHEAD * (workers + 1))
        _check_room(workers)
        loader: DataLoader[Any] = DataLoader(
            _Sender(replace(reader, log=log)),  # type: ignore[arg-type]  # DataLoader only calls its __getitem__
            sampler=noted,
            batch_size=None,
            num_workers=workers,
            worker_init_fn=log.enter,
            collate_fn=_unchanged,
            prefetch_factor=AHEAD,
            timeout=POLL_SECONDS,
            pin_memory=pin,
        )
        before = set(multiprocessing.active_children())
        with _own_signals():
            self._iterator: Iterator[Any] = iter(loader)
        self._children = [child for child in multiprocessing.active_children() if child not in before]
        self._watch = _Watch(reader, log, noted.last)
        self._pin = pin

    def __iter__(self) -> Generator[PreprocessedBatch]:
        """Yield the batches."""
        warned = False
        try:
            while True:
                try:
                    batch = next(self._iterator)
                except StopIteration:
                    return
                except RuntimeError as error:
                    self._look(error)
                    continue
                if isinstance(batch, _Packed):
                    if self._pin and not warned:
                        _warn_of_pipe()
                        warned = True
                    batch = batch.unpacked()
                yield batch
        except BaseException:
            self._abandon()
            raise

    def _abandon(self) -> None:
        """Kill the processes, since one that hangs would never end, and leave their queues.

        PyTorch's own end sets an event, whose lock a killed process may hold for ever.
        """
        iterator: Any = self._iterator
        iterator._shutdown = True
        for child in self._children:
            child.kill()
            child.join(POLL_SECONDS)
        if iterator._worker_pids_set:
            signals: Any = torch.utils.data._utils.signal_handling
            signals._remove_worker_pids(id(iterator))
            iterator._worker_pids_set = False
        if self._pin:
            iterator._pin_memory_thread_done_event.set()
        for queue in (*iterator._index_queues, iterator._worker_result_queue):
            queue.cancel_join_thread()
            queue.close()

    def _look(self, error: RuntimeError) -> None:
        """Raise SparcError for a process that is dead or reads for too long; `error` unless it is a mere timeout."""
        for child in self._children:
            if child.exitcode:
                raise self._watch.death(child) from error
        if "timed out" not in str(error):
            raise error
        self._watch.look()


def _check_room(workers: int) -> None:
    """Raise OSError if there is no room for the queues and processes of a DataLoader, which would print a traceback."""
    if not _can_open(FILES * (workers + 1) + SPARE):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    queues: list[Any] = [multiprocessing.Queue() for _ in range(workers + 2)]
    for queue in queues:
        queue.close()


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Keep the handler of SIGCHLD. PyTorch's would raise in the midst of anything, when a process dies."""
    if not hasattr(signal, "SIGCHLD") or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


@dataclass(frozen=True)
class _Sender:
    """The reader in a loading process, which puts batches where the main process gets them from."""

    reader: BatchReader

    def __getitem__(self, batch: ItemBatch) -> PreprocessedBatch | _Packed:
        """Return the batch with its tensors in shared memory; as bytes, for the pipe, if they do not fit.

        This is done here, because a queue's own thread, to which PyTorch leaves it, would drop a batch that does not
        fit, or for which no file can be opened.
        """
        read = self.reader[batch]
        held = _tensors(read)
        with contextlib.suppress(RuntimeError, OSError):  # others have filled it meanwhile
            size = sum(tensor.untyped_storage().nbytes() for tensor in held)
            if _fits(size) and _can_open(FILES * len(held) + SPARE):
                for tensor in held:
                    tensor.share_memory_()  # type: ignore[no-untyped-call]
                return read
        return _Packed.of(read)


class _Packed(NamedTuple):
    """A batch whose tensors are bytes."""

    batch: PreprocessedBatch
    """The batch with the numbers of its tensors in place of tensors."""
    content: bytes

    @classmethod
    def of(cls, batch: PreprocessedBatch) -> _Packed:
        """Pack a batch."""
        numbers = count()
        numbered: dict[str, Any] = {name: mapped(one, lambda _: next(numbers)) for name, one in batch.inputs.items()}  # type: ignore[arg-type, return-value]
        copies = [tensor.clone(memory_format=torch.contiguous_format) for tensor in _tensors(batch)]
        held = {str(number): tensor for number, tensor in enumerate(copies)}
        return cls(batch._replace(inputs=numbered), safetensors.save(held))

    def unpacked(self) -> PreprocessedBatch:
        """Return the batch."""
        held = safetensors.load(self.content)
        inputs = {name: mapped(one, lambda number: held[str(number)]) for name, one in self.batch.inputs.items()}
        return self.batch._replace(inputs=inputs)


def _tensors(batch: PreprocessedBatch) -> list[Tensor]:
    return [tensor for inputs in batch.inputs.values() for tensor in tensors(inputs)]


def _unchanged(batch: Any) -> Any:
    return batch


def _fits(size: int) -> bool:
    try:
        shared = shutil.disk_usage(SHARED_MEMORY)
    except OSError:  # not on this system: try
        return True
    return shared.free - size >= KEPT_FREE * shared.total


def _can_open(count: int) -> bool:
    """Return True if this process can open so many files more."""
    opened: list[int] = []
    try:
        opened.extend(os.dup(0) for _ in range(count))
    except OSError:
        return False
    finally:
        for one in opened:
            os.close(one)
    return True


def _warn_of_pipe() -> None:
    with contextlib.suppress(OSError):
        total = shutil.disk_usage(SHARED_MEMORY).total >> 20
        warnings.warn(
            f"{SHARED_MEMORY} ({total} MB) is full, so that images take the slower way through pipes; "
            "in Docker, give it room with --shm-size=2g",
            stacklevel=2,
        )


def _from_thread(reader: BatchReader, batches: Batches) -> Generator[PreprocessedBatch]:
    """Load in one thread, since a dataset need not be able to serve several."""
    log = ReadingLog(1, shared=False)
    noted = _Noted(batches, 2 * AHEAD)
    watch = _Watch(reader, log, noted.last)
    reader = replace(reader, log=log)
    pool = ThreadPoolExecutor(1, initializer=log.enter, initargs=(0,))
    loading: deque[Future[PreprocessedBatch]] = deque()
    try:
        for batch in noted:
            loading.append(pool.submit(reader.__getitem__, batch))
            if len(loading) > AHEAD:
                yield _result(loading.popleft(), watch)
        while loading:
            yield _result(loading.popleft(), watch)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _result(future: Future[PreprocessedBatch], watch: _Watch) -> PreprocessedBatch:
    while True:
        try:
            return future.result(POLL_SECONDS)
        except TimeoutError:
            watch.look()


class _Watch:
    """Looks at the log while the next batch is being loaded, and raises the error that it shows.

    Time is counted in looks. A clock would count the time in which a laptop sleeps or a container is frozen.
    """

    def __init__(self, reader: BatchReader, log: ReadingLog, batches: Iterable[ItemBatch]) -> None:
        self._reader = reader
        self._log = log
        self._batches = batches
        self._last: list[Entry] = []
        self._seconds: dict[int, float] = {}
        """Seconds since the last note of each slot."""

    def look(self) -> None:
        """Raise StorageError if a sample has been read for too long, or if a batch is lost."""
        entries = self._log.entries()
        for slot, entry in enumerate(entries):
            same = slot < len(self._last) and entry == self._last[slot]
            self._seconds[slot] = self._seconds.get(slot, 0) + POLL_SECONDS if same else 0
            if entry.stage is not Stage.IDLE and self._seconds[slot] >= self._limit(entry):
                raise StorageError(
                    f"{self._work(entry)} has taken more than {self._seconds[slot]:.0f} seconds",
                    hint=f"check that the disk or the network answers, and the sample's file; then {AGAIN}",
                )
        self._last = entries
        if all(entry.stage is Stage.IDLE and self._seconds[slot] >= LOST_SECONDS for slot, entry in enumerate(entries)):
            raise StorageError(
                f"a batch of samples got lost on its way from a loading process: no batch for {LOST_SECONDS} seconds",
                hint=f"check the room in {SHARED_MEMORY} and in the folder of temporary files; then {AGAIN}",
            )

    def _limit(self, entry: Entry) -> int:
        if entry.stage is not Stage.PREPROCESSING_ALL:
            return SAMPLE_SECONDS
        return SAMPLE_SECONDS + SECONDS_MORE * len(self._batch(entry.sample).samples)

    def _batch(self, sample: int) -> ItemBatch:
        return next(batch for batch in self._batches if sample in batch.samples)

    def death(self, child: BaseProcess) -> SparcError:
        """Return the error of a process that was killed or ended by itself, with the samples that it had."""
        code = child.exitcode or 0
        how = f"was killed ({_signal_name(-code)})" if code < 0 else f"ended with code {code}"
        entry = next((entry for entry in self._log.entries() if entry.pid == child.pid), None)
        where = self._work(entry) if entry is not None else "starting"
        message = f"a loading process {how} while it was {where}"
        if code == KILLED:
            return OutOfMemory(
                message,
                hint="the system kills processes when memory is short: free some, or lower --max-pixels, or remove "
                f"that sample; then {AGAIN}",
            )
        if code == -signal.SIGTERM:
            return StorageError(message, hint=f"another program ended it; {AGAIN}")
        if code == BUS_ERROR:
            return StorageError(
                message, hint=f"check the room in {SHARED_MEMORY} and the disk of the data; then {AGAIN}"
            )
        return BadSample(message, hint=f"repair or remove that sample, or see what was printed above; then {AGAIN}")

    def _work(self, entry: Entry) -> str:
        """Return what an entry says in words, beginning with a participle."""
        if entry.stage is Stage.STARTING:
            return "starting a loading process"
        if entry.stage is Stage.IDLE:
            return "waiting for work"
        ids = self._reader.dataset.ids
        if entry.stage is Stage.PREPROCESSING_ALL:
            samples = self._batch(entry.sample).samples
            return f"preprocessing {len(samples)} samples, '{ids[samples[0]]}' to '{ids[samples[-1]]}'"
        verb = "reading" if entry.stage is Stage.READING else "preprocessing"
        return f"{verb} sample '{ids[entry.sample]}'"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
