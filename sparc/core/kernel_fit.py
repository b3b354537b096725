"""Fit the kernels of a completion: landmarks, and the precision and the ridge that guess best on held-out samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from sparc.core.completion import Completion
from sparc.core.kernel_guess import KernelGuess, similarities
from sparc.core.space import Batch

SAMPLES = 16_384
"""Samples that kernels are fitted to, at most: a sample of the training samples, held in memory."""
LANDMARKS = 1_024
"""At most. A landmark is a part of the checkpoint, and each encoding compares with all."""
PRECISIONS = (0.5, 1.0, 2.0, 4.0)
"""Candidates for g, relative to one over the variance of the stream."""
RIDGES = (0.003, 0.03, 0.3, 3.0)
"""Candidates for r."""
WORTH = 0.01
"""Part of the variance of the other streams that a kernel must explain beyond the linear guess, or it is not kept."""
_JITTER = 1e-8
"""Added to the diagonal, because landmarks may be equal."""


class Sampled:
    """Collects the samples that kernels are fitted to from batches that pass by."""

    def __init__(self, held_out_N: Tensor, streams: Iterable[str]) -> None:
        """Draw them. Precision and ridge are chosen on those of `held_out_N`, (samples,) bool."""
        self._streams = tuple(streams)
        order = torch.randperm(len(held_out_N), generator=torch.Generator().manual_seed(0))
        self._chosen_N = torch.zeros_like(held_out_N)
        self._chosen_N[order[:SAMPLES]] = True
        self._held_out_N = held_out_N
        self._features: list[dict[str, Tensor]] = []
        self._held_out: list[Tensor] = []

    def passing(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield normalised batches, which come in the order of the samples. Samples that lack a stream are left out."""
        first = 0
        for batch in batches:
            whole_B = torch.stack([batch.present[name] for name in self._streams]).all(dim=0).cpu()
            place = slice(first, first := first + len(whole_B))
            rows = (self._chosen_N[place] & whole_B).nonzero().squeeze(1)
            self._held_out.append(self._held_out_N[place][rows])
            self._features.append(
                {name: batch.features[name][rows.to(batch.features[name].device)] for name in self._streams}
            )
            yield batch

    @property
    def features(self) -> dict[str, Tensor]:
        """Normalised features (n, D) of the samples, by stream."""
        return {name: torch.cat([one[name] for one in self._features]) for name in self._features[0]}

    @property
    def held_out(self) -> Tensor:
        """(n,) bool."""
        return torch.cat(self._held_out)


@torch.no_grad()
def fit_kernels(completion: Completion, trial: Completion, sampled: Sampled) -> Completion:
    """Return a completion with a kernel for each founding stream whose kernel guesses better than the linear guess.

    Both guesses are compared on the held-out samples; `trial` is the linear completion of the other samples alone.
    """
    features, held_out_n = sampled.features, sampled.held_out
    x_nT = torch.cat([features[name] for name in completion.streams], dim=1).double()
    held_out_n = held_out_n.to(x_nT.device)
    if not (trial.rank and completion.rank and held_out_n.any() and (~held_out_n).any()):
        return completion
    kernels = {}
    for name in completion.streams:
        fitted = _fitted(completion, trial, name, x_nT, held_out_n)
        if fitted is not None:
            kernels[name] = fitted
    return completion.with_kernels(kernels)


class _Candidate(NamedTuple):
    gain: float
    """Share of the variance of each other stream that the guess explains, summed over these; what it must exceed."""
    precision: float
    """0 for the linear guess."""
    ridge: float


def _fitted(
    completion: Completion, trial: Completion, stream: str, x_nT: Tensor, held_out_n: Tensor
) -> KernelGuess | None:
    """Fit the kernel of a stream to samples (n, T) that have all streams; None if the linear guess is as good."""
    x_nD = x_nT[:, completion.segments[stream]]
    order = torch.randperm(len(x_nD), generator=torch.Generator().manual_seed(0))[:LANDMARKS]
    landmarks_MD = x_nD[order.to(x_nD.device)].float().double()  # as they are kept
    variance = float((x_nD - x_nD.mean(dim=0)).square().sum(dim=1).mean())
    if not variance:
        return None
    differences_vD = x_nD[held_out_n] - trial.mean_of(stream).double()
    linear_vR = differences_vD @ trial.loadings([stream]).double().T
    worth = WORTH * (len(completion.streams) - 1)
    best = _Candidate(_gain(trial, stream, linear_vR, x_nT[held_out_n]) + worth, 0, 0)
    true_nR = _coordinates(trial, x_nT)[~held_out_n]
    for precision in (one / variance for one in PRECISIONS):
        k_nM = similarities(x_nD, landmarks_MD, precision)
        sums = _Sums.of(k_nM[~held_out_n], similarities(landmarks_MD, landmarks_MD, precision), true_nR)
        for ridge in RIDGES:
            guess_vR = k_nM[held_out_n] @ sums.weights(ridge)
            best = max(best, _Candidate(_gain(trial, stream, guess_vR, x_nT[held_out_n]), precision, ridge))
    if not best.precision:
        return None
    k_nM = similarities(x_nD, landmarks_MD, best.precision)
    sums = _Sums.of(k_nM, similarities(landmarks_MD, landmarks_MD, best.precision), _coordinates(completion, x_nT))
    return KernelGuess(landmarks_MD.float(), sums.weights(best.ridge).float(), best.precision)


class _Sums(NamedTuple):
    """Sums over samples from which the weights for every ridge follow."""

    own: Tensor
    """K^T K, (M, M)."""
    between: Tensor
    """K_MM, (M, M), with the jitter."""
    crossed: Tensor
    """K^T U, (M, R)."""

    @classmethod
    def of(cls, k_nM: Tensor, between_MM: Tensor, true_nR: Tensor) -> _Sums:
        """Sum over samples; adds the jitter to `between_MM` in place."""
        between_MM.diagonal().add_(_JITTER)
        return cls(k_nM.T @ k_nM, between_MM, k_nM.T @ true_nR)

    def weights(self, ridge: float) -> Tensor:
        """Return (K^T K + r K_MM)^-1 K^T U, (M, R)."""
        found: Tensor = torch.linalg.solve(self.own + ridge * self.between, self.crossed)
        return found


def _coordinates(completion: Completion, x_nT: Tensor) -> Tensor:
    """Return the coordinates (n, R) of samples that have all founding streams: the u of which F^T u is nearest."""
    F_RT = completion.factor.double()
    found: Tensor = torch.linalg.solve(F_RT @ F_RT.T, F_RT @ (x_nT - completion.mean.double()).T).T
    return found


def _gain(completion: Completion, stream: str, u_vR: Tensor, x_vT: Tensor) -> float:
    """Return the gain of the guesses that follow from u, see `_Candidate`."""
    differences_vT, guess_vT = x_vT - completion.mean.double(), u_vR @ completion.factor.double()
    total = 0.0
    for name, segment in completion.segments.items():
        energy = float(differences_vT[:, segment].square().sum())
        if name != stream and energy:
            total += 1 - float((differences_vT[:, segment] - guess_vT[:, segment]).square().sum()) / energy
    return total
