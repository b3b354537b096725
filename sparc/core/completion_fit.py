"""Fit a completion: the factor of the covariances, and the rank and the ridge that guess best on held-out samples."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sparc.core.completion import Completion
from sparc.core.moments import Moments

RIDGES = tuple(1e-4 * 2**power for power in range(12))
"""Candidates for the ridge, relative to the variance of a stream, averaged over the streams."""
NEARLY = 0.99
"""The smallest rank is taken whose gain is at least this part of the best gain."""
_ROUNDING = 1e-6
"""Relative to the largest variance; directions with less are rounding error."""


@torch.no_grad()
def fit_completion(fitted: Moments, held_out: Moments) -> Completion:
    """Fit a completion to moments; rank and ridge are those that guess best on the held-out samples.

    The measure is the variance that the guess of one stream from one other leaves, relative to that of no guess, summed
    over the pairs. If no guess beats the mean, F has no rows and the guess is the mean.
    """
    mean_T = fitted.mean
    factor_RT = _factor(fitted.covariance(mean_T))
    rank, ridge = _choose(fitted, factor_RT, held_out.covariance(mean_T))
    every = fitted + held_out
    mean_T = every.mean
    factor_RT = _factor(every.covariance(mean_T))[:rank]
    return Completion(every.streams, mean_T.float(), factor_RT.float(), ridge)


@torch.no_grad()
def completion_like(completion: Completion, fitted: Moments) -> Completion:
    """Fit a linear completion to moments, with the rank and the ridge of another."""
    mean_T = fitted.mean
    factor_RT = _factor(fitted.covariance(mean_T))[: completion.rank]
    return Completion(fitted.streams, mean_T.float(), factor_RT.float(), completion.ridge)


def _factor(covariance_TT: Tensor) -> Tensor:
    """Return F with F^T F = C, largest directions first, (R, T). Covariances of pairs may have negative directions."""
    try:  # a fifth of the time, with an error far below any ridge
        values_T, vectors_TT = torch.linalg.eigh(covariance_TT.float())
        found = bool(values_T.isfinite().all() and vectors_TT.isfinite().all())
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # features that are always zero, for example
        found = False
    if not found:
        values_T, vectors_TT = torch.linalg.eigh(covariance_TT)
    values_T, vectors_TT = values_T.flip(0).double(), vectors_TT.flip(1).double()
    rank = int((values_T > values_T[0].clamp(min=0) * _ROUNDING).sum())
    factor_RT: Tensor = (vectors_TT[:, :rank] * values_T[:rank].sqrt()).T
    return factor_RT


class _Products(NamedTuple):
    """Products of F with itself and with held-out covariances; the first R rows and columns are those of rank R."""

    own: dict[str, Tensor]
    """F_s F_s^T, (R, R)."""
    held_out: dict[str, Tensor]
    """F_s C_ss F_s^T, (R, R)."""
    crossed: dict[tuple[str, str], Tensor]
    """F_s C_st F_t^T, (R, R)."""
    variance: dict[str, float]
    """Trace of C_tt."""


def _choose(fitted: Moments, factor_RT: Tensor, held_out_TT: Tensor) -> tuple[int, float]:
    """Return the rank and the ridge that guess best on held-out samples."""
    segments = Completion(fitted.streams, held_out_TT[0], factor_RT, 1.0).segments
    F = {name: factor_RT[:, segment] for name, segment in segments.items()}
    pairs = [(source, target) for source in F for target in F if source != target]
    products = _Products(
        {name: F[name] @ F[name].T for name in F},
        {name: F[name] @ held_out_TT[segments[name], segments[name]] @ F[name].T for name in F},
        {(s, t): F[s] @ held_out_TT[segments[s], segments[t]] @ F[t].T for s, t in pairs},
        {name: float(held_out_TT[segment, segment].trace()) for name, segment in segments.items()},
    )
    variance = float(factor_RT.square().sum()) / len(F)
    ranks = [2**power for power in range(4, 24) if 2**power < len(factor_RT)] + [len(factor_RT)]
    found = {rank: max(zip(_gains(products, rank, variance), RIDGES, strict=True)) for rank in ranks if rank}
    best = max((gain for gain, _ in found.values()), default=0.0)
    if best <= 0:
        return 0, 1.0
    rank = min(rank for rank, (gain, _) in found.items() if gain >= NEARLY * best)
    return rank, found[rank][1] * variance


def _gains(products: _Products, rank: int, variance: float) -> list[float]:
    """Return, for each ridge, the share of the held-out variance that guesses explain, summed over pairs of streams.

    With M = F_t^T (F_s F_s^T + r I)^-1 F_s, a guess explains 2 tr(M C_st) - tr(M C_ss M^T). In the directions of
    F_s F_s^T, the inverse is diagonal for every ridge.
    """
    some, gains = slice(rank), [0.0] * len(RIDGES)
    for source, own_RR in products.own.items():
        values_R, V_RR = torch.linalg.eigh(own_RR[some, some])
        spread_RR = V_RR.T @ products.held_out[source][some, some] @ V_RR
        for target, variance_of_target in products.variance.items():
            if target == source or not variance_of_target:
                continue
            explained_R = (V_RR * (products.crossed[source, target][some, some].T @ V_RR)).sum(dim=0)
            excess_RR = spread_RR * (V_RR.T @ products.own[target][some, some] @ V_RR)
            for number, ridge in enumerate(RIDGES):
                inverse_R = 1 / (values_R.clamp(min=0) + ridge * variance)
                gain = 2 * explained_R @ inverse_R - inverse_R @ excess_RR @ inverse_R
                gains[number] += float(gain) / variance_of_target
    return gains
