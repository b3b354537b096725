"""Where the grid of a backbone lies in an image: measured on what the backbone's own preprocessing makes of images."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sparc.errors import PluginError
from sparc.plugins.batches import tensors
from sparc.plugins.contracts import Backbone, Sample

CENTRAL = 0.5
"""The part of the pixels that coordinates are read off; towards the edges resizing repeats the outermost pixels."""

SNAP = 0.005
"""Of an image's side: an end that is so near to the image's is the image's."""


class Box(NamedTuple):
    """A rectangle in pixels of an image, whose upper left corner is (0, 0). It may be larger than the image."""

    left: float
    top: float
    right: float
    bottom: float


def measured_box(name: str, backbone: Backbone, size: tuple[int, int]) -> Box:
    """Find the part of an image of `size` (width, height) that the backbone sees: the rectangle that its grid covers.

    The backbone prepares an image whose colours are coordinates, beside a black and a white one that tell what it does
    to colours. Resizing, cropping and padding along the axes are understood, whatever library does them.

    Raises PluginError where it makes no pixels (B, 3, height, width).
    """
    width, height = size
    across = np.rint(255 * (np.arange(width) + 0.5) / width).astype(np.uint8)
    down = np.rint(255 * (np.arange(height) + 0.5) / height).astype(np.uint8)
    ramps = (np.tile(across, (height, 1)), np.tile(down[:, None], (1, width)))
    images = [Image.new("RGB", size), Image.new("RGB", size, "white")]
    images += [Image.fromarray(ramp).convert("RGB") for ramp in ramps]
    black, white, *prepared = _pixels(name, backbone, images)
    contrast = white - black
    seen = contrast > 0.5 * contrast.max()
    if not contrast.max() > 0:
        raise PluginError(f"backbone '{name}': its preprocessing makes black of white", hint="repair its preprocess")
    shares = [(ramp - black) / np.where(seen, contrast, 1) for ramp in prepared]
    left, right = _span(shares[0], seen, axis=1, length=width)
    top, bottom = _span(shares[1], seen, axis=0, length=height)
    return Box(left, top, right, bottom)


def _pixels(name: str, backbone: Backbone, images: list[Image.Image]) -> NDArray[np.float64]:
    """What the backbone makes of grey images, its channels together: (images, height, width)."""
    samples = [Sample(str(number), lambda image=image: image) for number, image in enumerate(images)]  # type: ignore[misc]
    batch: Any = backbone.preprocess(samples)
    shapes = [tuple(tensor.shape) for tensor in tensors(batch)]
    for tensor, shape in zip(tensors(batch), shapes, strict=True):
        if len(shape) == 4 and shape[:2] == (len(images), 3):
            pixels: NDArray[np.float64] = tensor.double().mean(dim=1).numpy()
            return pixels
    raise PluginError(
        f"backbone '{name}': expected its preprocess to make pixels (B, 3, height, width), found {shapes}",
        hint="choose another stream",
    )


def _span(share: NDArray[np.float64], seen: NDArray[np.bool_], *, axis: int, length: int) -> tuple[float, float]:
    """Both ends of the pixels along an axis, in pixels of the image, by a line through those in the middle."""
    across = 1 - axis
    there = np.flatnonzero(seen.any(axis=across))
    values = np.where(seen, share, 0).sum(axis=across)[there] / seen.sum(axis=across)[there]
    margin = int(len(there) * (1 - CENTRAL) / 2)
    middle = slice(margin, len(there) - margin)
    places, inside = there[middle] + 0.5, values[middle]
    if length < 2 or len(places) < 2 or np.ptp(inside) == 0:
        return 0.0, float(length)
    slope, start = np.polyfit(places, inside, 1)
    low, high = float(length * start), float(length * (start + slope * share.shape[axis]))
    # Colours have 256 steps, which is as exact as an end can be read off.
    return 0.0 if abs(low) < SNAP * length else low, float(length) if abs(high - length) < SNAP * length else high


def spread(values: NDArray[Any], box: Box, size: tuple[int, int], shown: tuple[int, int]) -> NDArray[np.float32]:
    """Return a grid's values (rows, columns) in pixels of an image of `size`, resized to `shown`: (height, width).

    size, shown: (width, height). Bilinear between the centres of the grid's cells; NaN outside of the box.
    """
    rows, columns = values.shape
    across = _interpolation(shown[0], size[0], box.left, box.right, columns)
    down = _interpolation(shown[1], size[1], box.top, box.bottom, rows)
    pixels: NDArray[np.float32] = (down @ values @ across.T).astype(np.float32)
    return pixels


def _interpolation(shown: int, length: int, low: float, high: float, cells: int) -> NDArray[np.float64]:
    """Return weights (shown, cells) that interpolate cells between `low` and `high` linearly at each pixel."""
    middles = (np.arange(shown) + 0.5) * length / shown
    place = (middles - low) / (high - low) * cells
    nearest = np.clip(place - 0.5, 0, cells - 1)
    weights: NDArray[np.float64] = np.maximum(0, 1 - np.abs(nearest[:, None] - np.arange(cells)))
    weights[(place < 0) | (place > cells)] = np.nan
    return weights


def strongest(values: NDArray[Any], box: Box, size: tuple[int, int]) -> tuple[float, float] | None:
    """Return the centre (x, y), in pixels of the image, of the strongest cell whose centre lies in the image.

    None if the map is constant.
    """
    if np.ptp(values) == 0:
        return None
    rows, columns = values.shape
    x = box.left + (np.arange(columns) + 0.5) * (box.right - box.left) / columns
    y = box.top + (np.arange(rows) + 0.5) * (box.bottom - box.top) / rows
    inside = ((y >= 0) & (y <= size[1]))[:, None] & ((x >= 0) & (x <= size[0]))
    row, column = np.unravel_index(np.argmax(np.where(inside, values, -np.inf)), values.shape)
    return float(x[column]), float(y[row])
