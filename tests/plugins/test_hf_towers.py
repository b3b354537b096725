"""Towers with their projection, types of numbers, names of older versions, and images of another size."""

import json

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

from sparc.errors import CorruptFile, InvalidConfig
from tests.plugins.backbones import SAMPLES, features, tokens
from tests.plugins.hf_folders import (
    BERT,
    EYE,
    IMAGE_SIZE,
    LONG,
    SHORT,
    TONGUE,
    load_hf,
    pixels,
    save_model,
    save_tokenizer,
    words,
)


def save_with_projection(folder, kind, config):
    torch.manual_seed(1)
    kind(config).save_pretrained(folder)
    return kind.from_pretrained(folder).eval()


def test_an_image_tower_with_its_projection_gives_the_embedding_and_projects_each_patch(tmp_path):
    net = save_with_projection(tmp_path, hf.CLIPVisionModelWithProjection, hf.CLIPVisionConfig(**EYE, projection_dim=7))
    hf.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=IMAGE_SIZE["size"]).save_pretrained(tmp_path)
    backbone = load_hf("hf-image", tmp_path)
    with torch.inference_mode():
        expected = net(**pixels(tmp_path))
    torch.testing.assert_close(features(backbone), expected.image_embeds, rtol=0, atol=1e-6)
    assert (backbone.width, tokens(backbone).shape) == (7, (3, 16, 7))
    one = features(load_hf("hf-image", tmp_path, "class"))
    torch.testing.assert_close(one, expected.last_hidden_state[:, 0], rtol=0, atol=1e-6)


def test_a_text_tower_with_its_projection_gives_the_embedding(tmp_path):
    net = save_with_projection(tmp_path, hf.CLIPTextModelWithProjection, hf.CLIPTextConfig(**TONGUE, projection_dim=7))
    save_tokenizer(tmp_path, model_max_length=12, model_input_names=["input_ids", "attention_mask"])
    with torch.inference_mode():
        expected = net(**words(tmp_path, [SHORT, LONG], padding=True)).text_embeds
    torch.testing.assert_close(features(load_hf("hf-text", tmp_path), [SHORT, LONG]), expected, rtol=0, atol=1e-6)


def test_a_tower_that_should_have_a_projection_and_lacks_it_is_refused(tmp_path):
    save_with_projection(tmp_path, hf.CLIPVisionModelWithProjection, hf.CLIPVisionConfig(**EYE, projection_dim=7))
    hf.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=IMAGE_SIZE["size"]).save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    del state["visual_projection.weight"]
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(CorruptFile, match=r"the weights lack visual_projection.weight"):
        load_hf("hf-image", tmp_path)


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_values_of_a_file_are_not_rounded_to_the_type_in_its_configuration(dtype, file, tmp_path):
    save_tokenizer(tmp_path, model_max_length=12)
    save_model(tmp_path, hf.BertConfig(**BERT))
    expected = features(load_hf("hf-text", tmp_path), [SHORT, LONG])
    if file.endswith("bin"):
        torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / file)  # noqa: TID251
        (tmp_path / "model.safetensors").unlink()
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "dtype": dtype, "torch_dtype": dtype}))
    assert torch.equal(features(load_hf("hf-text", tmp_path), [SHORT, LONG]), expected)


@pytest.mark.parametrize("prefix", ["", "vit.", "module.", "model.", "model.vit.", "_orig_mod.", "net.backbone."])
def test_names_of_older_versions_are_understood_behind_any_prefix(prefix, tmp_path):
    save_model(tmp_path, hf.ViTConfig(**EYE))  # the file has the names of transformers 4
    hf.ViTImageProcessor(**IMAGE_SIZE).save_pretrained(tmp_path)
    expected = features(load_hf("hf-image", tmp_path))
    state = load_file(tmp_path / "model.safetensors")
    named = {f"{prefix}{name}": value for name, value in state.items()} | {"head.weight": torch.ones(2, 24)}
    torch.save({"state_dict": named}, tmp_path / "last.ckpt")  # noqa: TID251
    assert torch.equal(features(load_hf("hf-image", tmp_path / "last.ckpt")), expected)
    short = {name: value for name, value in named.items() if "layer.1." not in name}
    torch.save(short, tmp_path / "short.ckpt")  # noqa: TID251
    with pytest.raises(CorruptFile, match="the weights lack"):
        load_hf("hf-image", tmp_path / "short.ckpt")


def test_images_of_another_size_than_the_models_are_refused_with_the_file_to_change(tmp_path):
    save_model(tmp_path, hf.ViTConfig(**EYE))
    hf.ViTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(tmp_path)
    with pytest.raises(InvalidConfig, match=r"expected images of 32 x 32 pixels.* found 64 x 64") as error:
        load_hf("hf-image", tmp_path)
    assert "preprocessor_config.json" in error.value.hint
    hf.ViTImageProcessor(**IMAGE_SIZE).save_pretrained(tmp_path)
    assert features(load_hf("hf-image", tmp_path), SAMPLES).shape == (3, 24)
