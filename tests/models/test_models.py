"""From images and texts to named codes, with models small enough to compute by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import sparc
from sparc.errors import BadSample, InvalidConfig, MissingData, PluginError
from sparc.extraction.features import ComputeOptions, FeatureExtractor
from sparc.extraction.preprocessing import ItemBatch
from sparc.models.inputs import image_sample
from sparc.models.models import BATCH
from sparc.plugins.contracts import Sample
from sparc.plugins.images import DEFAULT_LIMITS, ImageLimits, limit_images
from tests.localization.mosaic import Eye, models, quarters

PHOTO = quarters("red", "red", "blue", (128, 0, 0))  # mean red 0.625, mean blue 0.25


@pytest.fixture(autouse=True)
def default_limits():
    yield
    limit_images(DEFAULT_LIMITS)


def test_an_image_becomes_named_codes():
    made = models(names={0: "poppy"})
    codes = made.encode_images([PHOTO, quarters(*["green"] * 4)])
    assert list(codes) == ["eye"]
    poppies, greens = made.named(codes["eye"])
    red = (0.5 + 128 / 255 / 4, 0.25)
    assert [(one.latent, one.name) for one in poppies] == [(0, "poppy"), (2, "latent 2")]
    assert [one.activation for one in poppies] == pytest.approx(red)
    assert greens == [(1, "latent 1", 1.0)]
    assert not codes["eye"].values.requires_grad


def test_a_text_becomes_named_codes():
    codes = models(names={2: "sky"}).encode_texts(["blue blue red", "green", "nothing at all"])
    np.testing.assert_array_equal(codes["tongue"].to_dense(), [[1, 0, 2], [0, 1, 0], [0, 0, 0]])
    named = models(names={2: "sky"}).named(codes["tongue"])
    assert named == [[(2, "sky", 2.0), (0, "latent 0", 1.0)], [(1, "latent 1", 1.0)], []]


def test_each_stream_is_encoded_alone_as_the_space_does():
    made = models(k=1)
    made = replace(made, backbones={"eye": Eye(), "tongue": Eye()}, modalities={"eye": "image", "tongue": "image"})
    features = made.features([image_sample(PHOTO)], "image")
    codes = made.encode_images([PHOTO])
    for stream in ("eye", "tongue"):
        alone = made.space.encode({stream: features[stream]})[stream]
        torch.testing.assert_close(codes[stream].to_dense(), alone.to_dense(), rtol=0, atol=0)


def test_batches_are_one_after_the_other_and_read_each_image_once(tmp_path):
    shades = [Image.new("RGB", (8, 8), (shade, 0, 255 - shade)) for shade in range(2 * BATCH + 5)]
    for number, image in enumerate(shades):
        image.save(tmp_path / f"{number}.png")
    made = models()
    made = replace(made, backbones={"eye": Eye(), "tongue": Eye()}, modalities={"eye": "image", "tongue": "image"})
    codes = made.encode_images([tmp_path / f"{number}.png" for number in range(len(shades))])
    expected = [[shade / 255, 0, 1 - shade / 255] for shade in range(len(shades))]
    np.testing.assert_allclose(codes["eye"].to_dense(), expected, rtol=1e-5, atol=1e-6)


def test_features_are_those_of_an_extraction():
    class Photos:
        ids = groups = ("a", "b")

        def __len__(self):
            return 2

        def __getitem__(self, index):
            return Sample(self.ids[index], lambda: [PHOTO, quarters("red", "green", "blue", "blue")][index])

    extractor = FeatureExtractor({"eye": Eye()}, "image", ComputeOptions(precision="bfloat16"))
    extracted = torch.cat([one.features["eye"] for one in extractor(Photos(), [ItemBatch([0, 1], ("eye",))])])
    made = replace(models(), precision="bfloat16")
    samples = [image_sample(PHOTO), image_sample(quarters("red", "green", "blue", "blue"))]
    torch.testing.assert_close(made.features(samples, "image")["eye"], extracted, rtol=0, atol=0)


def test_images_have_the_limits_and_the_bits_of_those_in_training(tmp_path):
    long = Image.new("L", (900, 3))
    with pytest.raises(BadSample, match="image 1 has 900 x 3 pixels: its longer side is 300 times") as error:
        models().encode_images([PHOTO, long])
    assert "train with --max-side-ratio 300" in error.value.hint
    assert len(replace(models(), limits=ImageLimits(side_ratio=300)).encode_images([long])["eye"]) == 1
    Image.fromarray(np.full((4, 4), 2**15, np.uint16)).save(tmp_path / "deep.png")
    codes = models().encode_images([tmp_path / "deep.png"])["eye"]
    np.testing.assert_allclose(codes.to_dense(), [[128 / 255] * 3], rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "error", "message", "hint"),
    [
        (lambda made: made.encode_images(PHOTO), InvalidConfig, "expected a list of images, found Image", "([image])"),
        (lambda made: made.encode_images("a.png"), InvalidConfig, "expected a list of images, found str", "([image])"),
        (lambda made: made.encode_texts("red"), InvalidConfig, "expected a list of texts, found str", "([text])"),
        (
            lambda made: made.encode_texts([]),
            InvalidConfig,
            "expected at least one text, found none",
            "a list of texts",
        ),
        (lambda made: made.encode_texts(["red", " "]), BadSample, "sample 'text 1' has an empty caption", "write one"),
        (lambda made: made.encode_images(["no.png"]), MissingData, "no image at no.png", "check --image"),
        (
            lambda made: replace(made, backbones={"eye": Eye()}).encode_texts(["red"]),
            InvalidConfig,
            "expected a stream that reads text, found eye",
            "train with one that reads text",
        ),
    ],
)
def test_what_is_wrong_is_said(call, error, message, hint):
    with pytest.raises(error) as raised:
        call(models())
    assert message in raised.value.message
    assert hint in raised.value.hint


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "photo.png").write_bytes(b"no image")
    with pytest.raises(BadSample, match=r"photo\.png is a text, which is not read"):
        models().encode_images([PHOTO, tmp_path / "photo.png"])


def test_a_backbone_that_breaks_its_contract_is_named():
    eye = Eye()
    eye.width = 4
    with pytest.raises(PluginError, match=r"backbone 'eye': expected a floating-point tensor of shape \(1, 4\)"):
        models(eye=eye).encode_images([PHOTO])


def test_the_root_of_sparc_has_them():
    assert (sparc.load_models.__name__, sparc.Models.__name__) == ("load_models", "Models")


@pytest.mark.parametrize(
    ("given", "found"),
    [(b"red", "expected a text, found bytes"), ("\udcff red", "expected a text in UTF-8, found '.udcff'")],
)
def test_a_text_that_is_none_is_refused(given, found):
    with pytest.raises(InvalidConfig, match=found):
        models().encode_texts([given])


def test_an_image_without_pixels_is_refused():
    with pytest.raises(BadSample, match="it has no pixels: 0 x 5"):
        models().encode_images([Image.new("RGB", (0, 5))])
