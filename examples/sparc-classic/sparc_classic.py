"""Classical descriptors as streams: `hog` and `tiny-image` for images, `char-ngrams` for text.

Letters in shapes: B samples of a batch, d width of the features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sparc.plugins import BackboneSpec, Params, Sample, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

SPARC_CONTRACT = 1


class HogParams(Params):
    """Parameters of the `hog` stream."""

    size: int = 64
    """Side in pixels to which images are resized."""


class NgramParams(Params):
    """Parameters of the `char-ngrams` stream."""

    width: int = 256
    """Number of hash buckets."""


@dataclass(frozen=True)
class DescribeImages:
    """Preprocessing: B samples to descriptors (B, d). Picklable, since data-loading workers call it."""

    size: int

    def __call__(self, samples: Sequence[Sample]) -> Tensor:
        """Return gradients and colours of each sample's image."""
        import numpy as np
        import torch
        from skimage.color import rgb2lab
        from skimage.feature import hog

        rows = []
        for sample in samples:
            pixels = np.asarray(sample.image().resize((self.size, self.size)))
            gradients = hog(pixels, pixels_per_cell=(16, 16), cells_per_block=(2, 2), channel_axis=-1)
            low, high = (0, -100, -100), (100, 100, 100)
            # Saturated blue lies outside the histogram's range, so clip it into the last bin.
            lab = np.clip(rgb2lab(pixels).reshape(-1, 3), low, high)
            colours, _ = np.histogramdd(lab, bins=5, range=tuple(zip(low, high, strict=True)))
            rows.append(np.concatenate([gradients, np.sqrt(colours.ravel() / colours.sum())]))
        return torch.from_numpy(np.stack(rows).astype(np.float32))


@dataclass(frozen=True)
class DescribeText:
    """Preprocessing: B samples to hashed counts of character n-grams (B, width)."""

    width: int

    def __call__(self, samples: Sequence[Sample]) -> Tensor:
        """Return the counts of each sample's caption."""
        import torch
        from sklearn.feature_extraction.text import HashingVectorizer

        vectorizer = HashingVectorizer(n_features=self.width, analyzer="char_wb", ngram_range=(2, 4))
        return torch.from_numpy(vectorizer.transform([sample.text() for sample in samples]).toarray()).float()


class Descriptor:
    """A backbone without a network: preprocessing computes the features."""

    def __init__(self, preprocess: DescribeImages | DescribeText, width: int) -> None:
        self.preprocess = preprocess
        self.width = width

    def forward(self, batch: Tensor) -> Tensor:
        """Return the descriptors unchanged, (B, d)."""
        return batch


class TinyImage:
    """Tiny images, 8 x 8 pixels in colour (Torralba, Fergus and Freeman 2008), with a grid of 4 x 4 patches.

    `forward_tokens` treats each patch as if it were the whole image.
    """

    width = 3 * 8 * 8
    grid = (4, 4)

    def __init__(self) -> None:
        self.preprocess = shrink

    def forward(self, batch: Tensor) -> Tensor:
        """Return features (B, 192) of pixels (B, 3, 32, 32)."""
        import torch.nn.functional as F

        return F.adaptive_avg_pool2d(batch, 8).flatten(1)

    def forward_tokens(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (B, 192), and those of the patches, row by row, (B, 16, 192)."""
        # Cut (B, 3, 32, 32) into 4 rows and 4 columns of 8 x 8 pixels.
        patches = batch.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 1, 4, 5)
        return self.forward(batch), patches.reshape(len(batch), 16, self.width)


def shrink(samples: Sequence[Sample]) -> Tensor:
    """Return the samples' pixels (B, 3, 32, 32), from 0 to 1."""
    import numpy as np
    import torch

    pixels = np.stack([np.asarray(sample.image().resize((32, 32))) for sample in samples])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255


def load_tiny_image(params: Params, device: str) -> TinyImage:
    """Return the tiny-image backbone."""
    return TinyImage()


def load_hog(params: HogParams, device: str) -> Descriptor:
    """Return the image descriptor: blocks of 2 x 2 cells in 9 directions, and 5 x 5 x 5 colours."""
    blocks = params.size // 16 - 1
    return Descriptor(DescribeImages(params.size), blocks * blocks * 4 * 9 + 125)


def load_ngrams(params: NgramParams, device: str) -> Descriptor:
    """Return the text descriptor."""
    return Descriptor(DescribeText(params.width), params.width)


@hookimpl
def sparc_backbones() -> list[BackboneSpec]:
    """Return the streams."""
    return [
        BackboneSpec("hog", "image", load_hog, HogParams, "oriented gradients and colours, no weights"),
        BackboneSpec("tiny-image", "image", load_tiny_image, summary="8 x 8 pixels, also of patches; no weights"),
        BackboneSpec("char-ngrams", "text", load_ngrams, NgramParams, "hashed character n-grams, no weights"),
    ]
