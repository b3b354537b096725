"""Colours with 16 bits per channel, of which Pillow keeps the upper eight: all are read where those are nearly black.

Microscopes and cameras store 10, 12 or 14 bits in 16, and the upper eight of these are dark. Pillow can read the upper
bytes or the lower ones, by the order of bytes that it is told, so both are read, and the caller scales the values.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

_ROWS = 64
"""Rows that are joined at a time."""
_DARK = 64
"""Values of the upper bytes below which 14 bits or fewer are used."""
_LITTLE = sys.byteorder == "little"
_SWAPPED = {";16L": ";16B", ";16B": ";16L", ";16N": ";16B" if _LITTLE else ";16L"}
_BITS_PER_SAMPLE, _PLANES = 258, 284
"""Numbers of TIFF tags."""
_BANDS = ("R", "G", "B")


def load_deep(image: Image.Image) -> tuple[Image.Image, NDArray[np.uint16] | None]:
    """Load an image, and return it with its colours (H, W, 3), if it has 16 bits per channel and few are used.

    Without these colours, the image is as Pillow reads it. Raises ValueError if they cannot be read.
    """
    if image.mode not in ("RGB", "RGBA", "RGBX") or not isinstance(image, ImageFile.ImageFile):
        image.load()
        return image, None
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})
    if tags.get(_BITS_PER_SAMPLE, (8,))[0] == 16:
        _widen(image, ";16B" if getattr(tags, "prefix", b"II") == b"MM" else ";16L")
    if not image.tile or image.fp is None or not all(_suffix(_raw_mode(tile)) for tile in image.tile):
        image.load()
        return image, None
    image.fp.seek(0)
    upper = Image.open(image.fp, formats=[str(image.format)])
    assert isinstance(upper, ImageFile.ImageFile)
    upper.tile = list(image.tile)
    if max(high for _, high in upper.getextrema()[:3]) >= _DARK:  # type: ignore[misc]
        if getattr(image, "_exclusive_fp", False):  # Pillow opened the file, and closes it where it loads the image
            image.close()
        return upper, None
    image.tile = [_with_raw_mode(tile, _swapped(_raw_mode(tile))) for tile in image.tile]
    if tags.get(_PLANES) == 2 and image.tile[0][0] == "libtiff":  # which ignores the order of bytes
        raise ValueError("it has compressed planes of 16 bits, of which only the lower ones are used: expected pixels")
    found = np.empty((image.height, image.width, 3), np.uint16)
    for row in range(0, image.height, _ROWS):  # all at once would take several times the image's memory
        some = (0, row, image.width, min(row + _ROWS, image.height))
        high, low = (np.asarray(part.crop(some))[..., :3].astype(np.uint16) for part in (upper, image))
        found[row : row + _ROWS] = high << 8 | low
    return image, found


def _widen(image: ImageFile.ImageFile, order: str) -> None:
    """Correct what Pillow takes for 8 bits: planes of 16 bits that lie one after the other, in an order of bytes."""
    image.tile = [
        _with_raw_mode(tile, _raw_mode(tile) + order) if _raw_mode(tile) in _BANDS else tile for tile in image.tile
    ]


def _raw_mode(tile: Any) -> str:
    args = tile[3]
    return str(args[0] if isinstance(args, tuple) else args)


def _suffix(raw_mode: str) -> str | None:
    return next((suffix for suffix in _SWAPPED if raw_mode.endswith(suffix)), None)


def _swapped(raw_mode: str) -> str:
    suffix = _suffix(raw_mode)
    assert suffix is not None
    return raw_mode.removesuffix(suffix) + _SWAPPED[suffix]


def _with_raw_mode(tile: Any, raw_mode: str) -> Any:
    args = tile[3]
    return tile._replace(args=(raw_mode, *args[1:]) if isinstance(args, tuple) else raw_mode)
