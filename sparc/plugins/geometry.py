"""Measure which part of an image the grid of a backbone covers, by preprocessing test images with the backbone."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sparc.errors import PluginError
from sparc.plugins.batches import tensors
from sparc.plugins.contracts import Backbone, Sample

CENTRAL = 0.5
"""Central fraction of the pixels used for the fit; near the edges, resizing repeats the outermost pixels."""
SNAP = 0.005
"""Fraction of an image's side within which an end of the box snaps to the image's border."""


class Box(NamedTuple):
    """A rectangle in pixels of an image, whose upper left corner is (0, 0). It may extend beyond the image."""

    left: float
    top: float
    right: float
    bottom: float


def measured_box(name: str, backbone: Backbone, size: tuple[int, int]) -> Box:
    """Return the rectangle of an image of `size` (width, height) that the backbone's grid covers.

    The backbone preprocesses a horizontal and a vertical ramp, whose grey values encode coordinates, and a black and a
    white image, which calibrate the grey values. A line fitted to each ramp gives the rectangle. This works for
    resizing, cropping and padding along the axes, in any library.

    Raises PluginError if `preprocess` makes no pixels (B, 3, H, W), or turns white into black. `name` is for the error.
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
        raise PluginError(f"backbone '{name}': its preprocessing turns white into black", hint="fix its preprocess")
    shares = [(ramp - black) / np.where(seen, contrast, 1) for ramp in prepared]
    left, right = _span(shares[0], seen, axis=1, length=width)
    top, bottom = _span(shares[1], seen, axis=0, length=height)
    return Box(left, top, right, bottom)


def _pixels(name: str, backbone: Backbone, images: list[Image.Image]) -> NDArray[np.float64]:
    """Return the backbone's pixels of grey images, averaged over channels: (images, H, W)."""
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
    """Return both ends of the pixels along an axis, in pixels of the image, from a line fitted to the central ones."""
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
    # Grey values have 256 steps, which limits the precision of an end.
    return 0.0 if abs(low) < SNAP * length else low, float(length) if abs(high - length) < SNAP * length else high
