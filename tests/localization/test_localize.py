"""Localization with models small enough to compute by hand, and the errors that a user can cause."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from sparc.config import SpaceConfig
from sparc.errors import BadSample, InvalidConfig, MissingData, PluginError, UnknownName
from sparc.localization import HeldOutImages, checked_request, draw, held_out_images, localize, paired_request
from sparc.localization.picture import save
from sparc.models import load_models
from sparc.storage.checkpoint import SharedLatentSpace
from sparc.storage.run import Run
from sparc.storage.store import FeatureStore
from tests.conftest import RANDOM_VIT
from tests.localization.mosaic import Eye, models, quarters
from tests.runs import provenance

PHOTO = quarters("red", "blue", "green", (255, 0, 255))  # the last is red and blue


def found_by(made, images, **wanted):
    return localize(made, checked_request(images, n_latents=made.space.n_latents, **wanted))


def test_a_caption_points_where_its_concept_is():
    (found,) = found_by(models(), [PHOTO], text=["a red thing"])
    np.testing.assert_allclose(found.values, [[1, 0], [0, 1]])
    assert found.peak == pytest.approx((16, 16), abs=0.3)
    assert found.score == pytest.approx(0.5)  # half of the image is red
    assert [(carrier.latent, carrier.share) for carrier in found.carriers] == [(0, 1.0)]


def test_joint_selection_keeps_what_image_and_caption_have_together_and_solo_what_each_has_alone():
    photo = quarters("red", "blue", "green", (255, 0, 204))
    by_hand = {
        # The last cell has red 1 and blue 0.8: alone it keeps red, beside a caption with blue twice it keeps blue.
        "joint": [[0, 2], [0, 1.6]],
        "solo": [[0, 2], [0, 0]],
    }
    for selection, expected in by_hand.items():
        (found,) = found_by(models(k=1), [photo], text=["blue blue"], selection=selection)
        np.testing.assert_allclose(found.values, expected, rtol=1e-6)


def test_a_latent_points_where_it_is_active_and_several_point_together():
    red, both = found_by(models(names={2: "sky"}), [PHOTO], latent=[0, (0, 2)])
    np.testing.assert_allclose(red.values, [[1, 0], [0, 1]])
    np.testing.assert_allclose(both.values, [[1, 1], [0, 2]])
    assert red.score == pytest.approx(0.5)
    assert [(one.latent, one.name) for one in both.carriers] == [(0, ""), (2, "sky")]
    assert (str(red.query), str(both.query)) == ("latent 0", "latents 0, 2")


@pytest.mark.parametrize("method", ["grad-cam", "layer-cam"])
def test_a_gradient_finds_it_too_on_a_map_that_is_pooled(method):
    (found,) = found_by(models(), [PHOTO], text=["red"], method=method)
    # The target is the mean red: the red of each cell counts a quarter, other channels nothing.
    np.testing.assert_allclose(found.values, np.array([[1, 0], [0, 1]]) / 4, rtol=1e-6)


def test_a_latent_that_an_image_did_not_keep_is_found_by_its_logit():
    photo = quarters("red", "red", "red", (0, 0, 51))
    (found,) = found_by(models(k=1), [photo], latent=[2], method="grad-cam")
    assert (found.score, found.carriers) == (0, ())
    np.testing.assert_allclose(found.values, np.array([[0, 0], [0, 0.2]]) / 4, rtol=1e-6)


def test_there_is_a_result_for_each_image_query_and_stream_in_this_order():
    found = found_by(models(), [PHOTO, quarters("blue", "blue", "red", "blue")], text=["red", "blue"], latent=[1])
    assert [(one.name, str(one.query), one.stream) for one in found] == [
        (f"image {number}", query, "eye") for number in (0, 1) for query in ("red", "blue", "latent 1")
    ]
    assert found[3].peak == pytest.approx((16, 48), abs=0.3)


def test_what_is_given_twice_counts_once(tmp_path):
    PHOTO.save(tmp_path / "photo.png")
    found = found_by(models(), [tmp_path / "photo.png"] * 2, text=["red", "red"], latent=[1, (1,), (0, 0, 2)])
    assert [str(one.query) for one in found] == ["red", "latent 1", "latents 0, 2"]


def test_an_image_of_16_bits_is_seen_as_in_8(tmp_path):
    deep = np.array([[65535, 0], [32768, 256]], np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    (found,) = found_by(models(), [tmp_path / "deep.png"], text=["red"])
    np.testing.assert_array_equal(np.asarray(found.image)[..., 0], [[255, 0], [128, 1]])


def test_a_portrait_of_a_phone_is_drawn_upright_as_it_is_seen(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the stored image lies on its left side
    wide = quarters("red", "blue", "green", "green", size=(96, 64))
    wide.save(tmp_path / "phone.png", exif=exif)
    (found,) = found_by(models(), [tmp_path / "phone.png"], text=["red"])
    assert found.size == (64, 96)
    np.testing.assert_array_equal(np.asarray(found.image), np.asarray(wide.rotate(-90, expand=True)))
    np.testing.assert_allclose(found.values, [[0, 1], [0, 0]])  # the upper left corner is now at the upper right
    assert found.peak == pytest.approx((48, 24), abs=0.3)


def test_codes_that_share_nothing_give_an_empty_map():
    for method in ("dense", "grad-cam"):
        (found,) = found_by(models(), [quarters(*["green"] * 4)], text=["red"], method=method)
        assert not found.values.any()
        assert found.peak is None
        assert (found.score, found.carriers) == (0, ())
    draw([found])


@pytest.mark.parametrize("size", [(8, 8), (3, 200), (640, 64)])
def test_images_of_any_shape_are_pointed_at_in_their_own_pixels(size):
    (found,) = found_by(models(), [quarters("red", "blue", "blue", "blue").resize(size, 0)], text=["red"])
    width, height = size
    assert found.on_image().shape == (height, width)
    assert np.abs(np.array(found.peak) / size - 0.25).max() < 0.03


def test_an_image_of_one_pixel_has_no_peak():
    (found,) = found_by(models(), [Image.new("RGB", (1, 1), (255, 0, 0))], text=["red"])
    assert (found.peak, found.on_image().shape) == (None, (1, 1))


def test_what_is_transparent_is_seen_as_training_saw_it(tmp_path):
    photo = PHOTO.convert("RGBA")
    photo.putalpha(0)
    photo.save(tmp_path / "photo.png")
    (seen,), (opaque,) = (found_by(models(), [image], text=["red"]) for image in (tmp_path / "photo.png", PHOTO))
    np.testing.assert_array_equal(seen.values, opaque.values)


GREEN, BLUE = quarters(*["green"] * 4), quarters(*["blue"] * 4)


def seen_by_eye(*images):
    """Return the features of images as held-out features of the stream `eye`."""
    means = [np.asarray(image, float).mean(axis=(0, 1)) / 255 for image in images]
    return torch.from_numpy(np.stack(means)).float()


@pytest.mark.parametrize("selection", ["joint", "solo"])
@pytest.mark.parametrize("wanted", [{"text": ["red"]}, {"text": ["blue red"]}, {"latent": [(0, 2)]}])
def test_held_out_images_are_scored_as_localize_scores_them(wanted, selection):
    images = [PHOTO, GREEN, BLUE, quarters("red", "green", "green", (9, 200, 30))]
    held_out = HeldOutImages({"eye": seen_by_eye(*images)})
    made = models(k=2)
    request = checked_request(images, n_latents=3, selection=selection, **wanted)
    found = localize(made, request, held_out=held_out)
    scores = [one.score for one in found]
    for one in found:
        assert one.standing.as_high == sum(score >= one.score - 1e-6 for score in scores)
        assert one.standing.count == 4


def test_what_is_not_there_is_drawn_pale_on_the_common_scale_and_said_in_words():
    held_out = HeldOutImages({"eye": seen_by_eye(*[GREEN] * 60, *[BLUE] * 38, PHOTO, PHOTO)})
    request = checked_request([PHOTO, quarters("green", "green", "green", (1, 255, 0))], n_latents=3, text=["red"])
    there, absent = localize(models(), request, held_out=held_out)
    assert there.standing.words == "seen here: 0.02 of held-out images score as high"
    assert absent.standing.words == "seen here: 0.02 of held-out images score as high"  # more red than 98 of them
    assert there.standing.strength == 1
    assert absent.standing.strength == pytest.approx(1 / 255 / 4 / 0.5, rel=1e-4)  # 0.5 is strong, 0 is typical
    figures = {scale: draw([there, absent], scale=scale) for scale in ("common", "own")}
    colour = {
        scale: [np.ptp(figure.axes[place].images[0].get_array(), axis=2).max() for place in (1, 3)]
        for scale, figure in figures.items()
    }
    assert colour["own"][0] == pytest.approx(colour["own"][1], abs=0.2)
    assert colour["common"][0] == pytest.approx(colour["own"][0])
    assert colour["common"][1] < 0.02


def test_without_held_out_images_maps_of_a_stream_share_the_scale_of_the_strongest():
    photos = [PHOTO, quarters("green", "green", "green", (51, 0, 0))]
    strong, weak = found_by(models(), photos, text=["red"])
    assert (strong.standing, weak.score) == (None, pytest.approx(0.05))
    drawn = draw([strong, weak])
    strengths = [np.ptp(drawn.axes[place].images[0].get_array(), axis=2).max() for place in (1, 3)]
    assert strengths[1] < 0.2 * strengths[0]


def test_held_out_images_are_distinct_and_have_all_streams():
    rows = torch.tensor([0, 0, 1, 2, 2])  # two samples show the first image, two the last
    shards = {
        "eye": [torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 0.0], [3.0, 0.0]])],
        "lid": [torch.tensor([[0.5], [0.0], [0.25]])],  # lacks the second image
        "tongue": [torch.zeros(5, 1)],
    }
    store = FeatureStore(shards, {"eye": rows, "lid": rows, "tongue": torch.arange(5)}, tuple("abcde"), {})
    both = held_out_images(store, ["eye", "lid"]).features
    assert both["eye"].tolist() == [[1, 0], [3, 0]]
    assert both["lid"].tolist() == [[0.5], [0.25]]
    assert held_out_images(store, ["eye"]).features["eye"].tolist() == [[1, 0], [2, 0], [3, 0]]


def test_pairs_are_looked_for_one_by_one_in_the_order_of_the_images(tmp_path):
    for name, image in (("photo.png", PHOTO), ("blue.png", BLUE)):
        image.save(tmp_path / name)
    photo, blue = tmp_path / "photo.png", tmp_path / "blue.png"
    request = paired_request([photo, blue, photo, photo], ["red", "blue", "blue", "red"])
    found = localize(models(), request)
    assert [(one.name, str(one.query)) for one in found] == [
        (str(photo), "red"),
        (str(photo), "blue"),
        (str(blue), "blue"),
    ]
    with pytest.raises(InvalidConfig, match="found 2 of --image and 1 of --text"):
        paired_request([photo, blue], ["red"])
    with pytest.raises(InvalidConfig, match="found an empty text"):
        paired_request([photo, blue], ["red", " "])


NO_GRID = Eye()
NO_GRID.grid = None
WIDE = Eye()
WIDE.forward_tokens = lambda batch: (Eye.forward(WIDE, batch), torch.zeros(len(batch), 4, 5))


@pytest.mark.parametrize(
    ("wanted", "error", "message", "hint"),
    [
        ({}, InvalidConfig, "expected something to look for", "add --text WORDS or --latent NUMBER"),
        ({"text": ["  "]}, InvalidConfig, "--text: expected words, found an empty text", "say what"),
        ({"latent": [3]}, InvalidConfig, "latent: expected 0 to 2, found 3", "choose another"),
        (
            {"text": ["red"], "method": "rise"},
            InvalidConfig,
            "dense, relevance, grad-cam, layer-cam, found 'rise'",
            "",
        ),
        ({"text": ["red"], "images": []}, InvalidConfig, "expected at least one image", "add --image FILE"),
        ({"text": ["red"], "images": ["nowhere.png"]}, MissingData, "no image at nowhere.png", "check --image"),
        (
            {"text": ["red"], "images": [__file__]},
            BadSample,
            "test_localize.py is a text, which is not read",
            "convert it",
        ),
        ({"text": ["red"], "eye": NO_GRID}, InvalidConfig, "'eye': expected a backbone with a grid", "--stream"),
        ({"text": ["red"], "eye": WIDE}, PluginError, "'eye': expected patches of width 3 .* found 5", "--method"),
        (
            {"text": ["red"], "tongue": False},
            InvalidConfig,
            "expected a stream that reads text, found eye",
            "choose another stream of the run",
        ),
        (
            {"text": ["red"], "method": "relevance"},
            PluginError,
            "over all 4 tokens in every layer, found none",
            "grad",
        ),
    ],
)
def test_what_cannot_be_done_is_said(wanted, error, message, hint):
    made = models(**{name: wanted.pop(name) for name in ("eye", "tongue") if name in wanted})
    with pytest.raises(error, match=message) as raised:
        found_by(made, wanted.pop("images", [PHOTO]), **wanted)
    assert hint in raised.value.hint


def test_the_picture_is_the_same_twice_and_shows_every_query(tmp_path):
    found = found_by(models(), [PHOTO], text=["a $red thing", "blue"], latent=[0])
    for name in ("one.png", "two.png"):
        save(draw(found), tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    figure = draw(found)
    assert len(figure.axes) == 6
    for kind in ("jpg", "svg", "pdf", "webp"):
        save(figure, tmp_path / f"one.{kind}")
        assert (tmp_path / f"one.{kind}").stat().st_size > 1000
    with pytest.raises(InvalidConfig, match=r"expected a picture's name, found .*one\.txt"):
        save(draw(found), tmp_path / "one.txt")


@pytest.fixture
def demo_run(tmp_path):
    """A finished and evaluated run of the demo's backbones, with an untrained space."""
    widths = {"effnet-lite0": 1280, "minilm": 384}
    torch.manual_seed(0)
    SharedLatentSpace(SpaceConfig(streams=widths, n_latents=64, k=8)).save_pretrained(tmp_path / "run")
    options = {"stream": [{"name": name, "alias": name} for name in widths], "dataset": "openmoji", "n-latents": 64}
    Run(tmp_path / "run").write_provenance(provenance(options={**options, "k": 8}))
    (tmp_path / "run" / "evaluation").mkdir()
    named = (f"{latent},animal,0,0.5,2.0,{latent % 2 == 0}" for latent in range(64))
    rows = ["latent,name,depth,purity,lift,confirmed", *named]
    (tmp_path / "run" / "evaluation" / "latents.csv").write_text("\n".join(rows))
    return tmp_path / "run"


def test_the_command_points_at_words_with_the_backbones_of_a_run(demo_run, sparc_here, tmp_path):
    photo = tmp_path / "photo.png"
    PHOTO.resize((300, 200)).save(photo)
    done = sparc_here(
        "localize", demo_run, "--image", photo, "--text", "a red bus", "--latent", "3,5", "--out", "map.png"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "scores are compared with no held-out images: the store has no held-out features of" in done.stdout
    work = ("loading", "localize ", "drawing", "identifying", "scores are")
    lines = [line for line in done.stdout.splitlines() if not line.startswith(work)]
    assert [f"loading {stream} ..." in done.stdout for stream in ("effnet-lite0", "minilm")] == [True, True]
    assert lines[0].startswith(f"{photo}  a red bus  effnet-lite0: strongest at (")
    assert "of 300 x 200, score" in lines[0]
    assert any(line.split()[0::2][:3] == ["a", "red", "bus"] for line in lines)
    assert any("latents 3, 5" in line for line in lines)
    assert lines[-1] == "map.png"
    with Image.open(tmp_path / "map.png") as picture:
        assert picture.width > 600


def test_the_command_compares_with_the_held_out_images_of_the_run(sparc_here, extracted, tmp_path):
    streams = ("--stream", f"vit={RANDOM_VIT}", "--stream", "char-ngrams")
    sizes = ("--n-latents", 16, "--k", 4, "--epochs", 1)
    data = ("--dataset", "image-folder", "--data-root", extracted)
    assert sparc_here("train", *streams, *data, *sizes, "--out", "run").returncode == 0
    words = ("--image", shutil.copy(extracted / "red-bar-0.png", tmp_path), "--text", "a red bar", "--latent", 1)
    done = sparc_here("localize", "run", *words)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    said = [line for line in done.stdout.splitlines() if " here: " in line]
    assert len(said) == 2
    assert all("; percentile " in line and ", by chance " in line for line in said)
    extracted.rename(tmp_path / "moved")
    gone = sparc_here("localize", "run", *words)
    assert gone.returncode == 0
    assert "scores are compared with no held-out images: " in gone.stdout
    moved = sparc_here("localize", "run", *words, "--data-root", tmp_path / "moved")
    assert [line for line in moved.stdout.splitlines() if " here: " in line] == said
    assert sparc_here("localize", "run", *words, "--store", "nowhere").returncode == 1


def test_names_of_latents_are_those_that_held(demo_run):
    loading = []
    loaded = load_models(demo_run, ["minilm"], on_load=loading.append)
    assert loading == ["minilm"]
    assert loaded.names == dict.fromkeys(range(0, 64, 2), "animal")
    assert list(loaded.backbones) == ["minilm"]


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["--text", "bus", "--stream", "effnet"], "the run has no stream named 'effnet'", "effnet-lite0, minilm"),
        (["--text", "bus", "--out", "map"], "expected a picture's name, found map", "end it with .png"),
        (
            ["--text", "bus", "--layers", "1"],
            "--layers: expected --method relevance, found dense, which goes through no layers",
            "add --method relevance, or leave --layers out",
        ),
        (["--text", "bus", "--pair", "--text", "cat"], "--pair: expected a --text for each --image", "repeat both"),
        (["--text", "bus", "--pair", "--latent", "3"], "--pair: expected pairs of --image and --text", "without"),
        (["--text", "bus", "--layers", "0"], "--layers: expected a whole number from 1, found 0", "as in --layers 1"),
        (["--latent", "512"], "latent: expected 0 to 63, found 512", "choose another"),
        (["--latent", "three"], "--latent: expected numbers, such as 93 or 93,107, found 'three'", "as in --latent 93"),
        (
            ["--text", "bus", "--selection", "both"],
            "--selection: expected joint or solo, found 'both'",
            "as in --selection joint",
        ),
    ],
)
def test_wrong_words_on_the_command_line_end_in_an_error_and_a_hint(
    words, message, hint, demo_run, sparc_here, tmp_path
):
    PHOTO.save(tmp_path / "photo.png")
    done = sparc_here("localize", demo_run, "--image", "photo.png", *words)
    assert done.returncode == 1
    assert f"error: {message}" in done.stderr
    assert hint in done.stderr


def test_a_run_that_cannot_localise_says_why(demo_run, tmp_path):
    with pytest.raises(MissingData, match="no run at"):
        load_models(tmp_path / "nothing")
    with pytest.raises(UnknownName, match="no stream named 'clip-img'"):
        load_models(demo_run, streams=["clip-img"])
    Run(demo_run).write_provenance(provenance(options={"features": str(tmp_path), "dataset": "imported"}))
    with pytest.raises(MissingData, match="were imported, so its backbones are not known"):
        load_models(demo_run)
    (demo_run / "model.safetensors").unlink()
    Run(demo_run).write_provenance(provenance(options={"stream": ["minilm"], "dataset": "openmoji"}))
    with pytest.raises(MissingData, match="is not finished"):
        load_models(demo_run)
