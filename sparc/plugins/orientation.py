"""EXIF orientation: how a camera says that a picture lies on its side or its head.

Pillow turns TIFF files itself while it loads them.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from sparc.system.refusals import refusal

Key = TypeVar("Key")
UPRIGHT = 1
"""The orientation of an image that needs no turn."""
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The turn or flip that puts an image upright, by the value of its orientation."""
SWAPPED = (5, 6, 7, 8)
"""Values of the orientation with which width and height change places."""
CARRIERS = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")
"""Keys of `Image.info` that hold an orientation."""


def orientation(image: Image.Image) -> int:
    """Return the orientation of an image, 1 to 8; 1, upright, for an image without one and for damaged EXIF data."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of damaged EXIF data, and the pixels are whole
            found = image.getexif().get(ExifTags.Base.Orientation, UPRIGHT)
    except Exception as error:  # damaged EXIF data raise a dozen types
        if refusal(error, "read EXIF data") is not None:
            raise
        return UPRIGHT
    return found if isinstance(found, int) and found in TURNS else UPRIGHT


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """Return an image turned by an orientation, and without one of its own, so that nobody turns it again."""
    turn = TURNS.get(orientation)
    turned = image if turn is None else image.transpose(turn)
    for key in CARRIERS:
        turned.info.pop(key, None)
    return turned


def carry(old: Image.Image, new: Image.Image) -> Image.Image:
    """Give an image that was made from the pixels of another its orientation, and return it."""
    new.info.update({key: old.info[key] for key in CARRIERS if key in old.info})
    return new


def turned(masks: Mapping[Key, NDArray[np.bool_]], image: Image.Image) -> dict[Key, NDArray[np.bool_]]:
    """Return masks (H, W) turned as an opened, not yet loaded image will be.

    Masks whose size is that of the upright image alone were drawn on it, and stay.
    """
    found = orientation(image)
    size = getattr(image, "_tile_size", image.size)  # of the stored pixels, also of a TIFF file

    def one(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        if found in SWAPPED and mask.shape == size != size[::-1]:
            return mask
        return np.asarray(upright(Image.fromarray(mask), found), dtype=np.bool_)

    return {key: one(mask) for key, mask in masks.items()} if found != UPRIGHT else dict(masks)
