"""Gradients of tables, summed over ranks that have the same latents and other samples.

A latent that no sample of the whole batch has active has no gradient, so only rows of the other latents travel, if
they are few enough to repay the choice. The sum of one range of latents travels while the next one is computed.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sparc.core.dead import ActivityCounters
from sparc.core.kernels import tiles
from sparc.core.space import LatentSpace
from sparc.training.distributed import Group, Sum
from sparc.training.gradients import TableGradient

AT_ONCE = 2**22
"""Least number of floats of a gradient that travel at a time: 16 MB keep a network busy."""
WORTH_CHOOSING = 0.9
"""Rows are chosen if at most this part of them has a gradient."""


class Reduction:
    """Sums the gradients of one batch over ranks."""

    def __init__(self, group: Group, decoder: TableGradient) -> None:
        """Find the latents that have a gradient on any rank: those that are active in any sample."""
        self._group = group
        entries = decoder.sums[0][0].entries
        active_L = torch.zeros(entries.n_latents, dtype=torch.uint8, device=entries.order.device)
        for summed, _ in decoder.sums:
            active_E = (summed.values > 0).any(dim=1).to(torch.uint8)
            active_L.scatter_reduce_(0, summed.entries.latents.long(), active_E, "amax")
        self._active_L = group.most_(active_L, "kept")
        self._chosen = float(self._active_L.float().mean()) <= WORTH_CHOOSING

    def blocks(self, gradient: TableGradient, table: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Yield ranges of latents and the sums of their gradients over all ranks, (latents, D)."""
        waiting: list[tuple[slice, Tensor, Tensor | None, Tensor, Sum]] = []
        fewest = gradient.blocks()[0].stop  # that are fast to sum together
        for latents in tiles(len(table), max(fewest, AT_ONCE // table.shape[1])):
            own_LD = gradient.block(latents)
            rows = self._active_L[latents].nonzero().squeeze(1) if self._chosen else None
            sent = own_LD if rows is None else own_LD[rows]
            waiting.append((latents, own_LD, rows, sent, self._group.begin_sum(sent, "gradients")))
            if len(waiting) > 1:
                yield self._done(*waiting.pop(0))
        yield self._done(*waiting.pop())

    @staticmethod
    def _done(
        latents: slice, own_LD: Tensor, rows: Tensor | None, sent: Tensor, under_way: Sum
    ) -> tuple[slice, Tensor]:
        under_way.wait()
        if rows is None:
            return latents, sent
        own_LD[rows] = sent  # rows that no rank chose are zero on all
        return latents, own_LD


class SharedCounters(ActivityCounters):
    """Counters of dead latents of a batch whose samples several ranks have."""

    def __init__(self, space: LatentSpace, group: Group) -> None:
        """Start with every latent alive."""
        super().__init__(space.streams, space.n_latents, space.decoder.device)
        self._group = group

    def _merge(self, seen_S: Tensor, silent_SL: Tensor) -> None:
        self._group.sum_(seen_S, "counters")
        self._group.least_(silent_SL, "counters")


def merged_norms(sums: Tensor, group: Group) -> Tensor:
    """Return `Norms.sums` of all ranks together."""
    merged = sums.clone()
    merged[:, :2] = group.sum_(sums[:, :2].contiguous())
    merged[:, 2] = group.most_(sums[:, 2].contiguous())
    return merged
