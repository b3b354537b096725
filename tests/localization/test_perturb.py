"""Deletion and insertion curves, computed by hand for features linear in the pixels, and on real architectures."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image

from sparc.errors import PluginError
from sparc.localization.perturb import CURVE_STEPS, area, perturbed
from sparc_plugins.hf_encoders.image import Pixels
from tests.localization.streams import Cells, direction, features, stream, view
from tests.plugins.backbones import noise

CELL = 8


def painted(levels):
    """Return an image of grey cells."""
    cells = np.repeat(np.repeat(np.array(levels, np.uint8), CELL, axis=0), CELL, axis=1)
    return Image.fromarray(cells).convert("RGB")


def grey(rows):
    return rows.mean(dim=1)


def curves_by_hand(levels, weights, values):
    """Compute both curves in a loop; a deleted cell takes the mean colour of the image."""
    levels, weights = np.ravel(levels).astype(float), np.ravel(weights)
    order = sorted(range(len(levels)), key=lambda cell: -np.ravel(values)[cell])
    whole = sum(weights * levels)
    deletion, insertion = [], []
    for step in range(CURVE_STEPS + 1):
        gone = order[: round(step * len(levels) / CURVE_STEPS)]
        deleted, inserted = levels.copy(), np.full(len(levels), levels.mean())
        deleted[gone], inserted[gone] = levels.mean(), levels[gone]
        deletion.append(sum(weights * deleted) / whole)
        insertion.append(sum(weights * inserted) / whole)
    return deletion, insertion


TEN = [[0, 10, 20, 30, 40], [250, 200, 150, 100, 50]]
TWELVE = [[200, 10, 90, 30], [40, 250, 60, 70], [0, 100, 120, 230]]
DRAWN = np.random.default_rng(0)
CASES = {
    "one cell a step": (TEN, DRAWN.uniform(0, 1, (2, 5)), DRAWN.normal(size=(2, 5))),
    "one or two cells a step": (TWELVE, DRAWN.uniform(-0.2, 1, (3, 4)), DRAWN.normal(size=(3, 4))),
    "fewer cells than steps": ([[9, 90]], np.array([[0.4, 0.6]]), np.array([[1.0, 2.0]])),
    "ties go in the order of reading": (
        DRAWN.integers(0, 255, (5, 5)),
        DRAWN.uniform(0, 1, (5, 5)),
        DRAWN.integers(0, 2, (5, 5)),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_curves_are_those_worked_out_by_hand(name):
    levels, weights, values = CASES[name]
    seen = view(Cells(np.shape(levels), weights), painted(levels))
    found = perturbed(seen, np.float32(values), grey)
    deletion, insertion = curves_by_hand(levels, weights, values)
    np.testing.assert_allclose(found.deletion, deletion, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.insertion, insertion, rtol=0, atol=1e-5)
    assert found.deletion.shape == found.insertion.shape == (CURVE_STEPS + 1,)


def test_curves_of_two_cells_are_those_on_paper():
    """A white cell counts, a black one does not; deleted, both take the mean, half of white."""
    seen = view(Cells((1, 2), [1, 0]), painted([[255, 0]]))
    right = perturbed(seen, np.float32([[2, 1]]), grey)
    np.testing.assert_allclose(right.deletion, [1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5], atol=1e-6)
    np.testing.assert_allclose(right.insertion, [0.5, 0.5, 0.5, 1, 1, 1, 1, 1, 1, 1, 1], atol=1e-6)
    wrong = perturbed(seen, np.float32([[1, 2]]), grey)
    np.testing.assert_allclose(wrong.deletion, [1] * 8 + [0.5] * 3, atol=1e-6)
    np.testing.assert_allclose(wrong.insertion, [0.5] * 8 + [1] * 3, atol=1e-6)


def test_the_right_map_deletes_sooner_and_inserts_sooner_than_the_reversed_one():
    weights = np.random.default_rng(1).uniform(0, 1, (3, 4))
    seen = view(Cells((3, 4), weights), painted(TWELVE))
    right = np.float32(weights * (np.array(TWELVE) - np.mean(TWELVE)))
    best, worst = (perturbed(seen, values, grey) for values in (right, -right))
    assert area(best.deletion) < area(worst.deletion) - 0.05
    assert area(best.insertion) > area(worst.insertion) + 0.05
    for values in np.random.default_rng(2).normal(size=(20, 3, 4)).astype(np.float32):
        other = perturbed(seen, values, grey)
        assert area(best.deletion) <= area(other.deletion)
        assert area(best.insertion) >= area(other.insertion)


def test_what_one_curve_loses_the_other_gains_where_features_are_linear():
    """In a large grid several cells change in one step."""
    seen = view(Cells((8, 7), np.random.default_rng(3).uniform(0, 1, (8, 7))), noise(1, size=(48, 42)).image())
    deletion, insertion = perturbed(seen, np.random.default_rng(4).normal(size=(8, 7)).astype(np.float32), grey)
    assert deletion[0] == insertion[-1] == 1
    assert deletion[-1] == insertion[0] != 1
    np.testing.assert_allclose(deletion + insertion, 1 + deletion[-1], atol=1e-5)


def test_what_is_gone_has_the_mean_colour_of_the_image():
    levels = np.random.default_rng(0).integers(1, 250, (9, 9))
    middle = np.zeros((9, 9), np.float32)
    middle[4, 4] = 1
    curves = perturbed(view(Cells((9, 9), middle), painted(levels)), middle, grey)
    assert curves.deletion[-1] * levels[4, 4] == pytest.approx(levels.mean(), abs=0.01)


@pytest.mark.parametrize("name", ["dinov2", "siglip", "effnet-lite0", "clip-img", "hf-clip"])
def test_curves_of_a_real_architecture_begin_and_end_with_the_image(name):
    backbone = stream(name)
    seen = view(backbone, noise(1).image())
    whole = features(backbone, seen.batch)
    target = direction(backbone.width)
    sign = 1 if float(target(whole)) > 0 else -1
    values = np.random.default_rng(0).normal(size=backbone.grid).astype(np.float32)
    deletion, insertion = perturbed(seen, values, lambda rows: sign * target(rows))
    np.testing.assert_allclose([deletion[0], insertion[-1]], 1, rtol=1e-6)
    np.testing.assert_allclose(deletion[-1], insertion[0], rtol=1e-4, atol=1e-5)
    again = features(backbone, seen.batch)
    assert torch.equal(again, whole)


def test_what_comes_beside_the_pixels_is_the_same_for_every_step():
    class WithMask(Cells):
        @staticmethod
        def preprocess(samples):
            return {"mask": torch.tensor([[3.0]]), "pixels": Cells.preprocess(samples)}

        def forward(self, batch):
            assert batch["mask"].shape == (2 * (CURVE_STEPS + 1), 1)
            return super().forward(batch["pixels"]) * batch["mask"]

    levels, weights, values = CASES["one cell a step"]
    found = perturbed(view(WithMask((2, 5), weights), painted(levels)), np.float32(values), grey)
    np.testing.assert_allclose(found.deletion, curves_by_hand(levels, weights, values)[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("weight", [0, -1])
def test_a_target_that_is_not_there_to_begin_with_has_no_curves(weight):
    seen = view(Cells((1, 2), [weight, weight]), painted([[10, 200]]))
    assert perturbed(seen, np.float32([[1, 2]]), grey) is None


def test_a_backbone_that_reads_no_pixels_is_named():
    backbone = SimpleNamespace(
        width=3, grid=(2, 2), preprocess=Pixels(hf.Siglip2ImageProcessor(patch_size=8, max_num_patches=16))
    )
    with pytest.raises(PluginError, match="stream 'stream': expected pixels"):
        perturbed(view(backbone, noise(1).image()), np.zeros((2, 2), np.float32), grey)


def test_the_area_under_a_curve_is_that_of_its_trapezia():
    assert area(np.float32([1] * 11)) == 1
    assert area(np.float32(np.linspace(1, 0, 11))) == pytest.approx(0.5)
    curve = np.random.default_rng(0).normal(size=11).astype(np.float32)
    assert area(curve) == pytest.approx(np.trapezoid(curve, dx=0.1), abs=1e-6)
