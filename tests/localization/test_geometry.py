"""The place of a grid in an image, compared with each library's preprocessing, computed by hand."""

import copy
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers as hf
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image, ImageOps
from timm.data import create_transform
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from sparc.errors import PluginError
from sparc.localization.geometry import spread, strongest
from sparc.localization.request import METHODS
from sparc.plugins.geometry import Box, measured_box
from sparc_plugins.hf_encoders.image import Pixels
from sparc_plugins.timm_image.backbone import to_pixels
from tests.localization.streams import Cells, direction, stream, view


def torchvision(*steps):
    colours = transforms.Normalize((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    return partial(to_pixels, transforms.Compose([*steps, transforms.ToTensor(), colours]))


def timm(crop_pct, crop_mode):
    made = create_transform((3, 224, 224), crop_pct=crop_pct, crop_mode=crop_mode, interpolation="bicubic")
    return partial(to_pixels, made)


def open_clip(resize_mode):
    return partial(to_pixels, image_transform_v2(PreprocessCfg(size=224, resize_mode=resize_mode), is_train=False))


def padded(image):
    """Pad with Pillow's own letterbox, in grey."""
    return transforms.functional.to_tensor(ImageOps.pad(image, (96, 96), color=(128, 128, 128)))


def measured(preprocess, size):
    return measured_box("it", SimpleNamespace(preprocess=preprocess), size)


def middle(width, height, left_out):
    """Return the middle of an image after this share is cut off at each end."""
    return Box(width * left_out, height * left_out, width * (1 - left_out), height * (1 - left_out))


def square(width, height, side):
    return Box((width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2)


def whole(width, height):
    return Box(0, 0, width, height)


def shorter(share=1.0):
    return lambda width, height: square(width, height, share * min(width, height))


def longer(width, height):
    return square(width, height, max(width, height))


BICUBIC = InterpolationMode.BICUBIC
FLIPPED = hf.MobileViTImageProcessor(size={"shortest_edge": 256}, crop_size={"height": 224, "width": 224})
PREPARED = {
    "torchvision squashed": (torchvision(transforms.Resize((64, 96), interpolation=BICUBIC)), whole),
    "torchvision cropped": (torchvision(transforms.Resize(256), transforms.CenterCrop(224)), shorter(0.875)),
    "torchvision cropped alone": (torchvision(transforms.CenterCrop(200)), lambda *size: square(*size, 200)),
    "timm cropped": (timm(0.875, "center"), shorter(0.875)),
    "timm squashed": (timm(1.0, "squash"), whole),
    "timm squashed and cropped": (timm(0.875, "squash"), lambda *size: middle(*size, 0.0625)),
    "timm padded": (timm(1.0, "border"), longer),
    "open_clip cropped": (open_clip("shortest"), shorter()),
    "open_clip squashed": (open_clip("squash"), whole),
    "open_clip padded": (open_clip("longest"), longer),
    "CLIP": (Pixels(hf.CLIPImageProcessor(size={"shortest_edge": 224}, crop_size=224)), shorter()),
    "DINOv2": (Pixels(hf.BitImageProcessor(size={"shortest_edge": 256}, crop_size=224)), shorter(0.875)),
    "SigLIP": (Pixels(hf.SiglipImageProcessor(size={"height": 224, "width": 224})), whole),
    "ConvNeXt": (Pixels(hf.ConvNextImageProcessor(size={"shortest_edge": 224}, crop_pct=0.875)), shorter(0.875)),
    "MobileViT, blue first": (Pixels(FLIPPED), shorter(0.875)),
    "Pillow padded": (partial(to_pixels, padded), longer),
}


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (1000, 250), (512, 512)])
@pytest.mark.parametrize("name", PREPARED)
def test_the_box_is_what_the_preprocessing_keeps_of_the_image(name, size):
    preprocess, exact = PREPARED[name]
    found, expected = np.array(measured(preprocess, size)), np.array(exact(*size))
    assert (np.abs(found - expected) <= 0.005 * np.tile(size, 2)).all()


TINY = ["torchvision squashed", "torchvision cropped", "timm cropped", "open_clip padded", "CLIP", "SigLIP"]


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (3, 2), (5, 5), (16, 9)])
@pytest.mark.parametrize("name", TINY)
def test_the_box_of_a_tiny_image_is_right_to_a_quarter_of_a_pixel(name, size):
    preprocess, exact = PREPARED[name]
    np.testing.assert_allclose(measured(preprocess, size), exact(*size), rtol=0, atol=0.25)


@pytest.mark.parametrize("upright", [False, True])
def test_the_box_of_a_banner_follows_what_rounding_to_whole_pixels_does(upright):
    """2000 x 100 becomes 224 x 11, not 11.2, with 106 rows of nothing above and 107 below."""
    row = 100 / 11
    expected = [0, -106 * row, 2000, 118 * row]
    size = (2000, 100)
    if upright:
        expected, size = [expected[place] for place in (1, 0, 3, 2)], size[::-1]
    np.testing.assert_allclose(measured(open_clip("longest"), size), expected, rtol=0, atol=0.005 * 2000)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["timm cropped", "open_clip padded", "CLIP"])
def test_the_box_of_a_photo_of_20_megapixels_takes_a_moment(name):
    preprocess, exact = PREPARED[name]
    size = (5472, 3648)
    np.testing.assert_allclose(measured(preprocess, size), exact(*size), rtol=0, atol=0.005 * 3648)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_the_box_of_an_image_does_not_depend_on_its_colours(mode):
    backbone = stream("clip-img")
    seen = view(backbone, Image.new(mode, (60, 40)))
    assert seen.box == view(backbone, Image.new("RGB", (60, 40), "red")).box
    np.testing.assert_allclose(seen.box, (10, 0, 50, 40), rtol=0, atol=0.3)


def test_pixels_are_found_among_what_else_a_preprocessing_gives():
    def preprocess(samples):
        pixels = PREPARED["timm squashed"][0](samples)
        return {"pixel_mask": torch.ones(len(samples), 224, 224), "pixel_values": pixels}

    np.testing.assert_allclose(measured(preprocess, (400, 200)), (0, 0, 400, 200), atol=1)


def test_a_preprocessing_that_makes_no_pixels_is_named_with_what_it_makes():
    patches = Pixels(hf.Siglip2ImageProcessor(patch_size=8, max_num_patches=16))
    with pytest.raises(PluginError, match=r"backbone 'it': expected its preprocess to make pixels .*\(4, 16, 192\)"):
        measured(patches, (64, 64))
    inverted = torchvision(transforms.Resize((8, 8)), ImageOps.invert)
    with pytest.raises(PluginError, match="turns white into black"):
        measured(inverted, (64, 64))


# Values of cells in pixels of the image.


@pytest.mark.parametrize("shown", [(35, 20), (64, 48), (5, 4)])
def test_values_are_spread_over_an_image_as_torch_enlarges_a_picture(shown):
    values = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    size = (640, 480)
    expected = F.interpolate(torch.from_numpy(values)[None, None], size=shown[::-1], mode="bilinear")[0, 0].numpy()
    np.testing.assert_allclose(spread(values, Box(0, 0, *size), size, shown), expected, rtol=0, atol=1e-5)


def spread_by_hand(values, box, size, shown):
    rows, columns = values.shape
    pixels = np.full(shown[::-1], np.nan)
    for line, place in np.ndindex(*pixels.shape):
        x = (place + 0.5) * size[0] / shown[0]
        y = (line + 0.5) * size[1] / shown[1]
        if not (box.left <= x <= box.right and box.top <= y <= box.bottom):
            continue
        column = min(max((x - box.left) / (box.right - box.left) * columns - 0.5, 0), columns - 1)
        row = min(max((y - box.top) / (box.bottom - box.top) * rows - 0.5, 0), rows - 1)
        left, above = int(column), int(row)
        right, below = min(left + 1, columns - 1), min(above + 1, rows - 1)
        upper = values[above, left] * (1 - column + left) + values[above, right] * (column - left)
        lower = values[below, left] * (1 - column + left) + values[below, right] * (column - left)
        pixels[line, place] = upper * (1 - row + above) + lower * (row - above)
    return pixels


BOXES = {
    "cropped": Box(60, 0, 180, 120),
    "cropped at an edge": Box(0, 15.5, 100.25, 90),
    "padded": Box(0, -60, 240, 180),
    "padded and cropped": Box(-30, 40, 130, 200),
}


@pytest.mark.parametrize("shown", [(240, 120), (60, 30), (31, 47)])
@pytest.mark.parametrize("box", BOXES)
def test_values_lie_where_the_box_does_and_nowhere_else(box, shown):
    values = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)
    found = spread(values, BOXES[box], (240, 120), shown)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, spread_by_hand(values, BOXES[box], (240, 120), shown), rtol=0, atol=1e-5)


def test_a_grid_of_one_cell_has_one_value_all_over():
    found = spread(np.array([[2.5]]), Box(2, 0, 6, 4), (8, 4), (8, 4))
    np.testing.assert_array_equal(found, np.tile([np.nan, np.nan, 2.5, 2.5, 2.5, 2.5, np.nan, np.nan], (4, 1)))


@pytest.mark.parametrize("size", [(640, 480), (1024, 1024), (333, 500)])
def test_an_image_that_is_seen_whole_has_a_value_in_every_pixel(size):
    found = spread(np.ones((16, 16)), measured(PREPARED["timm squashed"][0], size), size, size)
    np.testing.assert_allclose(found, 1)


def test_the_strongest_cell_is_told_by_its_middle():
    values = np.zeros((2, 4))
    values[1, 2] = 1
    assert strongest(values, Box(0, 0, 80, 40), (80, 40)) == (50, 30)
    assert strongest(values, Box(20, 0, 60, 40), (80, 40)) == (45, 30)
    assert strongest(-values - 1, Box(0, 0, 80, 40), (80, 40)) == (10, 10)


def test_the_strongest_cell_is_none_whose_middle_is_padding():
    # 80 x 40 in the middle of 80 x 80: of four rows of cells, the first and the last are padding.
    values = np.arange(16.0).reshape(4, 4)
    assert strongest(values, Box(0, -20, 80, 60), (80, 40)) == (70, 30)
    assert strongest(-values, Box(0, -20, 80, 60), (80, 40)) == (10, 10)
    # 40 x 80: the same with columns.
    assert strongest(values, Box(-20, 0, 60, 80), (40, 80)) == (30, 70)


# A map follows what is in the image.


def bright_square(row, column, cell=8, grid=(4, 6)):
    pixels = np.full((grid[0] * cell, grid[1] * cell, 3), 20, np.uint8)
    pixels[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell] = 240
    return Image.fromarray(pixels)


def test_a_bright_square_that_moves_by_a_cell_moves_the_map_by_a_cell():
    maps = {
        place: view(Cells((4, 6)), bright_square(*place)).map("dense", lambda rows: rows.sum(dim=1))
        for place in ((1, 2), (1, 3), (2, 2))
    }
    for place, found in maps.items():
        expected = np.full((4, 6), 3 * 20 / 255, np.float32)
        expected[place] = 3 * 240 / 255
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_array_equal(np.roll(maps[1, 2], 1, axis=1), maps[1, 3])
    np.testing.assert_array_equal(np.roll(maps[1, 2], 1, axis=0), maps[2, 2])


def test_the_peak_of_a_map_is_the_middle_of_the_bright_square():
    seen = view(Cells((4, 6)), bright_square(2, 5))
    values = seen.map("dense", lambda rows: rows.sum(dim=1))
    np.testing.assert_allclose(strongest(values, seen.box, (48, 32)), (44, 20), atol=0.1)


@pytest.fixture(scope="module")
def nowhere():
    """A vision transformer without position embeddings, whose outputs move with its patches."""
    backbone = copy.deepcopy(stream("dinov2"))
    backbone.model.pos_embed.zero_()
    return backbone


@pytest.mark.parametrize("method", METHODS)
def test_the_map_of_a_vision_transformer_rolls_with_the_patches_of_the_image(nowhere, method):
    pixels = np.random.default_rng(3).integers(0, 255, (56, 56, 3), dtype=np.uint8)
    moved = np.roll(pixels, (14, 28), axis=(0, 1))
    target = direction(nowhere.width)
    still, rolled = (view(nowhere, Image.fromarray(image)).map(method, target) for image in (pixels, moved))
    assert np.ptp(still) > 0
    np.testing.assert_allclose(rolled, np.roll(still, (1, 2), axis=(0, 1)), rtol=1e-3, atol=1e-4 * np.abs(still).max())
