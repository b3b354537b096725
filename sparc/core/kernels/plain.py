"""The kernels by PyTorch's own operators: for any device and dtype."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sparc.core.kernels import cache
from sparc.core.kernels.cache import tiles
from sparc.core.kernels.entries import LatentSum
from sparc.core.kernels.protocol import AdamStep, Kernels


class PlainKernels(Kernels):
    """PyTorch's operators; other backends inherit what they do not compute themselves. See `Kernels`."""

    def weighted_rows(self, indices_BK: Tensor, values_BGK: Tensor, table_LD: Tensor) -> Tensor:
        """See `Kernels`."""
        n_samples, n_streams, n_kept = values_BGK.shape
        bags = _repeated(indices_BK, n_streams).reshape(-1, n_kept)
        summed = F.embedding_bag(bags, table_LD, per_sample_weights=values_BGK.reshape(-1, n_kept), mode="sum")
        return summed.view(n_samples, n_streams, table_LD.shape[1])

    def entry_dots(self, vectors_BGD: Tensor, table_LD: Tensor, indices_BK: Tensor) -> Tensor:
        """See `Kernels`."""
        n_samples, n_streams, width = vectors_BGD.shape
        on_cpu = table_LD.device.type == "cpu"
        at_a_time = max(1, cache.CACHED // max(1, n_streams * width)) if on_cpu else max(1, n_samples)
        ranges = tiles(n_samples, at_a_time)
        return torch.cat([_entry_dots(vectors_BGD[some], table_LD, indices_BK[some]) for some in ranges])

    def sum_by_latent(self, summed: LatentSum) -> Tensor:
        """See `Kernels`."""
        return sum_range(summed, slice(0, summed.entries.n_latents))

    def dots_by_latent(self, summed: LatentSum, table_LD: Tensor) -> Tensor:
        """See `Kernels`."""
        if summed.vectors.numel() > cache.CACHED:
            return self._dots_by_sample(summed, table_LD)
        latents_M = summed.entries.latents.long().repeat_interleave(summed.n_streams)
        return _dots(summed.vectors, table_LD, summed.positions, latents_M).view_as(summed.values)

    def _dots_by_sample(self, summed: LatentSum, table_LD: Tensor) -> Tensor:
        """Compute `dots_by_latent` by `entry_dots`, in the order of the samples."""
        vectors_BGD = summed.vectors.view(-1, summed.n_streams, summed.vectors.shape[1])
        return summed.entries.in_order(self.entry_dots(vectors_BGD, table_LD, summed.entries.indices))

    def sum_with_dots(self, summed: LatentSum, table_LD: Tensor) -> tuple[Tensor, Tensor]:
        """See `Kernels`."""
        return self.sum_by_latent(summed), self.dots_by_latent(summed, table_LD)

    def update_by_latent(
        self,
        sums: Sequence[tuple[LatentSum, slice]],
        table: Tensor,
        moments: tuple[Tensor, Tensor],
        step: AdamStep,
        unit_ends: Sequence[int] | None,
    ) -> list[Tensor] | None:
        """Return None: `training.adam` does this block by block."""
        return None

    def project_directions(self, gradient: Tensor, table: Tensor, ends: Sequence[int]) -> bool:
        """Return False: `unit_norm` does this block by block."""
        return False

    def normalize_directions(self, table: Tensor, ends: Sequence[int]) -> bool:
        """Return False: `unit_norm` does this block by block."""
        return False

    def round_rows(self, table_LD: Tensor, rounded_LR: Tensor, first: int, squares_L2: Tensor) -> bool:
        """Return False: `training.bf16_selection` does this block by block."""
        return False


PLAIN = PlainKernels()


def sum_range(summed: LatentSum, latents: slice) -> Tensor:
    """Return the sums of a range of latents, (latents, D)."""
    entries = summed.entries.of(latents)
    terms = slice(entries.start * summed.n_streams, entries.stop * summed.n_streams)
    starts, positions, weights = summed.starts[latents] - terms.start, summed.positions[terms], summed.weights[terms]
    if not summed.out_of_cache or len(positions) < len(summed.vectors):
        return F.embedding_bag(positions, summed.vectors, starts, per_sample_weights=weights, mode="sum")
    sums = summed.vectors.new_empty(len(starts), summed.vectors.shape[1])
    for columns in tiles(sums.shape[1], cache.COLUMNS):
        vectors = summed.vectors[:, columns]
        sums[:, columns] = F.embedding_bag(positions, vectors, starts, per_sample_weights=weights, mode="sum")
    return sums


def row_dots(rows: Tensor, others: Tensor) -> Tensor:
    """Return the dot product of each row (..., D) with the same row of `others`: (...), without gradient.

    The elementwise products are never written to memory.
    """
    rows_ND, others_ND = rows.reshape(-1, rows.shape[-1]), others.reshape(-1, rows.shape[-1])
    each_N = _each(len(rows_ND), rows.device)
    return _dots(rows_ND, others_ND, each_N, each_N).view(rows.shape[:-1])


@functools.lru_cache(maxsize=8)
def _each(count: int, device: torch.device) -> Tensor:
    # Cached: work between operators lets the OpenMP threads fall asleep.
    return torch.arange(count, device=device)


def _entry_dots(vectors_BGD: Tensor, table_LD: Tensor, indices_BK: Tensor) -> Tensor:
    """Compute `entry_dots` in the order of the latents: each row of the table is read once for all its entries."""
    (n_samples, n_streams, width), n_kept = vectors_BGD.shape, indices_BK.shape[1]
    latents, order = _repeated(indices_BK, n_streams).flatten().sort(stable=True)
    dots_in_order = _dots(vectors_BGD.reshape(-1, width), table_LD, order // n_kept, latents)
    dots = torch.empty_like(dots_in_order)
    dots[order] = dots_in_order
    return dots.view(n_samples, n_streams, n_kept)


def _dots(vectors_ND: Tensor, table_LD: Tensor, positions_M: Tensor, latents_M: Tensor) -> Tensor:
    """Return the dot product of vectors[positions[m]] and table[latents[m]]: (M,)."""
    # The operator behind the gradient of embedding_bag in its weights; it does not copy the vectors. It requires
    # offsets and ignores them, so the positions stand in for them.
    dots: Tensor = torch.ops.aten._embedding_bag_per_sample_weights_backward(
        vectors_ND, table_LD, latents_M, positions_M, positions_M, 0
    )
    return dots


def _repeated(indices_BK: Tensor, n_streams: int) -> Tensor:
    """Return each sample's index set once per stream that shares it, (B, G, K)."""
    return indices_BK.unsqueeze(1).expand(-1, n_streams, -1)
