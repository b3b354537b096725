"""EXIF orientation: images are turned upright in every way of reading them, unless the process ignores it."""

import io
import json
import struct
import warnings
import zlib
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sparc.config import PluginRef
from sparc.extraction.plan import JobOptions, plan
from sparc.models.inputs import bytes_sample, image_sample
from sparc.plugins import Sample, read_image
from sparc.plugins.images import DEFAULT_LIMITS, ImageLimits, limit_images
from sparc.plugins.registry import discover
from sparc.storage.manifest import fingerprint
from sparc.storage.provenance import read_provenance, write_provenance
from tests.plugins.test_images import deep_png
from tests.runs import provenance

ORIENTATION = 0x0112
UPRIGHT = np.random.default_rng(0).integers(0, 255, (8, 16, 3), np.uint8).repeat(4, 0).repeat(4, 1)
SIDES = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}
"""EXIF 2.3, tag 0x0112: the side of the upright image at which the first stored row, and column, lie."""


@pytest.fixture(autouse=True)
def as_before():
    yield
    limit_images(DEFAULT_LIMITS)


def stored(orientation, image=UPRIGHT):
    row, column = SIDES[orientation]
    turned = image.swapaxes(0, 1) if row in ("left", "right") else image
    turned = turned[::-1] if row in ("bottom", "right") else turned
    return np.ascontiguousarray(turned[:, ::-1] if column in ("bottom", "right") else turned)


def exif_of(orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def ways(path):
    """Yield the image in a file, read in every way that there is."""
    yield Sample("a", partial(Image.open, path)).image()
    yield Sample("a", partial(read_image, path)).image()
    yield image_sample(path).image()
    yield image_sample(Image.open(path)).image()
    yield bytes_sample(path.read_bytes(), "a").image()


@pytest.mark.parametrize("orientation", SIDES)
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_an_image_is_read_upright_in_every_way(tmp_path, suffix, orientation):
    options = {"jpg": {"quality": 100, "subsampling": 0}, "webp": {"lossless": True}}.get(suffix, {})
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(stored(orientation)).save(path, exif=exif_of(orientation), **options)
    for image in ways(path):
        assert (image.mode, image.size) == ("RGB", UPRIGHT.shape[1::-1])
        assert np.abs(np.asarray(image).astype(int) - UPRIGHT).max() <= (10 if suffix == "jpg" else 0)
        again = io.BytesIO()
        image.save(again, "png")
        assert Image.open(again).getexif().get(ORIENTATION, 1) == 1  # nobody turns it twice
    limit_images(ImageLimits(exif="ignore"))
    if suffix != "tif":  # which Pillow turns
        for image in ways(path):
            assert image.size == stored(orientation).shape[1::-1]


@pytest.mark.parametrize("orientation", [3, 6])
def test_images_with_many_bits_and_palettes_are_turned_too(tmp_path, orientation):
    grey = (UPRIGHT[..., 0].astype(np.uint16) << 8) | 255
    deep = (UPRIGHT.astype(np.uint16) << 4) | 15  # 12 bits in 16
    palette = Image.fromarray(stored(orientation)).quantize(16)
    exif = exif_of(orientation)
    Image.fromarray(stored(orientation, grey)).save(tmp_path / "grey.png", exif=exif)
    palette.save(tmp_path / "palette.png", exif=exif)
    content = deep_png(stored(orientation, deep))
    body = exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(body)) + b"eXIf" + body + struct.pack(">I", zlib.crc32(b"eXIf" + body))
    (tmp_path / "deep.png").write_bytes(content[:-12] + chunk + content[-12:])
    expected = {
        "grey": UPRIGHT[..., :1].repeat(3, 2),
        "deep": UPRIGHT,
        "palette": np.asarray(Image.fromarray(stored(orientation)).quantize(16).convert("RGB")),
    }
    expected["palette"] = np.asarray(
        Image.fromarray(expected["palette"]).rotate(180 if orientation == 3 else -90, expand=True)
    )
    for name, pixels in expected.items():
        for image in ways(tmp_path / f"{name}.png"):
            assert np.abs(np.asarray(image).astype(int) - pixels).max() <= 1, name


@given(junk=st.binary(max_size=200), known=st.booleans())
@settings(max_examples=150)
def test_damaged_exif_data_never_cost_an_image(junk, known):
    content = io.BytesIO()
    start = b"Exif\0\0" + (b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0" if known else b"")
    Image.fromarray(UPRIGHT).save(content, "jpeg", exif=start + junk)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns while it opens the file
        image = bytes_sample(content.getvalue(), "a").image()
    assert sorted(image.size) == sorted(UPRIGHT.shape[:2])


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_turns_nothing(value):
    content = io.BytesIO()
    Image.fromarray(UPRIGHT).save(content, "png", exif=exif_of(value))
    np.testing.assert_array_equal(np.asarray(bytes_sample(content.getvalue(), "a").image()), UPRIGHT)


def test_features_of_upright_images_are_not_those_of_images_as_stored(tmp_path, use_example, extracted_once):
    registry = discover()
    dataset = PluginRef(name="openmoji", alias="openmoji")
    streams = [PluginRef(name=name, alias=name) for name in ("effnet-lite0", "minilm")]
    places = {}
    for exif in ("apply", "ignore"):
        jobs = plan(registry, dataset, streams, root=tmp_path, options=JobOptions(exif=exif))["test"]
        places[exif] = {name: job.directory.name for name, job in jobs.items()}
    assert places["apply"]["minilm"] == places["ignore"]["minilm"]
    assert places["apply"]["effnet-lite0"] != places["ignore"]["effnet-lite0"]
    spec = registry.backbone("effnet-lite0")
    before = fingerprint(spec.name, spec.params().model_dump(mode="json"), spec.identify(spec.params()))
    assert places["ignore"]["effnet-lite0"] == before
    recorded = {}
    for path in extracted_once.glob("store/*/train/*/manifest.json"):
        manifest = json.loads(path.read_text())
        recorded[manifest["backbone"]] = manifest["exif"]
    assert recorded == {"hog": "apply", "tiny-image": "apply", "timm": "apply", "char-ngrams": None}


def test_a_run_from_before_there_was_a_choice_reads_images_as_stored(tmp_path):
    path = tmp_path / "provenance.json"
    write_provenance(path, provenance(options={"dataset": "openmoji", "exif": "apply"}))
    assert read_provenance(path).options.exif == "apply"
    content = json.loads(path.read_text())
    del content["options"]["exif"]
    path.write_text(json.dumps(content))
    assert read_provenance(path).options.exif == "ignore"
