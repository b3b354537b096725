"""The verb `explore`: which latents mean something, and pictures of what they mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from sparc.core.space import LatentSpace, present
from sparc.errors import InvalidConfig
from sparc.plugins.contracts import Sample, Taxonomy

if TYPE_CHECKING:
    from scipy.sparse import csr_array
    from torch import Tensor

MIN_ACTIVE, FEW = 5, 2
"""Samples that must activate a latent in each stream before it is worth a picture, and where there are only some dozen:
a twentieth of them, but no fewer than two."""
TOP = 6
"""Samples kept per stream, as many as a picture of one latent shows."""
CHUNK = 1024
"""Samples per call of the space: logits are (CHUNK, L)."""


@dataclass(frozen=True)
class Meaning:
    """What a latent stands for on held-out samples, each stream encoded alone."""

    latent: int
    correlation: float
    """Of its activations between streams, mean over pairs; 0 where they do not vary."""
    concept: str
    """Label that fits best the samples that activate it in most streams; empty without labels."""
    of_concept: int
    active: int
    """Samples that activate it in most streams, and how many of them carry the concept."""
    top: dict[str, list[tuple[int, float]]]
    """Per stream, the samples (row, activation) that activate it most; of those that share an image, or a caption, the
    first."""


def meanings(
    space: LatentSpace,
    features: Mapping[str, Tensor],
    labels: csr_array | None,
    taxonomy: Taxonomy | None,
    *,
    latent: int | None = None,
    count: int = 10,
    shared: Mapping[str, Tensor] | None = None,
) -> list[Meaning]:
    """Summarise one latent, or the `count` on which the streams agree best, at most one per concept.

    features: raw, (N, D) per stream. labels: (N, n_labels) multi-hot, columns as in `taxonomy.labels`. shared: per
    stream, (N,) int, equal for samples whose image or caption is the same; without it all are taken to differ.

    Raises InvalidConfig for a latent that the space does not have.
    """
    if latent is not None and not 0 <= latent < space.n_latents:
        raise InvalidConfig(
            f"latent: expected 0 to {space.n_latents - 1}, found {latent}", hint="choose another --latent"
        )
    active = _activations(space, features)
    there = [present(features[name]).cpu().numpy() for name in space.streams]
    agreement_L = correlations(list(active.values()), there)
    concepts = _Concepts(labels, taxonomy)
    if latent is not None:
        return [_meaning(latent, agreement_L, active, concepts, shared)]
    chosen: dict[str, Meaning] = {}
    worth_L = np.where(often(list(active.values())), agreement_L, 0)
    for candidate in np.argsort(-worth_L, kind="stable"):
        if len(chosen) == count or worth_L[candidate] <= 0:
            break
        meaning = _meaning(int(candidate), agreement_L, active, concepts, shared)
        chosen.setdefault(meaning.concept or str(candidate), meaning)
    return list(chosen.values())


def _activations(space: LatentSpace, features: Mapping[str, Tensor]) -> dict[str, csr_array]:
    """Activations (N, L) of each stream encoded alone."""
    from scipy.sparse import csr_array, vstack

    active = {}
    with torch.inference_mode():
        for name in space.streams:
            parts = [space.encode({name: rows})[name].to_csr() for rows in torch.split(features[name], CHUNK)]
            active[name] = csr_array(vstack(parts))
    return active


def correlations(active: Sequence[csr_array], present: Sequence[NDArray[np.bool_]]) -> NDArray[np.float64]:
    """Correlation of each latent's activations between streams, mean over pairs of streams: (L,).

    active: (N, L) per stream; present: (N,) per stream, which samples have it: a pair of streams is compared on those
    that have both. A single stream has nothing to agree with: its latents rank by how much they are active.
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


def often(active: Sequence[csr_array]) -> NDArray[np.bool_]:
    """Which latents are active in enough samples of each stream, (L,)."""
    needed = min(MIN_ACTIVE, max(FEW, active[0].shape[0] // 20))
    often_L: NDArray[np.bool_] = np.all([(matrix > 0).sum(axis=0) >= needed for matrix in active], axis=0)
    return often_L


def _correlation(first: csr_array, second: csr_array) -> NDArray[np.float64]:
    """Pearson's, of each column: (L,); 0 where a column does not vary."""
    n_samples = first.shape[0]
    covariance_L = n_samples * _sum(first.multiply(second)) - _sum(first) * _sum(second)
    scale_L = np.sqrt(_variance(first) * _variance(second))
    return np.where(scale_L > 0, covariance_L / np.where(scale_L > 0, scale_L, 1), 0)


def _variance(matrix: csr_array) -> NDArray[np.float64]:
    square_L = matrix.shape[0] * _sum(matrix.multiply(matrix))
    variance_L = square_L - _sum(matrix) ** 2
    return np.where(variance_L > 1e-12 * square_L, variance_L, 0)  # what is left by rounding is no variance


def _sum(matrix: csr_array) -> NDArray[np.float64]:
    return np.asarray(matrix.sum(axis=0), dtype=np.float64).ravel()


class _Concepts:
    """Names sets of samples by the taxonomy."""

    def __init__(self, labels: csr_array | None, taxonomy: Taxonomy | None) -> None:
        self._columns: dict[str, NDArray[np.bool_]] = {}
        if labels is None or taxonomy is None:
            return
        dense_NM = labels.toarray() > 0
        # Labels at the root say nothing where there is anything below; a leaf of a single sample is no concept.
        for depth in range(min(1, taxonomy.max_depth), taxonomy.max_depth + 1):
            for column, label in enumerate(taxonomy.labels):
                if dense_NM[:, column].any():
                    name = taxonomy.lift(label, depth)
                    self._columns[name] = self._columns.get(name, False) | dense_NM[:, column]

    def name(self, rows_N: NDArray[np.bool_]) -> tuple[str, int]:
        """The label with the best F1 for these samples, and how many of them carry it."""
        best, score, inside = "", 0.0, 0
        for name, carries_N in self._columns.items():
            both = int((carries_N & rows_N).sum())
            f1 = 2 * both / (carries_N.sum() + rows_N.sum()) if both > 1 else 0.0
            if f1 > score:
                best, score, inside = name, f1, both
        return best, inside


def _meaning(
    latent: int,
    agreement_L: NDArray[np.float64],
    active: Mapping[str, csr_array],
    concepts: _Concepts,
    shared: Mapping[str, Tensor] | None,
) -> Meaning:
    columns = {name: matrix[:, [latent]].toarray().ravel() for name, matrix in active.items()}
    top = {}
    for name, values_N in columns.items():
        rows = [int(row) for row in np.argsort(-values_N, kind="stable") if values_N[row] > 0]
        if shared is not None:
            firsts: dict[int, int] = {}
            for row in rows:
                firsts.setdefault(int(shared[name][row]), row)
            rows = [*firsts.values()]
        top[name] = [(row, float(values_N[row])) for row in rows[:TOP]]
    most_N = np.sum([values_N > 0 for values_N in columns.values()], axis=0) * 2 > len(columns)
    concept, inside = concepts.name(most_N)
    return Meaning(latent, float(agreement_L[latent]), concept, inside, int(most_N.sum()), top)


def picture(
    found: Sequence[Meaning],
    sample: Callable[[int], Sample],
    modalities: Mapping[str, str],
    path: Path,
    *,
    title: str,
    subtitle: str,
) -> None:
    """Draw latents, one below another, the streams side by side: images of image streams, captions of text streams.

    sample: from a row to the sample. modalities: of each stream, `image` or `text`.
    """
    from sparc.explorer.sheet import Sheet

    sheet = Sheet(modalities, large=len(found) == 1)
    sheet.heading(title, subtitle)
    for meaning in found:
        sheet.latent(meaning, sample)
    sheet.save(path)
