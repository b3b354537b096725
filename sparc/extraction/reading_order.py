"""The order in which samples are read for a training without a store: blocks of neighbours, in a seeded order."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

BLOCK = 256
"""Samples that are read one after another: neighbours lie in the same file, or share their image."""


class ReadingOrder:
    """Samples by their place in the reading order, over all epochs."""

    def __init__(self, n_samples: int, seed: int) -> None:
        """Order `n_samples`; every epoch has each of them once. The last block, if it is shorter, comes last."""
        self._n_samples = n_samples
        self._seed = seed
        self._blocks = functools.lru_cache(maxsize=2)(self._drawn)  # a buffer holds samples of two epochs

    def __getitem__(self, place: int) -> int:
        """Return the sample at a place, from 0."""
        epoch, within = divmod(place, self._n_samples)
        block, rest = divmod(within, BLOCK)
        blocks = self._blocks(epoch)
        return int(blocks[block]) * BLOCK + rest if block < len(blocks) else within

    def _drawn(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng([self._seed, 2, epoch]).permutation(self._n_samples // BLOCK)
