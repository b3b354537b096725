"""Choose the latents worth showing, and the held-out samples that activate each most.

Shapes: N samples, L latents, D features of a stream.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from sparc.core.space import LatentSpace, present
from sparc.errors import InvalidConfig
from sparc.storage.latent_names import LatentName

if TYPE_CHECKING:
    from scipy.sparse import csr_array
    from torch import Tensor

ENOUGH, FEWEST = 5, 2
"""Distinct samples of each stream that make a latent telling, and those without which it is not shown."""
TOP = 6
"""Samples kept per stream, as many as the sheet of one latent shows."""
CHUNK = 1024
"""Samples per call of the space: logits are (CHUNK, L)."""


@dataclass(frozen=True)
class Meaning:
    """A latent on held-out samples, each stream encoded alone."""

    latent: int
    correlation: float
    """Correlation of its activations between streams, mean over pairs; 0 if they do not vary."""
    name: LatentName | None
    """Its confirmed name; None without one."""
    top: dict[str, list[tuple[int, float]]]
    """Per stream, the samples (row, activation) that activate it most, one per distinct image or caption."""


def meanings(
    space: LatentSpace,
    features: Mapping[str, Tensor],
    names: Mapping[int, LatentName],
    *,
    latent: int | None = None,
    count: int = 10,
    shared: Mapping[str, Tensor] | None = None,
) -> list[Meaning]:
    """Summarise one latent, or the `count` latents on which the streams agree best, at most one per name.

    features: raw, (N, D) per stream. names: by latent, as stored with the run; those that are not confirmed are
    ignored. shared: per stream (N,) int, equal for samples with the same image or caption; None if all are distinct.

    Raises InvalidConfig for a latent that the space does not have.
    """
    if latent is not None and not 0 <= latent < space.n_latents:
        raise InvalidConfig(
            f"latent: expected 0 to {space.n_latents - 1}, found {latent}", hint="choose another --latent"
        )
    active = activations(space, features)
    there = [present(features[name]).cpu().numpy() for name in space.streams]
    agreement_L = correlations(list(active.values()), there)

    def meaning(number: int) -> Meaning:
        name = names.get(number)
        confirmed = name if name is not None and name.confirmed else None
        return Meaning(number, float(agreement_L[number]), confirmed, _top(active, number, shared))

    if latent is not None:
        return [meaning(latent)]
    chosen: dict[str | int, Meaning] = {}
    for candidate in ranked(agreement_L, support(active, shared)):
        if len(chosen) == count:
            break
        found = meaning(int(candidate))
        chosen.setdefault(found.name.label if found.name else found.latent, found)
    return list(chosen.values())


def activations(space: LatentSpace, features: Mapping[str, Tensor]) -> dict[str, csr_array]:
    """Return the activations (N, L) of each stream encoded alone."""
    from scipy.sparse import csr_array, vstack

    active = {}
    with torch.inference_mode():
        for name in space.streams:
            parts = [space.encode({name: rows})[name].to_csr() for rows in torch.split(features[name], CHUNK)]
            active[name] = csr_array(vstack(parts))
    return active


def correlations(active: Sequence[csr_array], present: Sequence[NDArray[np.bool_]]) -> NDArray[np.float64]:
    """Return the correlation of each latent's activations between streams, mean over pairs of streams: (L,).

    active: (N, L) per stream. present: (N,) per stream, the samples that have it; a pair of streams is compared on the
    samples that have both. A single stream has nothing to correlate with: its latents rank by total activation.
    """
    if len(active) == 1:
        sum_L = _sum(active[0])
        ranked_L: NDArray[np.float64] = sum_L / max(1.0, sum_L.max())
        return ranked_L
    pairs = []
    for a, b in combinations(range(len(active)), 2):
        rows = np.flatnonzero(present[a] & present[b])
        pairs.append(_correlation(active[a][rows].astype(np.float64), active[b][rows].astype(np.float64)))
    mean_L: NDArray[np.float64] = np.mean(pairs, axis=0)
    return mean_L


def support(active: Mapping[str, csr_array], shared: Mapping[str, Tensor] | None) -> NDArray[np.int64]:
    """Count the distinct images or captions that activate each latent, in the stream that has fewest: (L,).

    active: (N, L) per stream. shared: as in `meanings`.
    """
    counts = []
    for name, matrix in active.items():
        samples, latents = matrix.nonzero()
        kinds = samples if shared is None else shared[name].cpu().numpy()[samples]
        distinct = np.unique(np.stack([latents, kinds]), axis=1)[0]
        counts.append(np.bincount(distinct, minlength=matrix.shape[1]))
    support_L: NDArray[np.int64] = np.min(counts, axis=0)
    return support_L


def ranked(agreement_L: NDArray[np.float64], support_L: NDArray[np.int64]) -> list[int]:
    """Return the latents on which streams agree, best first; those that too few samples support come after the others.

    Two samples can agree perfectly by chance, so a latent with fewer than ENOUGH ranks after all that have more.
    """
    order = np.lexsort((-agreement_L, -np.minimum(support_L, ENOUGH)))
    return [int(latent) for latent in order if agreement_L[latent] > 0 and support_L[latent] >= FEWEST]


def _correlation(first: csr_array, second: csr_array) -> NDArray[np.float64]:
    """Return the Pearson correlation of each column, (L,); 0 for a column that does not vary."""
    n_samples = first.shape[0]
    covariance_L = n_samples * _sum(first.multiply(second)) - _sum(first) * _sum(second)
    scale_L = np.sqrt(_variance(first) * _variance(second))
    return np.where(scale_L > 0, covariance_L / np.where(scale_L > 0, scale_L, 1), 0)


def _variance(matrix: csr_array) -> NDArray[np.float64]:
    square_L = matrix.shape[0] * _sum(matrix.multiply(matrix))
    variance_L = square_L - _sum(matrix) ** 2
    return np.where(variance_L > 1e-12 * square_L, variance_L, 0)  # a smaller variance is rounding error


def _sum(matrix: csr_array) -> NDArray[np.float64]:
    return np.asarray(matrix.sum(axis=0), dtype=np.float64).ravel()


def _top(
    active: Mapping[str, csr_array], latent: int, shared: Mapping[str, Tensor] | None
) -> dict[str, list[tuple[int, float]]]:
    """Return, per stream, the rows and activations that are largest, the first row of each image or caption."""
    top = {}
    for name, matrix in active.items():
        values_N = matrix[:, [latent]].toarray().ravel()
        rows = [int(row) for row in np.argsort(-values_N, kind="stable") if values_N[row] > 0]
        if shared is not None:
            firsts: dict[int, int] = {}
            for row in rows:
                firsts.setdefault(int(shared[name][row]), row)
            rows = [*firsts.values()]
        top[name] = [(row, float(values_N[row])) for row in rows[:TOP]]
    return top
