"""The backbones keep the contract of plugins, and a patch is treated like a whole image."""

import pytest
import sparc_classic
import torch
from PIL import Image

from sparc.plugins import Sample
from sparc.plugins.checks import check_backbone


@pytest.mark.parametrize("spec", sparc_classic.sparc_backbones(), ids=lambda spec: spec.name)
def test_it_keeps_the_contract(spec):
    check_backbone(spec)


def test_a_patch_has_the_features_of_a_picture_of_it_alone():
    colours = [(16 * number, 255 - 16 * number, 40) for number in range(16)]
    mosaic = Image.new("RGB", (64, 64))
    for number, colour in enumerate(colours):
        mosaic.paste(colour, (16 * (number % 4), 16 * (number // 4), 16 * (number % 4) + 16, 16 * (number // 4) + 16))
    model = sparc_classic.TinyImage()
    (patches,) = model.forward_tokens(model.preprocess([Sample("mosaic", lambda: mosaic)]))[1]
    alone = [Sample(str(colour), lambda colour=colour: Image.new("RGB", (32, 32), colour)) for colour in colours]
    # Resizing mixes pixels at the borders between patches, so compare only their middle.
    middle = slice(2, 6)
    found, expected = (
        rows.reshape(16, 3, 8, 8)[..., middle, middle] for rows in (patches, model.forward(model.preprocess(alone)))
    )
    torch.testing.assert_close(found, expected, atol=1 / 255, rtol=0)
