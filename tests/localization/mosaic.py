"""Models small enough to compute by hand: an eye that sees the mean colour of each cell, a tongue with three words.

The space has a latent for red, one for green and one for blue in both streams, and nothing else.
"""

import numpy as np
import torch
from PIL import Image

from sparc.config import SpaceConfig
from sparc.models import Models
from sparc.storage.checkpoint import SharedLatentSpace

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
CELL = 8


class Eye:
    """An image backbone: patches are the mean colours of the cells, the feature is their mean."""

    width = 3

    def __init__(self, grid=(2, 2)):
        self.grid = self._cells = grid
        self.preprocess = self._pixels

    def _pixels(self, samples):
        rows, columns = self._cells
        size = (columns * CELL, rows * CELL)
        images = [np.asarray(sample.image().resize(size, Image.Resampling.BOX)) for sample in samples]
        return torch.from_numpy(np.stack(images)).float().permute(0, 3, 1, 2) / 255

    def _map(self, batch):
        # Neither a view nor the identity, like the last map of a CNN.
        return torch.nn.functional.avg_pool2d(batch, CELL) + 0.0

    def forward(self, batch):
        return self._map(batch).mean(dim=(2, 3))

    def forward_tokens(self, batch):
        return self.forward(batch), self._map(batch).flatten(2).transpose(1, 2)


class Tongue:
    """A text backbone: the feature counts each of the three words."""

    width = 3

    def __init__(self):
        self.preprocess = self._counts

    def _counts(self, samples):
        return torch.tensor([[float(sample.text().split().count(word)) for word in COLOURS] for sample in samples])

    def forward(self, batch):
        return batch


def space(k=3, **options):
    """Return a space whose encoders are the identity, so a code is the k strongest channels of a colour."""
    made = SharedLatentSpace(
        SpaceConfig(streams={"eye": 3, "tongue": 3}, n_latents=3, k=k, **{"normalization": "none", **options})
    )
    with torch.no_grad():
        for encoder in made.encoders:
            encoder.copy_(torch.eye(3))
    return made.eval().requires_grad_(False)


def models(*, k=3, eye=None, tongue=True, names=(), **options):
    backbones = {"eye": eye or Eye()} | ({"tongue": Tongue()} if tongue else {})
    modalities = {"eye": "image", "tongue": "text"}
    return Models(space(k, **options), backbones, modalities, names=dict(names))


def quarters(*colours, size=(64, 64)):
    """Return an image of four colours, given by name or as numbers."""
    small = Image.new("RGB", (2, 2))
    small.putdata([COLOURS.get(colour, colour) for colour in colours])
    return small.resize(size, Image.Resampling.NEAREST)
