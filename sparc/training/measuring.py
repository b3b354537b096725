"""When a training measures held-out losses, and how fast it is."""

from __future__ import annotations

import time

from sparc.config import TrainingConfig
from sparc.training.loader import TrainingFeatures

HELD_OUT_BATCHES = 4
"""Batches of held-out samples on which losses are measured."""
HELD_OUT_SHARE = 20
"""Steps of training for each of these batches."""


def held_out_steps(per_epoch: int, config: TrainingConfig, held_out: TrainingFeatures | None) -> int:
    """Return after how many steps the held-out losses are measured: each epoch, or several epochs if those are short.

    A measurement takes a forward pass of up to HELD_OUT_BATCHES batches. It follows at least HELD_OUT_SHARE steps for
    each of them, so that it takes a few per cent of the time. Steps are counted, not seconds, so that a resumed
    training measures at the same steps.
    """
    if held_out is None:
        return per_epoch
    rows = held_out.rows
    samples = len(next(iter(rows.values()))) if rows else sum(map(len, next(iter(held_out.shards.values()))))
    batches = min(HELD_OUT_BATCHES, -(-samples // config.batch_size))
    return per_epoch * -(-HELD_OUT_SHARE * batches // per_epoch)


class Speed:
    """Samples per second between logged steps."""

    def __init__(self, began: float) -> None:
        """Start at this time, without samples."""
        self.samples = 0
        self._began = began

    def since_last(self) -> float:
        """Return the samples per second since the last call, and begin anew."""
        now = time.monotonic()
        rate = self.samples / max(1e-9, now - self._began)
        self.samples, self._began = 0, now
        return round(rate, 1)
