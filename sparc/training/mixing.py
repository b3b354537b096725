"""Batches of features that arrive in the order in which they are read, mixed by a buffer: training without a store.

A step draws its samples at random from the buffer, and the next ones that arrive take their places. A sample stays for
`buffer / batch size` steps on average. Draws depend on the seed and the step alone. So a resumed training trains on the
same samples in the same order; it computes the features of those that were in the buffer again.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sparc.config import TrainingConfig
from sparc.errors import PluginError
from sparc.training.loader import FeaturesInMemory, in_thread, steps_per_epoch

Arriving = Callable[[Sequence[int], range], Iterator[dict[str, Tensor]]]
"""Returns the features (n, D) by stream of the samples at some places of the reading order, in pieces of any length:
first those that are listed, then those of the range."""


class Draw(NamedTuple):
    """Slots of the buffer that a step reads and changes, each (n,) int64."""

    drawn: NDArray[np.int64]
    """Slots of the step's samples."""
    filled: NDArray[np.int64]
    """Slots that the next samples take; the first of `drawn`."""
    emptied: NDArray[np.int64]
    """Slots that the samples of `moved` take, once no more arrive."""
    moved: NDArray[np.int64]


class Mixing:
    """The places of the reading order that each step trains on. Knows no features."""

    def __init__(self, n_samples: int, config: TrainingConfig, buffer: int) -> None:
        """Plan a training on `n_samples` with a buffer for `buffer` samples, or a batch if that is more."""
        self.batch = min(config.batch_size, n_samples)
        self.steps = steps_per_epoch(n_samples, config) * config.epochs
        self.places = self.steps * self.batch
        """Places of the reading order, from 0; each is trained on once."""
        self.slots = min(max(buffer, self.batch), self.places)
        """Slots of the buffer."""
        self._seed = config.seed

    def draws(self) -> Iterator[Draw]:
        """Yield what each step reads and changes."""
        there, arrived = self.slots, self.slots
        for step in range(self.steps):
            generator = np.random.default_rng([self._seed, 1, step])  # the loader's seeds have two numbers
            drawn = generator.choice(there, self.batch, replace=False)
            more = min(self.batch, self.places - arrived)
            arrived += more
            filled, holes = drawn[:more], drawn[more:]
            there -= len(holes)
            moved = np.setdiff1d(np.arange(there, there + len(holes)), holes)
            yield Draw(drawn, filled, np.sort(holes[holes < there]), moved)

    def at(self, step: int) -> NDArray[np.int64]:
        """Return the places whose samples are in the buffer before a step, by slot."""
        places = np.arange(self.slots)
        arrived = self.slots
        for draw in itertools.islice(self.draws(), step):
            places[draw.filled] = np.arange(arrived, arrived + len(draw.filled))
            arrived += len(draw.filled)
            places[draw.emptied] = places[draw.moved]
            places = places[: len(places) - (len(draw.drawn) - len(draw.filled))]
        return places

    def arrived(self, step: int) -> int:
        """Return the number of places that have arrived before a step."""
        return min(self.places, self.slots + step * self.batch)


class MixedBatches:
    """Raw features (B, D) by stream, on the device, of a training without a store."""

    def __init__(
        self,
        arriving: Arriving,
        n_samples: int,
        config: TrainingConfig,
        *,
        buffer: int,
        device: torch.device | str = "cpu",
        start: int = 0,
    ) -> None:
        """Prepare to load from step `start` on; nothing is read before `fill`."""
        self._mixing = Mixing(n_samples, config, buffer)
        self._arriving = arriving
        self._device = torch.device(device)
        self._start = start
        self._buffer: dict[str, Tensor] = {}
        self._pieces: Iterator[dict[str, Tensor]] = iter(())
        self._left: dict[str, Tensor] = {}
        self.n_samples = n_samples
        self.per_epoch = steps_per_epoch(n_samples, config)
        """Steps in an epoch."""
        self.waited = 0.0
        """Seconds that the consumer has spent waiting, without the time to fill the buffer."""

    def fill(self, on_sample: Callable[[int, int], None] = lambda done, total: None) -> FeaturesInMemory:
        """Read the samples that are in the buffer before the first step, and return their features.

        `on_sample` hears how many of them are there.
        """
        places = self._mixing.at(self._start)
        following = range(self._mixing.arrived(self._start), self._mixing.places)
        self._pieces = in_thread(self._arriving(places.tolist(), following))
        done = 0
        while done < len(places):
            piece = self._next(min(len(places) - done, self._ready() or self._arrive()))
            if not self._buffer:
                self._buffer = {name: rows.new_empty(len(places), rows.shape[1]) for name, rows in piece.items()}
            for name, rows in piece.items():
                self._buffer[name][done : done + len(rows)] = rows
            done += len(next(iter(piece.values())))
            on_sample(done, len(places))
        return FeaturesInMemory({name: [rows] for name, rows in self._buffer.items()})

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """Yield the batches of all epochs from the first step on. Closes what arrives at the end."""
        try:
            for draw in itertools.islice(self._mixing.draws(), self._start, None):
                drawn = torch.from_numpy(draw.drawn)
                yield {name: self._moved(rows.index_select(0, drawn)) for name, rows in self._buffer.items()}
                self._refill(draw)
        finally:
            self.close()

    def close(self) -> None:
        """End what arrives."""
        with contextlib.suppress(AttributeError):
            self._pieces.close()  # type: ignore[attr-defined]

    def _refill(self, draw: Draw) -> None:
        began = time.perf_counter()
        filled = torch.from_numpy(draw.filled)
        while len(filled):
            piece = self._next(min(len(filled), self._ready() or self._arrive()))
            count = len(next(iter(piece.values())))
            for name, rows in piece.items():
                self._buffer[name].index_copy_(0, filled[:count], rows)
            filled = filled[count:]
        for rows in self._buffer.values():
            if len(draw.moved):
                rows[torch.from_numpy(draw.emptied)] = rows[torch.from_numpy(draw.moved)]
        self.waited += time.perf_counter() - began

    def _ready(self) -> int:
        return len(next(iter(self._left.values()))) if self._left else 0

    def _arrive(self) -> int:
        """Wait for the next piece, and return its number of samples. Raises PluginError if none comes."""
        piece = next(self._pieces, None)
        if piece is None:
            raise PluginError("the features ended before the training did", hint="this is a bug in sparc")
        self._left = piece
        return self._ready()

    def _next(self, count: int) -> Mapping[str, Tensor]:
        """Take samples from the piece that has arrived last."""
        taken = {name: rows[:count] for name, rows in self._left.items()}
        self._left = {name: rows[count:] for name, rows in self._left.items()} if count < self._ready() else {}
        return taken

    def _moved(self, rows: Tensor) -> Tensor:
        if self._device.type == "cuda":
            rows = rows.pin_memory()
        return rows.to(self._device, non_blocking=True)
