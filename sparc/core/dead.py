"""Dead latents: which latents have not been active in a stream for many training samples."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from sparc.core.codes import Codes
from sparc.core.space import Batch

KEEPS_ALIVE = 1e-3
"""In this module a latent is active where its activation exceeds this; elsewhere, as in `codes`, where it exceeds 0."""


class Dead:
    """The dead latents of one stream. On a GPU their number is copied to the host while the GPU works on."""

    def __init__(self, dead_L: Tensor, count: Callable[[], int] | None = None) -> None:
        """Take the mask of dead latents, (L,) bool, and on a GPU a function that returns how many there are."""
        self._dead_L = dead_L
        self._count = count

    @property
    def latents(self) -> Tensor:
        """Indices of the dead latents, (Q,) int64, ascending."""
        if self._count is None:
            return self._dead_L.nonzero().squeeze(1)
        # `nonzero` would sync with the GPU; the count has already been copied.
        return self._dead_L.byte().argsort(descending=True, stable=True)[: self._count()]


class _Pending:
    """Counts that are being copied from a GPU to the host."""

    def __init__(self, counts: Tensor) -> None:
        self._counts = torch.empty_like(counts, device="cpu", pin_memory=True)
        self._counts.copy_(counts, non_blocking=True)
        self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._copied.record(torch.cuda.current_stream(counts.device))

    def read(self, position: int) -> int:
        """Return one count, after the copy and the GPU work queued before it are done."""
        self._copied.synchronize()
        return int(self._counts[position])


class ActivityCounters:
    """Counts, per stream and latent, the training samples since the latent was last active there.

    The counts belong to the training, not to the space: encoding never changes them. The count of a latent that
    is active anywhere in a batch is set to 0; all others grow by the number of samples in the batch.
    """

    def __init__(self, streams: Mapping[str, int], n_latents: int, device: torch.device | str = "cpu") -> None:
        """Start with every latent alive."""
        self.streams = tuple(streams)
        self.samples_since_active = torch.zeros(len(self.streams), n_latents, dtype=torch.int64, device=device)
        """(S, L) int64."""

    def update(self, codes: Mapping[str, Codes], batch: Batch) -> None:
        """Count a batch after a training step on it."""
        silent_SL = torch.ones_like(self.samples_since_active, dtype=torch.uint8)
        for silent_L, name in zip(silent_SL, self.streams, strict=True):
            # No boolean indexing here: its output size would force a GPU sync.
            inactive_BK = codes[name].values <= KEEPS_ALIVE
            silent_L.scatter_reduce_(0, codes[name].indices.flatten(), inactive_BK.flatten().to(torch.uint8), "amin")
        seen_S = torch.stack([batch.present[name].sum() for name in self.streams])
        self._merge(seen_S, silent_SL)
        self.samples_since_active += seen_S.unsqueeze(1)
        self.samples_since_active *= silent_SL

    def _merge(self, seen_S: Tensor, silent_SL: Tensor) -> None:
        """Add, in place, what other processes count of the same batch; there are none here."""

    def dead(self, after: int) -> dict[str, Dead]:
        """Return the dead latents of each stream: those inactive for more than `after` samples."""
        dead_SL = self.samples_since_active > after
        if dead_SL.device.type != "cuda":
            return dict(zip(self.streams, map(Dead, dead_SL), strict=True))
        counts = _Pending(dead_SL.sum(dim=1))
        return {
            name: Dead(dead_L, functools.partial(counts.read, position))
            for position, (name, dead_L) in enumerate(zip(self.streams, dead_SL, strict=True))
        }
