"""Streams of transformers, on small versions of its real architectures: folders as on the hub, random weights."""

import json
import shutil

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

from sparc.errors import CorruptFile, InvalidConfig, WeightsUnavailable
from sparc.plugins import read_weights
from sparc.plugins.checks import check_backbone
from sparc.plugins.contracts import Sample
from sparc_plugins import hf_encoders
from sparc_plugins.hf_encoders import EncoderParams, MiniLMParams, SentenceParams
from tests.plugins.backbones import COMMIT, GREY, GREY_AS_RGB, SAMPLES, features, hub_cache, noise, offered, tokens
from tests.plugins.hf_folders import (
    BERT,
    EYE,
    IMAGE_SIZE,
    LONG,
    SHORT,
    SMALL,
    TONGUE,
    by_hand,
    load,
    load_hf,
    pixels,
    save_model,
    save_tokenizer,
    words,
)

pytestmark = pytest.mark.usefixtures("no_hub")


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    save_tokenizer(folder, model_max_length=12)
    return save_model(folder, hf.BertConfig(**BERT))


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dinov2")
    hf.BitImageProcessor(size={"shortest_edge": 32}, crop_size=32).save_pretrained(folder)
    return save_model(folder, hf.Dinov2WithRegistersConfig(**EYE))


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    save_tokenizer(folder, cls_token=None)
    hf.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32).save_pretrained(folder)
    return save_model(folder, hf.CLIPConfig(vision_config=EYE, text_config=TONGUE, projection_dim=20))


@pytest.fixture(scope="module")
def siglip(tmp_path_factory):
    """SigLIP with images of a fixed size, like most checkpoints of SigLIP 2."""
    folder = tmp_path_factory.mktemp("siglip")
    save_tokenizer(folder, cls_token=None, model_input_names=["input_ids"])
    hf.SiglipImageProcessor(**IMAGE_SIZE).save_pretrained(folder)
    return save_model(folder, hf.SiglipConfig(vision_config=EYE, text_config={**TONGUE, "projection_size": 24}))


@pytest.fixture(scope="module")
def siglip2(tmp_path_factory):
    """The variant of SigLIP 2 that keeps an image's proportions, with padding in place of missing patches."""
    folder = tmp_path_factory.mktemp("siglip2")
    save_tokenizer(folder, cls_token=None)
    hf.Siglip2ImageProcessor(patch_size=8, max_num_patches=16).save_pretrained(folder)
    eye = {**SMALL, "patch_size": 8, "num_patches": 16}
    return save_model(folder, hf.Siglip2Config(vision_config=eye, text_config={**TONGUE, "projection_size": 24}))


@pytest.mark.parametrize(
    ("stream", "model"),
    [("hf-image", "dinov2"), ("hf-image", "clip"), ("hf-image", "siglip2"), ("hf-text", "clip"), ("hf-text", "siglip")],
)
def test_it_keeps_the_contract(stream, model, request):
    params = {"model": "lab/model", "weights": str(request.getfixturevalue(model))}
    check_backbone(offered(hf_encoders)[stream], params)


def test_sentence_keeps_the_contract(bert):
    check_backbone(offered(hf_encoders)["sentence"], {"weights": str(bert)})


def test_size_and_crop_change_the_images(dinov2, siglip):
    """DINOv2 crops 32 pixels of 32; SigLIP squashes images to 32 x 32."""
    stream = offered(hf_encoders)["hf-image"]

    def load(folder, **changes):
        return stream.load(stream.params(model="lab/model", weights=str(folder), **changes), "cpu")

    image = SAMPLES[0].image()
    processor = hf.BitImageProcessor(size={"shortest_edge": 64}, crop_size=32)
    (found,) = load(dinov2, crop_pct=0.5).preprocess(SAMPLES[:1])["pixel_values"]
    torch.testing.assert_close(found, processor(image, return_tensors="pt")["pixel_values"][0])
    larger = load(dinov2, size=48)
    assert larger.preprocess(SAMPLES)["pixel_values"].shape == (3, 3, 48, 48)
    assert larger.grid == (6, 6)
    assert larger.preprocessing["crop_size"]["height"] == 48
    (found,) = load(siglip, crop_pct=0.5).preprocess(SAMPLES[:1])["pixel_values"]
    assert found.shape == (3, 32, 32)
    with pytest.raises(InvalidConfig, match=r"expected images of 32 x 32 pixels, as config.json states, found 40 x 40"):
        load(siglip, size=40)  # it has positions for 32 pixels only


def test_a_size_of_images_of_their_own_proportions_is_refused(siglip2):
    stream = offered(hf_encoders)["hf-image"]
    with pytest.raises(InvalidConfig, match="expected an image processor of one size"):
        stream.load(stream.params(model="lab/model", weights=str(siglip2), size=32), "cpu")


def test_an_image_encoder_gives_what_transformers_gives_for_each_pool(dinov2):
    with torch.inference_mode():
        expected = by_hand(dinov2)(**pixels(dinov2))
    hidden = expected.last_hidden_state
    patches = hidden[:, 5:]  # after the class token and four registers
    wanted = {"pooled": expected.pooler_output, "class": hidden[:, 0], "mean": patches.mean(dim=1)}
    for pool, value in wanted.items():
        backbone = load_hf("hf-image", dinov2, pool)
        torch.testing.assert_close(features(backbone), value, rtol=0, atol=1e-5)
        torch.testing.assert_close(tokens(backbone), patches, rtol=0, atol=1e-5)
        assert (backbone.width, backbone.grid) == (24, (4, 4))
    assert torch.equal(features(backbone, [GREY]), features(backbone, [GREY_AS_RGB]))


@pytest.mark.parametrize("model", ["clip", "siglip", "siglip2"])
def test_a_two_tower_models_towers_give_its_embeddings(model, request):
    folder = request.getfixturevalue(model)
    padding = {"padding": True} if model == "clip" else {"padding": "max_length", "max_length": 12}
    reference = by_hand(folder)
    with torch.inference_mode():
        image = reference.get_image_features(**pixels(folder)).pooler_output
        text = reference.get_text_features(**words(folder, [SHORT, LONG], **padding)).pooler_output
    eye, tongue = load_hf("hf-image", folder), load_hf("hf-text", folder)
    torch.testing.assert_close(features(eye), image, rtol=0, atol=1e-5)
    torch.testing.assert_close(features(tongue, [SHORT, LONG]), text, rtol=0, atol=1e-5)
    assert eye.width == tongue.width == (20 if model == "clip" else 24)
    torch.testing.assert_close(features(tongue, [SHORT])[0], text[0], rtol=0, atol=1e-5)  # independent of the batch


@pytest.mark.parametrize(("model", "first"), [("clip", 1), ("siglip", 0)])
def test_the_patch_tokens_of_a_tower_come_without_its_class_token(model, first, request):
    folder = request.getfixturevalue(model)
    backbone = load_hf("hf-image", folder, "mean")
    with torch.inference_mode():
        hidden = by_hand(folder).vision_model(**pixels(folder)).last_hidden_state
    assert backbone.grid == (4, 4)
    torch.testing.assert_close(tokens(backbone), hidden[:, first:], rtol=0, atol=1e-5)
    torch.testing.assert_close(features(backbone), hidden[:, first:].mean(dim=1), rtol=0, atol=1e-5)


def test_a_towers_head_is_applied_to_each_patch_alone(clip, siglip):
    with torch.inference_mode():
        model = by_hand(clip)
        hidden = model.vision_model(**pixels(clip)).last_hidden_state[:, 1:]
        projected = model.visual_projection(model.vision_model.post_layernorm(hidden))
        torch.testing.assert_close(tokens(load_hf("hf-image", clip)), projected, rtol=0, atol=1e-5)
        tower = by_hand(siglip).vision_model
        hidden = tower(**pixels(siglip)).last_hidden_state
        # Attention to sixteen copies of one token is attention to that token.
        alone = tower.head(hidden[:, 3:4].expand(-1, 16, -1))
        torch.testing.assert_close(tokens(load_hf("hf-image", siglip))[:, 3], alone, rtol=0, atol=1e-5)


def test_a_captions_words_are_found_in_its_tokens(bert):
    backbone = load_hf("hf-text", bert)
    caption = LONG.caption
    ids = backbone.preprocess([LONG])["input_ids"][0]
    words = backbone.words(caption)
    assert [word for word, _ in words] == caption.split()[: len(words)]
    decoded = ["".join(backbone.preprocess.tokenizer.convert_ids_to_tokens(ids[places])) for _, places in words]
    assert decoded == [word for word, _ in words]


def test_images_of_their_own_proportions_are_averaged_over_their_own_patches_and_have_no_grid(siglip2):
    backbone = load_hf("hf-image", siglip2, "mean")
    inputs = pixels(siglip2)
    assert inputs["pixel_attention_mask"].sum(dim=1).tolist() == [12] * 3  # 80 x 60: 4 x 3 patches of 16
    with torch.inference_mode():
        hidden = by_hand(siglip2).vision_model(**inputs).last_hidden_state
    torch.testing.assert_close(features(backbone), hidden[:, :12].mean(dim=1), rtol=0, atol=1e-5)
    assert backbone.grid is None
    with pytest.raises(InvalidConfig, match="Siglip2VisionModel: expected a model with a fixed grid"):
        backbone.forward_tokens(inputs)


def test_a_cnn_gives_its_pooled_map_and_the_places_of_the_map_are_its_tokens(tmp_path):
    hf.ConvNextImageProcessor(size={"shortest_edge": 384}).save_pretrained(tmp_path)
    save_model(tmp_path, hf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"))
    backbone = load_hf("hf-image", tmp_path)
    with torch.inference_mode():
        expected = by_hand(tmp_path)(**pixels(tmp_path))
    torch.testing.assert_close(features(backbone), expected.pooler_output[:, :, 0, 0], rtol=0, atol=1e-5)
    assert backbone.grid == expected.last_hidden_state.shape[2:]
    torch.testing.assert_close(tokens(backbone)[:, 1], expected.last_hidden_state[:, :, 0, 1], rtol=0, atol=1e-5)


def test_a_text_encoder_gives_what_transformers_gives_for_each_pool(bert):
    with torch.inference_mode():
        expected = by_hand(bert)(**words(bert, [SHORT, LONG], padding=True))
    hidden = expected.last_hidden_state
    mean = torch.stack([hidden[0, :3].mean(dim=0), hidden[1, :8].mean(dim=0)])  # 1 and 6 words between two ends
    wanted = {"pooled": expected.pooler_output, "class": hidden[:, 0], "mean": mean}
    for pool, value in wanted.items():
        backbone = load_hf("hf-text", bert, pool)
        torch.testing.assert_close(features(backbone, [SHORT, LONG]), value, rtol=0, atol=1e-5)
        assert backbone.width == 24
    sentence = load("sentence", bert)
    assert torch.equal(features(sentence, [SHORT, LONG]), features(backbone, [SHORT, LONG]))


def test_a_model_without_that_pool_says_which_it_has(siglip, bert, tmp_path):
    with pytest.raises(InvalidConfig, match="pool=class: expected what the model offers, pooled, mean; found a Siglip"):
        load_hf("hf-image", siglip, "class")
    with pytest.raises(InvalidConfig, match="pool=class: expected what the model offers, pooled, mean; found a Siglip"):
        load_hf("hf-text", siglip, "class")
    # A classifier's file has no pooler, so transformers initialises one at random.
    folder = shutil.copytree(bert, tmp_path / "bert")
    weights = read_weights(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if not name.startswith("pooler.")}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InvalidConfig, match="pool=pooled: expected what the model offers, class, mean; found a Bert"):
        load_hf("hf-text", folder)
    assert torch.equal(
        features(load_hf("hf-text", folder, "class"), [SHORT]), features(load_hf("hf-text", bert, "class"), [SHORT])
    )


def test_a_model_that_merges_its_patches_offers_its_pooled_output_alone(tmp_path):
    hf.ViTImageProcessor(**IMAGE_SIZE).save_pretrained(tmp_path)
    config = hf.SwinConfig(image_size=32, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[1, 1], window_size=4)
    save_model(tmp_path, config)
    assert load_hf("hf-image", tmp_path).grid is None
    with pytest.raises(InvalidConfig, match="pool=mean: expected what the model offers, pooled; found a SwinModel"):
        load_hf("hf-image", tmp_path, "mean")


def test_a_masked_autoencoder_sees_the_whole_image_and_keeps_its_patches_in_order(tmp_path):
    hf.ViTImageProcessor(**IMAGE_SIZE).save_pretrained(tmp_path)
    save_model(tmp_path, hf.ViTMAEConfig(**EYE))
    as_vit = hf.ViTModel.from_pretrained(tmp_path, add_pooling_layer=False).eval()  # the same layers, without masking
    with torch.inference_mode():
        hidden = as_vit(**pixels(tmp_path)).last_hidden_state
    backbone = load_hf("hf-image", tmp_path, "class")
    torch.testing.assert_close(features(backbone), hidden[:, 0], rtol=0, atol=1e-5)
    torch.testing.assert_close(tokens(backbone), hidden[:, 1:], rtol=0, atol=1e-5)


def test_an_image_processor_that_leaves_images_their_sizes_says_what_to_change(dinov2, tmp_path):
    folder = shutil.copytree(dinov2, tmp_path / "uncropped")
    hf.BitImageProcessor(size={"shortest_edge": 32}, do_center_crop=False).save_pretrained(folder)
    backbone = load_hf("hf-image", folder)
    assert features(backbone, SAMPLES[:2]).shape == (2, 24)
    with pytest.raises(InvalidConfig, match="images of 2 sizes from 3 images: expected one size") as error:
        backbone.preprocess([*SAMPLES[:2], noise(3, size=(90, 60))])
    assert "do_center_crop" in error.value.hint


def test_a_model_that_needs_more_than_pixels_says_so(bert, tmp_path):
    folder = shutil.copytree(bert, tmp_path / "bert")
    hf.ViTImageProcessor(**IMAGE_SIZE).save_pretrained(folder)
    with pytest.raises(InvalidConfig, match="BertModel does not run on pixel_values alone"):
        load_hf("hf-image", folder)


def test_the_preprocessing_says_how_pixels_and_tokens_are_made(siglip, bert):
    image = load_hf("hf-image", siglip).preprocessing
    assert image["size"] == {"height": 32, "width": 32}
    assert (image["model"], image["pooling"]) == ("SiglipVisionModel", "pooled")
    assert (image["image_mean"], image["image_std"], image["resample"]) == ([0.5] * 3, [0.5] * 3, 3)
    assert load_hf("hf-text", siglip).preprocessing["padding"] == "max_length"
    text = load("sentence", bert).preprocessing
    assert (text["context_length"], text["padding"]) == (12, "longest")
    assert text["tokenizer"] in ("PreTrainedTokenizerFast", "TokenizersBackend", "BertTokenizer", "BertTokenizerFast")


def test_a_long_caption_is_cut_to_what_the_model_reads(bert, clip):
    long = Sample("0", caption="picture " * 50)
    assert load("sentence", bert).preprocess([long])["input_ids"].shape == (1, 12)
    assert load_hf("hf-text", clip).preprocess([long])["input_ids"].shape == (1, 12)


def test_a_roberta_counts_its_positions_from_after_the_padding(tmp_path):
    save_tokenizer(tmp_path, model_max_length=10**9)
    save_model(tmp_path, hf.RobertaConfig(**{**BERT, "max_position_embeddings": 34}, pad_token_id=1))
    assert features(load("sentence", tmp_path), [Sample("0", caption="picture " * 50)]).shape == (1, 24)


def test_encoders_load_from_the_hubs_cache_by_name(siglip, no_hub):
    hub_cache(no_hub, "lab/tiny-siglip", *siglip.iterdir())
    for stream, samples in (("hf-image", SAMPLES), ("hf-text", [SHORT])):
        spec = offered(hf_encoders)[stream]
        params = spec.params(model="lab/tiny-siglip")
        from_hub = spec.load(params, "cpu")
        assert torch.equal(features(from_hub, samples), features(load_hf(stream, siglip), samples))
        assert spec.identify(params) == f"hub:lab/tiny-siglip@{COMMIT}"


def test_random_weights_need_all_but_the_weights_and_are_the_same_every_time(siglip, no_hub):
    hub_cache(no_hub, "lab/bare", *(path for path in siglip.iterdir() if path.suffix != ".safetensors"))
    params = EncoderParams(model="lab/bare", weights="random")
    spec = offered(hf_encoders)["hf-image"]
    first, again = (features(spec.load(params, "cpu")) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, features(load_hf("hf-image", siglip)))


def test_weights_of_half_precision_are_computed_in_float32(dinov2, tmp_path):
    folder = shutil.copytree(dinov2, tmp_path / "half")
    state = load_file(folder / "model.safetensors")
    save_file({name: value.half() for name, value in state.items()}, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "float16", "torch_dtype": "float16"}))
    assert features(load_hf("hf-image", folder)).dtype is torch.float32


@pytest.mark.parametrize("stream", ["hf-image", "hf-text", "sentence"])
def test_weights_that_cannot_be_had_are_named_with_all_that_can_be_done(stream):
    spec = offered(hf_encoders)[stream]
    with pytest.raises(WeightsUnavailable) as error:
        spec.load(spec.params(model="lab/nowhere"), "cpu")
    assert f"the weights of '{stream}'" in error.value.message
    assert "lab/nowhere/model.safetensors" in error.value.message
    for way in ("connect", "HF_HOME", f"--stream '{stream}[weights=PATH]'", f"{stream}[weights=random]"):
        assert way in error.value.hint


def test_a_folder_whose_weights_lack_a_layer_is_refused(bert, tmp_path):
    folder = shutil.copytree(bert, tmp_path / "bert")
    weights = read_weights(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "layer.1." not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CorruptFile, match=r"the weights lack encoder.layer.1"):
        load("sentence", folder)


def test_a_folder_without_an_encoder_says_what_is_expected(tmp_path):
    save_file({"x": torch.ones(1)}, tmp_path / "model.safetensors")
    with pytest.raises(CorruptFile, match="holds no text encoder") as error:
        load("sentence", tmp_path)
    assert "config.json, tokenizer files" in error.value.hint
    with pytest.raises(CorruptFile, match="holds no image encoder") as error:
        load_hf("hf-image", tmp_path)
    assert "preprocessor_config.json" in error.value.hint


def test_what_the_listing_says_of_the_defaults(no_hub, tmp_path):
    specs = offered(hf_encoders)
    assert specs["minilm"].has_weights()
    assert specs["minilm"].width == specs["minilm"].load(MiniLMParams(), "cpu").width
    assert specs["hf-image"].width is specs["hf-image"].has_weights is None
    assert not specs["sentence"].has_weights()
    (tmp_path / "model.safetensors").touch()
    hub_cache(no_hub, SentenceParams().model, tmp_path / "model.safetensors")
    assert specs["sentence"].has_weights()
    assert specs["sentence"].identify(SentenceParams()) == f"hub:{SentenceParams().model}@{COMMIT}"


def test_minilm_is_the_pretrained_one():
    """Sentences of similar meaning have similar features."""
    backbone = hf_encoders.load_minilm(MiniLMParams(), "cpu")
    texts = ["a dog", "a puppy", "the tax report is due in April"]
    dog, puppy, taxes = features(backbone, [Sample(text, caption=text) for text in texts])
    assert torch.cosine_similarity(dog, puppy, dim=0) > 0.6
    assert torch.cosine_similarity(dog, taxes, dim=0) < 0.2
