"""What a few kept latents per sample cost: sums over entries, never a dense [B, L] product or gradient.

An entry (b, j) is one kept latent of one sample. Three sums over entries are all that training needs beside the encoder
product, and each stands for a dense product that it replaces:

    weighted_rows   codes times a table of latents              the decoder
    entry_dots      rows times the table, at kept entries       the gradient of the codes
    LatentSum       codes transposed times rows                 the gradient of a table

Streams that share an index set share its rows in memory: G of them are done at once.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from sparc.core.kernels.backend import kernels
from sparc.core.topk import tiles

BLOCK, FEWEST = 640 * 1024, 64
"""Numbers of a table's gradient at a time on the CPU, whose cache holds them with weights and moments: 2.5 MB; and the
fewest latents."""
COLUMNS, OFTEN = 128, 4
"""Columns to sum at a time, where the rows to be summed are too many for the cache and latents have so many entries."""
CACHED = 2**21
"""Numbers of rows that are read again and again, at a time on the CPU: 8 MB."""
_PARTS = 8
"""Parts of a sum over all latents, which the cores share."""


def weighted_rows(indices_BK: Tensor, values_BGK: Tensor, table_LD: Tensor) -> Tensor:
    """Sum over j of values[b, g, j] * table[indices[b, j]]: (B, G, D), differentiable in values and table."""
    summed: Tensor = _WeightedRows.apply(indices_BK, values_BGK, table_LD)
    return summed


def entry_dots(rows_BGD: Tensor, table_LD: Tensor, indices_BK: Tensor) -> Tensor:
    """Product of rows[b, g] and table[indices[b, j]] for each entry: (B, G, K)."""
    if (compiled := kernels(table_LD)) is not None:
        fast: Tensor = compiled.entry_dots(rows_BGD, table_LD, indices_BK)
        return fast
    n_rows, n_shared, width = rows_BGD.shape
    at_a_time = max(1, CACHED // max(1, n_shared * width)) if table_LD.device.type == "cpu" else max(1, n_rows)
    return torch.cat([_entry_dots(rows_BGD[some], table_LD, indices_BK[some]) for some in tiles(n_rows, at_a_time)])


def _entry_dots(rows_BGD: Tensor, table_LD: Tensor, indices_BK: Tensor) -> Tensor:
    """In the order of the latents: each is read once for all its entries, and the rows lie in the cache of a CPU."""
    (n_rows, n_shared, width), n_kept = rows_BGD.shape, indices_BK.shape[1]
    latents, order = _repeated(indices_BK, n_shared).flatten().sort(stable=True)
    dots_in_order = _dots(rows_BGD.reshape(-1, width), table_LD, order // n_kept, latents)
    dots = torch.empty_like(dots_in_order)
    dots[order] = dots_in_order
    return dots.view(n_rows, n_shared, n_kept)


def _dots(rows_ND: Tensor, table_LD: Tensor, positions_E: Tensor, latents_E: Tensor) -> Tensor:
    """Product of rows[positions[e]] and table[latents[e]]: (E,)."""
    # The operator behind the gradient of embedding_bag in its weights: it gathers nothing into memory.
    # Offsets are asked for and not used: the positions stand in for them.
    dots: Tensor = torch.ops.aten._embedding_bag_per_sample_weights_backward(
        rows_ND, table_LD, latents_E, positions_E, positions_E, 0
    )
    return dots


def row_dots(rows: Tensor, others: Tensor) -> Tensor:
    """Product of each row (..., D) with its like among the others: (...); without gradient.

    The products of their numbers never lie in memory.
    """
    rows_ND, others_ND = rows.reshape(-1, rows.shape[-1]), others.reshape(-1, rows.shape[-1])
    each_N = _each(len(rows_ND), rows.device)
    return _dots(rows_ND, others_ND, each_N, each_N).view(rows.shape[:-1])


@functools.lru_cache(maxsize=8)
def _each(count: int, device: torch.device) -> Tensor:
    # Asked for block after block, and what is made between operators lets the threads that wait for the next one sleep.
    return torch.arange(count, device=device)


def blocks(n_latents: int, like_ND: Tensor, together: int = 1) -> list[slice]:
    """Ranges of the latents of a table as wide as another: on the CPU what its cache holds, elsewhere all of them."""
    in_block = max(FEWEST, BLOCK // max(1, like_ND.shape[1]))
    return tiles(n_latents, together * in_block if like_ND.device.type == "cpu" else n_latents)


def weighted_sum(values_L: Tensor, table_LD: Tensor) -> Tensor:
    """Sum over latents of values[l] * table[l]: (D,)."""
    n_latents, width = table_LD.shape
    parts = _PARTS if n_latents % _PARTS == 0 else 1
    # As one product of a row with the table it takes nearly twice as long.
    rows_P1L, tables_PLD = values_L.reshape(parts, 1, -1), table_LD.reshape(parts, n_latents // parts, width)
    return torch.bmm(rows_P1L, tables_PLD).sum(dim=(0, 1))


def _weighted_rows(indices_BK: Tensor, values_BGK: Tensor, table_LD: Tensor) -> Tensor:
    if (compiled := kernels(table_LD)) is not None:
        fast: Tensor = compiled.weighted_rows(indices_BK, values_BGK, table_LD)
        return fast
    n_rows, n_shared, n_kept = values_BGK.shape
    bags = _repeated(indices_BK, n_shared).reshape(-1, n_kept)
    summed = F.embedding_bag(bags, table_LD, per_sample_weights=values_BGK.reshape(-1, n_kept), mode="sum")
    return summed.view(n_rows, n_shared, table_LD.shape[1])


class Entries:
    """The entries of a batch sorted by latent, so that sums per latent run over neighbours.

    The sort is stable: sums run in one order, and the same input gives the same bits.
    """

    def __init__(self, indices_BK: Tensor, n_latents: int) -> None:
        """Sort the entries; of latents that no sample keeps there are none."""
        self.indices = indices_BK
        """(B, K), as given."""
        latents, order = indices_BK.flatten().int().sort(stable=True)
        self.latents = latents
        """Latents of the entries, in order."""
        self.order = order
        """Positions in the flattened (B, K) of the entries, in their order by latent."""
        self.samples = order // indices_BK.shape[1]
        # Not by counting, whose result's length an accelerator would be waited for.
        self.starts = torch.searchsorted(latents, torch.arange(n_latents + 1, dtype=torch.int32, device=latents.device))
        """(L + 1,) where each latent's entries start."""
        self.n_latents = n_latents

    def in_order(self, values_BGK: Tensor) -> Tensor:
        """Values of the entries in their order by latent, (E, G)."""
        return values_BGK.transpose(1, 2).reshape(-1, values_BGK.shape[1])[self.order]

    def by_sample(self, values_EG: Tensor) -> Tensor:
        """The way back from `in_order`, (B, G, K)."""
        by_entry = torch.empty_like(values_EG)
        by_entry[self.order] = values_EG
        return by_entry.view(*self.indices.shape, values_EG.shape[1]).transpose(1, 2)

    def sum_values(self, values_E: Tensor) -> Tensor:
        """Per latent, the sum of its entries' values, which are in order: (L,)."""
        return torch.segment_reduce(values_E, "sum", lengths=self.starts.diff(), unsafe=True)

    def of(self, latents: slice) -> slice:
        """Where the entries of a range of latents lie."""
        if latents.start == 0 and latents.stop == self.n_latents:
            return slice(0, len(self.order))
        return slice(self._bounds[latents.start], self._bounds[latents.stop])

    @functools.cached_property
    def _bounds(self) -> list[int]:
        """`starts` for the host, which asks for them block by block."""
        bounds: list[int] = self.starts.tolist()
        return bounds


class LatentSum:
    """Per latent l, the sum of values[b, g, j] * rows[b, g] over the entries (b, j) that keep l: a gradient (L, D).

    It is never held whole unless asked for: `block` gives some rows of it.
    """

    def __init__(self, entries: Entries, values_EG: Tensor, rows_BGD: Tensor) -> None:
        """Say what to sum, with the values in the order of the entries; sum nothing yet."""
        self.entries = entries
        self.values = values_EG.contiguous()
        self._shared = values_EG.shape[1]
        first = entries.samples * self._shared
        self._positions = (first.unsqueeze(1) + torch.arange(self._shared, device=first.device)).flatten()
        self._weights = self.values.flatten()
        self._starts = entries.starts * self._shared
        self._rows = rows_BGD.reshape(-1, rows_BGD.shape[2])
        # Rows that the cache does not hold come from memory for each entry. A few columns of them at a time come once
        # for all latents that are summed together, which pays where a latent has some entries.
        often = len(entries.order) >= OFTEN * entries.n_latents
        self.out_of_cache = rows_BGD.device.type == "cpu" and rows_BGD.numel() > CACHED and often
        """Whether many latents are to be summed together, some columns or some rows at a time."""

    def blocks(self) -> list[slice]:
        """Ranges of latents to sum at a time: on the CPU those of one block, or of some where that reads less."""
        together = max(1, self._rows.numel() // BLOCK) if self.out_of_cache else 1  # as much memory as the rows take
        return blocks(self.entries.n_latents, self._rows, together)

    def block(self, latents: slice) -> Tensor:
        """The sums of a range of latents, (latents, D)."""
        if latents.stop - latents.start == self.entries.n_latents:
            return self.whole()
        return self._summed(latents)

    def _summed(self, latents: slice) -> Tensor:
        entries = self.entries.of(latents)
        own = slice(entries.start * self._shared, entries.stop * self._shared)
        starts, positions, values = self._starts[latents] - own.start, self._positions[own], self._weights[own]
        if not self.out_of_cache or len(positions) < len(self._rows):
            return F.embedding_bag(positions, self._rows, starts, per_sample_weights=values, mode="sum")
        summed = self._rows.new_empty(len(starts), self._rows.shape[1])
        for columns in tiles(summed.shape[1], COLUMNS):
            rows = self._rows[:, columns]
            summed[:, columns] = F.embedding_bag(positions, rows, starts, per_sample_weights=values, mode="sum")
        return summed

    def sorted_entries(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What the sums run over: each entry's row and value, the rows, and where each latent's entries start."""
        return self._positions, self._weights, self._rows, self._starts

    def products(self, table_LD: Tensor) -> Tensor:
        """The product of each entry's row with its latent's row of a table, in the order of the entries: (E, G).

        Where the rows are the gradient of a decoded batch and the table decoded it, these are the codes' gradients.
        """
        if kernels(table_LD) is None and self._rows.numel() <= CACHED:
            latents_E = self.entries.latents.long().repeat_interleave(self._shared)
            return _dots(self._rows, table_LD, self._positions, latents_E).view_as(self.values)
        rows_BGD = self._rows.view(-1, self._shared, self._rows.shape[1])
        return self.entries.in_order(entry_dots(rows_BGD, table_LD, self.entries.indices))

    def whole(self) -> Tensor:
        """All sums, (L, D)."""
        compiled = kernels(self._rows, self.entries.n_latents * self._rows.shape[1])
        if compiled is None or self.out_of_cache:
            return self._summed(slice(0, self.entries.n_latents))
        fast: Tensor = compiled.sum_by_latent(*self.sorted_entries())
        return fast

    def whole_with_products(self, table_LD: Tensor) -> tuple[Tensor, Tensor]:
        """All sums, (L, D), and `products`: for the same reads where a kernel makes both."""
        both = getattr(kernels(table_LD), "sum_with_products", None)
        if both is None:
            return self.whole(), self.products(table_LD)
        summed, products = both(*self.sorted_entries(), table_LD, out_of_cache=self.out_of_cache)
        return summed, products.view_as(self.values)


class _WeightedRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, indices_BK: Tensor, values_BGK: Tensor, table_LD: Tensor) -> Tensor:
        ctx.save_for_backward(indices_BK, values_BGK, table_LD)
        return _weighted_rows(indices_BK, values_BGK, table_LD)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BGD: Tensor) -> tuple[None, Tensor | None, Tensor | None]:
        indices_BK, values_BGK, table_LD = ctx.saved_tensors
        grad_BGD = grad_BGD.contiguous()
        if not ctx.needs_input_grad[2]:
            return None, entry_dots(grad_BGD, table_LD, indices_BK), None
        entries = Entries(indices_BK, len(table_LD))
        summed = LatentSum(entries, entries.in_order(values_BGK), grad_BGD)
        if not ctx.needs_input_grad[1]:
            return None, None, summed.whole()
        grad_table, products_EG = summed.whole_with_products(table_LD)
        return None, entries.by_sample(products_EG), grad_table


def _repeated(indices_BK: Tensor, n_shared: int) -> Tensor:
    """(B, G, K): the index set of each sample, once per stream that shares it."""
    return indices_BK.unsqueeze(1).expand(-1, n_shared, -1)


class _KeptLogits(torch.autograd.Function):
    """Logits of kept latents, already computed, joined to the graph: their gradients cost the kept entries alone."""

    @staticmethod
    def forward(
        ctx: Any, inputs_BD: Tensor, weight_LD: Tensor, bias_L: Tensor, logits_BK: Tensor, indices_BK: Tensor
    ) -> Tensor:
        ctx.save_for_backward(inputs_BD, weight_LD, indices_BK)
        return logits_BK.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BK: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None, None]:
        inputs_BD, weight_LD, indices_BK = ctx.saved_tensors
        grad_B1K = grad_BK.unsqueeze(1).contiguous()
        entries = Entries(indices_BK, len(weight_LD))
        grad_E1 = entries.in_order(grad_B1K)
        grad_weight_LD = LatentSum(entries, grad_E1, inputs_BD.unsqueeze(1)).whole()
        grad_bias_L = entries.sum_values(grad_E1.squeeze(1))
        grad_inputs_BD = weighted_rows(indices_BK, grad_B1K, weight_LD).squeeze(1) if ctx.needs_input_grad[0] else None
        return grad_inputs_BD, grad_weight_LD, grad_bias_L, None, None


def kept_logits(inputs_BD: Tensor, weight_LD: Tensor, bias_L: Tensor, logits_BK: Tensor, indices_BK: Tensor) -> Tensor:
    """Return `logits_BK`, the entries `indices_BK` of inputs @ weight.T + bias, with their gradients.

    The product itself is made without gradient: selection needs it whole, but its gradient is zero outside the kept
    entries.
    """
    kept: Tensor = _KeptLogits.apply(inputs_BD, weight_LD, bias_L, logits_BK, indices_BK)
    return kept
