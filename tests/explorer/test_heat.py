"""Heat maps lie on the tile of the thumbnail, whatever part of the image the backbone sees."""

import numpy as np
import pytest

from sparc.explorer.heat import _on_tile, _wanted
from sparc.plugins.geometry import Box
from tests.explorer.site_data import made

GRID = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)


def test_a_map_of_a_whole_square_image_is_the_map_itself():
    assert _on_tile(GRID, Box(0, 0, 100, 100), (100, 100), (2, 2)).tolist() == GRID.tolist()


def test_outside_of_a_wide_image_the_tile_is_empty():
    found = _on_tile(GRID, Box(0, 0, 100, 50), (100, 50), (4, 4))
    assert found[0].tolist() == found[3].tolist() == [0, 0, 0, 0]
    assert found[1].tolist() == pytest.approx([1, 1.25, 1.75, 2])
    assert found[2].tolist() == pytest.approx([3, 3.25, 3.75, 4])


def test_what_a_crop_does_not_see_is_empty_and_what_lies_beyond_the_image_is_left_out():
    cropped = _on_tile(GRID, Box(25, 0, 75, 50), (100, 50), (4, 4))
    assert (cropped > 0).tolist() == [[False] * 4, [False, True, True, False], [False, True, True, False], [False] * 4]
    padded = _on_tile(GRID, Box(0, -25, 100, 75), (100, 50), (2, 2))
    assert padded.tolist() == GRID.tolist()


def test_a_negative_map_is_empty():
    assert _on_tile(-GRID, Box(0, 0, 9, 9), (9, 9), (3, 3)).tolist() == np.zeros((3, 3)).tolist()


def test_images_that_are_strongest_for_most_latents_come_first_and_each_is_looked_into_once():
    shown = made(60)
    found = _wanted(shown, "eye")
    tops = [top.samples for top in shown.tops["eye"]]
    assert sorted(pair for pairs in found.values() for pair in pairs) == sorted(
        (latent, sample) for latent, samples in enumerate(tops) for sample in samples.tolist()
    )
    best = [sum(1 for top in tops if len(top) and shown.rows["eye"][top[0]] == row) for row in found]
    assert best == sorted(best, reverse=True)
    assert all({int(shown.rows["eye"][sample]) for _, sample in pairs} == {row} for row, pairs in found.items())
