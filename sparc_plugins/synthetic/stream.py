"""A stream with planted directions: each word of a caption adds its direction, as strongly as the caption says.

    x = sum of strength * direction, over the words and over some private concepts, + noise

Private concepts and noise depend on the caption and on the stream, so that no other stream shows them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import TYPE_CHECKING, Annotated, NamedTuple

from pydantic import Field

from sparc.plugins import BadSample, Params, Planted, Sample, check_room
from sparc_plugins.synthetic.draws import ranked, seed_of, strength

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

SHOWN = 4
"""Private concepts of each sample."""
REMEMBERED = 2**14
"""Directions in memory."""
FEW, WEIGHT_BYTES = 128, 40
"""Directions that a sample and a batch need at once, and bytes of the weight of a private concept."""


class StreamParams(Params):
    """Parameters of the stream."""

    width: Annotated[int, Field(gt=0)] = 256
    view: Annotated[int, Field(ge=0)] = 0
    """Number that sets streams of the same width apart: each has its own directions, private concepts and noise."""
    private: Annotated[int, Field(ge=0)] = 64
    """Concepts that no other stream shows. Each sample has four of them, in Zipf's frequencies."""
    noise: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 2.0
    """Norm of the noise. The strength of a concept, which is the norm of what it adds, is 1 in the mean."""


class _Parts(NamedTuple):
    """Parts of one sample's features."""

    concepts: dict[str, float]
    """Strengths of the concepts, shared and private."""
    noise: NDArray[np.float32]
    """(d,)."""


@dataclass(frozen=True)
class Planting:
    """Features of captions."""

    params: StreamParams

    def __call__(self, samples: Sequence[Sample]) -> Tensor:
        """Return the features (B, d) of samples. Raises BadSample for a caption that cannot be read."""
        import numpy as np
        import torch

        features = np.empty((len(samples), self.params.width), np.float32)
        for row, sample in enumerate(samples):
            concepts, noise = self.parts(sample)
            directions = np.array([self.direction(concept) for concept in concepts])
            factors = np.array(list(concepts.values()), np.float32)[:, None]
            # Not a matrix product: what that rounds to depends on the batch, on threads and on the library.
            features[row] = (factors * directions).sum(axis=0) + noise
        return torch.from_numpy(features)

    def parts(self, sample: Sample) -> _Parts:
        """Return what the features of a sample consist of. Raises BadSample for a caption that cannot be read."""
        import numpy as np

        p, concepts = self.params, words(sample)
        seed = seed_of(p.view, p.width, "sample", sample.text())
        drawn = np.random.default_rng(seed).standard_normal(p.width, np.float32)
        random, private = Random(seed), set[str]()
        while len(private) < min(SHOWN, p.private):
            private.add(f"private-{p.view}-{p.width}-{ranked(random, p.private)}")
        concepts |= {concept: strength(random) for concept in sorted(private)}
        return _Parts(concepts, drawn * np.float32(p.noise / math.sqrt(p.width)))

    def direction(self, concept: str) -> NDArray[np.float32]:
        """Return the direction (d,) of a concept."""
        return _direction(self.params.view, self.params.width, concept)


@lru_cache(REMEMBERED)
def _direction(view: int, width: int, concept: str) -> NDArray[np.float32]:
    """Draw a direction (d,) uniformly from the unit sphere."""
    import numpy as np

    drawn = np.random.default_rng(seed_of(view, width, "direction", concept)).standard_normal(width)
    return (drawn / np.linalg.norm(drawn)).astype(np.float32)


def words(sample: Sample) -> dict[str, float]:
    """Return the words of a caption with their strengths; that of a repeated word is the sum.

    Raises BadSample for a strength that is no positive number.
    """
    found: dict[str, float] = {}
    for word in sample.text().split():
        concept, equals, number = word.partition("=")
        try:
            value = float(number) if equals else 1.0
        except ValueError:
            value = math.nan
        if not (concept and 0 < value < math.inf):
            raise BadSample(
                f"the caption of sample '{sample.id}': expected words and CONCEPT=STRENGTH, found '{word:.60}'",
                hint="write a positive number after =, or pass --skip-bad to train without the sample",
            )
        found[concept] = found.get(concept, 0.0) + value
    return found


class Synthetic:
    """The loaded stream."""

    def __init__(self, params: StreamParams) -> None:
        self.width = params.width
        self.preprocess = Planting(params)

    def forward(self, batch: Tensor) -> Tensor:
        """Return the batch, which holds the features (B, d) already."""
        return batch

    def planted(self, samples: Sequence[Sample]) -> Planted:
        """Return the concepts of samples, shared ones first, their strengths and their directions."""
        import numpy as np
        from scipy.sparse import csr_array

        parts = [self.preprocess.parts(sample).concepts for sample in samples]
        concepts = sorted({concept for one in parts for concept in one})
        column = {concept: number for number, concept in enumerate(concepts)}
        rows = np.repeat(np.arange(len(parts)), [len(one) for one in parts])
        columns = [column[concept] for one in parts for concept in one]
        values = [strength for one in parts for strength in one.values()]
        shape = (len(parts), len(concepts))
        return Planted(
            concepts=tuple(concepts),
            strengths=csr_array((np.array(values), (rows, columns)), shape=shape),
            directions=np.array([self.preprocess.direction(one) for one in concepts]).reshape(-1, self.width),
        )


def load(params: StreamParams, device: str) -> Synthetic:
    """Return the stream; it needs no device. Raises OutOfMemory if its directions take more than there is."""
    check_room(
        FEW * 4 * params.width, f"width: {FEW} directions of width {params.width:,}", "lower the width of the stream"
    )
    check_room(WEIGHT_BYTES * params.private, f"private: the weights of {params.private:,} concepts", "lower private")
    return Synthetic(params)
