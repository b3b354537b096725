"""Selection by a product in bfloat16, proven to be that of the full product.

The rounded product names candidates, three times as many as are kept; their logits are made again in full precision,
and the best of them are kept. Rounding inputs x to x' and weights w to w' moves a logit no further than (Cauchy and
Schwarz)

    |<x, w> - <x', w'>|  <=  |x - x'| |w| + |x'| |w - w'|

and both roundings are at hand. A sample whose last kept candidate is further above the last candidate than that has
lost nothing; any other sample is selected again by the full product.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sparc.core import selection
from sparc.core.selection import Affine, Kept, Largest, largest, latent_tiles, row_tiles, tiles, top_k
from sparc.core.sparse import BLOCK, entry_dots

CANDIDATES = 3
"""Candidates for each kept latent: of features of real models, and of random ones up to L 8192, all rows are proven."""
_HALF_ULP = 2.0**-8
"""Of bfloat16, relative to the number."""
_ALIGNED = 32
"""Columns of the rounded table come in such numbers, which the product wants."""


@torch.no_grad()
def select(streams: Mapping[str, Affine], k: int, *, shared: bool) -> dict[str, Kept]:
    """Keep what `selection.select` keeps, up to the rounding of the full product itself: nearer ties may differ."""
    if not shared:
        return {name: _select([affine], k)[0] for name, affine in streams.items()}
    return dict(zip(streams, _select(list(streams.values()), k), strict=True))


def _select(streams: list[Affine], k: int) -> list[Kept]:
    if CANDIDATES * k >= len(streams[0].weight):
        return selection.select_shared(streams, k)
    candidates = _candidates(streams, CANDIDATES * k)
    indices_BC = candidates.indices.sort(dim=1).values  # of equals the lowest index comes first
    logits = [_logits(affine, indices_BC) for affine in streams]
    scores_BC = logits[0]
    for logits_BC in logits[1:]:
        scores_BC = scores_BC + logits_BC
    best_BK = top_k(scores_BC, k)
    indices_BK = indices_BC.gather(1, best_BK)
    logits_SBK = torch.stack([logits_BC.gather(1, best_BK) for logits_BC in logits])
    lost_B = ~(scores_BC.gather(1, best_BK[:, -1:]).squeeze(1) > candidates.others_below)  # also where it is NaN
    if lost_B.any():
        some = [Affine(one.inputs[lost_B], one.weight, one.bias, one.present[lost_B]) for one in streams]
        again = selection.select_shared(some, k)
        indices_BK[lost_B] = again[0].indices
        logits_SBK[:, lost_B] = torch.stack([kept.logits for kept in again])
    return [Kept(indices_BK, logits_BK) for logits_BK in logits_SBK]


def _logits(affine: Affine, indices_BC: Tensor) -> Tensor:
    dots_BC = entry_dots(affine.inputs.unsqueeze(1), affine.weight, indices_BC).squeeze(1)
    return (dots_BC + affine.bias[indices_BC]) * affine.present.unsqueeze(1)


class _Candidates(NamedTuple):
    indices: Tensor
    """(B, C)."""
    others_below: Tensor
    """(B,) what no score of another latent reaches."""


def _candidates(streams: list[Affine], count: int) -> _Candidates:
    inputs = _rounded_inputs(streams)
    found: list[Largest] = []
    weight_norm = residual_norm = inputs.norm.new_zeros(())
    for latents in latent_tiles(streams[0].weight):
        weights = _rounded_weights(streams, latents)
        weight_norm = torch.maximum(weight_norm, weights.norm.max())
        residual_norm = torch.maximum(residual_norm, weights.residual.max())
        for_each = min(count, len(weights.rows))
        with _sums_in_float32():
            tops = [largest(F.linear(inputs.rows[rows], weights.rows), for_each) for rows in row_tiles(inputs.rows)]
        indices_BC = torch.cat([top.indices for top in tops]) + latents.start
        found.append(Largest(torch.cat([top.values for top in tops]), indices_BC))
    scores, places = torch.cat([top.values for top in found], dim=1).topk(count, dim=1)
    indices_BC = torch.cat([top.indices for top in found], dim=1).gather(1, places)
    last_B = scores[:, -1].to(inputs.norm)
    # Both products sum so many terms in float32, in an order of their own.
    summing = 2 * inputs.rows.shape[1] * 2.0**-24
    moved_B = inputs.residual * weight_norm + inputs.norm * (residual_norm + summing * weight_norm)
    return _Candidates(indices_BC, last_B + _HALF_ULP * last_B.abs() + moved_B)


@contextlib.contextmanager
def _sums_in_float32() -> Iterator[None]:
    """CUDA may else add partial sums in bfloat16, which no bound here covers."""
    settings = torch.backends.cuda.matmul
    before = settings.allow_bf16_reduced_precision_reduction
    settings.allow_bf16_reduced_precision_reduction = False
    try:
        yield
    finally:
        settings.allow_bf16_reduced_precision_reduction = before


class _Rounded(NamedTuple):
    """All streams side by side in bfloat16, then each stream's bias in two parts, or what multiplies it."""

    rows: Tensor
    """(N, columns)."""
    norm: Tensor
    """(N,) of the rows."""
    residual: Tensor
    """(N,) norm of what rounding took."""


def _rounded_inputs(streams: list[Affine]) -> _Rounded:
    present_BS = torch.stack([affine.present for affine in streams], dim=1)
    exact_BD = torch.cat([affine.inputs * affine.present.unsqueeze(1) for affine in streams], dim=1)
    rows_BD = F.pad(torch.cat([exact_BD.bfloat16(), present_BS, present_BS], dim=1), (0, _padding(streams)))
    residual_B = torch.linalg.vector_norm(exact_BD - rows_BD[:, : exact_BD.shape[1]], dim=1)
    return _Rounded(rows_BD, torch.linalg.vector_norm(rows_BD.to(exact_BD), dim=1), residual_B)


def _rounded_weights(streams: list[Affine], latents: slice) -> _Rounded:
    like, count = streams[0].weight, latents.stop - latents.start
    ends = torch.tensor([affine.weight.shape[1] for affine in streams]).cumsum(0).tolist()
    rows_LD = like.new_zeros(count, ends[-1] + 2 * len(streams) + _padding(streams), dtype=torch.bfloat16)
    squares_L, lost_L = like.new_zeros(count), like.new_zeros(count)
    # In blocks that the cache of a CPU holds.
    for block in tiles(count, BLOCK if like.device.type == "cpu" else count):
        of = slice(latents.start + block.start, latents.start + block.stop)
        for affine, end in zip(streams, ends, strict=True):
            exact = affine.weight[of]
            rounded = rows_LD[block, end - exact.shape[1] : end]
            rounded.copy_(exact)
            squares_L[block] += torch.linalg.vector_norm(exact, dim=1).square_()
            lost_L[block] += torch.linalg.vector_norm(exact - rounded, dim=1).square_()
    for place, affine in enumerate(streams):
        bias_L = affine.bias[latents]
        high_L = bias_L.bfloat16()
        low_L = (bias_L - high_L).bfloat16()
        rows_LD[:, ends[-1] + place] = high_L
        rows_LD[:, ends[-1] + len(streams) + place] = low_L
        squares_L += bias_L.square()
        lost_L += (bias_L - high_L - low_L).square()
    return _Rounded(rows_LD, squares_L.sqrt(), lost_L.sqrt())


def _padding(streams: list[Affine]) -> int:
    return -(sum(affine.inputs.shape[1] for affine in streams) + 2 * len(streams)) % _ALIGNED
