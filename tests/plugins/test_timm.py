"""Streams of timm, on its real architectures, with random weights in files as on the hub."""

import argparse
import json
import shutil
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import save_file

from sparc.errors import CorruptFile, InvalidConfig, MissingData, UnknownName, WeightsUnavailable
from sparc.plugins import read_weights
from sparc.plugins.checks import check_backbone
from sparc.plugins.contracts import Sample
from sparc_plugins import timm_image
from sparc_plugins.openmoji import open_drawing
from sparc_plugins.timm_image import Dinov2Params, Dinov3Params, EffnetParams, TimmParams
from tests.plugins.backbones import COMMIT, GREY, GREY_AS_RGB, SAMPLES, features, hub_cache, offered, tokens

pytestmark = pytest.mark.usefixtures("no_hub")
TINY_VIT = "test_vit"


def load_timm(**params):
    return timm_image.load_timm(TimmParams(**params), "cpu", backbone="timm")


@pytest.fixture
def shallow(monkeypatch):
    """Make vision transformers of one block and ConvNeXts of four, timm's real parts, to save time."""
    import timm

    create = timm.create_model
    depths = {"vit": {"depth": 1}, "convnext": {"depths": (1, 1, 1, 1)}}
    monkeypatch.setattr(timm, "create_model", lambda name, **given: create(name, **depths[name.split("_")[0]], **given))


def saved(folder, name, **options):
    """Return a model with random weights, and its file of weights."""
    import timm

    torch.manual_seed(1)
    model = timm.create_model(name, pretrained=False, **options).eval()
    save_file(model.state_dict(), folder / "model.safetensors")
    return model, folder / "model.safetensors"


@pytest.fixture(scope="module")
def tiny_vit(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("vit"), TINY_VIT)[1]


@pytest.mark.parametrize("name", ["dinov2", "dinov3"])
def test_it_keeps_the_contract(name, shallow):
    check_backbone(offered(timm_image)[name], {"weights": "random"})


def test_dinov2_gives_the_class_token_at_224_pixels(shallow, tmp_path):
    model, path = saved(tmp_path, timm_image.DINOV2, img_size=224)
    backbone = timm_image.load_dinov2(Dinov2Params(weights=str(path)), "cpu")
    pixels = backbone.preprocess(SAMPLES)
    assert pixels.shape == (3, 3, 224, 224)
    with torch.inference_mode():
        hidden = model.forward_features(pixels)
    torch.testing.assert_close(features(backbone), hidden[:, 0])
    torch.testing.assert_close(tokens(backbone), hidden[:, 5:])
    assert (backbone.width, backbone.grid) == (384, (16, 16))


def test_dinov2_from_the_hubs_cache_is_the_same_as_from_the_file_made_for_518_pixels(shallow, tmp_path, no_hub):
    _, path = saved(tmp_path, timm_image.DINOV2)
    hub_cache(no_hub, "timm/vit_small_patch14_reg4_dinov2.lvd142m", path)
    backbones = [timm_image.load_dinov2(Dinov2Params(weights=where), "cpu") for where in (None, str(path.parent))]
    assert torch.equal(*[features(backbone, SAMPLES[:1]) for backbone in backbones])


WIDTHS = {"small": 384, "base": 768, "large": 1024, "giant": 1536}


@pytest.mark.parametrize("registers", [True, False])
@pytest.mark.parametrize("size", WIDTHS)
def test_dinov2_comes_in_all_sizes_with_and_without_registers(size, registers, shallow):
    name = f"vit_{size}_patch14_{'reg4_' if registers else ''}dinov2.lvd142m"
    backbone = timm_image.load_dinov2(Dinov2Params(model=name, weights="random"), "cpu")
    assert features(backbone, SAMPLES[:1]).shape == (1, WIDTHS[size])
    assert backbone.model.num_prefix_tokens == (5 if registers else 1)
    found = timm_image.identify_timm(Dinov2Params(model=name, revision=COMMIT))
    assert found == f"hub:timm/{name}@{COMMIT}"


def test_dinov3_gives_the_class_token_at_its_own_size(shallow, tmp_path):
    model, path = saved(tmp_path, timm_image.DINOV3)
    backbone = timm_image.load_dinov3(Dinov3Params(weights=str(path)), "cpu")
    assert backbone.preprocessing["input_size"] == [3, 256, 256]
    with torch.inference_mode():
        hidden = model.forward_features(backbone.preprocess(SAMPLES))
    torch.testing.assert_close(features(backbone), hidden[:, 0])
    torch.testing.assert_close(tokens(backbone), hidden[:, 5:])
    assert (backbone.width, backbone.grid) == (384, (16, 16))


def test_a_convnext_of_dinov3_gives_its_pooled_map_and_each_place_of_it_normed(shallow):
    params = Dinov3Params(model="convnext_tiny.dinov3_lvd1689m", weights="random")
    backbone = timm_image.load_dinov3(params, "cpu")
    with torch.inference_mode():
        pixels = backbone.preprocess(SAMPLES[:1])
        maps = backbone.model.forward_features(pixels)
    norm = partial(torch.nn.functional.layer_norm, normalized_shape=(768,), eps=1e-6)
    expected = norm(maps.mean(dim=(2, 3)))
    torch.testing.assert_close(features(backbone, SAMPLES[:1]), expected, rtol=1e-4, atol=1e-5)
    assert backbone.grid == maps.shape[2:]
    torch.testing.assert_close(tokens(backbone, SAMPLES[:1]), norm(maps.flatten(2).mT), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model", ["resnet18", "mobilenetv3_small_100", "swin_tiny_patch4_window7_224"])
def test_a_grid_of_one_place_is_the_whole_image(model, tmp_path):
    """The head's output for a patch alone equals its output for an image made of that patch everywhere."""
    backbone = timm_image.load_timm(TimmParams(model=model, weights="random"), "cpu", backbone="timm")
    rows, columns = backbone.grid
    assert (rows, columns) == (7, 7)
    found = tokens(backbone, SAMPLES[:1])[0]
    head, hidden = backbone.model.forward_head, backbone.model.forward_features(backbone.preprocess(SAMPLES[:1]))
    for place in (0, 10, 48):
        row, column = divmod(place, 7)
        channels_last = model.startswith("swin")
        one = hidden[:, row, column] if channels_last else hidden[:, :, row, column]
        all_over = (
            one[:, None, None].expand(-1, 7, 7, -1) if channels_last else one[..., None, None].expand(-1, -1, 7, 7)
        )
        torch.testing.assert_close(found[place], head(all_over)[0], rtol=1e-4, atol=1e-5)


def test_a_model_that_pools_by_attention_attends_to_each_patch_alone(shallow):
    params = TimmParams(model="vit_base_patch16_siglip_224", weights="random")
    backbone = timm_image.load_timm(params, "cpu", backbone="timm")
    found = tokens(backbone, SAMPLES[:1])[0]
    with torch.inference_mode():
        hidden = backbone.model.forward_features(backbone.preprocess(SAMPLES[:1]))
        # Attention to copies of one token is attention to that token.
        expected = backbone.model.forward_head(hidden[:, 5:6].expand(-1, 196, -1))
    torch.testing.assert_close(found[5], expected[0], rtol=1e-4, atol=1e-5)


def test_a_model_without_a_grid_says_so():
    params = TimmParams(model="resmlp_12_224", weights="random")
    backbone = timm_image.load_timm(params, "cpu", backbone="timm")
    assert backbone.grid is None
    with pytest.raises(InvalidConfig, match="MlpMixer: expected a model with a grid of patches"):
        backbone.forward_tokens(torch.zeros(1, 3, 224, 224))


def test_a_model_of_another_family_is_refused():
    with pytest.raises(InvalidConfig, match="'dinov2': expected a DINOv2 model, found 'resnet18'"):
        timm_image.load_dinov2(Dinov2Params(model="resnet18"), "cpu")
    with pytest.raises(InvalidConfig, match="'dinov3': expected a DINOv3 model, found 'vit_small"):
        timm_image.load_dinov3(Dinov3Params(model="vit_small_patch14_dinov2.lvd142m"), "cpu")


@pytest.mark.parametrize("name", ["dinov2", "dinov3"])
def test_what_the_listing_says_of_the_default_is_what_timm_says(name, shallow, no_hub, tmp_path):
    spec = offered(timm_image)[name]
    assert spec.load(spec.params(weights="random"), "cpu").width == spec.width
    assert not spec.has_weights()
    repo = timm_image._hub_id(spec.params().model)
    (tmp_path / "model.safetensors").touch()
    hub_cache(no_hub, repo, tmp_path / "model.safetensors")
    assert spec.identify(spec.params()) == f"hub:{repo}@{COMMIT}"
    assert spec.has_weights()


def test_any_timm_model_gives_its_pooled_features(tiny_vit):
    import timm

    backbone = timm_image.load_timm(TimmParams(model=TINY_VIT, weights=str(tiny_vit)), "cpu", backbone="timm")
    reference = timm.create_model(TINY_VIT, pretrained=False)
    reference.load_state_dict(read_weights(tiny_vit))
    pixels = backbone.preprocess(SAMPLES)
    with torch.inference_mode():
        expected = reference.eval().forward_head(reference.forward_features(pixels), pre_logits=True)
    torch.testing.assert_close(features(backbone), expected)


def test_tokens_are_normed_where_the_norm_comes_after_pooling():
    params = TimmParams(model=TINY_VIT, weights="random")
    backbone = timm_image.load_timm(params, "cpu", backbone="timm", global_pool="avg")
    assert backbone.grid == (10, 10)
    # An untrained LayerNorm gives each token mean 0 and variance 1.
    found = tokens(backbone)
    torch.testing.assert_close(found.mean(dim=2), torch.zeros(3, 100), rtol=0, atol=1e-4)
    torch.testing.assert_close(found.var(dim=2, correction=0), torch.ones(3, 100), rtol=0, atol=1e-2)


def as_in_a_training(state, prefix):
    return {"state_dict": {f"{prefix}{name}": value for name, value in state.items()}}


TRAININGS = {
    "distributed": lambda state: as_in_a_training(state, "module."),
    "compiled": lambda state: as_in_a_training(state, "_orig_mod.module."),
    "compiled inside": lambda state: as_in_a_training(state, "module._orig_mod."),
    "lightning": lambda state: {**as_in_a_training(state, "model."), "hyper_parameters": {"lr": 0.1}},
    "a tower": lambda state: as_in_a_training(state, "visual.")["state_dict"] | {"text.proj": torch.ones(2)},
    "timm": lambda state: {"epoch": 3, "arch": "test_vit", "state_dict": state, "args": argparse.Namespace(lr=0.1)},
    "a number of numpy": lambda state: {"model": state, "best": np.float64(1.5), "lr": np.float32(0.1)},
    "a moving average": lambda state: {"model": {name: value + 1 for name, value in state.items()}, "model_ema": state},
    "another key": lambda state: {"weights": state, "epoch": 3},
}


@pytest.mark.parametrize("training", TRAININGS)
def test_the_file_of_a_training_gives_the_features_of_its_weights(training, tiny_vit, tmp_path):
    expected = features(load_timm(model=TINY_VIT, weights=str(tiny_vit)))
    torch.save(TRAININGS[training](read_weights(tiny_vit)), tmp_path / "training.pth")  # noqa: TID251
    assert torch.equal(features(load_timm(model=TINY_VIT, weights=str(tmp_path / "training.pth"))), expected)


@pytest.mark.parametrize("classes", [7, 0, None])
def test_a_file_with_other_classes_or_without_a_head_gives_the_features_of_its_weights(classes, tiny_vit, tmp_path):
    state = read_weights(tiny_vit)
    head = {name: state.pop(name) for name in ("head.weight", "head.bias")}
    if classes:
        state |= {name: value[:classes].clone() for name, value in head.items()}
    if classes is None:  # a prefix and other classes at once
        state = {f"module.{name}": value for name, value in state.items()} | {"module.head.weight": torch.ones(9, 64)}
        state["module.head.bias"] = torch.ones(9)
    save_file(state, tmp_path / "model.safetensors")
    found, expected = (features(load_timm(model=TINY_VIT, weights=str(path))) for path in (tmp_path, tiny_vit))
    assert torch.equal(found, expected)


def test_without_a_head_the_other_weights_are_checked_all_the_same(tiny_vit, tmp_path):
    state = {name: value for name, value in read_weights(tiny_vit).items() if not name.startswith("head")}
    del state["blocks.0.norm1.weight"]
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(CorruptFile, match=r"do not fit the model 'test_vit'.*blocks.0.norm1.weight"):
        load_timm(model=TINY_VIT, weights=str(tmp_path))


def sharded(path, folder):
    """Write the weights of a file as two files with an index, as the hub serves large models."""
    state = read_weights(path)
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    places = {name: names[number % 2] for number, name in enumerate(state)}
    for file in names:
        save_file({name: state[name] for name in state if places[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return [folder / name for name in (*names, "model.safetensors.index.json")]


def test_weights_in_several_files_load_from_a_folder_and_from_the_hub(tiny_vit, tmp_path, hub, monkeypatch):
    expected = features(load_timm(model=TINY_VIT, weights=str(tiny_vit)))
    folder = tmp_path / "several"
    folder.mkdir()
    files = sharded(tiny_vit, folder)
    local = TimmParams(model=TINY_VIT, weights=str(folder))
    assert torch.equal(features(load_timm(model=TINY_VIT, weights=str(folder))), expected)
    name = f"{TINY_VIT}.r160_in1k"
    hub.repos[f"timm/{name}"] = [(COMMIT, {file.name: file.read_bytes() for file in files})]
    assert torch.equal(features(load_timm(model=name)), expected)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert torch.equal(features(load_timm(model=name)), expected)

    before = timm_image.identify_timm(local)
    save_file({"other": torch.ones(1)}, files[1])
    assert timm_image.identify_timm(local) != before
    files[1].unlink()
    with pytest.raises(MissingData, match="lists 2 files, and 1 of them are not beside it, such as model-00002"):
        timm_image.identify_timm(local)


def test_pytorch_model_bin_alone_loads_from_the_hub(tiny_vit, tmp_path, hub):
    torch.save(read_weights(tiny_vit), tmp_path / "pytorch_model.bin")  # noqa: TID251
    name = f"{TINY_VIT}.r160_in1k"
    hub.repos[f"timm/{name}"] = [(COMMIT, {"pytorch_model.bin": (tmp_path / "pytorch_model.bin").read_bytes()})]
    assert torch.equal(features(load_timm(model=name)), features(load_timm(model=TINY_VIT, weights=str(tiny_vit))))


def test_a_revision_chooses_the_weights_and_a_new_commit_has_another_identity(tiny_vit, tmp_path, hub):
    name, old, new = f"{TINY_VIT}.r160_in1k", "a" * 40, "b" * 40
    other = saved(tmp_path, TINY_VIT, num_classes=3)[1]
    hub.repos[f"timm/{name}"] = [(old, {"model.safetensors": tiny_vit.read_bytes()})]
    assert timm_image.identify_timm(TimmParams(model=name)) == f"hub:timm/{name}@{old}"
    hub.repos[f"timm/{name}"].append((new, {"model.safetensors": other.read_bytes()}))
    assert timm_image.identify_timm(TimmParams(model=name)) == f"hub:timm/{name}@{new}"
    params = TimmParams(model=f"{name}@{old}")
    assert params == TimmParams(model=name, revision=old)
    assert timm_image.identify_timm(params) == f"hub:timm/{name}@{old}"
    found = [features(load_timm(model=name, **which)) for which in ({"revision": old}, {})]
    expected = [features(load_timm(model=TINY_VIT, weights=str(path))) for path in (tiny_vit, other)]
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    with pytest.raises(InvalidConfig, match=r"beside revision=a.*: a revision is one of the hub's weights"):
        load_timm(model=name, revision=old, weights=str(tiny_vit))


def test_the_papers_images_are_resized_to_256_and_cropped_to_224(shallow):
    from torchvision.transforms import v2

    backbone = timm_image.load_dinov2(Dinov2Params(weights="random", crop_pct=0.875), "cpu")
    config = backbone.preprocessing
    assert (config["input_size"], config["crop_pct"]) == ([3, 224, 224], 0.875)
    by_hand = v2.Compose(
        [
            v2.Resize(256, interpolation=v2.InterpolationMode.BICUBIC),
            v2.CenterCrop(224),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(config["mean"], config["std"]),
        ]
    )
    torch.testing.assert_close(backbone.preprocess(SAMPLES)[0], by_hand(SAMPLES[0].image()))


def test_size_changes_pixels_and_grid_and_is_refused_where_the_model_lacks_it(shallow):
    backbone = timm_image.load_dinov2(Dinov2Params(weights="random", size=280), "cpu")
    assert backbone.preprocess(SAMPLES[:1]).shape == (1, 3, 280, 280)
    assert backbone.grid == (20, 20)
    with pytest.raises(InvalidConfig, match=r"size=225: the model 'vit_small_patch14_reg4_dinov2.lvd142m' does not"):
        timm_image.load_dinov2(Dinov2Params(weights="random", size=225), "cpu")


def test_size_of_a_convolutional_network_changes_the_pixels():
    backbone = load_timm(model="resnet18", weights="random", size=96)
    assert backbone.preprocess(SAMPLES[:1]).shape == (1, 3, 96, 96)
    assert backbone.grid == (3, 3)


@pytest.mark.parametrize("given", [{"size": 0}, {"crop_pct": 0}, {"crop_pct": 1.1}])
def test_a_size_or_crop_of_nothing_is_refused(given):
    with pytest.raises(ValidationError):
        Dinov2Params(**given)


def test_weights_of_another_library_are_refused_with_the_stream_to_use(tiny_vit, tmp_path):
    save_file({"vision_model.embeddings.class_embedding": torch.ones(2)}, tmp_path / "model.safetensors")
    with pytest.raises(CorruptFile, match="do not fit") as error:
        load_timm(model=TINY_VIT, weights=str(tmp_path))
    assert "use the stream hf-image" in error.value.hint


def test_a_grey_picture_is_the_one_of_three_equal_channels(tiny_vit):
    backbone = load_timm(model=TINY_VIT, weights=str(tiny_vit))
    assert torch.equal(features(backbone, [GREY]), features(backbone, [GREY_AS_RGB]))


@pytest.mark.parametrize("name", ["timm", "effnet-lite0"])
def test_the_recorded_preprocessing_makes_the_same_pixels_by_timm_alone(name):
    from timm.data import create_transform

    spec = offered(timm_image)[name]
    params = {"model": TINY_VIT} if name == "timm" else {}
    backbone = spec.load(spec.params(weights="random", **params), "cpu")
    transform = create_transform(**backbone.preprocessing)
    assert torch.equal(backbone.preprocess(SAMPLES)[0], transform(SAMPLES[0].image()))


def test_a_timm_model_whose_head_widens_its_features_has_the_width_that_it_gives():
    params = TimmParams(model="mobilenetv3_small_050", weights="random")
    backbone = timm_image.load_timm(params, "cpu", backbone="timm")
    assert features(backbone).shape == (3, backbone.width) == (3, 1024)


def test_weights_in_torchs_own_format_load_without_executing_anything(tiny_vit, tmp_path):
    path = tmp_path / "pytorch_model.bin"
    torch.save(read_weights(tiny_vit), path)  # noqa: TID251
    load = [TimmParams(model=TINY_VIT, weights=str(where)) for where in (tiny_vit, path, tmp_path)]
    found = [features(timm_image.load_timm(params, "cpu", backbone="timm")) for params in load]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])

    class Evil:
        def __reduce__(self):
            return print, ("executed",)

    torch.save({"weight": Evil()}, path)  # noqa: TID251
    with pytest.raises(CorruptFile, match="holds no readable weights"):
        timm_image.load_timm(TimmParams(model=TINY_VIT, weights=str(path)), "cpu", backbone="timm")


def test_random_weights_are_the_same_every_time():
    params = TimmParams(model=TINY_VIT, weights="random")
    first, again = (timm_image.load_timm(params, "cpu", backbone="timm") for _ in range(2))
    assert torch.equal(features(first), features(again))
    assert timm_image.identify_timm(params) == "random"


def test_identity_follows_the_content_of_the_weights_not_their_place(tiny_vit, tmp_path):
    moved = tmp_path / "moved.safetensors"
    shutil.copy(tiny_vit, moved)
    one, two = (timm_image.identify_timm(TimmParams(model=TINY_VIT, weights=str(path))) for path in (tiny_vit, moved))
    assert one == two
    assert one.startswith("sha256:")


LOADS = {
    "dinov2": lambda: timm_image.load_dinov2(Dinov2Params(), "cpu"),
    "dinov3": lambda: timm_image.load_dinov3(Dinov3Params(), "cpu"),
    "timm": lambda: load_timm(model="resnet18.a1_in1k"),
}
FILES = {
    "dinov2": "timm/vit_small_patch14_reg4_dinov2.lvd142m/model.safetensors",
    "dinov3": "timm/vit_small_patch16_dinov3.lvd1689m/model.safetensors",
    "timm": "timm/resnet18.a1_in1k/model.safetensors",
}


@pytest.mark.parametrize("name", LOADS)
def test_weights_that_cannot_be_had_are_named_with_all_that_can_be_done(name):
    with pytest.raises(WeightsUnavailable) as error:
        LOADS[name]()
    assert f"the weights of '{name}'" in error.value.message
    assert FILES[name] in error.value.message
    for way in ("connect", "HF_HOME", f"--stream '{name}[weights=PATH]'", "sparc train", f"{name}[weights=random]"):
        assert way in error.value.hint


def test_local_weights_that_do_not_fit_or_are_not_there_are_named(tiny_vit, tmp_path):
    def load(weights, model=TINY_VIT):
        return timm_image.load_timm(TimmParams(model=model, weights=str(weights)), "cpu", backbone="timm")

    with pytest.raises(CorruptFile, match=r"do not fit the model 'resnet18'"):
        load(tiny_vit, "resnet18")
    with pytest.raises(MissingData, match=r"no file or folder at .*nowhere.pt"):
        load(tmp_path / "nowhere.pt")
    with pytest.raises(MissingData, match=r"has none of model.safetensors"):
        load(tmp_path)
    truncated = tmp_path / "model.safetensors"
    truncated.write_bytes(tiny_vit.read_bytes()[:-100])
    with pytest.raises(CorruptFile, match="holds no readable weights"):
        load(truncated)


def test_misspelled_models_get_a_suggestion():
    with pytest.raises(UnknownName, match="timm has no model named 'resnet1'") as error:
        timm_image.identify_timm(TimmParams(model="resnet1"))
    assert "did you mean resnet" in error.value.hint
    with pytest.raises(UnknownName, match=r"timm has no model named 'resnet18.nope'"):
        timm_image.identify_timm(TimmParams(model="resnet18.nope", weights="random"))


@pytest.mark.parametrize("variant", [0, 2])
def test_effnet_is_the_pretrained_one(variant, tmp_path, monkeypatch):
    """Clock faces are more alike than a clock and a cat, far more than to a network with random weights."""
    monkeypatch.setenv("SPARC_CACHE", str(tmp_path))
    clocks_and_cats = [
        Sample(code, lambda code=code: open_drawing(code)) for code in ("1F550", "1F551", "1F431", "1F63A")
    ]
    contrast = {}
    for weights in (None, "random"):
        backbone = timm_image.load_effnet(variant, EffnetParams(weights=weights), "cpu")
        found = torch.nn.functional.normalize(features(backbone, clocks_and_cats), dim=1)
        assert backbone.width == 1280
        similar = found @ found.T
        contrast[weights] = (similar[0, 1] + similar[2, 3] - similar[0, 2] - similar[1, 3]) / 2
    assert contrast[None] > 0.3
    assert contrast["random"] < contrast[None] / 2


def test_effnet_refuses_other_weights(tiny_vit):
    with pytest.raises(CorruptFile, match="do not fit the model 'tf_efficientnet_lite0'"):
        timm_image.load_effnet(0, EffnetParams(weights=str(tiny_vit)), "cpu")


def test_weights_that_are_not_finite_are_refused_with_the_tensor(tmp_path):
    model, path = saved(tmp_path, TINY_VIT)
    state = model.state_dict()
    state["norm.weight"][0] = float("inf")
    save_file(state, path)
    with pytest.raises(CorruptFile, match=r"expected finite weights, found norm\.weight, in which 1 of 64 numbers"):
        load_timm(model=TINY_VIT, weights=str(path))


def test_the_demos_image_streams_take_a_size_and_a_crop():
    """An image whose rim is white and whose middle is black: a crop of its middle is black, the whole is not."""
    image = Image.new("RGB", (100, 100), "white")
    image.paste((0, 0, 0), (20, 20, 80, 80))
    sample = Sample("one", open_image=lambda: image)
    for size, crop_pct in ((64, 0.5), (224, 1.0)):
        params = timm_image.EffnetParams(weights="random", size=size, crop_pct=crop_pct)
        backbone = timm_image.load_effnet(0, params, "cpu")
        batch = backbone.preprocess([sample])
        pixels = next(tensor for tensor in (batch if isinstance(batch, tuple | list) else [batch]))
        assert tuple(pixels.shape) == (1, 3, size, size)
        assert (float(pixels.max()) < 0) == (crop_pct == 0.5)
        assert backbone.forward(batch).shape == (1, 1280)
