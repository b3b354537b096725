"""Batches of features for training: every sample once an epoch, in a seeded order, from shards in memory or on disk.

The order is a permutation of all samples, so any two may share a batch. Some thousand rows are read at a time, sorted,
since neighbours lie on the same pages of a file. Shards from a store are memory-mapped, so nothing is read before.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from sparc.config import TrainingConfig
from sparc.errors import MisalignedStreams

READ_ROWS = 8192
"""Rows per stream that are read at a time."""
READ_BYTES = 48 * 2**20
"""Bytes that are read at a time, all streams together, if that is fewer rows."""
EVERY = slice(None)
AHEAD = 4
"""Batches that the thread prepares while a GPU computes."""


class TrainingFeatures(Protocol):
    """Raw features to train on: a feature store, or `FeaturesInMemory`."""

    @property
    def shards(self) -> Mapping[str, Sequence[Tensor]]:
        """Features by stream, in pieces (rows, D) that follow one another."""

    @property
    def rows(self) -> Mapping[str, Tensor] | None:
        """(samples,) by stream, the row of each sample, if samples share rows; None if each sample has its own row."""


@dataclass(frozen=True)
class FeaturesInMemory:
    """Raw features held in tensors."""

    shards: Mapping[str, Sequence[Tensor]]
    """See `TrainingFeatures`."""
    rows: Mapping[str, Tensor] | None = None
    """See `TrainingFeatures`."""


class Batches(Protocol):
    """Batches of raw features to train on, from a step on: `Loader`, or `mixing.MixedBatches`."""

    per_epoch: int
    """Steps in an epoch."""
    waited: float
    """Seconds that the consumer has spent waiting."""

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """Yield the batches (B, D) by stream, on the device."""


class Loader:
    """Raw features (B, D) by stream, on the device, in the dtype in which they are stored.

    For a GPU, a thread prepares batches ahead. On the CPU a thread would only take cores from the training, so batches
    are read when they are requested.
    """

    def __init__(
        self,
        features: TrainingFeatures,
        config: TrainingConfig,
        *,
        device: torch.device | str = "cpu",
        start: int = 0,
        rows: slice = EVERY,
    ) -> None:
        """Prepare to load `rows` of each batch from step `start` on.

        Raises MisalignedStreams if the streams differ in length.
        """
        self._features = features
        self._config = config
        self._device = torch.device(device)
        self._start = start
        self._rows = rows
        self.n_samples = _common_length(self._streams())
        self.per_epoch = steps_per_epoch(self.n_samples, config)
        """Steps in an epoch."""
        self.waited = 0.0
        """Seconds that the consumer has spent waiting."""

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """Yield the batches of all epochs from the first step on."""
        batches = self._batches() if self._device.type == "cpu" else in_thread(self._batches())
        with contextlib.suppress(StopIteration):
            while True:
                yield self._next(batches)  # without a local name, which would keep the batch alive

    def _next(self, batches: Iterator[dict[str, Tensor]]) -> dict[str, Tensor]:
        began = time.perf_counter()
        try:
            return next(batches)
        finally:
            self.waited += time.perf_counter() - began

    def _batches(self) -> Iterator[dict[str, Tensor]]:
        order = (batch[self._rows] for batch in batches(self.n_samples, self._config, start=self._start))
        streams = self._streams()
        n_rows = min(READ_ROWS, READ_BYTES // sum(stream.row_bytes for stream in streams.values()))
        at_once = max(1, n_rows // self._config.batch_size)
        while block := list(itertools.islice(order, at_once)):
            samples = torch.cat(block)
            in_order = _sorted(samples)
            read = {name: stream.read(samples, in_order) for name, stream in streams.items()}
            first = 0
            for batch in block:
                one = slice(first, first := first + len(batch))
                # Advanced indexing takes twice as long as index_select.
                yield {
                    name: self._moved(rows_ND.index_select(0, position[one]))
                    for name, (rows_ND, position) in read.items()
                }

    def _streams(self) -> dict[str, _Stream]:
        rows = self._features.rows
        return {name: _Stream(pieces, rows[name] if rows else None) for name, pieces in self._features.shards.items()}

    def _moved(self, rows: Tensor) -> Tensor:
        if self._device.type == "cuda":
            rows = rows.pin_memory()
        return rows.to(self._device, non_blocking=True)


def in_order(features: TrainingFeatures, device: torch.device | str = "cpu") -> Iterator[dict[str, Tensor]]:
    """Yield the raw features (B, D) of all samples once, in their order, some thousand samples at a time.

    Raises MisalignedStreams if the streams differ in length.
    """
    streams = {
        name: _Stream(pieces, features.rows[name] if features.rows else None)
        for name, pieces in features.shards.items()
    }
    for samples in torch.split(torch.arange(_common_length(streams)), READ_ROWS):
        read = {name: stream.read(samples, _sorted(samples)) for name, stream in streams.items()}
        yield {name: rows_ND.index_select(0, position).to(device) for name, (rows_ND, position) in read.items()}


class _Stream:
    """The features of one stream, across its shards."""

    def __init__(self, shards: Sequence[Tensor], rows: Tensor | None) -> None:
        self._shards = shards
        self._rows = rows
        lengths = torch.tensor([len(shard) for shard in shards])
        self._ends = lengths.cumsum(0)
        self._starts = self._ends - lengths
        self._read = shards[0][:0]

    def __len__(self) -> int:
        """Number of samples."""
        return int(self._ends[-1]) if self._rows is None else len(self._rows)

    @property
    def row_bytes(self) -> int:
        """Bytes of one sample's features."""
        return max(1, self._read.element_size() * self._read.shape[1])

    def read(self, samples: Tensor, in_order: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Copy the features of some samples (n,) into a buffer that the next call overwrites.

        `in_order` is `_sorted(samples)`, computed once for all streams whose samples have a row each. Returns the rows
        (n, D) in the order of the files, and the position of each sample's row among them, (n,).
        """
        rows, position = in_order if self._rows is None else _sorted(self._rows[samples])
        if len(self._read) < len(rows):
            self._read = self._shards[0].new_empty(len(rows), self._shards[0].shape[1])
        read = self._read[: len(rows)]
        counts = torch.searchsorted(rows, self._ends).diff(prepend=torch.tensor([0]))
        local, of_each = rows - self._starts.repeat_interleave(counts), counts.tolist()
        for shard, some, into in zip(
            self._shards, torch.split(local, of_each), torch.split(read, of_each), strict=True
        ):
            if some.numel():
                torch.index_select(shard, 0, some, out=into)
        return read, position


def _sorted(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Return numbers (n,) in ascending order, and the position of each number there, (n,)."""
    in_order, origin = numbers.sort()
    return in_order, torch.empty_like(origin).scatter_(0, origin, torch.arange(len(origin)))


def _common_length(streams: Mapping[str, _Stream]) -> int:
    lengths = {name: len(stream) for name, stream in streams.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise MisalignedStreams(
            f"expected equally many samples in every stream, found {found}",
            hint="rows are paired by position",
        )
    return next(iter(lengths.values()))


def batch_length(features: TrainingFeatures, config: TrainingConfig) -> int:
    """Return the number of samples in each batch. Raises MisalignedStreams if the streams differ in length."""
    return min(config.batch_size, Loader(features, config).n_samples)


def steps_per_epoch(n_samples: int, config: TrainingConfig) -> int:
    """Return the number of full batches in an epoch, at least one."""
    return max(1, n_samples // config.batch_size)


def batches(n_samples: int, config: TrainingConfig, *, start: int = 0) -> Iterator[Tensor]:
    """Yield the samples of each batch (B,) from step `start` on.

    Every epoch is a new permutation of the samples, drawn from seed and epoch alone, so training can start at any step.
    Samples that do not fill a batch are left out, others in each epoch; fewer samples than a batch are one batch.
    """
    per_epoch = steps_per_epoch(n_samples, config)
    first_epoch, offset = divmod(start, per_epoch)
    for epoch in range(first_epoch, config.epochs):
        order = torch.from_numpy(np.random.default_rng([config.seed, epoch]).permutation(n_samples))
        for position in range(offset if epoch == first_epoch else 0, per_epoch):
            yield order[position * config.batch_size : (position + 1) * config.batch_size]


def in_thread(batches: Iterator[dict[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
    """Read batches in a thread, `AHEAD` of the consumer. Raises here whatever is raised there."""
    ready: queue.Queue[dict[str, Tensor] | BaseException | None] = queue.Queue(maxsize=AHEAD)
    stopped = threading.Event()

    def fill() -> None:
        last: BaseException | None = None
        try:
            for batch in batches:
                ready.put(batch)
                if stopped.is_set():
                    return
        except BaseException as error:
            last = error
        ready.put(last)

    thread = threading.Thread(target=fill, name="loader", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        while thread.is_alive():
            with contextlib.suppress(queue.Empty):  # a full queue would block the thread for ever
                ready.get_nowait()
            thread.join(timeout=0.01)
