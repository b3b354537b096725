"""Codes of held-out samples: joint, all streams of a sample encoded together, and solo, each stream alone.

In a space with a completion, a stream alone is encoded with the other streams guessed, as `LatentSpace.encode` does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from sparc.core.codes import Codes
from sparc.core.space import LatentSpace, present

CHUNK = 1024
"""Samples per call of the space."""

FeaturesByStream = Mapping[str, Tensor]
"""Raw features by stream, (N, D)."""


@dataclass(frozen=True)
class Encodings:
    """Held-out samples and their codes in a space."""

    space: LatentSpace
    features: FeaturesByStream
    joint: Mapping[str, Codes]
    solo: Mapping[str, Codes]

    @cached_property
    def present(self) -> dict[str, Tensor]:
        """Per stream (N,) bool, the samples that have it."""
        return {name: present(self.features[name]) for name in self.space.streams}


def encode(space: LatentSpace, features: FeaturesByStream) -> Encodings:
    """Encode all samples both ways."""
    return Encodings(space, features, encode_joint(space, features), encode_solo(space, features))


def chunks(n_samples: int) -> Iterator[slice]:
    """Yield slices of consecutive rows."""
    for start in range(0, n_samples, CHUNK):
        yield slice(start, min(start + CHUNK, n_samples))


@torch.inference_mode()
def encode_joint(space: LatentSpace, features: FeaturesByStream) -> dict[str, Codes]:
    """Encode the streams of each sample together."""
    n_samples = len(next(iter(features.values())))
    parts = [space.encode({name: x[rows] for name, x in features.items()}) for rows in chunks(n_samples)]
    return {name: Codes.joined([part[name] for part in parts]) for name in space.streams}


def encode_solo(space: LatentSpace, features: FeaturesByStream, *, complete: bool = True) -> dict[str, Codes]:
    """Encode each stream alone, so its codes hold nothing of the sample's other streams."""
    return {name: encode_alone(space, name, features[name], complete=complete) for name in space.streams}


@torch.inference_mode()
def encode_alone(space: LatentSpace, name: str, x_ND: Tensor, *, complete: bool = True) -> Codes:
    """Encode a stream alone."""
    return Codes.joined([space.encode({name: x_ND[rows]}, complete=complete)[name] for rows in chunks(len(x_ND))])


def activity(codes: Codes) -> csr_array:
    """Return (N, L) float32, 1 where the activation of a latent is above 0."""
    matrix = codes.to_csr()
    matrix.data = np.ones_like(matrix.data, dtype=np.float32)
    return matrix
