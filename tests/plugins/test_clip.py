"""Streams `clip-img` and `clip-txt`, on real architectures of open_clip with random weights."""

import gc

import pytest
import torch

from sparc.errors import InvalidConfig, UnknownName, WeightsUnavailable
from sparc.plugins.contracts import Sample
from sparc_plugins import clip
from sparc_plugins.clip import ClipParams
from tests.plugins.backbones import COMMIT, GREY, GREY_AS_RGB, SAMPLES, features, hub_cache, offered, tokens

pytestmark = pytest.mark.usefixtures("no_hub")
TINY_CLIP = "ViT-S-32-alt"


@pytest.fixture(scope="module")
def reference(clip_weights):
    """open_clip called by hand: the model and its transform of images."""
    import open_clip

    model, _, transform = open_clip.create_model_and_transforms(TINY_CLIP, pretrained=str(clip_weights))
    return model.eval(), transform


@pytest.fixture(scope="module")
def towers(clip_weights):
    params = ClipParams(model=TINY_CLIP, weights=str(clip_weights))
    return [load(params, "cpu") for load in (clip.load_image_tower, clip.load_text_tower)]


def test_both_towers_embed_into_one_space_as_open_clip_does(towers, reference):
    import open_clip

    image, text = towers
    model, transform = reference
    assert image.width == text.width == 256
    with torch.inference_mode():
        ids = open_clip.get_tokenizer(TINY_CLIP)([sample.text() for sample in SAMPLES])
        pixels = torch.stack([transform(sample.image()) for sample in SAMPLES])
        torch.testing.assert_close(features(text), model.encode_text(ids))
        torch.testing.assert_close(features(image), model.encode_image(pixels))
        torch.testing.assert_close(features(image, [GREY]), features(image, [GREY_AS_RGB]))


def test_the_image_tower_gives_its_patch_tokens_normed_and_projected(towers, reference):
    image, model = towers[0], reference[0]
    found = tokens(image)
    assert image.grid == (7, 7)
    with torch.inference_mode():
        hidden = model.visual.transformer(model.visual._embeds(image.preprocess(SAMPLES)))
        torch.testing.assert_close(found, model.visual.ln_post(hidden)[:, 1:] @ model.visual.proj)
    assert features(image).shape == (3, 256)  # the copy that returns tokens leaves the tower unchanged


def test_a_tower_that_is_a_resnet_has_no_grid():
    image = clip.load_image_tower(ClipParams(model="RN50", weights="random"), "cpu")
    assert image.grid is None
    with pytest.raises(InvalidConfig, match="ModifiedResNet: expected an image tower that gives its patch tokens"):
        image.forward_tokens(torch.zeros(1, 3, 224, 224))


def test_towers_of_several_models_share_one_load_each_and_let_it_go_when_unused(clip_weights, monkeypatch):
    loads = []
    load = clip._load
    monkeypatch.setattr(clip, "_load", lambda *given: loads.append(given) or load(*given))
    one = ClipParams(model=TINY_CLIP, weights="random")
    two = ClipParams(model=TINY_CLIP, pretrained="nothing", weights="random")
    # The loads alternate, so a cache of only the last model would load four times.
    image_one, image_two = (clip.load_image_tower(params, "cpu") for params in (one, two))
    text_one, text_two = (clip.load_text_tower(params, "cpu") for params in (one, two))
    assert len(loads) == 2
    assert image_one.clip is text_one.clip is not image_two.clip
    assert image_two.clip is text_two.clip
    del image_one, text_one
    gc.collect()
    assert [key[1] for key in clip._loaded if key[2] is None] == ["nothing"]


def test_the_recorded_preprocessing_makes_the_same_input_by_open_clip_alone(towers):
    import open_clip
    from open_clip.transform import PreprocessCfg, image_transform_v2

    image, text = towers
    transform = image_transform_v2(PreprocessCfg(**image.preprocessing), is_train=False)
    assert torch.equal(image.preprocess(SAMPLES)[0], transform(SAMPLES[0].image()))
    assert text.preprocessing == {"tokenizer": "SimpleTokenizer", "context_length": 77}
    tokenizer = open_clip.tokenizer.SimpleTokenizer(context_length=77)
    long = Sample("long", caption="picture " * 100)
    assert torch.equal(text.preprocess([long]), tokenizer([long.text()]))


def test_what_the_listing_says_of_the_default_is_what_open_clip_says(no_hub, tmp_path):
    import open_clip

    specs = offered(clip)
    assert {spec.width for spec in specs.values()} == {open_clip.get_model_config(clip.ARCHITECTURE)["embed_dim"]}
    assert [spec.has_weights() for spec in specs.values()] == [False, False]
    assert clip._hub_repo(ClipParams()) == (clip.REPOSITORY, clip.FILES)
    (tmp_path / clip.FILES[0]).touch()
    hub_cache(no_hub, clip.REPOSITORY, tmp_path / clip.FILES[0])
    assert clip.identify(ClipParams()) == f"hub:{clip.REPOSITORY}@{COMMIT}"
    assert [spec.has_weights() for spec in specs.values()] == [True, True]


@pytest.mark.parametrize("name", ["clip-img", "clip-txt"])
def test_weights_that_cannot_be_had_are_named_with_all_that_can_be_done(name):
    with pytest.raises(WeightsUnavailable) as error:
        offered(clip)[name].load(ClipParams(), "cpu")
    assert f"the weights of '{name}'" in error.value.message
    assert "laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K/open_clip_model.safetensors" in error.value.message
    for way in ("connect", "HF_HOME", f"--stream '{name}[weights=PATH]'", "sparc train", f"{name}[weights=random]"):
        assert way in error.value.hint


def test_misspelled_models_get_a_suggestion():
    with pytest.raises(UnknownName, match="open_clip has no model named 'ViT-B32'") as error:
        clip.identify(ClipParams(model="ViT-B32"))
    assert "ViT-B-32" in error.value.hint
    with pytest.raises(UnknownName, match="no weights of 'ViT-B-32' named 'openia'") as error:
        clip.identify(ClipParams(pretrained="openia"))
    assert "openai" in error.value.hint
    with pytest.raises(UnknownName, match="no weights of 'ViT-B-32' named 'nope'"):
        clip.identify(ClipParams(pretrained="nope", weights="random"))


def test_a_text_tower_that_needs_the_hub_for_its_tokenizer_says_so():
    params = ClipParams(model="roberta-ViT-B-32", weights="random")
    with pytest.raises(WeightsUnavailable, match="roberta-base") as error:
        clip.load_text_tower(params, "cpu")
    assert "connect to the network" in error.value.hint


def test_clip_loads_from_the_hubs_cache_by_tag(clip_weights, no_hub, monkeypatch):
    import open_clip.pretrained

    tags = {"mine": open_clip.pretrained._pcfg(hf_hub="lab/tiny-clip/")}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, TINY_CLIP, tags)
    hub_cache(no_hub, "lab/tiny-clip", clip_weights)
    by_tag = ClipParams(model=TINY_CLIP, pretrained="mine")
    by_file = ClipParams(model=TINY_CLIP, pretrained="mine", weights=str(clip_weights.parent))
    found = [features(clip.load_text_tower(params, "cpu")) for params in (by_tag, by_file)]
    assert torch.equal(*found)
    assert clip.identify(by_tag) == f"hub:lab/tiny-clip@{COMMIT}"


def test_both_towers_of_one_model_share_a_space_and_those_of_others_do_not():
    image, text = clip.sparc_backbones()
    params = ClipParams(model=TINY_CLIP, weights="random")
    assert image.shared_space(params) == text.shared_space(params)
    assert image.shared_space(params) != image.shared_space(ClipParams(model="RN50", weights="random"))
    assert image.shared_space(ClipParams()) != image.shared_space(ClipParams(pretrained="laion400m_e32"))
