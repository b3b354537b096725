"""What a few kept latents per sample cost: sums over entries, never a dense [B, L] product or gradient."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def weighted_rows(indices_BK: Tensor, values_BK: Tensor, table_LD: Tensor) -> Tensor:
    """Sum over j of values[b, j] * table[indices[b, j]]: (B, D), differentiable in values and table."""
    return F.embedding_bag(indices_BK, table_LD, per_sample_weights=values_BK, mode="sum")


def sum_per_latent(indices_BK: Tensor, values_BK: Tensor, rows_BD: Tensor, n_latents: int) -> Tensor:
    """Sum over the entries (b, j) that keep latent l of values[b, j] * rows[b]: (L, D).

    The transpose of `weighted_rows`. Entries are sorted by latent, stably, so that sums run in one order and the same
    input gives the same bits.
    """
    latents, order = indices_BK.flatten().sort(stable=True)
    ends_L = latents.bincount(minlength=n_latents).cumsum(0)
    starts_L = torch.cat([ends_L.new_zeros(1), ends_L[:-1]])
    samples = order // indices_BK.shape[1]
    return F.embedding_bag(samples, rows_BD, starts_L, per_sample_weights=values_BK.flatten()[order], mode="sum")


class _KeptLogits(torch.autograd.Function):
    """Logits of kept latents, already computed, joined to the graph: their gradients cost the kept entries alone."""

    @staticmethod
    def forward(
        ctx: Any, inputs_BD: Tensor, weight_LD: Tensor, bias_L: Tensor, logits_BK: Tensor, indices_BK: Tensor
    ) -> Tensor:
        ctx.save_for_backward(inputs_BD, weight_LD, bias_L, indices_BK)
        return logits_BK.clone()

    @staticmethod
    def backward(ctx: Any, grad_BK: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        inputs_BD, weight_LD, bias_L, indices_BK = ctx.saved_tensors
        grad_BK = grad_BK.contiguous()
        grad_inputs_BD = weighted_rows(indices_BK, grad_BK, weight_LD)
        grad_weight_LD = sum_per_latent(indices_BK, grad_BK, inputs_BD, len(weight_LD))
        grad_bias_L = torch.zeros_like(bias_L).index_add_(0, indices_BK.flatten(), grad_BK.flatten())
        return grad_inputs_BD, grad_weight_LD, grad_bias_L, None, None


def kept_logits(inputs_BD: Tensor, weight_LD: Tensor, bias_L: Tensor, logits_BK: Tensor, indices_BK: Tensor) -> Tensor:
    """Return `logits_BK`, the entries `indices_BK` of inputs @ weight.T + bias, with their gradients.

    The product itself is made without gradient: selection needs it whole, but its gradient is zero outside the kept
    entries.
    """
    kept: Tensor = _KeptLogits.apply(inputs_BD, weight_LD, bias_L, logits_BK, indices_BK)
    return kept
