"""The inverted index: per latent, the samples that activate it. A query reads the lists of its own latents only."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array, csr_array, vstack

from sparc.core.codes import norms
from sparc.errors import CorruptFile
from sparc.models.standing import ROUNDING

BLOCK = 256
"""Scores per block in the search for the largest ones."""

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class InvertedIndex:
    """Codes of the distinct images or captions of a stream, by latent. The arrays may lie in a file."""

    starts: Ints
    """(L + 1,) where the list of each latent begins and ends."""
    samples: NDArray[np.int32]
    """(E,) the numbers of the images or captions in the lists, ascending within a list."""
    values: Floats
    """(E,) their activations."""
    norms: Floats
    """(M,) Euclidean norm of each code; 0 for one without active latents."""
    present: NDArray[np.bool_]
    """(M,) False for a sample that lacks the stream."""
    owners: Ints
    """(M,) first sample of the dataset that shows each image or caption."""
    checks: Ints
    """(L,) CRC-32 of each list: of its samples, and then of its values."""

    @classmethod
    def build(cls, codes: Iterable[csr_array], present: NDArray[np.bool_], owners: Ints) -> InvertedIndex:
        """Index codes (M, L), given in consecutive pieces."""
        every = csr_array(vstack([*codes], format="csr"))
        by_latent = csc_array(every)
        by_latent.sort_indices()
        starts = by_latent.indptr.astype(np.int64)
        samples = by_latent.indices.astype(np.int32, copy=False)
        values = by_latent.data.astype(np.float32, copy=False)
        parts = map(slice, starts[:-1].tolist(), starts[1:].tolist())
        return cls(
            starts=starts,
            samples=samples,
            values=values,
            norms=norms(every).astype(np.float32, copy=False),
            present=present,
            owners=owners,
            checks=np.array([_check(samples[part], values[part]) for part in parts], np.int64),
        )

    def __len__(self) -> int:
        """Count the images or captions, M."""
        return len(self.norms)

    def is_whole(self, latents: Ints) -> bool:
        """Return True if the lists of these latents are as they were made. A disk can change them silently."""
        lists = [slice(self.starts[latent], self.starts[latent + 1]) for latent in latents.tolist()]
        found = [_check(self.samples[part], self.values[part]) for part in lists]
        return bool(found == self.checks[latents].tolist())

    def cosines(self, latents: Ints, activations: Floats) -> Floats:
        """Return the cosine of a code, given by its active latents, with each indexed one: (M,).

        A code without active latents has cosine 0 with every other, as in `sparc.evaluation.retrieval.on_latents`.
        """
        length = float(np.linalg.norm(activations))
        weights = (activations / length if length > 0 else activations).astype(np.float32)
        # A product with the lists of these latents alone: scipy would convert the whole index to 64 bits if one of its
        # two index arrays needs them.
        lists = [slice(self.starts[latent], self.starts[latent + 1]) for latent in latents.tolist()]
        ends = np.cumsum([0, *(part.stop - part.start for part in lists)])
        if ends[-1] <= np.iinfo(np.int32).max:
            ends = ends.astype(np.int32)  # as the samples: scipy would look through both to decide on a type
        if not ends[-1]:
            return np.zeros(len(self), np.float32)
        samples = np.concatenate([self.samples[part] for part in lists])
        values = np.concatenate([self.values[part] for part in lists])
        if samples.view(np.uint32).max() >= len(self):  # scipy would write beyond its arrays; a negative one is huge
            raise CorruptFile(
                "an index of codes is altered: it lists samples that it does not have",
                hint="remove the files codes-*.safetensors in the store; they are made again",
            )
        dots: Floats = csc_array((values, samples, ends), shape=(len(self), len(lists))) @ weights
        return np.divide(dots, self.norms, out=np.zeros_like(dots), where=self.norms > 0)

    def percentiles(self, latents: Ints, activations: Floats) -> NDArray[np.float64]:
        """Return for each activation the share, in percent, of the images or captions that activate its latent less.

        Those that lack the stream do not count; those that do not activate the latent do. NaN if there are none.
        """
        total = int(self.present.sum())
        if not total:
            return np.full(len(latents), np.nan)
        above = [
            int((self.values[self.starts[latent] : self.starts[latent + 1]] >= value * (1 - ROUNDING)).sum())
            for latent, value in zip(latents.tolist(), activations, strict=True)
        ]
        return 100 * (total - np.array(above, dtype=np.float64)) / total

    def shared(self, number: int, latents: Ints, activations: Floats) -> list[tuple[int, float]]:
        """Return the latents that a code and an indexed one both activate, with the share of each in their product.

        The largest share comes first. The shares sum to 1.
        """
        found: list[tuple[int, float]] = []
        for latent, value in zip(latents.tolist(), activations.tolist(), strict=True):
            part = slice(self.starts[latent], self.starts[latent + 1])
            place = int(np.searchsorted(self.samples[part], number))
            if place < part.stop - part.start and self.samples[part.start + place] == number:
                found.append((latent, value * float(self.values[part.start + place])))
        total = sum(product for _, product in found)
        return sorted(((latent, product / total) for latent, product in found), key=lambda one: (-one[1], one[0]))


def _check(samples: NDArray[np.int32], values: Floats) -> int:
    return zlib.crc32(values.data, zlib.crc32(samples.data))


def strongest(scores: Floats, count: int) -> Ints:
    """Return the places of the `count` largest scores, the largest first; of equal ones the first. NaN is no score."""
    places = np.flatnonzero(scores >= _bound(scores, count))  # NaN compares as False
    known = scores[places]
    if len(places) > count:
        least = np.partition(known, len(known) - count)[len(known) - count]
        above = np.flatnonzero(known > least)
        chosen = np.concatenate([above, np.flatnonzero(known == least)[: count - len(above)]])
        places, known = places[chosen], known[chosen]
    order: Ints = places[np.lexsort((places, -known))]
    return order


def _bound(scores: Floats, count: int) -> float:
    """Return a number that at least `count` scores reach, but few more, if there are so many blocks of scores.

    It is the `count`-th largest of the blocks' maxima, for which one pass is enough.
    """
    blocks = len(scores) // BLOCK
    if blocks <= count:
        return -np.inf
    maxima = np.fmax.reduce(scores[: blocks * BLOCK].reshape(blocks, BLOCK), axis=1)
    bound = float(np.partition(maxima, blocks - count)[blocks - count])
    return -np.inf if np.isnan(bound) else bound
