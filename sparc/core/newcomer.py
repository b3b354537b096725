"""A newcomer: what an attached stream has in common with the founding streams, from which it lets them be guessed.

The founding streams' covariances are F^T F (`core/completion.py`). A newcomer n gets columns of its own in F, and rows
in which the founding streams have no part, so that F stays as it is:

    F_n = (F F^T + r I)^-1 F C_on               common rows: covariance with the founding streams o
    P_n = top directions of C_nn - F_n^T F_n    own rows: what it has in common with none of them

The founding ridge r was chosen for guesses among the founding streams. A newcomer may say less of them, or more, so its
ridge is its own: the one with which it alone guesses them best on held-out samples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from sparc.core.completion import Completion
    from sparc.core.moments import Moments

RIDGES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
"""Candidates for the ridge, relative to the variance of the newcomer."""


_ROUNDING = 1e-9
"""Relative to the mean square; smaller variances are rounding errors."""


class Newcomer(nn.Module):
    """Mean and covariances of an attached stream."""

    mean: Tensor
    """(D,)."""
    common: Tensor
    """F_n, (R, D)."""
    own: Tensor
    """P_n, (Q, D)."""

    def __init__(self, mean_D: Tensor, common_RD: Tensor, own_QD: Tensor, ridge: float) -> None:
        """Take the mean, F_n, P_n and the ridge."""
        super().__init__()
        # Not part of the state dict, as in `Completion`.
        self.register_buffer("mean", mean_D, persistent=False)
        self.register_buffer("common", common_RD, persistent=False)
        self.register_buffer("own", own_QD, persistent=False)
        self.ridge = ridge


@torch.no_grad()
def fit_newcomer(completion: Completion, fitted: Moments, held_out: Moments, stream: str) -> Newcomer:
    """Fit a newcomer to the moments of all streams, of which those of the completion come first."""
    mean_T = fitted.mean
    parts = _parts(completion, fitted, mean_T, stream)
    ridge = _choose(completion, parts, _covariances(completion, held_out, mean_T, stream))
    every = fitted + held_out
    mean_D, common_RD, own_QD = (
        part.to(completion.factor).contiguous() for part in _parts(completion, every, every.mean, stream)
    )
    return Newcomer(mean_D, common_RD, own_QD, ridge)


class _Covariances(NamedTuple):
    """Covariances with the founding streams o, side by side, and of the newcomer itself."""

    crossed: Tensor
    """C_on, (O, D)."""
    own: Tensor
    """C_nn, (D, D)."""
    founding: Tensor
    """Variance of each feature of the founding streams, (O,)."""


def _covariances(completion: Completion, moments: Moments, mean_T: Tensor, stream: str) -> _Covariances:
    own, founding = _segment(moments, stream), slice(0, completion.factor.shape[1])
    covariance_TT = moments.covariance(mean_T)
    return _Covariances(
        covariance_TT[founding, own], covariance_TT[own, own], covariance_TT[founding, founding].diagonal()
    )


def _segment(moments: Moments, stream: str) -> slice:
    widths = list(moments.streams.values())
    end = sum(widths[: list(moments.streams).index(stream) + 1])
    return slice(end - moments.streams[stream], end)


def _parts(completion: Completion, moments: Moments, mean_T: Tensor, stream: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean, F_n and P_n, in float64."""
    found, F_RO = _covariances(completion, moments, mean_T, stream), completion.factor.double()
    eye_RR = torch.eye(completion.rank, dtype=F_RO.dtype, device=F_RO.device)
    common_RD = torch.linalg.solve(F_RO @ F_RO.T + completion.ridge * eye_RR, F_RO @ found.crossed)
    mean_D = mean_T[_segment(moments, stream)]
    # Features that are all alike differ by rounding errors only.
    noise = _ROUNDING * float(mean_D.square().sum() + found.own.trace())
    values_D, vectors_DD = torch.linalg.eigh(found.own - common_RD.T @ common_RD)
    rank = min(completion.rank, int((values_D > noise).sum()))
    if not float(found.own.trace()) > noise:
        common_RD = torch.zeros_like(common_RD)
    values_Q, vectors_DQ = values_D.flip(0)[:rank], vectors_DD.flip(1)[:, :rank]
    return mean_D, common_RD, (vectors_DQ * values_Q.sqrt()).T


def _choose(completion: Completion, parts: tuple[Tensor, Tensor, Tensor], held_out: _Covariances) -> float:
    """Return the ridge with which the newcomer alone guesses the founding streams best on held-out samples.

    A guess M explains 2 tr(M C_no) - tr(M C_nn M^T) of a stream's variance. Shares of the variance are summed over the
    streams. M = F_o^T A with A (R, D), so traces need no matrix of all founding features.
    """
    mean_D, common_RD, own_QD = parts
    variance = float(common_RD.square().sum() + own_QD.square().sum())
    if not variance:
        return completion.ridge
    best, chosen = -torch.inf, completion.ridge
    for relative in RIDGES:
        ridge = relative * variance
        newcomer = Newcomer(mean_D, common_RD, own_QD, ridge)
        A_RD = completion.with_newcomers({"": newcomer}).loadings([""]).double()
        spread_RR, gain = A_RD @ held_out.own @ A_RD.T, 0.0
        for segment in completion.segments.values():
            if total := float(held_out.founding[segment].sum()):
                F_RD = completion.factor[:, segment].double()
                explained = 2 * (F_RD * (A_RD @ held_out.crossed[segment].T)).sum() - (F_RD * (spread_RR @ F_RD)).sum()
                gain += float(explained) / total
        if gain > best:
            best, chosen = gain, ridge
    return chosen
