"""A newcomer: what an attached stream has in common with the founding streams, from which it lets them be guessed.

The founding streams' covariances are F^T F (`core/completion.py`). A newcomer n gets columns of its own in F, and rows
in which the founding streams have no part, so that F stays as it is:

    F_n = (F F^T + r I)^-1 F C_on          common rows: covariance with the founding streams o
    P_n = top directions of C_nn - F_n^T F_n      own rows: what it has in common with none of them
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from sparc.core.completion import Completion
    from sparc.core.moments import Moments


class Newcomer(nn.Module):
    """Mean and covariances of an attached stream."""

    mean: Tensor
    """(D,)."""
    common: Tensor
    """F_n, (R, D)."""
    own: Tensor
    """P_n, (Q, D)."""

    def __init__(self, mean_D: Tensor, common_RD: Tensor, own_QD: Tensor) -> None:
        """Take the mean, F_n and P_n."""
        super().__init__()
        # Not part of the state dict, as in `Completion`.
        self.register_buffer("mean", mean_D, persistent=False)
        self.register_buffer("common", common_RD, persistent=False)
        self.register_buffer("own", own_QD, persistent=False)


@torch.no_grad()
def fit_newcomer(completion: Completion, moments: Moments, stream: str) -> Newcomer:
    """Fit a newcomer to the moments of all streams, of which those of the completion come first."""
    names = list(moments.streams)
    ends = torch.tensor(list(moments.streams.values())).cumsum(0).tolist()
    number = names.index(stream)
    own = slice(ends[number] - moments.streams[stream], ends[number])
    founding = slice(0, completion.factor.shape[1])
    mean_T = moments.mean
    covariance_TT = moments.covariance(mean_T)
    F_RT = completion.factor.double()
    eye_RR = torch.eye(completion.rank, dtype=F_RT.dtype, device=F_RT.device)
    common_RD = torch.linalg.solve(F_RT @ F_RT.T + completion.ridge * eye_RR, F_RT @ covariance_TT[founding, own])
    values_D, vectors_DD = torch.linalg.eigh(covariance_TT[own, own] - common_RD.T @ common_RD)
    values_D, vectors_DD = values_D.flip(0), vectors_DD.flip(1)
    rank = min(completion.rank, int((values_D > 0).sum()))
    own_QD = (vectors_DD[:, :rank] * values_D[:rank].sqrt()).T
    return Newcomer(*(found.to(completion.factor).contiguous() for found in (mean_T[own], common_RD, own_QD)))
