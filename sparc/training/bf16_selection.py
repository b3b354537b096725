"""Selection by a product in bfloat16, proven to be that of the full product.

The rounded product names candidates, three times as many as are kept; their logits are made again in full precision,
and the best of them are kept. Rounding inputs x to x' and weights w to w' moves a logit no further than (Cauchy and
Schwarz)

    |<x, w> - <x', w'>|  <=  |x - x'| |w| + |x'| |w - w'|

and both roundings are at hand. The bound is a product too, of (|x - x'|, |x'|) with (|w|, |w - w'|): as columns beside
x' and w' it makes the rounded product an upper bound of every logit. A sample whose last kept candidate is above the
upper bound of the last candidate has lost nothing; any other sample is selected again by the full product.
"""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sparc.config import Precision
from sparc.core import topk
from sparc.core.kernels import blocks, entry_dots, kernels
from sparc.core.topk import Affine, Kept, Largest, Select, largest, latent_tiles, row_tiles, summed, top_k

CANDIDATES = 3
"""Candidates for each kept latent: with fewer, many samples of random features are not proven."""
AT_LEAST = 64
"""Candidates where few are kept."""
_HALF_ULP = 2.0**-8
"""Of bfloat16, relative to the number."""
_UP = 1 + 2.0**-7
"""Times this, a number is not below what it was after rounding."""
_TINY = 1e-15
"""Norms count as at least this: squares of smaller ones leave the floats."""
_ALIGNED = 32
"""Columns of the rounded table come in such numbers, which the product wants."""


def pays(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16: a CPU that does not takes several times as long as for float32."""
    if device.type != "cpu":
        return True
    if platform.machine().lower() in {"x86_64", "amd64"}:  # where oneDNN calls AVX-512 enough, and converts
        asked = [getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile")]
    else:
        asked = [getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)]
    return any(ask is not None and ask() for ask in asked)


def selector(product: Precision, device: torch.device) -> Select:
    """Return the function that selects by a product of this precision; bfloat16 only if the device multiplies it."""
    return select if product == "bfloat16" and pays(device) else topk.select


@torch.no_grad()
def select(streams: Mapping[str, Affine], k: int, *, shared: bool) -> dict[str, Kept]:
    """Keep what `topk.select` keeps, up to the rounding of the full product itself, which decides between ties."""
    if not shared:
        return {name: _select([affine], k)[0] for name, affine in streams.items()}
    return dict(zip(streams, _select(list(streams.values()), k), strict=True))


def _select(streams: list[Affine], k: int) -> list[Kept]:
    count = max(CANDIDATES * k, AT_LEAST)
    if count >= len(streams[0].weight):
        return topk.select_shared(streams, k)
    candidates = _candidates(streams, count)
    indices_BC = candidates.indices.sort(dim=1).values  # of equals the lowest index comes first
    logits = [_logits(affine, indices_BC) for affine in streams]
    scores_BC = summed(logits)
    best_BK = top_k(scores_BC, k)
    indices_BK = indices_BC.gather(1, best_BK)
    logits_SBK = torch.stack([logits_BC.gather(1, best_BK) for logits_BC in logits])
    lost_B = ~(scores_BC.gather(1, best_BK[:, -1:]).squeeze(1) > candidates.others_below)  # also where it is NaN
    if lost_B.any():
        some = [Affine(one.inputs[lost_B], one.weight, one.bias, one.present[lost_B]) for one in streams]
        again = topk.select_shared(some, k)
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
    inputs_BC = _rounded_inputs(streams)
    found: list[Largest] = []
    for latents in latent_tiles(streams[0].weight):
        weights_LC = _rounded_weights(streams, latents)
        for_each = min(count, len(weights_LC))
        with _sums_in_float32():
            tops = [largest(F.linear(inputs_BC[rows], weights_LC), for_each) for rows in row_tiles(inputs_BC)]
        del weights_LC  # before the next is made
        indices_BC = torch.cat([top.indices for top in tops]) + latents.start
        found.append(Largest(torch.cat([top.values for top in tops]), indices_BC))
    scores, places = torch.cat([top.values for top in found], dim=1).topk(count, dim=1)
    indices_BC = torch.cat([top.indices for top in found], dim=1).gather(1, places)
    last_B = scores[:, -1].to(streams[0].weight)
    return _Candidates(indices_BC, last_B + _HALF_ULP * last_B.abs())


@contextlib.contextmanager
def _sums_in_float32() -> Iterator[None]:
    """CUDA may else add partial sums in bfloat16, which no bound here covers."""
    settings = torch.backends.cuda.matmul
    if not settings.allow_bf16_reduced_precision_reduction:
        yield
        return
    settings.allow_bf16_reduced_precision_reduction = False
    try:
        yield
    finally:
        settings.allow_bf16_reduced_precision_reduction = True


# Columns of both tables: features or weights of each stream; for each stream 1 where it is present, or its bias, twice,
# for the bias is in two parts; and three whose product bounds what rounding and summing may move.


def _rounded_inputs(streams: list[Affine]) -> Tensor:
    present_BS = torch.stack([affine.present for affine in streams], dim=1).bfloat16()
    exact_BD = torch.cat([affine.inputs * affine.present.unsqueeze(1) for affine in streams], dim=1)
    rows_BD = exact_BD.bfloat16()
    norms_B3 = torch.stack(
        [_norm(exact_BD - rows_BD), _norm(rows_BD), torch.ones(len(rows_BD), device=rows_BD.device)], dim=1
    )
    columns = [rows_BD, present_BS, present_BS, (norms_B3 * _UP).bfloat16()]
    return F.pad(torch.cat(columns, dim=1), (0, _padding(streams)))


def _rounded_weights(streams: list[Affine], latents: slice) -> Tensor:
    like, count, n_streams = streams[0].weight, latents.stop - latents.start, len(streams)
    ends = torch.tensor([affine.weight.shape[1] for affine in streams]).cumsum(0).tolist()
    width = ends[-1] + 2 * n_streams + 3
    rows_LC = like.new_empty(count, width + _padding(streams), dtype=torch.bfloat16)
    rows_LC[:, width:] = 0
    squares_L2 = torch.zeros(count, 2, device=like.device)
    for affine, end in zip(streams, ends, strict=True):
        _round(affine.weight[latents], rows_LC, end - affine.weight.shape[1], squares_L2)
    norm_L, lost_L = squares_L2.sqrt().clamp(min=_TINY).unbind(1)
    # Both products sum so many terms in float32, in an order of their own.
    summing = 2 * width * 2.0**-24
    bias_LS = torch.stack([affine.bias[latents] for affine in streams], dim=1)
    high_LS = bias_LS.bfloat16()
    low_LS = (bias_LS - high_LS).bfloat16()
    by_bias_L = (bias_LS - high_LS - low_LS).abs().sum(dim=1) + summing * bias_LS.abs().sum(dim=1)
    rows_LC[:, ends[-1] : ends[-1] + n_streams] = high_LS
    rows_LC[:, ends[-1] + n_streams : ends[-1] + 2 * n_streams] = low_LS
    bounds_L3 = torch.stack([norm_L, lost_L + summing * norm_L, by_bias_L.float()], dim=1)
    rows_LC[:, width - 3 : width] = bounds_L3 * _UP
    return rows_LC


def _round(table_LD: Tensor, rounded_LC: Tensor, first: int, squares_L2: Tensor) -> None:
    """Round a table into the columns of another from `first` on.

    The sum of squares of each row, and that of what rounding takes from it, are added to `squares_L2`.
    """
    if kernels(table_LD).round_rows(table_LD, rounded_LC, first, squares_L2):
        return
    for block in blocks(len(table_LD), table_LD):
        exact, rounded = table_LD[block], rounded_LC[block, first : first + table_LD.shape[1]]
        rounded.copy_(exact)
        squares_L2[block, 0] += _norm(exact).square()
        squares_L2[block, 1] += _norm(exact - rounded).square()


def _norm(rows: Tensor) -> Tensor:
    """Norm of each row in float32, infinite where its squares are."""
    norm: Tensor = torch.linalg.vector_norm(rows.float(), dim=1)
    return norm.clamp(min=_TINY)


def _padding(streams: list[Affine]) -> int:
    return -(sum(affine.weight.shape[1] for affine in streams) + 2 * len(streams) + 3) % _ALIGNED
