"""The kept entries of a batch sorted by latent, and sums over them: the gradient of a table."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from sparc.core.kernels import cache
from sparc.core.kernels.cache import blocks


class SortedEntries:
    """The entries of a batch sorted by latent, so that the entries of a latent are neighbours.

    The sort is stable: each sum runs in one order, and the same input gives the same bits.
    """

    def __init__(self, indices_BK: Tensor, n_latents: int) -> None:
        """Sort the entries by latent."""
        self.indices = indices_BK
        """(B, K) kept latents, in the order of the samples."""
        latents, order = indices_BK.flatten().int().sort(stable=True)
        self.latents = latents
        """(E,) int32, the latent of each sorted entry."""
        self.order = order
        """(E,) the position of each sorted entry in the flattened (B, K)."""
        self.samples = order // indices_BK.shape[1]
        """(E,) the sample of each sorted entry."""
        # No bincount here: its output size would force a GPU sync.
        self.starts = torch.searchsorted(latents, torch.arange(n_latents + 1, dtype=torch.int32, device=latents.device))
        """(L + 1,) position of each latent's first entry."""
        self.n_latents = n_latents

    def in_order(self, values_BGK: Tensor) -> Tensor:
        """Return the values of the sorted entries, (E, G)."""
        return values_BGK.transpose(1, 2).reshape(-1, values_BGK.shape[1])[self.order]

    def by_sample(self, values_EG: Tensor) -> Tensor:
        """Undo `in_order`: return the values by sample, (B, G, K)."""
        by_entry = torch.empty_like(values_EG)
        by_entry[self.order] = values_EG
        return by_entry.view(*self.indices.shape, values_EG.shape[1]).transpose(1, 2)

    def sum_values(self, values_E: Tensor) -> Tensor:
        """Return the sum of each latent's values, given those of the sorted entries: (L,)."""
        return torch.segment_reduce(values_E, "sum", lengths=self.starts.diff(), unsafe=True)

    def of(self, latents: slice) -> slice:
        """Return the range of the sorted entries that belong to a range of latents."""
        if latents.start == 0 and latents.stop == self.n_latents:
            return slice(0, len(self.order))
        return slice(self._bounds[latents.start], self._bounds[latents.stop])

    @functools.cached_property
    def _bounds(self) -> list[int]:
        """`starts` as Python numbers, since slices are taken block after block."""
        bounds: list[int] = self.starts.tolist()
        return bounds


class LatentSum:
    """Per latent l, the sum of values[b, g, j] * vectors[b, g] over the streams g and the entries (b, j) that keep l.

    A vector is what one stream of one sample adds: its gradient or its centered features. Holds only the operands;
    `sparse.sum_by_latent` computes the sums, (L, D), of all latents or of some. The M = E·G terms of all sums, sorted
    by latent, are weights[m] * vectors[positions[m]].
    """

    def __init__(self, entries: SortedEntries, values_EG: Tensor, vectors_BGD: Tensor) -> None:
        """Prepare the sum of `vectors_BGD` weighted by `values_EG`, the values of the sorted entries."""
        self.entries = entries
        self.values = values_EG.contiguous()
        """(E, G)."""
        self.n_streams = values_EG.shape[1]
        """G, the streams that share the entries."""
        first = entries.samples * self.n_streams
        self.positions = (first.unsqueeze(1) + torch.arange(self.n_streams, device=first.device)).flatten()
        """(M,) the vector of each term."""
        self.weights = self.values.flatten()
        """(M,)."""
        self.starts = entries.starts * self.n_streams
        """(L + 1,) position of each latent's first term."""
        self.vectors = vectors_BGD.reshape(-1, vectors_BGD.shape[2])
        """(N, D) with N = B·G."""
        often = len(entries.order) >= cache.OFTEN * entries.n_latents
        self.out_of_cache = vectors_BGD.device.type == "cpu" and vectors_BGD.numel() > cache.CACHED and often
        """True if the vectors exceed the CPU's cache and each is read many times.

        Then many latents are summed together, over some columns or some vectors at a time, so that a vector comes from
        memory once for all of them and not once per entry.
        """

    def blocks(self) -> list[slice]:
        """Return the ranges of latents to sum at a time: blocks on the CPU, several together if that reads less."""
        # As many blocks together as take the memory of the vectors.
        together = max(1, self.vectors.numel() // cache.BLOCK) if self.out_of_cache else 1
        return blocks(self.entries.n_latents, self.vectors, together)
