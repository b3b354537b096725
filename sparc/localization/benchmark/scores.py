"""Maps against masks: the pointing game, IoU at every threshold, average precision."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sparc.localization.geometry import spread, strongest
from sparc.plugins.geometry import Box

THRESHOLDS = np.linspace(0.05, 0.95, 19)
"""Of a map scaled to 0 .. 1."""
SHOWN = 128
"""Pixels of the longer side at which maps and masks are compared."""


def points_right(values: NDArray[np.float32], box: Box, mask: NDArray[np.bool_]) -> bool:
    """Whether the map's peak lies in the mask: the pointing game (Zhang et al. 2016), without a margin.

    A map that is the same everywhere has no peak, and points nowhere.
    """
    height, width = mask.shape
    peak = strongest(values, box, (width, height))
    if peak is None:
        return False
    x, y = peak
    return bool(mask[min(max(0, int(y)), height - 1), min(max(0, int(x)), width - 1)])


def overlaps(values: NDArray[np.float32], box: Box, mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """IoU of a mask and of the map above each threshold, (thresholds,); where the map does not reach it says no."""
    height, width = mask.shape
    scale = min(1.0, SHOWN / max(height, width))
    shown = (max(1, round(width * scale)), max(1, round(height * scale)))
    inside = np.asarray(Image.fromarray(mask).resize(shown, Image.Resampling.NEAREST))
    pixels = spread(values, box, (width, height), shown)
    low, high = np.nanmin(pixels), np.nanmax(pixels)
    if not high > low:
        return np.zeros(len(THRESHOLDS))
    # Pixels of each share, in the mask and in all, counted once for all thresholds.
    bins = np.searchsorted(THRESHOLDS, np.nan_to_num((pixels - low) / (high - low), nan=-1), side="right")
    above = np.bincount(bins.ravel(), minlength=len(THRESHOLDS) + 1)[::-1].cumsum()[::-1][1:]
    both = np.bincount(bins[inside], minlength=len(THRESHOLDS) + 1)[::-1].cumsum()[::-1][1:]
    union: NDArray[np.float64] = above + inside.sum() - both
    return both / np.maximum(union, 1)


def mean_average_precision(scores: NDArray[np.float64], right: NDArray[np.bool_], categories: Sequence[str]) -> float:
    """Average precision of predictions ranked by score, mean over categories.

    Each prediction is for an object that is there: one that is missing, which has the score 0, is never right.
    """
    found = []
    names = np.array(categories)
    for category in np.unique(names):
        of_it = names == category
        order = np.argsort(-scores[of_it], kind="stable")
        hits = (right & (scores > 0))[of_it][order]
        precision = hits.cumsum() / np.arange(1, len(hits) + 1)
        found.append(float(precision[hits].sum() / len(hits)))
    return float(np.mean(found))


def likeness(maps: Sequence[NDArray[np.float32]]) -> list[float]:
    """Pearson's correlation of each two maps of one image: 1 where different queries see the same."""
    flat = np.stack([values.ravel() for values in maps]).astype(np.float64)
    flat -= flat.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(flat, axis=1)
    pairs = [(a, b) for a in range(len(flat)) for b in range(a) if norms[a] > 0 and norms[b] > 0]
    return [float(flat[a] @ flat[b] / (norms[a] * norms[b])) for a, b in pairs]
