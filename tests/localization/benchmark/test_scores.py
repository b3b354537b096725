"""Scores of maps against masks, computed by hand and by naive loops."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from sparc.localization.benchmark.scores import THRESHOLDS, likeness, mean_average_precision, overlaps, points_right
from sparc.localization.geometry import spread
from sparc.plugins.geometry import Box


def mask_of(rows, columns, size=(64, 64)):
    mask = np.zeros(size, bool)
    mask[rows, columns] = True
    return mask


LEFT = mask_of(slice(None), slice(0, 32))
WHOLE = Box(0, 0, 64, 64)


def test_a_map_points_right_where_its_peak_is_in_the_mask():
    assert points_right(np.array([[0.1, 0.2], [0.9, 0.3]]), WHOLE, LEFT)
    assert not points_right(np.array([[0.1, 0.2], [0.3, 0.9]]), WHOLE, LEFT)
    # The backbone sees only the right half of the image, so its left column is in the middle of the image.
    assert not points_right(np.array([[0.9, 0.2]]), Box(32, 0, 64, 64), LEFT)


def test_the_overlap_of_a_map_is_its_iou_at_every_threshold():
    values = np.random.default_rng(0).random((4, 4), dtype=np.float32)
    box = Box(-8.0, 4.0, 80.0, 50.0)
    mask = mask_of(slice(10, 50), slice(20, 60))
    pixels = spread(values, box, (64, 64), (64, 64))
    scaled = (pixels - np.nanmin(pixels)) / (np.nanmax(pixels) - np.nanmin(pixels))
    naive = []
    for threshold in THRESHOLDS:
        predicted = scaled >= threshold  # never where it is NaN
        naive.append((predicted & mask).sum() / (predicted | mask).sum())
    np.testing.assert_allclose(overlaps(values, box, mask), naive)


def test_a_map_that_is_the_same_everywhere_predicts_nothing():
    assert not overlaps(np.ones((3, 3), np.float32), WHOLE, LEFT).any()


def test_an_image_is_compared_at_a_smaller_size():
    large = np.kron(LEFT, np.ones((20, 20), bool))
    values = np.array([[1.0, 0.0]], np.float32)
    np.testing.assert_allclose(overlaps(values, Box(0, 0, 1280, 1280), large), overlaps(values, WHOLE, LEFT), atol=0.02)


def test_average_precision_is_that_of_scikit_learn_where_every_object_has_a_prediction():
    generator = np.random.default_rng(1)
    scores, right = generator.random(60), generator.random(60) < 0.4
    # scikit-learn divides by the right predictions, ours by all objects, of which each has one prediction.
    expected = average_precision_score(right, scores) * right.sum() / len(right)
    assert mean_average_precision(scores, right, ["a"] * 60) == pytest.approx(expected)


def test_average_precision_is_averaged_over_categories_and_what_is_missing_counts_0():
    scores = np.array([0.9, 0.8, 0.7, 0.0])
    right = np.array([True, False, True, True])
    # Category a: right at rank 1, wrong at rank 2. Category b: right at rank 1, the second is missing.
    assert mean_average_precision(scores, right, ["a", "a", "b", "b"]) == pytest.approx((1 / 2 + 1 / 2) / 2)


def test_maps_are_alike_as_they_correlate():
    one = np.array([[0.0, 1.0], [2.0, 5.0]], np.float32)
    found = likeness([one, 3 * one + 1, -one, np.ones((2, 2), np.float32)])
    assert found == pytest.approx([1, -1, -1])
