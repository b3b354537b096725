"""Global TopK by a product in bfloat16 that keeps what the product in float32 keeps.

The bfloat16 product finds candidates, three times as many as are kept. Their logits are computed again in float32, and
the largest are kept. Rounding inputs x to x' and weights w to w' changes a logit by at most (Cauchy-Schwarz)

    |<x, w> - <x', w'>|  <=  |x - x'| |w| + |x'| |w - w'|

and both rounding errors are known. The bound is itself a product, of (|x - x'|, |x'|) with (|w|, |w - w'|). As columns
beside x' and w' it makes the bfloat16 product an upper bound of every logit. If a sample's last kept score is above the
upper bound of its last candidate, no latent outside the candidates can be among the k largest. All other samples are
selected again by the float32 product.

R counts the columns of the rounded tables: features of all streams, their biases, and bounds.
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
from sparc.core.topk import (
    EncoderProduct,
    Kept,
    Largest,
    Selector,
    largest,
    latent_tiles,
    sample_tiles,
    summed_scores,
    top_k,
)

CANDIDATES_PER_KEPT = 3
"""Candidates per kept latent; with fewer, many samples of random features must be selected again."""
AT_LEAST = 64
"""Smallest number of candidates."""
_HALF_ULP = 2.0**-8
"""Largest relative rounding error of bfloat16."""
_UP = 1 + 2.0**-7
"""A number times this, rounded to bfloat16, is not below the number."""
_TINY = 1e-15
"""Lower bound of norms; squares of smaller ones underflow."""
_ALIGNED = 32
"""The rounded tables have a multiple of this many columns, with which the product is fast."""


def pays(device: torch.device) -> bool:
    """Return True if a device multiplies bfloat16 natively. Other CPUs are several times slower than in float32."""
    if device.type != "cpu":
        return True
    if platform.machine().lower() in {"x86_64", "amd64"}:  # oneDNN also accepts plain AVX-512, but converts there
        checks = [getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile")]
    else:
        checks = [getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)]
    return any(check is not None and check() for check in checks)


def selector(precision: Precision, device: torch.device) -> Selector:
    """Return the function that selects by a product of this precision, or float32 if bfloat16 does not pay here."""
    return select if precision == "bfloat16" and pays(device) else topk.select


@torch.no_grad()
def select(streams: Mapping[str, EncoderProduct], k: int, *, shared: bool) -> dict[str, Kept]:
    """Keep what `topk.select` keeps. Only near ties may differ, which rounding in float32 itself decides."""
    if not shared:
        return {name: _select([product], k)[0] for name, product in streams.items()}
    return dict(zip(streams, _select(list(streams.values()), k), strict=True))


def _select(streams: list[EncoderProduct], k: int) -> list[Kept]:
    count = max(CANDIDATES_PER_KEPT * k, AT_LEAST)
    if count >= len(streams[0].weight):
        return topk.select_shared(streams, k)
    candidates = _candidates(streams, count)
    indices_BC = candidates.indices.sort(dim=1).values  # so that of equal scores the lowest index is kept
    logits = [_logits(product, indices_BC) for product in streams]
    scores_BC = summed_scores(logits)
    best_BK = top_k(scores_BC, k)
    indices_BK = indices_BC.gather(1, best_BK)
    logits_SBK = torch.stack([logits_BC.gather(1, best_BK) for logits_BC in logits])
    unproven_B = ~(scores_BC.gather(1, best_BK[:, -1:]).squeeze(1) > candidates.others_below)  # NaN too
    if unproven_B.any():
        some = [
            EncoderProduct(one.inputs[unproven_B], one.weight, one.bias, one.present[unproven_B]) for one in streams
        ]
        again = topk.select_shared(some, k)
        indices_BK[unproven_B] = again[0].indices
        logits_SBK[:, unproven_B] = torch.stack([kept.logits for kept in again])
    return [Kept(indices_BK, logits_BK) for logits_BK in logits_SBK]


def _logits(product: EncoderProduct, indices_BC: Tensor) -> Tensor:
    dots_BC = entry_dots(product.inputs.unsqueeze(1), product.weight, indices_BC).squeeze(1)
    return (dots_BC + product.bias[indices_BC]) * product.present.unsqueeze(1)


class _Candidates(NamedTuple):
    """Candidates of each sample."""

    indices: Tensor
    """(B, C)."""
    others_below: Tensor
    """(B,) upper bound of the scores of all other latents."""


def _candidates(streams: list[EncoderProduct], count: int) -> _Candidates:
    inputs_BR = _rounded_inputs(streams)
    found: list[Largest] = []
    for latents in latent_tiles(streams[0].weight):
        weights_LR = _rounded_weights(streams, latents)
        for_each = min(count, len(weights_LR))
        with _sums_in_float32():
            tops = [largest(F.linear(inputs_BR[samples], weights_LR), for_each) for samples in sample_tiles(inputs_BR)]
        del weights_LR  # free its memory before the next one is computed
        indices_BC = torch.cat([top.indices for top in tops]) + latents.start
        found.append(Largest(torch.cat([top.values for top in tops]), indices_BC))
    scores, places = torch.cat([top.values for top in found], dim=1).topk(count, dim=1)
    indices_BC = torch.cat([top.indices for top in found], dim=1).gather(1, places)
    last_B = scores[:, -1].to(streams[0].weight)
    return _Candidates(indices_BC, last_B + _HALF_ULP * last_B.abs())


@contextlib.contextmanager
def _sums_in_float32() -> Iterator[None]:
    """Keep CUDA from adding partial sums in bfloat16, which the bound does not cover."""
    settings = torch.backends.cuda.matmul
    if not settings.allow_bf16_reduced_precision_reduction:
        yield
        return
    settings.allow_bf16_reduced_precision_reduction = False
    try:
        yield
    finally:
        settings.allow_bf16_reduced_precision_reduction = True


# Columns of both tables: the features or weights of each stream; per stream twice its presence or its bias, which is
# split into a high and a low part; and three columns whose product bounds the error of rounding and summing.


def _rounded_inputs(streams: list[EncoderProduct]) -> Tensor:
    present_BS = torch.stack([product.present for product in streams], dim=1).bfloat16()
    exact_BD = torch.cat([product.inputs * product.present.unsqueeze(1) for product in streams], dim=1)
    rounded_BD = exact_BD.bfloat16()
    norms_B3 = torch.stack(
        [_norm(exact_BD - rounded_BD), _norm(rounded_BD), torch.ones(len(rounded_BD), device=rounded_BD.device)], dim=1
    )
    columns = [rounded_BD, present_BS, present_BS, (norms_B3 * _UP).bfloat16()]
    return F.pad(torch.cat(columns, dim=1), (0, _padding(streams)))


def _rounded_weights(streams: list[EncoderProduct], latents: slice) -> Tensor:
    like, count, n_streams = streams[0].weight, latents.stop - latents.start, len(streams)
    ends = torch.tensor([product.weight.shape[1] for product in streams]).cumsum(0).tolist()
    width = ends[-1] + 2 * n_streams + 3
    rounded_LR = like.new_empty(count, width + _padding(streams), dtype=torch.bfloat16)
    rounded_LR[:, width:] = 0
    squares_L2 = torch.zeros(count, 2, device=like.device)
    for product, end in zip(streams, ends, strict=True):
        _round(product.weight[latents], rounded_LR, end - product.weight.shape[1], squares_L2)
    norm_L, lost_L = squares_L2.sqrt().clamp(min=_TINY).unbind(1)
    # Relative error of summing `width` terms in float32 in any order, in both products.
    summing = 2 * width * 2.0**-24
    bias_LS = torch.stack([product.bias[latents] for product in streams], dim=1)
    high_LS = bias_LS.bfloat16()
    low_LS = (bias_LS - high_LS).bfloat16()
    by_bias_L = (bias_LS - high_LS - low_LS).abs().sum(dim=1) + summing * bias_LS.abs().sum(dim=1)
    rounded_LR[:, ends[-1] : ends[-1] + n_streams] = high_LS
    rounded_LR[:, ends[-1] + n_streams : ends[-1] + 2 * n_streams] = low_LS
    bounds_L3 = torch.stack([norm_L, lost_L + summing * norm_L, by_bias_L.float()], dim=1)
    rounded_LR[:, width - 3 : width] = bounds_L3 * _UP
    return rounded_LR


def _round(table_LD: Tensor, rounded_LR: Tensor, first: int, squares_L2: Tensor) -> None:
    """Do `Kernels.round_rows` by PyTorch's operators if no kernel does."""
    if kernels(table_LD).round_rows(table_LD, rounded_LR, first, squares_L2):
        return
    for block in blocks(len(table_LD), table_LD):
        exact, rounded = table_LD[block], rounded_LR[block, first : first + table_LD.shape[1]]
        rounded.copy_(exact)
        squares_L2[block, 0] += _norm(exact).square()
        squares_L2[block, 1] += _norm(exact - rounded).square()


def _norm(rows: Tensor) -> Tensor:
    """Return the norm of each row in float32, infinite if the squares overflow."""
    norm: Tensor = torch.linalg.vector_norm(rows.float(), dim=1)
    return norm.clamp(min=_TINY)


def _padding(streams: list[EncoderProduct]) -> int:
    return -(sum(product.weight.shape[1] for product in streams) + 2 * len(streams) + 3) % _ALIGNED
