"""Which latents a sample keeps: the paper's TopK over the one product that must be dense."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from sparc.core.kernels import tiles

SAMPLES, LATENTS = 256, 8192
"""Logits in memory at a time on the CPU, of so many samples and latents: 8 MB a stream, which its cache holds."""
MANY_SAMPLES, MANY_LATENTS = 2048, 65536
"""The same on an accelerator, which wants large products: 0.5 GB a stream."""
_GROUPS = 8
_LARGEST = 2**31 - 1
_ONEDNN = hasattr(torch.ops.mkldnn, "_linear_pointwise")


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


class Select(Protocol):
    """A function that keeps k latents per sample: `select`, or one that keeps the same at another cost."""

    def __call__(self, streams: Mapping[str, Affine], k: int, *, shared: bool) -> dict[str, Kept]:
        """Return the kept latents by stream; if `shared`, all streams keep those of the largest summed logits."""


@torch.no_grad()
def select(streams: Mapping[str, Affine], k: int, *, shared: bool) -> dict[str, Kept]:
    """Keep the k latents of largest logit, or of largest sum of the streams' logits where they share.

    The logits of a few samples and latents at a time are computed, searched and forgotten: no [B, L] tensor is held.
    Sums over streams run in the order of the mapping: float addition is order dependent, and near ties would select
    otherwise.
    """
    if not shared:
        return {name: select_shared([affine], k)[0] for name, affine in streams.items()}
    return dict(zip(streams, select_shared(list(streams.values()), k), strict=True))


def select_shared(streams: list[Affine], k: int) -> list[Kept]:
    """Kept latents of streams that share them."""
    ranges = latent_tiles(streams[0].weight)
    parts = [_search(streams, k, rows, ranges) for rows in row_tiles(streams[0].inputs)]
    indices_BK = torch.cat([indices for indices, _ in parts])
    logits_SBK = torch.cat([logits for _, logits in parts], dim=1)
    return [Kept(indices_BK, logits_BK) for logits_BK in logits_SBK]


def _search(streams: list[Affine], k: int, rows: slice, ranges: list[slice]) -> tuple[Tensor, Tensor]:
    """Indices (b, K) that some samples keep, and the logits (S, b, K) of the streams there.

    Of several ranges of latents each gives its k best, among which the k best of all are. Those are put in the order of
    their indices first, so that of equal scores the lowest indices are kept.
    """
    if len(ranges) == 1:
        best = _best(streams, k, rows, ranges[0])
        return best.indices, best.logits
    found = [_best(streams, min(k, latents.stop - latents.start), rows, latents) for latents in ranges]
    indices_BC, order_BC = torch.cat([tile.indices for tile in found], dim=1).sort(dim=1)
    scores_BC = torch.cat([tile.scores for tile in found], dim=1).gather(1, order_BC)
    best_BK = top_k(scores_BC, k)
    places_BK = order_BC.gather(1, best_BK).expand(len(streams), -1, -1)
    return indices_BC.gather(1, best_BK), torch.cat([tile.logits for tile in found], dim=2).gather(2, places_BK)


class _Tile(NamedTuple):
    """The k best of a range of latents."""

    indices: Tensor
    scores: Tensor
    logits: Tensor


def _best(streams: list[Affine], k: int, rows: slice, latents: slice) -> _Tile:
    logits = [_logits(affine, rows, latents) for affine in streams]
    scores_BL = summed(logits)
    best_BK = top_k(scores_BL, k)
    kept_SBK = torch.stack([logits_BL.gather(1, best_BK) for logits_BL in logits])
    return _Tile(best_BK + latents.start, scores_BL.gather(1, best_BK), kept_SBK)


def summed(logits: list[Tensor]) -> Tensor:
    """Sum of the streams' logits, each (B, L), in their order."""
    first, *others = logits
    if not others:
        return first
    scores_BL = first + others[0]
    for logits_BL in others[1:]:
        scores_BL += logits_BL
    return scores_BL


def _logits(affine: Affine, rows: slice, latents: slice) -> Tensor:
    inputs_BD, weight_LD, bias_L = affine.inputs[rows], affine.weight[latents], affine.bias[latents]
    present_B = affine.present[rows]
    if _ONEDNN and inputs_BD.device.type == "cpu" and inputs_BD.dtype == torch.float32:
        # oneDNN takes 0.7 to 0.85 of the time of MKL (docs/performance.md). Its public way copies the logits once more.
        logits_BL: Tensor = torch.ops.mkldnn._linear_pointwise(inputs_BD, weight_LD, bias_L, "none", [], "")
    else:
        logits_BL = F.linear(inputs_BD, weight_LD, bias_L)
    # Asking an accelerator whether any is missing would wait for it.
    if logits_BL.device.type != "cpu" or not present_B.all():
        logits_BL *= present_B.unsqueeze(1)
    return logits_BL


def row_tiles(inputs_BD: Tensor) -> list[slice]:
    """Samples to make logits of at a time."""
    return tiles(len(inputs_BD), SAMPLES if inputs_BD.device.type == "cpu" else MANY_SAMPLES)


def latent_tiles(weight_LD: Tensor) -> list[slice]:
    """Latents to make logits of at a time."""
    return tiles(len(weight_LD), LATENTS if weight_LD.device.type == "cpu" else MANY_LATENTS)


@torch.no_grad()
def top_k(scores_BL: Tensor, k: int) -> Tensor:
    """Indices (B, K) of the k largest scores of each row, largest first; among equal scores the lowest index is kept.

    `torch.topk` breaks ties as it likes, and differently on each device. Only a tie between the last kept and the first
    dropped score changes the set, so only such rows are sorted. An accelerator would be waited for to hear which those
    are: there all scores are told apart.
    """
    n_latents = scores_BL.shape[1]
    if k == n_latents:
        return scores_BL.argsort(dim=1, descending=True, stable=True)
    if scores_BL.device.type != "cpu" and scores_BL.dtype == torch.float32:
        return top_k_without_asking(scores_BL, k)
    top = largest(scores_BL, k + 1)
    indices_BK = top.indices[:, :k].contiguous()
    tied_B = top.values[:, k - 1] == top.values[:, k]
    if tied_B.any():
        indices_BK[tied_B] = scores_BL[tied_B].argsort(dim=1, descending=True, stable=True)[:, :k]
    return indices_BK


def top_k_without_asking(scores_BL: Tensor, k: int) -> Tensor:
    """What `top_k` gives, for float32, with no question to the device: scores that tell equal ones apart have no ties.

    Of a long row, neighbours are searched as groups by their maxima: an element of the k largest lies in a group of the
    k largest maxima, and among equal maxima the first groups hold the lowest indices.
    """
    n_latents, device = scores_BL.shape[1], scores_BL.device
    if n_latents < 4 * _GROUPS * k:
        return _told_apart(scores_BL, torch.arange(n_latents, device=device)).topk(k, dim=1).indices
    scores_BL = F.pad(scores_BL, (0, -n_latents % _GROUPS), value=-torch.inf)  # of the highest indices: never kept
    n_groups = scores_BL.shape[1] // _GROUPS
    maxima_BC = scores_BL.reshape(len(scores_BL), n_groups, _GROUPS).amax(dim=2)
    groups_BK = _told_apart(maxima_BC, torch.arange(n_groups, device=device)).topk(k, dim=1).indices
    candidates_BC = (groups_BK.unsqueeze(2) * _GROUPS + torch.arange(_GROUPS, device=device)).flatten(1)
    best_BK = _told_apart(scores_BL.gather(1, candidates_BC), candidates_BC).topk(k, dim=1).indices
    return candidates_BC.gather(1, best_BK)


def _told_apart(scores: Tensor, indices: Tensor) -> Tensor:
    """Integers in the order of float32 scores, NaN the largest; where those are equal in the reverse one of indices."""
    bits = (scores + 0.0).view(torch.int32)  # -0 becomes 0
    in_order = bits ^ ((bits >> 31) & _LARGEST)  # the bits of negative floats run backwards
    in_order = torch.where(scores.isnan(), _LARGEST, in_order)
    return in_order.long().bitwise_left_shift_(32).sub_(indices)


class Largest(NamedTuple):
    """The largest scores of each row, in order."""

    values: Tensor
    """(B, K)."""
    indices: Tensor
    """(B, K)."""


def largest(scores_BL: Tensor, k: int) -> Largest:
    """The k largest scores of each row; among equal scores any.

    Long rows are folded into columns of eight, of which only those with the k largest maxima are searched: an element
    of the k largest lies in one of them, for were k other maxima larger, so were k elements.
    """
    n_latents = scores_BL.shape[1]
    if n_latents % _GROUPS or n_latents < 4 * _GROUPS * k:
        return Largest(*scores_BL.topk(k, dim=1))
    n_columns = n_latents // _GROUPS
    maxima_BC = scores_BL.reshape(len(scores_BL), _GROUPS, n_columns).amax(dim=1)
    columns_BK = maxima_BC.topk(k, dim=1, sorted=False).indices
    offsets_G1 = torch.arange(0, n_latents, n_columns, device=scores_BL.device).unsqueeze(1)
    candidates_BC = (columns_BK.unsqueeze(1) + offsets_G1).flatten(1)
    values_BK, places_BK = scores_BL.gather(1, candidates_BC).topk(k, dim=1)
    return Largest(values_BK, candidates_BC.gather(1, places_BK))
