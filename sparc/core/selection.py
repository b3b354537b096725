"""Which latents a sample keeps: the paper's TopK over the one product that must be dense."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

CHUNK = 256
"""Samples whose logits are in memory at a time."""
_GROUPS = 8


class Affine(NamedTuple):
    """What makes one stream's logits: inputs @ weight.T + bias, and 0 for samples that lack the stream."""

    inputs: Tensor
    """(B, D)."""
    weight: Tensor
    """(L, D)."""
    bias: Tensor
    """(L,)."""
    present: Tensor
    """(B,) bool."""


class Kept(NamedTuple):
    """Kept latents of one stream, largest score first."""

    indices: Tensor
    """(B, K) int64; one tensor for all streams where they share it."""
    logits: Tensor
    """(B, K)."""


@torch.no_grad()
def select(streams: Mapping[str, Affine], k: int, *, shared: bool, workspace: Tensor | None = None) -> dict[str, Kept]:
    """Keep the k latents of largest logit, or of largest sum of the streams' logits where they share.

    The logits of a few samples at a time are computed, searched and forgotten: no [B, L] tensor is held. They are
    written to `workspace`, from `workspace_for`, which spares a loop its allocation.
    """
    first = next(iter(streams.values()))
    n_samples = len(first.inputs)
    if workspace is None:
        workspace = workspace_for(len(streams), first.weight, n_samples)
    kept = {
        name: Kept(
            torch.empty(n_samples, k, dtype=torch.int64, device=first.inputs.device),
            torch.empty(n_samples, k, dtype=first.inputs.dtype, device=first.inputs.device),
        )
        for name in streams
    }
    if shared:
        kept = {name: Kept(next(iter(kept.values())).indices, logits) for name, (_, logits) in kept.items()}
    for start in range(0, n_samples, CHUNK):
        rows = slice(start, min(start + CHUNK, n_samples))
        logits = {
            name: _logits(affine, rows, workspace[position])
            for position, (name, affine) in enumerate(streams.items())
        }
        if shared:
            scores_BL = workspace[len(streams)][: rows.stop - rows.start]
            _sum_in_order(list(logits.values()), scores_BL)
            next(iter(kept.values())).indices[rows] = top_k(scores_BL, k)
        for name, logits_BL in logits.items():
            if not shared:
                kept[name].indices[rows] = top_k(logits_BL, k)
            kept[name].logits[rows] = logits_BL.gather(1, kept[name].indices[rows])
    return kept


def workspace_for(n_streams: int, weight_LD: Tensor, n_samples: int = CHUNK) -> Tensor:
    """Room for the logits of as many samples as `select` does at a time."""
    return weight_LD.new_empty(n_streams + 1, min(CHUNK, n_samples), len(weight_LD))


def _logits(affine: Affine, rows: slice, out_BL: Tensor) -> Tensor:
    logits_BL = torch.addmm(
        affine.bias, affine.inputs[rows], affine.weight.T, out=out_BL[: rows.stop - rows.start]
    )
    # Asking an accelerator whether any is missing would wait for it.
    if logits_BL.device.type != "cpu" or not affine.present[rows].all():
        logits_BL *= affine.present[rows].unsqueeze(1)
    return logits_BL


def _sum_in_order(logits: list[Tensor], out_BL: Tensor) -> None:
    """Sum in the order of the streams: float addition is order dependent, and near ties would select otherwise."""
    if len(logits) == 1:
        out_BL.copy_(logits[0])
        return
    torch.add(logits[0], logits[1], out=out_BL)
    for logits_BL in logits[2:]:
        out_BL += logits_BL


@torch.no_grad()
def top_k(scores_BL: Tensor, k: int) -> Tensor:
    """Indices (B, K) of the k largest scores of each row, largest first; among equal scores the lowest index is kept.

    `torch.topk` breaks ties as it likes, and differently on each device. Only a tie between the last kept and the first
    dropped score changes the set, so only such rows are sorted.
    """
    n_latents = scores_BL.shape[1]
    if k == n_latents:
        return scores_BL.argsort(dim=1, descending=True, stable=True)
    if n_latents % _GROUPS == 0 and n_latents >= 4 * _GROUPS * (k + 1):
        candidates_BC = _columns_of_the_largest(scores_BL, k + 1)
        top = scores_BL.gather(1, candidates_BC).topk(k + 1, dim=1)
        indices_BK = candidates_BC.gather(1, top.indices[:, :k])
    else:
        top = scores_BL.topk(k + 1, dim=1)
        indices_BK = top.indices[:, :k].contiguous()
    tied_B = top.values[:, k - 1] == top.values[:, k]
    if tied_B.any():
        indices_BK[tied_B] = scores_BL[tied_B].argsort(dim=1, descending=True, stable=True)[:, :k]
    return indices_BK


def _columns_of_the_largest(scores_BL: Tensor, k: int) -> Tensor:
    """Indices (B, 8 k) that hold the k largest scores, and leave only an eighth of the row to search.

    The row is folded into columns of eight. An element of the k largest lies in a column whose maximum is among the k
    largest maxima: were k other maxima larger, so were k elements.
    """
    n_columns = scores_BL.shape[1] // _GROUPS
    maxima = scores_BL.unflatten(1, (_GROUPS, n_columns)).amax(dim=1)
    columns_BK = maxima.topk(k, dim=1, sorted=False).indices
    offsets = torch.arange(0, scores_BL.shape[1], n_columns, device=scores_BL.device)
    return (columns_BK.unsqueeze(1) + offsets.unsqueeze(1)).flatten(1)
