"""Completion: guess the streams that a sample lacks from those it has, before the selection.

Global TopK selects on sum_t h_t. A stream that is encoded alone would select on h_s, as if all other logits were
constant. The best linear guess of the missing features, given the present ones, follows from means m and covariances C
of the training features:

    x^_t = m_t + C_tP (C_PP + r I)^-1 (x_P - m_P)        P: the present streams, side by side; r: the ridge
    h^_t = W_t (x^_t - b_t) + c_t                         linear, so it is the best linear guess of h_t as well
    I    = TopK_k( sum_P h_p + sum_missing h^_t )
    z_s  = ReLU(h_s) on I                                 the code: own logits, as without completion
    z_ts = ReLU( (h_s + h^_t) / 2 ) on I                  decoded into a missing t

The covariances of all subsets are kept as one factor F of R rows, C = F^T F. With F_P the columns of the present
streams, C_tP (C_PP + r I)^-1 = F_t^T (F_P F_P^T + r I)^-1 F_P. The code rebuilds and finds its own stream best with its
own logits; a missing stream is rebuilt best from the average, which shrinks what the two streams do not agree on
(measured: docs/beyond.md).

Where a stream is alone, a kernel may replace the linear guess (`core/kernel_guess.py`).

A space has founding streams, which were trained together, and may have attached ones (`core/newcomer.py`). An attached
stream is never guessed: it adds its logits where a sample has it, and nothing where it lacks it. So codes of the other
streams are the same, to the bit, as before it was attached. From an attached stream that a sample has, the founding
ones are guessed like from any other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from sparc.core.codes import Codes, Translations
from sparc.core.kernel_guess import KernelGuess
from sparc.core.kernels import logits_with_gradient
from sparc.core.newcomer import Newcomer
from sparc.core.topk import EncoderProduct, select

if TYPE_CHECKING:
    from sparc.core.space import Batch, LatentSpace


class Alone(NamedTuple):
    """Encoder of one stream whose scores are the sum of its own logits and the guessed ones of all other streams."""

    weight: Tensor
    """(L, D); with a kernel (L, D + R), for features and u side by side."""
    bias: Tensor
    """(L,)."""


class Shape(NamedTuple):
    """All of a completion but its tensors."""

    rank: int
    ridge: float
    kernels: dict[str, tuple[int, float]]
    """Landmarks and precision, by stream."""


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
        kernels: Mapping[str, KernelGuess] | None = None,
    ) -> None:
        """Take the founding streams' widths in the space's order, m, F and r; the attached streams; and the kernels."""
        super().__init__()
        self.streams = dict(widths)
        """Widths of the founding streams, which are guessed."""
        self.ridge = ridge
        self.attached = tuple(newcomers or ())
        """Names of the attached streams, which are not guessed."""
        self._newcomers = nn.ModuleList((newcomers or {}).values())
        self.with_kernel = tuple(kernels or ())
        """Names of the founding streams that have a kernel."""
        self._kernels = nn.ModuleList((kernels or {}).values())
        # Not part of the state dict: the completion is a file of its own, and a space may have none.
        self.register_buffer("mean", mean_T, persistent=False)
        self.register_buffer("factor", factor_RT, persistent=False)
        ends = torch.tensor(list(widths.values())).cumsum(0).tolist()
        self.segments = {name: slice(end - widths[name], end) for name, end in zip(widths, ends, strict=True)}
        self._loadings: dict[tuple[str, ...], Tensor] = {}
        self._alone: dict[str, tuple[tuple[object, ...], Alone]] = {}

    @classmethod
    def empty(cls, widths: Mapping[str, int], shape: Shape) -> Completion:
        """Return one of zeros of the founding streams `widths`, with the shape of another, for its tensors."""
        kernels = {
            name: KernelGuess(torch.zeros(count, widths[name]), torch.zeros(count, shape.rank), precision)
            for name, (count, precision) in shape.kernels.items()
        }
        total = sum(widths.values())
        return cls(widths, torch.zeros(total), torch.zeros(shape.rank, total), shape.ridge, kernels=kernels)

    @property
    def shape(self) -> Shape:
        """Everything but the tensors, from which `empty` makes room for them."""
        kernels = {name: (len(one.landmarks), one.precision) for name, one in self.kernels.items()}
        return Shape(self.rank, self.ridge, kernels)

    @property
    def rank(self) -> int:
        """Number of rows of F, R."""
        return len(self.factor)

    @property
    def newcomers(self) -> dict[str, Newcomer]:
        """Attached streams by name, each with its covariance with the founding ones."""
        return dict(zip(self.attached, self._newcomers, strict=True))  # type: ignore[arg-type]

    @property
    def kernels(self) -> dict[str, KernelGuess]:
        """Kernels by the stream that is alone."""
        return dict(zip(self.with_kernel, self._kernels, strict=True))  # type: ignore[arg-type]

    def with_newcomers(self, newcomers: Mapping[str, Newcomer]) -> Completion:
        """Return the completion of the same founding streams with these attached streams."""
        return Completion(self.streams, self.mean, self.factor, self.ridge, newcomers, self.kernels)

    def with_kernels(self, kernels: Mapping[str, KernelGuess]) -> Completion:
        """Return the completion with these kernels."""
        return Completion(self.streams, self.mean, self.factor, self.ridge, self.newcomers, kernels)

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

    def guess(self, features: Mapping[str, Tensor], *, linear: bool = False) -> dict[str, Tensor]:
        """Return the guessed features x^_t (B, D_t) of the missing founding streams.

        `features` holds the normalised features (B, D) of the streams that all of these samples have. A stream alone
        guesses by its kernel, if it has one, and linearly otherwise or if `linear`. Training guesses linearly, because
        a kernel tells more of the samples that it was fitted to than of others.
        """
        present = [name for name in (*self.streams, *self.attached) if name in features]
        if not linear and len(present) == 1 and present[0] in self.with_kernel:
            u_BR = self.kernels[present[0]].coordinates(features[present[0]])
        else:
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
        kernels = {name: one for name, one in self.kernels.items() if name != stream}
        left = {name: width for name, width in self.streams.items() if name != stream}
        mean_T = torch.cat([self.mean[self.segments[name]] for name in left])
        factor_RT = torch.cat([self.factor[:, self.segments[name]] for name in left], dim=1)
        return Completion(left, mean_T, factor_RT, self.ridge, newcomers, kernels)

    @torch.inference_mode(False)
    @torch.no_grad()
    def alone(self, space: LatentSpace, stream: str) -> Alone:
        """Return the encoder of a stream alone, whose scores on x_s - b_s are h_s + sum_t h^_t.

        It costs what the stream's own encoder costs. With a kernel it reads x_s - b_s and u, side by side. It is kept
        until the parameters of the space change. Those of a space that was loaded in inference mode do not count their
        changes, so it is computed anew each time.
        """
        parameters = list(space.parameters())
        counted = not any(parameter.is_inference() for parameter in parameters)
        key = tuple((id(one), one.data_ptr(), one.dtype, one._version if counted else 0) for one in parameters)
        kept = self._alone.get(stream)
        if kept is not None and kept[0] == key and counted:
            return kept[1]
        weight_LD, bias_L = (tensor.clone() for tensor in space.encoder(stream))
        of_u_LR = weight_LD.new_zeros(len(weight_LD), self.rank)
        for name, segment in self.segments.items():
            if name != stream:
                others_LD, other_bias_L = space.encoder(name)
                of_u_LR += others_LD @ self.factor[:, segment].T
                bias_L += others_LD @ (self.mean[segment] - space.pre_bias[segment]) + other_bias_L
        if stream in self.with_kernel:
            weight_LD = torch.cat([weight_LD, of_u_LR], dim=1)
        else:
            G_RD = self.loadings([stream])
            bias_L += of_u_LR @ (G_RD @ (space.pre_bias[space.segments[stream]] - self.mean_of(stream)))
            weight_LD.addmm_(of_u_LR, G_RD)
        self._alone[stream] = (key, Alone(weight_LD, bias_L))
        return self._alone[stream][1]


def encode_completed(space: LatentSpace, completion: Completion, batch: Batch) -> dict[str, Codes]:
    """Encode normalised features as `LatentSpace.encode_batch`, with the missing streams of each sample guessed.

    Samples are encoded together with those that have the same streams. A sample without any stream has no active
    latent, and the code of a stream that a sample lacks is zero, as without completion.
    """
    presence_BS = torch.stack([_present(batch, name) for name in space.streams], dim=1)
    if (presence_BS == presence_BS[:1]).all():
        return _encode_alike(space, completion, batch, presence_BS[:1].flatten())
    patterns, of_sample = torch.unique(presence_BS, dim=0, return_inverse=True)
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
    known = {name: batch.features[name] for name in present}
    centered = {name: space.centered(name, x_BD) for name, x_BD in known.items()}
    indices_BK = _select_alone(space, completion, known) if len(known) == 1 else _select(space, completion, known)
    own = {name: _logits(space, name, x_BD, indices_BK) for name, x_BD in centered.items()}
    # A space that does not normalise would share the caller's tensors, which may change before a code is decoded.
    held = {name: x_BD.clone() for name, x_BD in known.items()} if space.normalization == "none" else known
    codes = {
        name: Codes(
            indices_BK,
            torch.relu(own_BK),
            space.n_latents,
            _Guessed(space, completion, tuple(missing), held, own_BK, indices_BK),
        )
        for name, own_BK in own.items()
    }
    lacking = Codes(indices_BK, torch.zeros_like(own[present[0]]), space.n_latents)
    return {name: codes.get(name, lacking) for name in batch.features}


@dataclass(frozen=True, eq=False)
class _Guessed(Translations):
    """Translations of a code of one stream, by averages of its logits and those of the guessed target."""

    space: LatentSpace
    completion: Completion
    missing: tuple[str, ...]
    known: Mapping[str, Tensor]
    """Normalised features, (B, D) per present stream."""
    own: Tensor
    """(B, K), the stream's own logits."""
    indices: Tensor
    """(B, K)."""

    def __getitem__(self, stream: str) -> Tensor:
        """Return z_ts for a missing stream t. Raises KeyError for another."""
        if stream not in self.missing:
            raise KeyError(stream)
        guess_BD = self.space.centered(stream, self.completion.guess(self.known)[stream])
        return torch.relu((self.own + _logits(self.space, stream, guess_BD, self.indices)) / 2)

    def __iter__(self) -> Iterator[str]:
        """Yield the missing streams."""
        return iter(self.missing)

    def __len__(self) -> int:
        """Count the missing streams."""
        return len(self.missing)

    def rows(self, samples: slice | Tensor) -> _Guessed:
        """Return the translations of some samples; copies let go of the others."""
        known = {name: x_BD[samples].clone() for name, x_BD in self.known.items()}
        own_BK, indices_BK = self.own[samples].clone(), self.indices[samples].clone()
        return replace(self, known=known, own=own_BK, indices=indices_BK)


def _logits(space: LatentSpace, stream: str, centered_BD: Tensor, indices_BK: Tensor) -> Tensor:
    """Return the logits of the kept latents, (B, K), differentiable."""
    logits_BK = space.logits(stream, centered_BD, indices_BK)
    return logits_with_gradient(centered_BD, *space.encoder(stream), logits_BK, indices_BK)


@torch.no_grad()
def _select_alone(space: LatentSpace, completion: Completion, known: Mapping[str, Tensor]) -> Tensor:
    ((stream, x_BD),) = known.items()
    everywhere_B = torch.ones(len(x_BD), dtype=torch.bool, device=x_BD.device)
    read = space.centered(stream, x_BD)
    if stream in completion.with_kernel:
        read = torch.cat([read, completion.kernels[stream].coordinates(x_BD)], dim=1)
    product = EncoderProduct(read, *completion.alone(space, stream), everywhere_B)
    return select({stream: product}, space.k, shared=True)[stream].indices


@torch.no_grad()
def _select(space: LatentSpace, completion: Completion, known: Mapping[str, Tensor]) -> Tensor:
    every = {**known, **completion.guess(known)}
    centered = {name: space.centered(name, every[name]) for name in space.streams if name in every}
    everywhere_B = torch.ones(len(next(iter(known.values()))), dtype=torch.bool, device=space.decoder.device)
    kept = space.select(centered, dict.fromkeys(centered, everywhere_B))
    return next(iter(kept.values())).indices
