"""Classical descriptors as streams: `hog` for images, `char-ngrams` for text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import sparc

if TYPE_CHECKING:
    from torch import Tensor


class HogParams(sparc.Params):
    """Parameters of the `hog` stream."""

    size: int = 64
    """Side in pixels to which images are scaled."""


class NgramParams(sparc.Params):
    """Parameters of the `char-ngrams` stream."""

    width: int = 256
    """Number of hash buckets."""


@dataclass(frozen=True)
class DescribeImages:
    """Samples to descriptors (B, d). Picklable: data-loading workers call it."""

    size: int

    def __call__(self, samples: Sequence[sparc.Sample]) -> Tensor:
        """Describe each sample's image by its gradients and its colours."""
        import numpy as np
        import torch
        from skimage.color import rgb2lab
        from skimage.feature import hog

        rows = []
        for sample in samples:
            pixels = np.asarray(sample.image().resize((self.size, self.size)))
            gradients = hog(pixels, pixels_per_cell=(16, 16), cells_per_block=(2, 2), channel_axis=-1)
            low, high = (0, -100, -100), (100, 100, 100)
            # The bluest blue lies outside: clipped, it counts as the bluest there is.
            lab = np.clip(rgb2lab(pixels).reshape(-1, 3), low, high)
            colours, _ = np.histogramdd(lab, bins=5, range=tuple(zip(low, high, strict=True)))
            rows.append(np.concatenate([gradients, np.sqrt(colours.ravel() / colours.sum())]))
        return torch.from_numpy(np.stack(rows).astype(np.float32))


@dataclass(frozen=True)
class DescribeText:
    """Samples to hashed counts of character n-grams (B, width)."""

    width: int

    def __call__(self, samples: Sequence[sparc.Sample]) -> Tensor:
        """Describe each sample's caption."""
        import torch
        from sklearn.feature_extraction.text import HashingVectorizer

        vectorizer = HashingVectorizer(n_features=self.width, analyzer="char_wb", ngram_range=(2, 4))
        return torch.from_numpy(vectorizer.transform([sample.text() for sample in samples]).toarray()).float()


class Descriptor:
    """A backbone whose work is all done while preprocessing, since there is no network."""

    def __init__(self, preprocess: DescribeImages | DescribeText, width: int) -> None:
        self.preprocess = preprocess
        self.width = width

    def forward(self, batch: Tensor) -> Tensor:
        """Features (B, d): the descriptors as they are."""
        return batch


def load_hog(params: HogParams, device: str, dtype: str) -> Descriptor:
    """Make the image descriptor: blocks of 2 x 2 cells in 9 directions, and 5 x 5 x 5 colours."""
    blocks = params.size // 16 - 1
    return Descriptor(DescribeImages(params.size), blocks * blocks * 4 * 9 + 125)


def load_ngrams(params: NgramParams, device: str, dtype: str) -> Descriptor:
    """Make the text descriptor."""
    return Descriptor(DescribeText(params.width), params.width)


@sparc.hookimpl
def sparc_backbones() -> list[sparc.BackboneSpec]:
    """Offer both streams to sparc."""
    return [
        sparc.BackboneSpec("hog", "image", load_hog, HogParams, "oriented gradients and colours, no weights"),
        sparc.BackboneSpec("char-ngrams", "text", load_ngrams, NgramParams, "hashed character n-grams, no weights"),
    ]
