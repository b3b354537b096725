"""Held-out samples as codes: together, or each stream alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from sparc.core.codes import Codes
from sparc.core.space import LatentSpace

CHUNK = 1024
"""Samples per call of the space."""

Features = Mapping[str, Tensor]


def chunks(n_samples: int) -> Iterator[slice]:
    """Slices of consecutive rows."""
    for start in range(0, n_samples, CHUNK):
        yield slice(start, min(start + CHUNK, n_samples))


@torch.inference_mode()
def encode_joint(space: LatentSpace, features: Features) -> dict[str, Codes]:
    """Codes of all samples, the streams of each encoded together."""
    n_samples = len(next(iter(features.values())))
    parts = [space.encode({name: x[rows] for name, x in features.items()}) for rows in chunks(n_samples)]
    return {name: _joined([part[name] for part in parts]) for name in space.streams}


def encode_solo(space: LatentSpace, features: Features) -> dict[str, Codes]:
    """Codes of all samples, each stream encoded alone: it selects for itself, so nothing of the others is in it."""
    return {name: _alone(space, name, features[name]) for name in space.streams}


@torch.inference_mode()
def _alone(space: LatentSpace, name: str, x_ND: Tensor) -> Codes:
    return _joined([space.encode({name: x_ND[rows]})[name] for rows in chunks(len(x_ND))])


def _joined(parts: list[Codes]) -> Codes:
    indices = torch.cat([part.indices for part in parts])
    return Codes(indices, torch.cat([part.values for part in parts]), parts[0].n_latents)


def activity(codes: Codes) -> csr_array:
    """Which latents are active in which sample: (N, L), 1 where the activation is above 0."""
    matrix = codes.to_csr()
    matrix.data = np.ones_like(matrix.data, dtype=np.float32)
    return matrix
