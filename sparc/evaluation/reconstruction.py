"""NMSE and R2 as they are reported: how well each stream is rebuilt from each stream's codes, on held-out samples.

The NMSE of the loss is in `core.losses`, and by hand in `training.gradients`.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite

import torch
from torch import Tensor

from sparc.core.codes import Codes
from sparc.core.space import LatentSpace
from sparc.evaluation.encoding import FeaturesByStream, chunks
from sparc.evaluation.report import Matrix
from sparc.evaluation.work import Spread, alone

ROUNDING = 1e-12
"""Spread over energy up to which features count as identical: the spread is then float32 rounding error."""


@torch.inference_mode()
def reconstruction(
    space: LatentSpace, features: FeaturesByStream, codes: Mapping[str, Codes], spread: Spread = alone
) -> tuple[Matrix, Matrix]:
    """Return NMSE and R^2 of every stream rebuilt from every stream's codes, over the samples that have both.

    NMSE is the mean over samples of ||y - x||^2 / ||x||^2, as in the loss (arXiv 2507.06265, section 3). R^2 is
    1 - sum ||y - x||^2 / sum ||x - mean||^2, with the mean over all samples that have the target. Sums are in float64.
    A number that is not finite is None.
    """
    names = list(space.streams)
    n_samples = len(features[names[0]])
    means = _means(space, features, n_samples, spread)

    def of_chunk(rows: slice) -> dict[tuple[str, str], Tensor]:
        batch = space.normalize({name: features[name][rows] for name in names})
        found = {}
        for source in names:
            for target, y_BD in space.reconstruct({source: codes[source][rows]})[source].items():
                x_BD = batch.features[target]
                valid_B = batch.present[source] & batch.present[target]
                found[source, target] = _sums(y_BD[valid_B], x_BD[valid_B], means[target])
        return found

    # Per pair: samples, then the sums of relative errors, squared errors, squared distances from the mean, squares.
    sums = {(source, target): torch.zeros(5, dtype=torch.float64) for source in names for target in names}
    for found in spread(of_chunk, chunks(n_samples)):
        for pair, some in found.items():
            sums[pair] += some
    nmse: Matrix = {name: {} for name in names}
    r2: Matrix = {name: {} for name in names}
    for (source, target), (count, relative, error, spread, energy) in ((pair, sums[pair].tolist()) for pair in sums):
        nmse[source][target] = _finite(relative / count) if count else None
        r2[source][target] = _finite(1 - error / spread) if spread > ROUNDING * energy else None
    return nmse, r2


def _finite(value: float) -> float | None:
    return value if isfinite(value) else None


def _means(space: LatentSpace, features: FeaturesByStream, n_samples: int, spread: Spread) -> dict[str, Tensor]:
    """Return the mean of each stream's normalised features over the samples that have it, float64."""

    def of_chunk(rows: slice) -> dict[str, tuple[Tensor, int]]:
        batch = space.normalize({name: features[name][rows] for name in space.streams})
        return {
            name: (batch.features[name].double().sum(dim=0).cpu(), int(batch.present[name].sum()))
            for name in space.streams
        }

    totals = {name: torch.zeros(width, dtype=torch.float64) for name, width in space.streams.items()}
    counts = dict.fromkeys(space.streams, 0)
    for found in spread(of_chunk, chunks(n_samples)):
        for name, (total, count) in found.items():
            totals[name] += total
            counts[name] += count
    return {name: total / max(1, counts[name]) for name, total in totals.items()}


def _sums(y_BD: Tensor, x_BD: Tensor, mean_D: Tensor) -> Tensor:
    y_BD, x_BD = y_BD.double().cpu(), x_BD.double().cpu()
    error_B = (y_BD - x_BD).square().sum(dim=1)
    energy_B = x_BD.square().sum(dim=1)
    counts_B = energy_B > 0
    relative = (error_B[counts_B] / energy_B[counts_B]).sum()
    return torch.stack([counts_B.sum(), relative, error_B.sum(), (x_BD - mean_D).square().sum(), energy_B.sum()])
