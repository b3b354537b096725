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
from sparc.evaluation.work import Spread, alone

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
    spread: Spread = alone
    """Does what is computed from them, in parts."""

    @cached_property
    def present(self) -> dict[str, Tensor]:
        """Per stream (N,) bool, the samples that have it."""
        return {name: present(self.features[name]) for name in self.space.streams}


def encode(space: LatentSpace, features: FeaturesByStream, spread: Spread = alone) -> Encodings:
    """Encode all samples both ways."""
    joint, solo = encode_joint(space, features, spread), encode_solo(space, features, spread=spread)
    return Encodings(space, features, joint, solo, spread)


def chunks(n_samples: int) -> Iterator[slice]:
    """Yield slices of consecutive rows."""
    for start in range(0, n_samples, CHUNK):
        yield slice(start, min(start + CHUNK, n_samples))


@torch.inference_mode()
def encode_joint(space: LatentSpace, features: FeaturesByStream, spread: Spread = alone) -> dict[str, Codes]:
    """Encode the streams of each sample together."""

    def encoded(rows: slice) -> dict[str, Codes]:
        found = space.encode({name: x[rows] for name, x in features.items()})
        return {name: codes.to("cpu") for name, codes in found.items()}

    first = next(iter(features.values()))
    parts = list(spread(encoded, chunks(len(first))))
    return {name: Codes.joined([part[name] for part in parts]).to(first.device) for name in space.streams}


def encode_solo(
    space: LatentSpace, features: FeaturesByStream, *, complete: bool = True, spread: Spread = alone
) -> dict[str, Codes]:
    """Encode each stream alone, so its codes hold nothing of the sample's other streams."""
    return {name: encode_alone(space, name, features[name], complete=complete, spread=spread) for name in space.streams}


@torch.inference_mode()
def encode_alone(
    space: LatentSpace, name: str, x_ND: Tensor, *, complete: bool = True, spread: Spread = alone
) -> Codes:
    """Encode a stream alone."""

    def encoded(rows: slice) -> Codes:
        return space.encode({name: x_ND[rows]}, complete=complete)[name].to("cpu")

    return Codes.joined(list(spread(encoded, chunks(len(x_ND))))).to(x_ND.device)


def activity(codes: Codes) -> csr_array:
    """Return (N, L) float32, 1 where the activation of a latent is above 0."""
    matrix = codes.to_csr()
    matrix.data = np.ones_like(matrix.data, dtype=np.float32)
    return matrix
