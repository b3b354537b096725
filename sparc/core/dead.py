"""Which latents have fallen silent during training."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from sparc.core.codes import Codes
from sparc.core.space import Batch

ACTIVE = 1e-3
"""An activation above this keeps a latent alive."""


class Dead:
    """The dead latents of a stream. A GPU counts them while the host goes on, and is asked when they are needed."""

    def __init__(self, dead_L: Tensor, count: Callable[[], int] | None = None) -> None:
        """Say of each latent whether it is dead, (L,) bool, and on a GPU how many are."""
        self._dead_L = dead_L
        self._count = count

    @property
    def latents(self) -> Tensor:
        """Their indices, (Q,) int64, ascending."""
        if self._count is None:
            return self._dead_L.nonzero().squeeze(1)
        # Not by nonzero, which would wait for all that the device has yet to do.
        return self._dead_L.byte().argsort(descending=True, stable=True)[: self._count()]


class _Pending:
    """Numbers on their way from a GPU to the host."""

    def __init__(self, numbers: Tensor) -> None:
        self._numbers = torch.empty_like(numbers, device="cpu", pin_memory=True)
        self._numbers.copy_(numbers, non_blocking=True)
        self._there = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._there.record(torch.cuda.current_stream(numbers.device))

    def read(self, position: int) -> int:
        """Wait for the numbers, and for what the device had to do before them."""
        self._there.synchronize()
        return int(self._numbers[position])


class DeadLatents:
    """Counts, per stream and latent, the training samples since the latent was last active there.

    The count is state of the training, not of the space: encoding never changes it. It advances by whole batches.
    """

    def __init__(self, streams: Mapping[str, int], n_latents: int, device: torch.device | str = "cpu") -> None:
        """Start with every latent alive."""
        self.streams = tuple(streams)
        self.samples_since_active = torch.zeros(len(self.streams), n_latents, dtype=torch.int64, device=device)
        """(S, L) int64."""

    def update(self, codes: Mapping[str, Codes], batch: Batch) -> None:
        """Count a batch that was trained on."""
        for position, name in enumerate(self.streams):
            since_L = self.samples_since_active[position]
            since_L += batch.present[name].sum()
            # Not by a mask of active entries, whose number an accelerator would be waited for.
            silent_BK = codes[name].values <= ACTIVE
            heard_L = torch.ones_like(since_L, dtype=torch.uint8)
            heard_L.scatter_reduce_(0, codes[name].indices.flatten(), silent_BK.flatten().to(torch.uint8), "amin")
            since_L *= heard_L

    def dead(self, after: int) -> dict[str, Dead]:
        """Per stream, the latents that were silent for more than `after` samples."""
        dead_SL = self.samples_since_active > after
        if dead_SL.device.type != "cuda":
            return dict(zip(self.streams, map(Dead, dead_SL), strict=True))
        counts = _Pending(dead_SL.sum(dim=1))
        return {
            name: Dead(dead_L, functools.partial(counts.read, position))
            for position, (name, dead_L) in enumerate(zip(self.streams, dead_SL, strict=True))
        }
