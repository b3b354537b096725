"""Completion: guess the streams that a sample lacks from those it has, before the selection.

Global TopK selects on sum_t h_t. A stream that is encoded alone would select on h_s, as if all other logits were
constant. The best linear guess of the missing features, given the present ones, follows from means m and covariances C
of the training features:

    x^_t = m_t + C_tP (C_PP + r I)^-1 (x_P - m_P)        P: the present streams, side by side; r: the ridge
    h^_t = W_t (x^_t - b_t) + c_t                         linear, so it is the best linear guess of h_t as well
    I    = TopK_k( sum_P h_p + sum_missing h^_t )
    z_s  = ReLU(h_s) on I                                 the code: own logits, as without completion
    z_ts = ReLU( (h_s + sum_missing h^_t) / (1 + number of missing streams) ) on I      decoded into a missing t

The covariances of all subsets are kept as one factor F of R rows, C = F^T F. With F_P the columns of the present
streams, C_tP (C_PP + r I)^-1 = F_t^T (F_P F_P^T + r I)^-1 F_P. The code rebuilds
and finds its own stream best with its own logits; a missing stream is rebuilt best from the average, which shrinks what
the streams do not agree on (measured: docs/beyond.md).

A space has founding streams, which were trained together, and may have attached ones (`core/newcomer.py`). An attached
stream is never guessed: it adds its logits where a sample has it, and nothing where it lacks it. So codes of the other
streams are the same, to the bit, as before it was attached. From an attached stream that a sample has, the founding
ones are guessed like from any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from sparc.core.codes import Codes
from sparc.core.kernels import logits_with_gradient
from sparc.core.newcomer import Newcomer
from sparc.core.topk import EncoderProduct, select

if TYPE_CHECKING:
    from sparc.core.moments import Moments
    from sparc.core.space import Batch, LatentSpace

RIDGES = tuple(1e-4 * 2**power for power in range(12))
"""Candidates for the ridge, relative to the variance of a stream, averaged over the streams."""
NEARLY = 0.99
"""The smallest rank is taken whose gain is at least this part of the best gain."""
_ROUNDING = 1e-6
"""Relative to the largest variance; directions with less are rounding error."""


class Alone(NamedTuple):
    """Encoder of one stream whose scores are the sum of its own logits and the guessed ones of all other streams."""

    weight: Tensor
    """(L, D)."""
    bias: Tensor
    """(L,)."""


class Completion(nn.Module):
    """Means and covariances of the training features, with which missing streams are guessed."""

    mean: Tensor
    """(T,), of the founding streams."""
    factor: Tensor
    """F, (R, T), of the founding streams."""

    def __init__(
        self,
        widths: Mapping[str, int],
        mean_T: Tensor,
        factor_RT: Tensor,
        ridge: float,
        newcomers: Mapping[str, Newcomer] | None = None,
    ) -> None:
        """Take the founding streams' widths in the space's order, m, F and r; and the attached streams."""
        super().__init__()
        self.streams = dict(widths)
        """Widths of the founding streams, which are guessed."""
        self.ridge = ridge
        self.attached = tuple(newcomers or ())
        """Names of the attached streams, which are not guessed."""
        self._newcomers = nn.ModuleList((newcomers or {}).values())
        # Not part of the state dict: the completion is a file of its own, and a space may have none.
        self.register_buffer("mean", mean_T, persistent=False)
        self.register_buffer("factor", factor_RT, persistent=False)
        ends = torch.tensor(list(widths.values())).cumsum(0).tolist()
        self.segments = {name: slice(end - widths[name], end) for name, end in zip(widths, ends, strict=True)}
        self._loadings: dict[tuple[str, ...], Tensor] = {}
        self._alone: dict[str, tuple[tuple[object, ...], Alone]] = {}

    @property
    def rank(self) -> int:
        """Number of rows of F, R."""
        return len(self.factor)

    @property
    def newcomers(self) -> dict[str, Newcomer]:
        """What the attached streams have in common with the founding ones, by name."""
        return dict(zip(self.attached, self._newcomers, strict=True))  # type: ignore[arg-type]

    def with_newcomers(self, newcomers: Mapping[str, Newcomer]) -> Completion:
        """Return the completion of the same founding streams with these attached streams."""
        return Completion(self.streams, self.mean, self.factor, self.ridge, newcomers)

    @torch.inference_mode(False)  # tensors that are kept must serve an encoding with gradients too
    def loadings(self, present: Sequence[str]) -> Tensor:
        """Return (F_P F_P^T + r I)^-1 F_P, (R, D_P), for the present streams side by side, in the space's order.

        F_P has more rows if attached streams are present. No founding stream has a part in them, so they are left out.
        A ridge of their own is that of the founding streams for features that are scaled.
        """
        key = tuple(present)
        found = self._loadings.get(key)
        if found is None or found.device != self.factor.device or found.dtype != self.factor.dtype:
            F_RP, scale_P = self._columns(present)
            rank, width = F_RP.shape
            if rank <= width:
                eye = torch.eye(rank, dtype=F_RP.dtype, device=F_RP.device)
                found = torch.linalg.solve(F_RP @ F_RP.T + self.ridge * eye, F_RP)
            else:  # the same, and defined without a ridge too
                eye = torch.eye(width, dtype=F_RP.dtype, device=F_RP.device)
                found = torch.linalg.solve(F_RP.T @ F_RP + self.ridge * eye, F_RP, left=False)
            if scale_P is not None:
                found = found[: self.rank] * scale_P
            self._loadings[key] = found = found.to(self.factor)
        return found

    def _columns(self, present: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        """Return F_P in float64: columns of the present streams, with rows of their own for the attached ones.

        Columns of attached streams are scaled. Returns the scale (D_P,) too, None if all are founding.
        """
        newcomers = {name: one for name, one in self.newcomers.items() if name in present}
        founding = [self.factor[:, self.segments[name]] for name in present if name in self.segments]
        common_RP = torch.cat([*founding, *(one.common for one in newcomers.values())], dim=1).double()
        if not newcomers:
            return common_RP, None
        rows, scale_P = [common_RP], common_RP.new_ones(common_RP.shape[1])
        end = common_RP.shape[1] - sum(len(one.mean) for one in newcomers.values())
        for one in newcomers.values():
            columns = slice(end, end := end + len(one.mean))
            own_QP = common_RP.new_zeros(len(one.own), common_RP.shape[1])
            own_QP[:, columns] = one.own
            scale_P[columns] = (self.ridge / one.ridge) ** 0.5
            rows.append(own_QP)
        return torch.cat(rows) * scale_P, scale_P

    def guess(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the guessed features x^_t (B, D_t) of the missing founding streams.

        `features` holds the normalised features (B, D) of the streams that all of these samples have.
        """
        present = [name for name in (*self.streams, *self.attached) if name in features]
        differences = [features[name] - self.mean_of(name) for name in present]
        u_BR = torch.cat(differences, dim=1) @ self.loadings(present).T
        return {
            name: self.mean[segment] + u_BR @ self.factor[:, segment]
            for name, segment in self.segments.items()
            if name not in features
        }

    def mean_of(self, stream: str) -> Tensor:
        """Return the mean of a stream, founding or attached, (D,)."""
        if stream in self.segments:
            return self.mean[self.segments[stream]]
        return self.newcomers[stream].mean

    def without(self, stream: str) -> Completion:
        """Return the completion without a stream, founding or attached: the others' covariances stay."""
        newcomers = {name: one for name, one in self.newcomers.items() if name != stream}
        if stream not in self.streams:
            return self.with_newcomers(newcomers)
        left = {name: width for name, width in self.streams.items() if name != stream}
        mean_T = torch.cat([self.mean[self.segments[name]] for name in left])
        factor_RT = torch.cat([self.factor[:, self.segments[name]] for name in left], dim=1)
        return Completion(left, mean_T, factor_RT, self.ridge, newcomers)

    @torch.inference_mode(False)
    @torch.no_grad()
    def alone(self, space: LatentSpace, stream: str) -> Alone:
        """Return the encoder of a stream alone, whose scores on x_s - b_s are h_s + sum_t h^_t.

        It costs what the stream's own encoder costs. It is kept until the parameters of the space change. Those of a
        space that was loaded in inference mode do not count their changes, so it is computed anew each time.
        """
        parameters = list(space.parameters())
        counted = not any(parameter.is_inference() for parameter in parameters)
        key = (space.decoder.device, *(parameter._version for parameter in parameters if counted))
        kept = self._alone.get(stream)
        if kept is not None and kept[0] == key and counted:
            return kept[1]
        G_RD = self.loadings([stream])
        off_D = space.pre_bias[space.segments[stream]] - self.mean_of(stream)
        weight_LD, bias_L = (tensor.clone() for tensor in space.encoder(stream))
        for name, segment in self.segments.items():
            if name != stream:
                others_LD, other_bias_L = space.encoder(name)
                at_bias_D = self.mean[segment] + (G_RD @ off_D) @ self.factor[:, segment] - space.pre_bias[segment]
                weight_LD.addmm_(others_LD @ self.factor[:, segment].T, G_RD)
                bias_L += others_LD @ at_bias_D + other_bias_L
        self._alone[stream] = (key, Alone(weight_LD, bias_L))
        return self._alone[stream][1]


def encode_completed(space: LatentSpace, completion: Completion, batch: Batch) -> dict[str, Codes]:
    """Encode normalised features as `LatentSpace.encode_batch`, with the missing streams of each sample guessed.

    Samples are encoded together with those that have the same streams. A sample without any stream has no active
    latent, and the code of a stream that a sample lacks is zero, as without completion.
    """
    presence_BS = torch.stack([_present(batch, name) for name in space.streams], dim=1)
    patterns, of_sample = torch.unique(presence_BS, dim=0, return_inverse=True)
    if len(patterns) <= 1:
        return _encode_alike(space, completion, batch, presence_BS[:1].flatten())
    every, parts = [], []
    for number, there_S in enumerate(patterns):
        rows = (of_sample == number).nonzero().squeeze(1)
        alike = type(batch)(
            {name: x_BD[rows] for name, x_BD in batch.features.items()},
            {name: there_B[rows] for name, there_B in batch.present.items()},
        )
        every.append(rows)
        parts.append(_encode_alike(space, completion, alike, there_S))
    order = torch.cat(every).argsort()
    codes = {name: Codes.joined([part[name] for part in parts])[order] for name in batch.features}
    indices_BK = next(iter(codes.values())).indices
    return {name: replace(code, indices=indices_BK) for name, code in codes.items()}


def _present(batch: Batch, stream: str) -> Tensor:
    if stream in batch.present:
        return batch.present[stream]
    return torch.zeros_like(next(iter(batch.present.values())))


def _encode_alike(space: LatentSpace, completion: Completion, batch: Batch, there_S: Tensor) -> dict[str, Codes]:
    """Encode samples that all have the same streams."""
    present = [name for name, there in zip(space.streams, there_S.tolist(), strict=False) if there]
    missing = [name for name in completion.streams if name not in present]
    if not present or not missing:
        return space.encode_batch(batch)
    centered = {name: space.centered(name, batch.features[name]) for name in present}
    if len(present) == 1:
        own, sums_BK, indices_BK = _scores_alone(space, completion, centered)
    else:
        own, sums_BK, indices_BK = _scores_of_several(space, completion, batch, centered)
    codes = {}
    for name in batch.features:
        values_BK = torch.relu(own[name]) if name in own else torch.zeros_like(sums_BK)
        others_BK = sums_BK - sum(logits_BK for other, logits_BK in own.items() if other != name)
        translated_BK = torch.relu(others_BK / (1 + len(missing))) if name in own else values_BK
        codes[name] = Codes(indices_BK, values_BK, space.n_latents, dict.fromkeys(missing, translated_BK))
    return codes


class _Scores(NamedTuple):
    """Logits of the kept latents."""

    own: dict[str, Tensor]
    """(B, K) per present stream."""
    sums: Tensor
    """(B, K) known and guessed logits of all streams, summed."""
    indices: Tensor
    """(B, K)."""


def _scores_alone(space: LatentSpace, completion: Completion, centered: Mapping[str, Tensor]) -> _Scores:
    ((stream, x_BD),) = centered.items()
    weight_LD, bias_L = completion.alone(space, stream)
    everywhere_B = torch.ones(len(x_BD), dtype=torch.bool, device=x_BD.device)
    indices_BK, sums_BK = select({stream: EncoderProduct(x_BD, weight_LD, bias_L, everywhere_B)}, space.k, shared=True)[
        stream
    ]
    own_BK = space.logits(stream, x_BD, indices_BK)
    return _Scores(
        {stream: logits_with_gradient(x_BD, *space.encoder(stream), own_BK, indices_BK)},
        logits_with_gradient(x_BD, weight_LD, bias_L, sums_BK, indices_BK),
        indices_BK,
    )


def _scores_of_several(
    space: LatentSpace, completion: Completion, batch: Batch, centered: Mapping[str, Tensor]
) -> _Scores:
    guessed = completion.guess({name: batch.features[name] for name in centered})
    every = {
        name: centered[name] if name in centered else space.centered(name, guessed[name])
        for name in space.streams
        if name in centered or name in guessed
    }
    everywhere_B = torch.ones_like(next(iter(batch.present.values())))
    kept = space.select(every, dict.fromkeys(every, everywhere_B))
    logits = {
        name: logits_with_gradient(every[name], *space.encoder(name), logits_BK, indices_BK)
        for name, (indices_BK, logits_BK) in kept.items()
    }
    return _Scores(
        {name: logits[name] for name in centered},
        torch.stack(list(logits.values())).sum(dim=0),
        next(iter(kept.values())).indices,
    )


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


def _factor(covariance_TT: Tensor) -> Tensor:
    """Return F with F^T F = C, largest directions first, (R, T). Covariances of pairs may have negative directions."""
    try:  # a fifth of the time, with an error far below any ridge
        values_T, vectors_TT = torch.linalg.eigh(covariance_TT.float())
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # features that are always zero, for example
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
