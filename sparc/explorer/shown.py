"""The held-out samples that the site shows, their codes, and what everything else is computed from.

Shapes, in names here and in this package: n samples shown, L latents, C terms, K latents that a code keeps, D features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array, csr_array

from sparc.core.space import LatentSpace
from sparc.evaluation.concepts import Images, images_of, word_names
from sparc.evaluation.encoding import Encodings
from sparc.evaluation.labels import Levels, levels
from sparc.evaluation.words import READ, Words, words_of
from sparc.explorer.statements import clean
from sparc.plugins.contracts import Dataset, Sample, Taxonomy
from sparc.storage.latent_names import LatentName

MOST_SHOWN = 20_000
"""Samples shown; of more held-out samples, as many evenly spread ones."""
TOP = 12
"""Samples kept per latent and stream, one per distinct image or caption."""


def evenly(count: int, most: int) -> NDArray[np.int64]:
    """Return `most` evenly spread numbers below `count`; all of them if there are no more."""
    shown = min(count, most)
    return np.arange(shown, dtype=np.int64) * count // max(1, shown)


class Top(NamedTuple):
    """The samples that activate a latent most in one stream, strongest first."""

    samples: NDArray[np.int64]
    values: NDArray[np.float32]


@dataclass(frozen=True)
class Shown:
    """Samples that the site shows, with a trained space."""

    encodings: Encodings
    """Features and codes of the samples."""
    dataset: Dataset
    places: NDArray[np.int64]
    """(n,) place of each sample in the dataset."""
    rows: Mapping[str, NDArray[np.int64]]
    """(n,) per stream, equal for samples with the same image or caption."""
    modalities: Mapping[str, str]
    """`image`, `text` or `unknown`, per stream."""
    stored: Mapping[int, LatentName]
    """Names of latents that the run stores."""
    seed: int = 0

    @property
    def space(self) -> LatentSpace:
        """The trained space."""
        return self.encodings.space

    @property
    def streams(self) -> tuple[str, ...]:
        """Names of the streams, in the order of the space."""
        return tuple(self.space.streams)

    def __len__(self) -> int:
        """Return the number of samples, n."""
        return len(self.places)

    def sample(self, number: int) -> Sample:
        """Return one of the samples."""
        return self.dataset[int(self.places[number])]

    @cached_property
    def _read(self) -> tuple[list[str], list[str | None], list[bool], list[str | None]]:
        """Ids, captions of at most READ + 1 characters, whether there is an image, and the id of the image."""
        ids, captions, images, image_ids = [], [], [], []
        for number in range(len(self)):
            sample = self.sample(number)
            caption = sample.caption if sample.caption is not None and sample.caption.strip() else None
            ids.append(clean(sample.id))
            captions.append(None if caption is None else clean(caption[: READ + 1]))
            images.append(sample.open_image is not None)
            image_ids.append(sample.image_id)
        return ids, captions, images, image_ids

    @property
    def ids(self) -> list[str]:
        """Ids of the samples."""
        return self._read[0]

    @property
    def captions(self) -> list[str | None]:
        """Captions, at most READ + 1 characters each; None without one."""
        return self._read[1]

    @cached_property
    def image_numbers(self) -> NDArray[np.int64]:
        """(n,) equal for samples that show the same image; -1 without an image."""
        _, _, images, image_ids = self._read
        streams = [name for name in self.streams if self.modalities[name] == "image"]
        if streams:
            numbers = np.unique(self.rows[streams[0]], return_inverse=True)[1].reshape(-1)
        else:
            known: dict[str, int] = {}
            keys = [f"i{key}" if key is not None else f"n{number}" for number, key in enumerate(image_ids)]
            numbers = np.array([known.setdefault(key, len(known)) for key in keys], dtype=np.int64)
        return np.where(np.array(images, dtype=bool), numbers, -1)

    # Labels and words

    @cached_property
    def labels(self) -> tuple[csr_array, Taxonomy] | None:
        """Labels (n, C) and their taxonomy; None without labels."""
        taxonomy, labels = self.dataset.taxonomy, self.dataset.labels()
        if taxonomy is None or labels is None or not taxonomy.labels:
            return None
        return csr_array(labels)[self.places], taxonomy

    @cached_property
    def levels(self) -> Levels | None:
        """Labels at every depth; None without labels."""
        return None if self.labels is None else levels(*self.labels)

    @cached_property
    def groups(self) -> list[str]:
        """Image of each sample."""
        groups = self.dataset.groups
        return [groups[place] for place in self.places.tolist()]

    @cached_property
    def words(self) -> Words:
        """Words of the captions."""
        return words_of(self.captions)

    @cached_property
    def label_images(self) -> Images | None:
        """Images, their latents and their labels; None without labels."""
        if self.levels is None:
            return None
        return images_of(self.encodings.solo, self.levels.lifted, self.levels.depths, self.groups)

    @cached_property
    def word_images(self) -> Images | None:
        """Images, their latents and the words of their captions; None without words."""
        words = self.words
        if not words.terms:
            return None
        return images_of(self.encodings.solo, words.samples, np.zeros(len(words.terms), np.intp), self.groups)

    @cached_property
    def names(self) -> Mapping[int, LatentName]:
        """Names of latents: those that the run stores; without labels, words of captions by the same rule."""
        if self.stored or self.labels is not None or self.word_images is None:
            return self.stored
        return word_names(self.word_images, self.words.terms)

    # Activations

    @cached_property
    def rows_of_samples(self) -> dict[str, csr_array]:
        """Activations by stream, each encoded alone, (n, L)."""
        return {name: self.encodings.solo[name].to_csr() for name in self.streams}

    @cached_property
    def columns(self) -> dict[str, csc_array]:
        """The same by latent."""
        found = {}
        for name, matrix in self.rows_of_samples.items():
            found[name] = csc_array(matrix)
            found[name].sort_indices()
        return found

    @cached_property
    def there(self) -> dict[str, NDArray[np.bool_]]:
        """Per stream (n,), the samples that have it."""
        return {name: self.encodings.present[name].cpu().numpy() for name in self.streams}

    def column(self, stream: str, latent: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the samples that activate a latent in a stream, in order, and their activations."""
        matrix = self.columns[stream]
        own = slice(int(matrix.indptr[latent]), int(matrix.indptr[latent + 1]))
        return matrix.indices[own].astype(np.int64), matrix.data[own]

    @cached_property
    def fires(self) -> dict[str, NDArray[np.int64]]:
        """Per stream (L,), the number of samples that activate each latent."""
        return {name: np.diff(matrix.indptr).astype(np.int64) for name, matrix in self.columns.items()}

    @cached_property
    def tops(self) -> dict[str, list[Top]]:
        """Per stream and latent, the TOP strongest samples, the first of each distinct image or caption."""
        return {name: [self._top(name, latent) for latent in range(self.space.n_latents)] for name in self.streams}

    def _top(self, stream: str, latent: int) -> Top:
        samples, values = self.column(stream, latent)
        order = np.argsort(-values, kind="stable")
        _, firsts = np.unique(self.rows[stream][samples[order]], return_index=True)
        best = order[np.sort(firsts)[:TOP]]
        return Top(samples[best], values[best])
