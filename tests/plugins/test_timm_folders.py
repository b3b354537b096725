"""Folders and repositories as timm writes them, with config.json, load as timm itself loads them."""

import json

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.data import create_transform, resolve_data_config
from timm.models import save_for_hf

from sparc.errors import CorruptFile, InvalidConfig, MissingData, UnknownName
from sparc_plugins import timm_image
from sparc_plugins.timm_image import Dinov2Params, TimmParams
from tests.plugins.backbones import COMMIT, SAMPLES, features

pytestmark = pytest.mark.usefixtures("no_hub")
OWN = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "crop_pct": 0.8, "interpolation": "bilinear"}


def save(folder, name="test_vit", preprocessing=OWN, **options):
    torch.manual_seed(2)
    model = timm.create_model(name, num_classes=5, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.pretrained_cfg = dict(model.pretrained_cfg) | preprocessing
    save_for_hf(model, folder, model_args=options, safe_serialization=True)
    return folder


def by_timm(folder):
    """Return the features and the preprocessing of the library alone."""
    model = timm.create_model(f"local-dir:{folder}", pretrained=True)
    model.reset_classifier(0)
    config = resolve_data_config({}, model=model)
    transform = create_transform(**config)
    with torch.inference_mode():
        return model.eval()(torch.stack([transform(sample.image()) for sample in SAMPLES])), config


def load(**params):
    return timm_image.load_timm(TimmParams(**params), "cpu", backbone="timm")


POOLING = {
    "the model's own": {},
    "the mean, then the norm": {"global_pool": "avg"},
    "the norm, then the mean": {"global_pool": "avg", "fc_norm": False},
}


@pytest.mark.parametrize("options", POOLING.values(), ids=POOLING)
def test_a_folder_prepares_images_and_pools_as_its_configuration_says(options, tmp_path):
    folder = save(tmp_path / "model", **options)
    expected, config = by_timm(folder)
    for params in (
        {"model": "test_vit", "weights": str(folder)},
        {"model": "test_vit", "weights": str(folder / "model.safetensors")},
        {"model": f"local-dir:{folder}"},
    ):
        backbone = load(**params)
        torch.testing.assert_close(features(backbone), expected, rtol=0, atol=1e-6)
        assert backbone.preprocessing["mean"] == config["mean"] == list(OWN["mean"])
        assert backbone.preprocessing["crop_pct"] == OWN["crop_pct"]


def test_a_repository_loads_at_its_commit_as_its_folder_does(tmp_path, hub):
    folder = save(tmp_path / "model")
    hub.repos["lab/vit"] = [(COMMIT, {file.name: file.read_bytes() for file in folder.iterdir()})]
    params = {"model": f"hf-hub:lab/vit@{COMMIT}"}
    assert torch.equal(features(load(**params)), features(load(model=f"local-dir:{folder}")))
    assert timm_image.identify_timm(TimmParams(**params)) == f"hub:lab/vit@{COMMIT}"


def test_the_identity_of_a_folder_follows_its_configuration_and_not_its_place(tmp_path):
    folders = [save(tmp_path / name) for name in ("one", "two")]
    told = [TimmParams(model="test_vit", weights=str(folder)) for folder in folders]
    told += [TimmParams(model=f"local-dir:{folder}") for folder in folders]
    first = {timm_image.identify_timm(params) for params in told}
    assert len(first) == 1
    config = json.loads((folders[0] / "config.json").read_text())
    config["pretrained_cfg"]["mean"] = [0.3, 0.2, 0.1]
    (folders[0] / "config.json").write_text(json.dumps(config))
    assert timm_image.identify_timm(told[0]) == timm_image.identify_timm(told[2])
    assert timm_image.identify_timm(told[0]) not in first


def test_a_file_of_a_transformer_that_averages_its_tokens_is_known_by_its_norm(tmp_path):
    folder = save(tmp_path / "model", preprocessing={}, global_pool="avg")
    expected, _ = by_timm(folder)
    (folder / "config.json").unlink()
    torch.testing.assert_close(features(load(model="test_vit", weights=str(folder))), expected, rtol=0, atol=1e-6)


def test_a_stream_of_the_class_token_says_where_a_model_that_averages_its_tokens_is_read(tmp_path):
    name = "vit_small_patch14_reg4_dinov2"
    model = timm.create_model(name, global_pool="avg", num_classes=0, img_size=28, depth=1)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(CorruptFile, match="do not fit the model") as error:
        timm_image.load_dinov2(Dinov2Params(model=name, weights=str(tmp_path), size=28), "cpu")
    assert "use the stream timm" in error.value.hint


def test_weights_that_lack_a_layer_are_refused_though_the_configuration_states_other_classes(tmp_path):
    folder = save(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["num_classes"] = 1000
    (folder / "config.json").write_text(json.dumps(config))
    expected, _ = by_timm(folder)
    torch.testing.assert_close(features(load(model="test_vit", weights=str(folder))), expected, rtol=0, atol=1e-6)
    state = load_file(folder / "model.safetensors")
    save_file({name: value for name, value in state.items() if "blocks.1." not in name}, folder / "model.safetensors")
    with pytest.raises(CorruptFile, match="do not fit the model 'test_vit'"):
        load(model="test_vit", weights=str(folder))


def test_what_excludes_each_other_is_said_before_loading(tmp_path):
    folder = save(tmp_path / "model")
    with pytest.raises(InvalidConfig, match=r"model=test_efficientnet .* names the architecture 'test_vit'") as error:
        timm_image.identify_timm(TimmParams(model="test_efficientnet", weights=str(folder)))
    assert error.value.hint.startswith("model=test_vit")
    with pytest.raises(InvalidConfig, match="weights of its own"):
        timm_image.identify_timm(TimmParams(model="hf-hub:lab/vit", weights=str(folder)))
    with pytest.raises(InvalidConfig, match="a revision is one of the hub's weights"):
        timm_image.identify_timm(TimmParams(model=f"local-dir:{folder}", revision="main"))
    with pytest.raises(InvalidConfig, match="expected a DINOv2 model"):
        timm_image.identify_dinov2(Dinov2Params(model="hf-hub:lab/dinov2"))
    with pytest.raises(UnknownName, match="no model named 'lab/vit'") as unknown:
        timm_image.identify_timm(TimmParams(model="lab/vit"))
    assert "model=hf-hub:lab/vit" in unknown.value.hint
    (folder / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(CorruptFile, match="expected timm's configuration, with 'architecture'"):
        timm_image.identify_timm(TimmParams(model=f"local-dir:{folder}"))
    (folder / "config.json").unlink()
    with pytest.raises(MissingData, match=r"expected config.json in"):
        timm_image.identify_timm(TimmParams(model=f"local-dir:{folder}"))
