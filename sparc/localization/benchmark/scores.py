"""Scores of maps against masks: the pointing game, IoU at every threshold, average precision, likeness."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sparc.localization.geometry import spread, strongest
from sparc.plugins.geometry import Box

THRESHOLDS = np.linspace(0.05, 0.95, 19)
"""Thresholds on a map that is scaled to 0 .. 1."""
LONGER_SIDE = 128
"""Pixels of the longer side of the image at which maps and masks are compared."""


def points_right(values: NDArray[np.float32], box: Box, mask: NDArray[np.bool_]) -> bool:
    """Return True if the map's peak lies in the mask: the pointing game (Zhang et al. 2016), without a margin.

    A constant map has no peak, so it is never right.
    """
    height, width = mask.shape
    peak = strongest(values, box, (width, height))
    if peak is None:
        return False
    x, y = peak
    return bool(mask[min(max(0, int(y)), height - 1), min(max(0, int(x)), width - 1)])


def overlaps(values: NDArray[np.float32], box: Box, mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the IoU of a mask and the map above each threshold, (thresholds,); pixels outside of the box are below."""
    height, width = mask.shape
    scale = min(1.0, LONGER_SIDE / max(height, width))
    shown = (max(1, round(width * scale)), max(1, round(height * scale)))
    inside = np.asarray(Image.fromarray(mask).resize(shown, Image.Resampling.NEAREST))
    pixels = spread(values, box, (width, height), shown)
    low, high = np.nanmin(pixels), np.nanmax(pixels)
    if not high > low:
        return np.zeros(len(THRESHOLDS))
    # Count pixels per interval between thresholds once, inside the mask and overall; sums from above give each IoU.
    bins = np.searchsorted(THRESHOLDS, np.nan_to_num((pixels - low) / (high - low), nan=-1), side="right")
    above = np.bincount(bins.ravel(), minlength=len(THRESHOLDS) + 1)[::-1].cumsum()[::-1][1:]
    both = np.bincount(bins[inside], minlength=len(THRESHOLDS) + 1)[::-1].cumsum()[::-1][1:]
    union: NDArray[np.float64] = above + inside.sum() - both
    return both / np.maximum(union, 1)


def mean_average_precision(scores: NDArray[np.float64], right: NDArray[np.bool_], categories: Sequence[str]) -> float:
    """Return the average precision of predictions ranked by score, mean over categories.

    Every prediction stands for an object in its image. A score of 0 means no prediction, which is never right.
    Written out because scikit-learn's `average_precision_score` merges equal scores into one rank, which would change
    the baselines, whose scores are all 1. For distinct scores benchmarks/ours_and_libraries.py compares the two.
    """
    found = []
    names = np.array(categories)
    for category in np.unique(names):
        chosen = names == category
        order = np.argsort(-scores[chosen], kind="stable")
        hits = (right & (scores > 0))[chosen][order]
        precision = hits.cumsum() / np.arange(1, len(hits) + 1)
        found.append(float(precision[hits].sum() / len(hits)))
    return float(np.mean(found))


def likeness(maps: Sequence[NDArray[np.float32]]) -> list[float]:
    """Return Pearson's correlation of each pair of maps of one image, constant maps left out."""
    flat = np.stack([values.ravel() for values in maps]).astype(np.float64)
    flat -= flat.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(flat, axis=1)
    pairs = [(a, b) for a in range(len(flat)) for b in range(a) if norms[a] > 0 and norms[b] > 0]
    return [float(flat[a] @ flat[b] / (norms[a] * norms[b])) for a, b in pairs]
