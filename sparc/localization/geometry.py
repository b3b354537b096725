"""Values of a grid drawn over an image, and the strongest cell of a grid."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparc.plugins.geometry import Box


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
