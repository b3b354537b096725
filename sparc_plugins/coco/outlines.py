"""Draw the masks of outlines, which are polygons or runs of pixels.

Sizes, runs and points come from a file. They are bounded before `pycocotools` sees them, whose C code trusts them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LARGEST = 1 << 29
"""Most pixels of a mask, which takes a byte for each."""
FARTHEST = 1e6
"""Largest coordinate of a point. No image is as wide."""
LONGEST = 1 << 22
"""Most pixels along an outline, for which `pycocotools` takes 40 bytes each."""


def draw_mask(tools: Any, outline: Any, size: list[int] | None) -> NDArray[np.bool_]:
    """Return the mask (H, W) of an outline, given as polygons or as runs of pixels.

    `tools` is `pycocotools.mask`. Raises ValueError, TypeError, KeyError or OverflowError if the outline is malformed.
    """
    import numpy as np

    if size is None:
        raise ValueError("one of an image that is not listed")
    height, width = size
    if height < 1 or width < 1 or height * width > LARGEST:
        raise ValueError(f"one on an image of {height} x {width} pixels; the limit is {LARGEST:,} in all")
    if isinstance(outline, dict):
        if outline["size"] != size:
            raise ValueError(f"one of size {outline['size']} on an image of {size}")
        return _from_runs(_runs(outline["counts"]), height, width)
    if not isinstance(outline, list):
        raise ValueError(f"{outline!r:.40}")
    # Fewer than three points have no area, and pycocotools would read four numbers as a box.
    polygons = [polygon for polygon in outline if len(polygon) >= 6]
    for polygon in polygons:
        _check_polygon(polygon)
    if not polygons:
        return np.zeros((height, width), np.bool_)
    # Merged first: decoded one by one, each polygon would take a mask of its own.
    merged = tools.merge(tools.frPyObjects(polygons, height, width))
    mask: NDArray[np.bool_] = tools.decode(merged).astype(np.bool_)
    return mask


def _check_polygon(polygon: Sequence[float]) -> None:
    """Raise ValueError for points on which pycocotools hangs, or for which it takes much memory."""
    import numpy as np

    numbers = np.asarray(polygon, np.float64)
    if not np.abs(numbers).max() < FARTHEST:
        raise ValueError("a point that is far from any image")
    points = numbers[: len(numbers) // 2 * 2].reshape(-1, 2)
    steps = np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum()
    if steps > LONGEST:
        raise ValueError(f"an outline of {steps:,.0f} pixels; the limit is {LONGEST:,}")


def _runs(counts: Any) -> list[int]:
    """Return the lengths of runs, from a list or from COCO's compressed text."""
    runs = counts if isinstance(counts, list) else list(_decompressed(counts))
    if not all(isinstance(run, int | float) and run >= 0 and run == run // 1 for run in runs):
        raise ValueError("runs of pixels that are no whole numbers from 0")
    return list(map(int, runs))


def _decompressed(text: str) -> Iterator[int]:
    """Yield the lengths of runs of a compressed text.

    Each number is a series of characters that hold 5 bits from the lowest, a bit that more follow, and 48. From the
    third on, a number is the difference to the last but one.
    """
    before = [0, 0]
    number = shift = place = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 60:
            raise ValueError(f"a run of pixels with the character {character!r}")
        number |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            number -= 1 << shift
        if place > 2:
            number += before[0]
        before = [before[1], number]
        yield number
        place += 1
        number = shift = 0
    if shift:
        raise ValueError("a run of pixels that ends early")


def _from_runs(runs: Sequence[int], height: int, width: int) -> NDArray[np.bool_]:
    """Return the mask of runs, which go down the columns and are outside and inside by turns."""
    import numpy as np

    if sum(runs) != height * width:
        raise ValueError(f"runs of {sum(runs):,} pixels on an image of {height * width:,}")
    inside = np.arange(len(runs)) % 2 == 1
    mask: NDArray[np.bool_] = np.repeat(inside, runs).reshape(width, height).T
    return mask
