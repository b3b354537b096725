"""Streams `clip-img` and `clip-txt`, on real architectures of open_clip with random weights."""

import argparse
import copy
import gc
import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sparc.errors import CorruptFile, InvalidConfig, MissingData, UnknownName, WeightsUnavailable
from sparc.plugins.contracts import Sample
from sparc_plugins import clip
from sparc_plugins.clip import ClipParams
from sparc_plugins.clip.source import ClipImageParams, quick_gelu
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


def test_size_and_crop_change_the_images(clip_weights):
    """By hand: the shorter side becomes 256 pixels, and the central 224 are kept."""
    from torchvision.transforms import v2

    options = {"model": TINY_CLIP, "weights": str(clip_weights)}
    image = clip.load_image_tower(ClipImageParams(**options, crop_pct=0.875), "cpu")
    by_hand = v2.Compose(
        [
            v2.Resize(256, interpolation=v2.InterpolationMode.BICUBIC),
            v2.CenterCrop(224),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(image.preprocessing["mean"], image.preprocessing["std"]),
        ]
    )
    torch.testing.assert_close(image.preprocess(SAMPLES)[0], by_hand(SAMPLES[0].image()))
    assert image.preprocessing["crop_pct"] == 0.875
    small = clip.load_image_tower(ClipImageParams(**options, size=96), "cpu")
    assert small.preprocess(SAMPLES).shape == (3, 3, 96, 96)
    assert (small.grid, features(small).shape) == ((3, 3), (3, 256))


def test_a_crop_of_images_that_are_squashed_is_refused(tmp_path):
    folder = fill(tmp_path / "model", *small_model())
    with pytest.raises(InvalidConfig, match=r"crop_pct=0.5: expected a model that crops images, found resize_mode"):
        clip.load_image_tower(ClipImageParams(model=f"local-dir:{folder}", crop_pct=0.5), "cpu")


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
    two = ClipParams(model=TINY_CLIP, activation="quick_gelu", weights="random")
    # The loads alternate, so a cache of only the last model would load four times.
    image_one, image_two = (clip.load_image_tower(params, "cpu") for params in (one, two))
    text_one, text_two = (clip.load_text_tower(params, "cpu") for params in (one, two))
    assert len(loads) == 2
    assert image_one.clip is text_one.clip is not image_two.clip
    assert image_two.clip is text_two.clip
    del image_one, text_one
    gc.collect()
    assert [source.quick_gelu for source, files, *_ in clip._loaded if not files] == [True]


def test_the_recorded_preprocessing_makes_the_same_input_by_open_clip_alone(towers):
    import open_clip
    from open_clip.transform import PreprocessCfg, image_transform_v2

    image, text = towers
    of_images = {name: value for name, value in image.preprocessing.items() if name != "activation"}
    transform = image_transform_v2(PreprocessCfg(**of_images), is_train=False)
    assert torch.equal(image.preprocess(SAMPLES)[0], transform(SAMPLES[0].image()))
    assert text.preprocessing == {"tokenizer": "SimpleTokenizer", "context_length": 77, "activation": "gelu"}
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


SMALL = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
SQUASHED = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "interpolation": "bilinear", "resize_mode": "squash"}


def small_model(**options):
    """Return a model of open_clip with random weights, and its configuration."""
    from open_clip.model import CLIP

    config = SMALL | options
    torch.manual_seed(3)
    return CLIP(**config).eval(), {"model_cfg": config, "preprocess_cfg": SQUASHED}


def fill(folder, net, config, file="open_clip_model.safetensors"):
    """Write a folder as repositories of open_clip's models have it."""
    folder.mkdir(exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    if file.endswith("safetensors"):
        save_file(net.state_dict(), folder / file)
    else:
        torch.save(net.state_dict(), folder / file)  # noqa: TID251
    return folder


def embedded(net, images=None, texts=None):
    with torch.inference_mode():
        return net.encode_image(images) if texts is None else net.encode_text(texts)


@pytest.mark.parametrize("file", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin", "epoch_32.pth"])
def test_a_local_folder_with_its_configuration_loads_as_open_clip_loads_it(file, tmp_path):
    import open_clip

    net, config = small_model()
    folder = fill(tmp_path / "model", net, config, file)
    reference, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    params = ClipParams(model=f"local-dir:{folder}")
    image, text = clip.load_image_tower(params, "cpu"), clip.load_text_tower(params, "cpu")
    pixels = torch.stack([transform(sample.image()) for sample in SAMPLES])
    torch.testing.assert_close(features(image), embedded(reference.eval(), pixels))
    ids = open_clip.get_tokenizer(f"local-dir:{folder}")([sample.text() for sample in SAMPLES])
    torch.testing.assert_close(features(text), embedded(reference, texts=ids))
    assert {name: image.preprocessing[name] for name in SQUASHED} == SQUASHED
    assert (image.width, image.grid) == (32, (2, 2))


def test_a_folder_that_is_moved_keeps_its_identity_and_one_that_is_changed_does_not(tmp_path):
    net, config = small_model()
    folders = [fill(tmp_path / name, net, config) for name in ("one", "two")]
    identities = {clip.identify(ClipParams(model=f"local-dir:{folder}")) for folder in folders}
    assert len(identities) == 1
    fill(tmp_path / "one", net, small_model(quick_gelu=True)[1])
    assert clip.identify(ClipParams(model=f"local-dir:{folders[0]}")) not in identities


def test_a_model_of_the_hub_loads_with_its_configuration_at_a_revision(tmp_path, hub, monkeypatch):
    net, config = small_model()
    folder = fill(tmp_path / "model", net, config)
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    other, new = fill(tmp_path / "new", *small_model(quick_gelu=True)), "b" * 40
    hub.repos["lab/small"] = [(COMMIT, files), (new, {file.name: file.read_bytes() for file in other.iterdir()})]
    old = ClipParams(model=f"hf-hub:lab/small@{COMMIT}")
    assert old.revision == COMMIT
    found = features(clip.load_image_tower(old, "cpu"))
    assert torch.equal(found, features(clip.load_image_tower(ClipParams(model=f"local-dir:{folder}"), "cpu")))
    assert clip.identify(old) == f"hub:lab/small@{COMMIT}"
    assert clip.identify(ClipParams(model="hf-hub:lab/small")) == f"hub:lab/small@{new}"
    tower = clip.load_image_tower(ClipParams(model="hf-hub:lab/small"), "cpu")
    assert tower.preprocessing["activation"] == "quick_gelu"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert torch.equal(features(clip.load_image_tower(old, "cpu")), found)


def test_a_text_tower_of_transformers_is_built_from_the_hubs_cache(tmp_path, no_hub):
    """BiomedCLIP is built so: a vision transformer of timm, a BERT, and two projections."""
    from open_clip.model import CustomTextCLIP
    from transformers import BertConfig

    bert, folder = tmp_path / "bert", tmp_path / "model"
    size = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    BertConfig(vocab_size=9, **size).save_pretrained(bert)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "picture", "number", "1", "2"]
    (bert / "vocab.txt").write_text("\n".join(words))
    (bert / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    config = {
        "embed_dim": 16,
        "vision_cfg": {"timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear", "image_size": 160},
        "text_cfg": {
            "hf_model_name": "lab/bert",
            "hf_tokenizer_name": "lab/bert",
            "hf_proj_type": "mlp",
            "hf_pooler_type": "cls_last_hidden_state_pooler",
            "context_length": 12,
        },
    }
    content = {"model_cfg": config, "preprocess_cfg": SQUASHED}
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    params = ClipParams(model=f"local-dir:{folder}")
    with pytest.raises(WeightsUnavailable, match=r"lab/bert/config.json \(HF_HUB_OFFLINE is set\)"):
        clip.load_text_tower(ClipParams(model=params.model, weights="random"), "cpu")
    hub_cache(no_hub, "lab/bert", *bert.iterdir())
    torch.manual_seed(3)
    made = copy.deepcopy(config)
    made["text_cfg"]["hf_model_pretrained"] = made["vision_cfg"]["timm_model_pretrained"] = False
    net = CustomTextCLIP(**made).eval()
    fill(folder, net, content, "open_clip_pytorch_model.bin")
    text = clip.load_text_tower(params, "cpu")
    ids = text.preprocess(SAMPLES)
    assert ids[1].tolist() == [2, 5, 6, 7, 3, *[0] * 7]  # [CLS] picture number 1 [SEP] [PAD] ...
    torch.testing.assert_close(features(text), embedded(net, texts=ids))
    image = clip.load_image_tower(params, "cpu")
    torch.testing.assert_close(features(image), embedded(net, image.preprocess(SAMPLES)))
    assert text.preprocessing["tokenizer"] == "lab/bert"


WRAPPED = {
    "distributed": lambda state: {"state_dict": {f"module.{name}": value for name, value in state.items()}},
    "compiled": lambda state: {f"_orig_mod.{name}": value for name, value in state.items()},
    "lightning": lambda state: {"state_dict": {f"model.{name}": value for name, value in state.items()}, "epoch": 1},
    "options": lambda state: {"state_dict": state, "args": argparse.Namespace(lr=0.1), "best": np.float64(1)},
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_the_file_of_a_training_gives_the_features_of_its_weights(kind, tmp_path):
    net, config = small_model()
    plain = fill(tmp_path / "plain", net, config)
    wrapped = fill(tmp_path / "wrapped", net, config)
    (wrapped / "open_clip_model.safetensors").unlink()
    torch.save(WRAPPED[kind](net.state_dict()), wrapped / "epoch_3.pt")  # noqa: TID251
    params = [ClipParams(model=f"local-dir:{folder}") for folder in (plain, wrapped)]
    assert torch.equal(*[features(clip.load_image_tower(one, "cpu")) for one in params])


def test_weights_in_several_files_load(tmp_path):
    net, config = small_model()
    whole = fill(tmp_path / "whole", net, config)
    parts = fill(tmp_path / "parts", net, config)
    (parts / "open_clip_model.safetensors").unlink()
    places = {}
    for number, (name, value) in enumerate(net.state_dict().items()):
        places[name] = f"open_clip_model-{number}.safetensors"
        save_file({name: value}, parts / places[name])
    (parts / "open_clip_model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    params = [ClipParams(model=f"local-dir:{folder}") for folder in (whole, parts)]
    assert torch.equal(*[features(clip.load_text_tower(one, "cpu")) for one in params])


def test_the_activation_of_a_file_is_asked_for_where_it_can_be_either(clip_weights, tmp_path):
    """Weights of OpenAI in a file were once run with the other activation without a word."""
    file = tmp_path / "openai.safetensors"
    file.write_bytes(clip_weights.read_bytes())
    for run in (clip.identify, lambda params: clip.load_image_tower(params, "cpu")):
        with pytest.raises(InvalidConfig, match="'ViT-B-32' were trained with GELU or with QuickGELU") as error:
            run(ClipParams(weights=str(file)))
    assert "activation=quick_gelu (OpenAI" in error.value.hint
    for given in ({"activation": "gelu"}, {"activation": "quick_gelu"}, {"pretrained": "openai"}):
        clip.identify(ClipParams(weights=str(file), **given))
    assert quick_gelu(ClipParams(weights=str(file), pretrained="openai"))
    assert quick_gelu(ClipParams(model="ViT-B-32-quickgelu", weights=str(file)))
    assert not quick_gelu(ClipParams(weights=str(file), pretrained="laion2b_s34b_b79k"))
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": SMALL | {"quick_gelu": True}}))
    assert quick_gelu(ClipParams(weights=str(file)))


def test_the_activation_changes_features_and_is_recorded(clip_weights):
    found = {}
    for activation in ("gelu", "quick_gelu", None):
        params = ClipParams(model=TINY_CLIP, weights=str(clip_weights), activation=activation)
        tower = clip.load_image_tower(params, "cpu")
        assert tower.preprocessing["activation"] == (activation or "gelu")
        found[activation] = features(tower, SAMPLES[:1])
    assert torch.equal(found[None], found["gelu"])
    assert not torch.allclose(found["gelu"], found["quick_gelu"])


def test_a_configuration_beside_the_weights_says_how_images_are_normalised(clip_weights, tmp_path):
    file = tmp_path / "open_clip_model.safetensors"
    file.write_bytes(clip_weights.read_bytes())
    params = ClipParams(model=TINY_CLIP, weights=str(tmp_path))
    before = clip.identify(params)
    import open_clip

    content = {"model_cfg": open_clip.get_model_config(TINY_CLIP), "preprocess_cfg": SQUASHED}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(content))
    assert clip.identify(params) != before
    assert clip.load_image_tower(params, "cpu").preprocessing["mean"] == SQUASHED["mean"]


def test_what_excludes_each_other_or_is_missing_is_said_before_loading(tmp_path):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "open_clip_config.json").write_text('{"model_cfg": {"embed_dim": 3}}')
    file = tmp_path / "weights.safetensors"
    file.touch()
    for given, kind, reason in (
        ({"model": f"local-dir:{tmp_path}"}, MissingData, "expected open_clip_config.json in"),
        (
            {"model": f"local-dir:{tmp_path / 'bad'}"},
            CorruptFile,
            "expected 'model_cfg' with embed_dim, vision_cfg and",
        ),
        ({"model": "hf-hub:lab/small", "pretrained": "openai"}, InvalidConfig, "which has weights of its own"),
        ({"model": "hf-hub:lab/small", "weights": str(file)}, InvalidConfig, "which has weights of its own"),
        ({"model": "RN50", "weights": str(file), "revision": "main"}, InvalidConfig, "one of the hub's weights"),
        ({"model": "lab/small"}, UnknownName, "open_clip has no model named 'lab/small'"),
        ({"model": "hf-hub:lab/small"}, WeightsUnavailable, r"lab/small.*\(HF_HUB_OFFLINE is set\)"),
    ):
        with pytest.raises(kind, match=reason):
            clip.identify(ClipParams(**given))
    with pytest.raises(UnknownName) as error:
        clip.identify(ClipParams(model="lab/small"))
    assert "model=hf-hub:lab/small" in error.value.hint


def test_weights_that_do_not_fit_are_named_with_what_to_run(clip_weights, tmp_path):
    save_file({"vision_model.embeddings.class_embedding": torch.ones(2)}, tmp_path / "model.safetensors")
    with pytest.raises(CorruptFile, match="do not fit the model 'ViT-S-32-alt'") as error:
        clip.load_image_tower(ClipParams(model=TINY_CLIP, weights=str(tmp_path)), "cpu")
    assert "use the streams hf-image and hf-text" in error.value.hint
    with pytest.raises(CorruptFile, match="do not fit the model 'RN50'"):
        clip.load_image_tower(ClipParams(model="RN50", weights=str(clip_weights), activation="gelu"), "cpu")
