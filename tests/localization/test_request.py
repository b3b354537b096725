"""A request is checked, and its images decoded, before anything heavy is loaded."""

import builtins
import errno
import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from PIL import Image

from sparc.errors import BadSample, InvalidConfig, StorageError
from sparc.localization import Query, checked_request, localize
from sparc.localization.methods import GRADIENT_METHODS
from sparc.localization.request import METHODS, check_modalities
from tests.localization.mosaic import models, quarters

PHOTO = quarters("red", "blue", "green", "green")


def test_the_methods_of_a_request_are_those_that_make_maps():
    assert ("dense", *GRADIENT_METHODS) == METHODS


def test_a_wrong_request_is_refused_without_torch():
    code = """
import sys
from sparc.errors import MissingData
from sparc.localization import checked_request
try:
    checked_request(["nowhere.png"], text=["red"], n_latents=3)
except MissingData as error:
    print(error.message, "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "no image at nowhere.png False\n"


def test_an_image_is_decoded_once_with_the_check(tmp_path):
    file = tmp_path / "photo.png"
    PHOTO.save(file)
    request = checked_request([file], text=["red"], n_latents=3)
    file.unlink()
    (found,) = localize(models(), request)
    np.testing.assert_allclose(found.values, [[1, 0], [0, 0]])


def test_images_have_the_limits_and_the_bits_of_those_in_training(tmp_path):
    Image.new("L", (900, 3)).save(tmp_path / "long.png")
    with pytest.raises(
        BadSample, match=r"long\.png has 900 x 3 pixels: its longer side is 300 times the shorter"
    ) as error:
        checked_request([tmp_path / "long.png"], text=["red"], n_latents=3)
    assert "train with --max-side-ratio 300" in error.value.hint
    with pytest.raises(BadSample, match="image 0 has 900 x 3 pixels"):
        checked_request([Image.new("L", (900, 3))], text=["red"], n_latents=3)
    Image.fromarray(np.array([[0, 2048, 4095]], np.uint16)).save(tmp_path / "twelve-bits.png")
    request = checked_request([tmp_path / "twelve-bits.png"], text=["red"], n_latents=3)
    assert [request.images[0].image().getpixel((x, 0))[0] for x in range(3)] == [0, 128, 255]


def test_an_image_that_the_machine_refuses_to_read_is_no_damage(tmp_path, monkeypatch):
    file = tmp_path / "photo.png"
    PHOTO.save(file)
    monkeypatch.setattr(builtins, "open", partial(refused, file))
    with pytest.raises(StorageError, match=r"cannot read .*photo.png: Input/output error"):
        checked_request([file], text=["red"], n_latents=3)


def refused(file, path, *arguments, real=open, **options):
    if str(path) == str(file):
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    return real(path, *arguments, **options)


def test_without_a_selection_captions_are_joint_and_latents_solo():
    request = checked_request([PHOTO], text=["red"], latent=[1], n_latents=3)
    assert request.queries == (Query(text="red"), Query(latents=(1,)))
    assert [request.joint(query) for query in request.queries] == [True, False]
    for selection, joint in (("joint", True), ("solo", False)):
        request = checked_request([PHOTO], text=["red"], latent=[1], selection=selection, n_latents=3)
        assert [request.joint(query) for query in request.queries] == [joint, joint]


def test_an_unknown_selection_is_refused():
    with pytest.raises(InvalidConfig, match="--selection: expected joint or solo, found 'both'"):
        checked_request([PHOTO], text=["red"], selection="both", n_latents=3)


def test_captions_need_a_stream_that_reads_text_and_latents_do_not():
    eye = {"eye": "image"}
    check_modalities(checked_request([PHOTO], latent=[1], n_latents=3), eye)
    captions = checked_request([PHOTO], text=["red"], n_latents=3)
    check_modalities(captions, {**eye, "tongue": "text"})
    with pytest.raises(InvalidConfig, match="expected a stream that reads text, found eye"):
        check_modalities(captions, eye)
    with pytest.raises(InvalidConfig, match="expected a stream that reads image, found tongue"):
        check_modalities(captions, {"tongue": "text"})
