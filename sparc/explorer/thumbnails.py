"""Thumbnails of images in sprites: WebP files of 8 x 8 tiles, in full colour."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sparc.errors import BadSample
from sparc.explorer.shown import Shown, evenly

SIZE, COLUMNS, ROWS = 96, 8, 8
PER_FILE = COLUMNS * ROWS
MOST = 4096
"""Thumbnails made at least, if there are as many images; those of top samples always are."""
QUALITY = 80


@dataclass(frozen=True)
class Thumbnails:
    """Thumbnails of the distinct images of the samples."""

    of_samples: NDArray[np.int64]
    """(n,) number of the thumbnail of each sample; -1 without one."""
    samples: NDArray[np.int64]
    """A sample that shows the image of each thumbnail."""

    @property
    def files(self) -> int:
        """Number of sprite files."""
        return -(-len(self.samples) // PER_FILE)


def choose(shown: Shown) -> Thumbnails:
    """Number the images to draw: those of top samples, and evenly spread others until there are MOST."""
    number_n = shown.image_numbers
    distinct, firsts = np.unique(number_n, return_index=True)
    firsts = firsts[distinct >= 0]
    distinct = distinct[distinct >= 0]
    if len(distinct) > MOST:
        best = [top.samples for tops in shown.tops.values() for top in tops]
        wanted = np.unique(number_n[np.concatenate(best)]) if best else np.zeros(0, np.int64)
        others = np.setdiff1d(distinct, wanted)
        more = others[evenly(len(others), max(0, MOST - len(wanted)))]
        kept = np.isin(distinct, np.concatenate([wanted, more]))
        distinct, firsts = distinct[kept], firsts[kept]
    order = np.argsort(firsts, kind="stable")
    place_of = np.full(int(number_n.max(initial=-1)) + 2, -1, dtype=np.int64)  # the last entry is for -1
    place_of[distinct[order]] = np.arange(len(order))
    return Thumbnails(place_of[number_n], firsts[order].astype(np.int64))


def write_sprites(
    shown: Shown, thumbnails: Thumbnails, folder: Path, on_image: Callable[[int, int], None]
) -> list[BadSample]:
    """Write the sprites into `folder`, and return the errors of images that cannot be read; their tiles are empty.

    on_image: receives the number of images done and their total. Raises StorageError, OutOfMemory.
    """
    errors: list[BadSample] = []
    total = len(thumbnails.samples)
    for file in range(thumbnails.files):
        samples = thumbnails.samples[file * PER_FILE : (file + 1) * PER_FILE]
        sprite = Image.new("RGBA", (COLUMNS * SIZE, ROWS * SIZE))
        for place, sample in enumerate(samples.tolist()):
            tile = _tile(shown, sample)
            if isinstance(tile, BadSample):
                errors.append(tile)
            else:
                sprite.paste(tile, _place(place, tile.size))
            on_image(file * PER_FILE + place + 1, total)
        sprite.save(folder / f"{file}.webp", format="WEBP", quality=QUALITY, method=4)
    return errors


def _place(place: int, size: tuple[int, int]) -> tuple[int, int]:
    """Return the upper left corner of a picture that is centred in its tile."""
    return place % COLUMNS * SIZE + (SIZE - size[0]) // 2, place // COLUMNS * SIZE + (SIZE - size[1]) // 2


def _tile(shown: Shown, sample: int) -> Image.Image | BadSample:
    """Return the whole image, as large as a tile holds, or the error of reading it."""
    try:
        image = shown.sample(sample).image()
    except BadSample as error:
        return error
    scale = SIZE / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0 if scale < 1 else None)


def described(thumbnails: Thumbnails) -> dict[str, Any]:
    """Return the layout of the sprites for the page."""
    return {"size": SIZE, "columns": COLUMNS, "rows": ROWS, "files": thumbnails.files}
