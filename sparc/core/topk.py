"""Global TopK: which latents a sample keeps.

The encoder product is the one dense product of a step. Its logits are computed, searched and discarded for some samples
and latents at a time. Of equal scores the one with the lowest index is kept, on every device.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from sparc.core.kernels import tiles

TILE_SAMPLES, TILE_LATENTS = 256, 8192
"""Samples and latents whose logits are in memory at a time on the CPU: 8 MB per stream, which fit in its cache."""
MANY_SAMPLES, MANY_LATENTS = 2048, 65536
"""Samples and latents at a time on a GPU, which needs large products to be fast: 0.5 GB per stream."""
_GROUP = 8
"""Scores per group; a long row of scores is searched by the maxima of its groups."""
_LARGEST_INT32 = 2**31 - 1
_ONEDNN = hasattr(torch.ops.mkldnn, "_linear_pointwise")


class EncoderProduct(NamedTuple):
    """Operands of one stream's encoder product: inputs @ weight.T + bias, and 0 for samples that lack the stream."""

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
    """(B, K) int64; streams that share latents have the same tensor."""
    logits: Tensor
    """(B, K)."""


class Selector(Protocol):
    """A function that keeps k latents per sample: `select`, or one that keeps the same latents at another cost."""

    def __call__(self, streams: Mapping[str, EncoderProduct], k: int, *, shared: bool) -> dict[str, Kept]:
        """Return the kept latents by stream; if `shared`, all streams keep those of the largest summed logits."""


@torch.no_grad()
def select(streams: Mapping[str, EncoderProduct], k: int, *, shared: bool) -> dict[str, Kept]:
    """Keep the k latents of the largest logits or, if `shared`, of the largest sums of the streams' logits.

    No [B, L] tensor is held: logits are computed for one tile of samples and latents at a time. Below, B and L are
    those of one tile. Sums over streams run in the order of the mapping: float addition depends on the order, which
    decides near ties.
    """
    if not shared:
        return {name: select_shared([product], k)[0] for name, product in streams.items()}
    return dict(zip(streams, select_shared(list(streams.values()), k), strict=True))


def select_shared(streams: list[EncoderProduct], k: int) -> list[Kept]:
    """Return the kept latents of streams that share them."""
    ranges = latent_tiles(streams[0].weight)
    parts = [_search(streams, k, samples, ranges) for samples in sample_tiles(streams[0].inputs)]
    indices_BK = torch.cat([indices for indices, _ in parts])
    logits_SBK = torch.cat([logits for _, logits in parts], dim=1)
    return [Kept(indices_BK, logits_BK) for logits_BK in logits_SBK]


def _search(streams: list[EncoderProduct], k: int, samples: slice, ranges: list[slice]) -> tuple[Tensor, Tensor]:
    """Return the indices (B, K) that some samples keep, and the streams' logits (S, B, K) there.

    With several ranges of latents, each of the k best overall is among the k best of its own range. These candidates
    are sorted by index first, so that of equal scores the lowest index is kept.
    """
    if len(ranges) == 1:
        best = _best(streams, k, samples, ranges[0])
        return best.indices, best.logits
    found = [_best(streams, min(k, latents.stop - latents.start), samples, latents) for latents in ranges]
    indices_BC, order_BC = torch.cat([tile.indices for tile in found], dim=1).sort(dim=1)
    scores_BC = torch.cat([tile.scores for tile in found], dim=1).gather(1, order_BC)
    best_BK = top_k(scores_BC, k)
    places_BK = order_BC.gather(1, best_BK).expand(len(streams), -1, -1)
    return indices_BC.gather(1, best_BK), torch.cat([tile.logits for tile in found], dim=2).gather(2, places_BK)


class _Best(NamedTuple):
    """The k best of a range of latents."""

    indices: Tensor
    """(B, K)."""
    scores: Tensor
    """(B, K)."""
    logits: Tensor
    """(S, B, K)."""


def _best(streams: list[EncoderProduct], k: int, samples: slice, latents: slice) -> _Best:
    logits = [_logits(product, samples, latents) for product in streams]
    scores_BL = summed_scores(logits)
    best_BK = top_k(scores_BL, k)
    kept_SBK = torch.stack([logits_BL.gather(1, best_BK) for logits_BL in logits])
    return _Best(best_BK + latents.start, scores_BL.gather(1, best_BK), kept_SBK)


def summed_scores(logits: list[Tensor]) -> Tensor:
    """Return the sum of the streams' logits (B, L), added in their order."""
    first, *others = logits
    if not others:
        return first
    scores_BL = first + others[0]
    for logits_BL in others[1:]:
        scores_BL += logits_BL
    return scores_BL


def _logits(product: EncoderProduct, samples: slice, latents: slice) -> Tensor:
    inputs_BD, weight_LD, bias_L = product.inputs[samples], product.weight[latents], product.bias[latents]
    present_B = product.present[samples]
    if _ONEDNN and inputs_BD.device.type == "cpu" and inputs_BD.dtype == torch.float32:
        # oneDNN takes 0.7 to 0.85 of MKL's time (docs/performance.md); its public operator copies the logits once more.
        logits_BL: Tensor = torch.ops.mkldnn._linear_pointwise(inputs_BD, weight_LD, bias_L, "none", [], "")
    else:
        logits_BL = F.linear(inputs_BD, weight_LD, bias_L)
    # On a GPU `all` would sync, so the mask is always applied.
    if logits_BL.device.type != "cpu" or not present_B.all():
        logits_BL *= present_B.unsqueeze(1)
    return logits_BL


def sample_tiles(inputs_BD: Tensor) -> list[slice]:
    """Return the ranges of samples to compute logits of at a time."""
    return tiles(len(inputs_BD), TILE_SAMPLES if inputs_BD.device.type == "cpu" else MANY_SAMPLES)


def latent_tiles(weight_LD: Tensor) -> list[slice]:
    """Return the ranges of latents to compute logits of at a time."""
    return tiles(len(weight_LD), TILE_LATENTS if weight_LD.device.type == "cpu" else MANY_LATENTS)


@torch.no_grad()
def top_k(scores_BL: Tensor, k: int) -> Tensor:
    """Return the indices (B, K) of each sample's k largest scores, largest first; of equal scores the lowest index.

    `torch.topk` breaks ties arbitrarily, and differently on each device. Only a tie between the last kept and the first
    dropped score changes the set, so only samples with such a tie are sorted. On a GPU, asking which samples tie would
    sync, so all scores are made distinct there.
    """
    n_latents = scores_BL.shape[1]
    if k == n_latents:
        return scores_BL.argsort(dim=1, descending=True, stable=True)
    if scores_BL.device.type != "cpu" and scores_BL.dtype == torch.float32:
        return top_k_without_sync(scores_BL, k)
    top = largest(scores_BL, k + 1)
    indices_BK = top.indices[:, :k].contiguous()
    tied_B = top.values[:, k - 1] == top.values[:, k]
    if tied_B.any():
        indices_BK[tied_B] = scores_BL[tied_B].argsort(dim=1, descending=True, stable=True)[:, :k]
    return indices_BK


def top_k_without_sync(scores_BL: Tensor, k: int) -> Tensor:
    """Return what `top_k` returns for float32 scores, without a GPU sync: scores made distinct have no ties.

    A long row of scores is split into groups of neighbours. Each of the k largest scores is in a group with one of the
    k largest maxima, and of groups with equal maxima the first holds the lowest indices.
    """
    n_latents, device = scores_BL.shape[1], scores_BL.device
    if n_latents < 4 * _GROUP * k:
        return _made_distinct(scores_BL, torch.arange(n_latents, device=device)).topk(k, dim=1).indices
    scores_BL = F.pad(scores_BL, (0, -n_latents % _GROUP), value=-torch.inf)  # at the end, so never kept
    n_groups = scores_BL.shape[1] // _GROUP
    maxima_BC = scores_BL.reshape(len(scores_BL), n_groups, _GROUP).amax(dim=2)
    groups_BK = _made_distinct(maxima_BC, torch.arange(n_groups, device=device)).topk(k, dim=1).indices
    candidates_BC = (groups_BK.unsqueeze(2) * _GROUP + torch.arange(_GROUP, device=device)).flatten(1)
    best_BK = _made_distinct(scores_BL.gather(1, candidates_BC), candidates_BC).topk(k, dim=1).indices
    return candidates_BC.gather(1, best_BK)


def _made_distinct(scores: Tensor, indices: Tensor) -> Tensor:
    """Return distinct integers in the order of float32 scores.

    NaN gives the largest. Of two equal scores, the lower index gives the larger integer.
    """
    bits = (scores + 0.0).view(torch.int32)  # -0 becomes 0
    in_order = bits ^ ((bits >> 31) & _LARGEST_INT32)  # the bits of negative floats are in reverse order
    in_order = torch.where(scores.isnan(), _LARGEST_INT32, in_order)
    return in_order.long().bitwise_left_shift_(32).sub_(indices)


class Largest(NamedTuple):
    """The largest scores of each sample, in order."""

    values: Tensor
    """(B, K)."""
    indices: Tensor
    """(B, K)."""


def largest(scores_BL: Tensor, k: int) -> Largest:
    """Return the k largest scores of each sample, with ties broken arbitrarily.

    A long row of scores is split into groups of eight. Only the groups with the k largest maxima are searched: if k
    groups have larger maxima than another group, k scores are larger than all of its scores, so none of them is kept.
    """
    n_latents = scores_BL.shape[1]
    if n_latents % _GROUP or n_latents < 4 * _GROUP * k:
        return Largest(*scores_BL.topk(k, dim=1))
    n_groups = n_latents // _GROUP
    maxima_BC = scores_BL.reshape(len(scores_BL), _GROUP, n_groups).amax(dim=1)
    groups_BK = maxima_BC.topk(k, dim=1, sorted=False).indices
    offsets = torch.arange(0, n_latents, n_groups, device=scores_BL.device).unsqueeze(1)
    candidates_BC = (groups_BK.unsqueeze(1) + offsets).flatten(1)
    values_BK, places_BK = scores_BL.gather(1, candidates_BC).topk(k, dim=1)
    return Largest(values_BK, candidates_BC.gather(1, places_BK))
