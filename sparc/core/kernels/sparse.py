"""Sums over kept entries, never a dense [B, L] product or gradient, by the backend that fits the table.

An entry (b, j) is one kept latent of one sample. Training needs three sums over entries beside the encoder product, and
each replaces a dense product:

    weighted_rows   codes times a table of latents              the decoder
    entry_dots      vectors times the table, at kept entries    the gradient of the codes
    sum_by_latent   codes transposed times vectors              the gradient of a table

The G streams that share an index set also share the table's rows, so their sums are computed together.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sparc.core.kernels.choose import kernels
from sparc.core.kernels.entries import LatentSum, SortedEntries
from sparc.core.kernels.plain import sum_range

_PARTS = 8
"""Parts of a sum over all latents, for the cores to share."""


def weighted_rows(indices_BK: Tensor, values_BGK: Tensor, table_LD: Tensor) -> Tensor:
    """Return the sum over j of values[b, g, j] * table[indices[b, j]]: (B, G, D).

    Differentiable in values and table.
    """
    summed: Tensor = _WeightedRows.apply(indices_BK, values_BGK, table_LD)
    return summed


def entry_dots(vectors_BGD: Tensor, table_LD: Tensor, indices_BK: Tensor) -> Tensor:
    """Return the dot product of vectors[b, g] and table[indices[b, j]] for each entry: (B, G, K)."""
    return kernels(table_LD).entry_dots(vectors_BGD, table_LD, indices_BK)


def sum_by_latent(summed: LatentSum, latents: slice | None = None) -> Tensor:
    """Return the sums of a range of latents, (latents, D), by default of all of them."""
    n_latents = summed.entries.n_latents
    if latents is not None and latents.stop - latents.start < n_latents:
        return sum_range(summed, latents)
    return kernels(summed.vectors, n_latents * summed.vectors.shape[1]).sum_by_latent(summed)


def dots_by_latent(summed: LatentSum, table_LD: Tensor) -> Tensor:
    """Return the dot products of `entry_dots` for the vectors of a sum, in the order of the sorted entries: (E, G).

    If the vectors are the gradient of reconstructions that the table decoded, these are the gradients of the codes.
    """
    return kernels(table_LD).dots_by_latent(summed, table_LD)


def weighted_sum(values_L: Tensor, table_LD: Tensor) -> Tensor:
    """Return the sum over latents of values[l] * table[l]: (D,)."""
    n_latents, width = table_LD.shape
    parts = _PARTS if n_latents % _PARTS == 0 else 1
    # One product of a row vector with the whole table takes nearly twice as long.
    rows_P1L, tables_PLD = values_L.reshape(parts, 1, -1), table_LD.reshape(parts, n_latents // parts, width)
    return torch.bmm(rows_P1L, tables_PLD).sum(dim=(0, 1))


class _WeightedRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, indices_BK: Tensor, values_BGK: Tensor, table_LD: Tensor) -> Tensor:
        ctx.save_for_backward(indices_BK, values_BGK, table_LD)
        return kernels(table_LD).weighted_rows(indices_BK, values_BGK, table_LD)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BGD: Tensor) -> tuple[None, Tensor | None, Tensor | None]:
        indices_BK, values_BGK, table_LD = ctx.saved_tensors
        grad_BGD = grad_BGD.contiguous()
        if not ctx.needs_input_grad[2]:
            return None, entry_dots(grad_BGD, table_LD, indices_BK), None
        entries = SortedEntries(indices_BK, len(table_LD))
        summed = LatentSum(entries, entries.in_order(values_BGK), grad_BGD)
        if not ctx.needs_input_grad[1]:
            return None, None, sum_by_latent(summed)
        grad_table, dots_EG = kernels(table_LD).sum_with_dots(summed, table_LD)
        return None, entries.by_sample(dots_EG), grad_table


class _LogitsWithGradient(torch.autograd.Function):
    """The identity on logits that are already computed; its backward runs over the kept entries only."""

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
        entries = SortedEntries(indices_BK, len(weight_LD))
        grad_E1 = entries.in_order(grad_B1K)
        grad_weight_LD = sum_by_latent(LatentSum(entries, grad_E1, inputs_BD.unsqueeze(1)))
        grad_bias_L = entries.sum_values(grad_E1.squeeze(1))
        grad_inputs_BD = weighted_rows(indices_BK, grad_B1K, weight_LD).squeeze(1) if ctx.needs_input_grad[0] else None
        return grad_inputs_BD, grad_weight_LD, grad_bias_L, None, None


def logits_with_gradient(
    inputs_BD: Tensor, weight_LD: Tensor, bias_L: Tensor, logits_BK: Tensor, indices_BK: Tensor
) -> Tensor:
    """Return `logits_BK` unchanged, connected to the autograd graph.

    They must be the entries `indices_BK` of inputs @ weight.T + bias, whose gradient they then have. Selection computes
    the full product without a graph: outside the kept entries the gradient is zero anyway.
    """
    kept: Tensor = _LogitsWithGradient.apply(inputs_BD, weight_LD, bias_L, logits_BK, indices_BK)
    return kept
