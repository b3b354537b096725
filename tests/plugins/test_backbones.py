"""Backbones with real architectures: small, randomly initialised, saved in the formats that the hub serves."""

import pickle  # noqa: TID251
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from sparc.contracts import Backbone, Sample
from sparc.errors import CorruptFile, InvalidConfig, MissingData, UnknownName, WeightsUnavailable
from sparc_plugins import clip, sentence, timm_image
from sparc_plugins.clip import ClipParams
from sparc_plugins.openmoji import open_drawing
from sparc_plugins.sentence import MiniLMParams, SentenceParams
from sparc_plugins.timm_image import Dinov2Params, EffnetParams, TimmParams

TINY_VIT = "test_vit"
TINY_CLIP = "ViT-S-32-alt"


def noise(number, size=(80, 60)):
    pixels = np.random.default_rng(number).integers(0, 255, (*size, 3), dtype=np.uint8)
    return Sample(str(number), lambda: Image.fromarray(pixels), caption=f"picture number {number}")


SAMPLES = [noise(number) for number in range(3)]


def features(backbone, samples=SAMPLES):
    assert isinstance(backbone, Backbone)
    preprocess = pickle.loads(pickle.dumps(backbone.preprocess))
    with torch.inference_mode():
        return backbone.forward(preprocess(samples))


def hub_cache(root, repo, *files):
    """The layout that the hub's own client keeps, holding these files."""
    folder = root / f"models--{repo.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("c0ffee")
    snapshot = folder / "snapshots" / "c0ffee"
    snapshot.mkdir(parents=True)
    for file in files:
        shutil.copy(file, snapshot)


@pytest.fixture(autouse=True)
def no_hub(tmp_path, monkeypatch):
    """An empty hub cache, and no network."""
    cache = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return cache


@pytest.fixture(scope="module")
def tiny_vit(tmp_path_factory):
    import timm

    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("vit") / "model.safetensors"
    save_file(timm.create_model(TINY_VIT, pretrained=False).state_dict(), path)
    return path


def test_dinov2_gives_the_class_token_at_224_pixels(dinov2_weights):
    backbone = timm_image.load_dinov2(Dinov2Params(weights=str(dinov2_weights)), "cpu", "float32")
    pixels = backbone.preprocess(SAMPLES)
    assert pixels.shape == (3, 3, 224, 224)
    found = features(backbone)
    assert found.shape == (3, backbone.width) == (3, 384)
    with torch.inference_mode():
        torch.testing.assert_close(found, backbone.model.forward_features(pixels)[:, 0])


def test_dinov2_takes_models_without_registers_and_refuses_others():
    params = Dinov2Params(model="vit_small_patch14_dinov2.lvd142m", weights="random")
    assert features(timm_image.load_dinov2(params, "cpu", "float32"), SAMPLES[:1]).shape == (1, 384)
    with pytest.raises(InvalidConfig, match="expected a DINOv2 model, found 'resnet18'"):
        timm_image.load_dinov2(Dinov2Params(model="resnet18"), "cpu", "float32")


def test_dinov2_from_the_hubs_cache_is_the_same_as_from_the_file(dinov2_weights, no_hub):
    hub_cache(no_hub, "timm/vit_small_patch14_reg4_dinov2.lvd142m", dinov2_weights)
    from_hub = timm_image.load_dinov2(Dinov2Params(), "cpu", "float32")
    from_file = timm_image.load_dinov2(Dinov2Params(weights=str(dinov2_weights.parent)), "cpu", "float32")
    assert torch.equal(features(from_hub, SAMPLES[:1]), features(from_file, SAMPLES[:1]))


def test_any_timm_model_gives_its_pooled_features(tiny_vit):
    import timm

    backbone = timm_image.load_timm(
        TimmParams(model=TINY_VIT, weights=str(tiny_vit)), "cpu", "float32", backbone="timm"
    )
    reference = timm.create_model(TINY_VIT, pretrained=False)
    reference.load_state_dict(timm_image.sparc.read_weights(tiny_vit))
    pixels = backbone.preprocess(SAMPLES)
    with torch.inference_mode():
        expected = reference.eval().forward_head(reference.forward_features(pixels), pre_logits=True)
    torch.testing.assert_close(features(backbone), expected)


def test_a_timm_model_whose_head_widens_its_features_has_the_width_that_it_gives():
    params = TimmParams(model="mobilenetv3_small_050", weights="random")
    backbone = timm_image.load_timm(params, "cpu", "float32", backbone="timm")
    assert features(backbone).shape == (3, backbone.width) == (3, 1024)


def test_weights_in_torchs_own_format_load_without_executing_anything(tiny_vit, tmp_path):
    path = tmp_path / "pytorch_model.bin"
    torch.save(timm_image.sparc.read_weights(tiny_vit), path)  # noqa: TID251
    load = [TimmParams(model=TINY_VIT, weights=str(where)) for where in (tiny_vit, path, tmp_path)]
    found = [features(timm_image.load_timm(params, "cpu", "float32", backbone="timm")) for params in load]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])

    class Evil:
        def __reduce__(self):
            return print, ("executed",)

    torch.save({"weight": Evil()}, path)  # noqa: TID251
    with pytest.raises(CorruptFile, match="holds no weights that can be read"):
        timm_image.load_timm(TimmParams(model=TINY_VIT, weights=str(path)), "cpu", "float32", backbone="timm")


def test_random_weights_are_the_same_every_time():
    params = TimmParams(model=TINY_VIT, weights="random")
    first, again = (timm_image.load_timm(params, "cpu", "float32", backbone="timm") for _ in range(2))
    assert torch.equal(features(first), features(again))
    assert timm_image.identify_timm(params) == "random"


def test_identity_follows_the_content_of_the_weights_not_their_place(tiny_vit, tmp_path):
    moved = tmp_path / "moved.safetensors"
    shutil.copy(tiny_vit, moved)
    one, two = (timm_image.identify_timm(TimmParams(model=TINY_VIT, weights=str(path))) for path in (tiny_vit, moved))
    assert one == two
    assert one.startswith("sha256:")
    assert (
        timm_image.identify_timm(Dinov2Params()) == "hub:timm/vit_small_patch14_reg4_dinov2.lvd142m/model.safetensors"
    )


LOADS = {
    "dinov2": lambda: timm_image.load_dinov2(Dinov2Params(), "cpu", "float32"),
    "timm": lambda: timm_image.load_timm(TimmParams(model="resnet18.a1_in1k"), "cpu", "float32", backbone="timm"),
    "clip-img": lambda: clip.load_image_tower(ClipParams(), "cpu", "float32"),
    "clip-txt": lambda: clip.load_text_tower(ClipParams(), "cpu", "float32"),
    "sentence": lambda: sentence.load_sentence(SentenceParams(), "cpu", "float32"),
}
FILES = {
    "dinov2": "timm/vit_small_patch14_reg4_dinov2.lvd142m/model.safetensors",
    "timm": "timm/resnet18.a1_in1k/model.safetensors",
    "clip-img": "laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K/open_clip_model.safetensors",
    "clip-txt": "laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K/open_clip_model.safetensors",
    "sentence": "sentence-transformers/all-MiniLM-L6-v2/model.safetensors",
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
        return timm_image.load_timm(TimmParams(model=model, weights=str(weights)), "cpu", "float32", backbone="timm")

    with pytest.raises(CorruptFile, match=r"do not fit the model 'resnet18'"):
        load(tiny_vit, "resnet18")
    with pytest.raises(MissingData, match=r"no file or folder at .*nowhere.pt"):
        load(tmp_path / "nowhere.pt")
    with pytest.raises(MissingData, match=r"has none of model.safetensors"):
        load(tmp_path)
    truncated = tmp_path / "model.safetensors"
    truncated.write_bytes(tiny_vit.read_bytes()[:-100])
    with pytest.raises(CorruptFile, match="holds no weights that can be read"):
        load(truncated)


def test_misspelled_models_get_a_suggestion():
    with pytest.raises(UnknownName, match="timm has no model named 'resnet1'") as error:
        timm_image.identify_timm(TimmParams(model="resnet1"))
    assert "did you mean resnet" in error.value.hint
    with pytest.raises(UnknownName, match=r"timm has no model named 'resnet18.nope'"):
        timm_image.identify_timm(TimmParams(model="resnet18.nope", weights="random"))
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
        clip.load_text_tower(params, "cpu", "float32")
    assert "connect to the network" in error.value.hint


def test_both_towers_of_clip_embed_into_one_space_and_share_one_load(clip_weights):
    import open_clip

    params = ClipParams(model=TINY_CLIP, weights=str(clip_weights))
    clip._load.cache_clear()
    image, text = (load(params, "cpu", "float32") for load in (clip.load_image_tower, clip.load_text_tower))
    assert clip._load.cache_info().misses == 1
    assert image.width == text.width == 256
    reference = open_clip.create_model(TINY_CLIP, pretrained=str(clip_weights)).eval()
    with torch.inference_mode():
        tokens = open_clip.get_tokenizer(TINY_CLIP)([sample.text() for sample in SAMPLES])
        torch.testing.assert_close(features(text), reference.encode_text(tokens))
        torch.testing.assert_close(features(image), reference.encode_image(image.preprocess(SAMPLES)))


def test_clip_loads_from_the_hubs_cache_by_tag(clip_weights, no_hub, monkeypatch):
    import open_clip.pretrained

    tags = {"mine": open_clip.pretrained._pcfg(hf_hub="lab/tiny-clip/")}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, TINY_CLIP, tags)
    hub_cache(no_hub, "lab/tiny-clip", clip_weights)
    by_tag = ClipParams(model=TINY_CLIP, pretrained="mine")
    by_file = ClipParams(model=TINY_CLIP, pretrained="mine", weights=str(clip_weights.parent))
    found = [features(clip.load_text_tower(params, "cpu", "float32")) for params in (by_tag, by_file)]
    assert torch.equal(*found)
    assert clip.identify(by_tag) == "hub:lab/tiny-clip/open_clip_model.safetensors"


@pytest.fixture(scope="module")
def tiny_bert(tmp_path_factory):
    """A BERT of two small layers with a tokenizer of its own, as a hub repository holds it."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "picture", "number", *map(str, range(10))]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(vocab_file=str(folder / "vocab.txt"), model_max_length=16).save_pretrained(folder)
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(words), hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48
    )
    BertModel(config).save_pretrained(folder)
    return folder


def test_a_sentence_is_the_mean_over_its_tokens_whatever_it_is_padded_to(tiny_bert):
    backbone = sentence.load_sentence(SentenceParams(weights=str(tiny_bert)), "cpu", "float32")
    short, long = Sample("0", caption="picture"), Sample("1", caption="picture number 1 2 3 4")
    together, alone = features(backbone, [short, long]), features(backbone, [short])
    assert together.shape == (2, backbone.width) == (2, 24)
    torch.testing.assert_close(together[0], alone[0])
    batch = backbone.preprocess([short])
    with torch.inference_mode():
        hidden = backbone.model(**batch).last_hidden_state
    torch.testing.assert_close(alone[0], hidden[0].mean(dim=0))


def test_a_long_caption_is_cut_to_what_the_model_reads(tiny_bert):
    backbone = sentence.load_sentence(SentenceParams(weights=str(tiny_bert)), "cpu", "float32")
    assert backbone.preprocess([Sample("0", caption="picture " * 50)])["input_ids"].shape == (1, 16)


def test_a_roberta_counts_its_positions_from_after_the_padding(tiny_bert, tmp_path):
    from transformers import AutoTokenizer, RobertaConfig, RobertaModel

    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    tokenizer.model_max_length = 10**9
    tokenizer.save_pretrained(tmp_path)
    config = RobertaConfig(
        vocab_size=17, hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=48,
        max_position_embeddings=34, pad_token_id=1,
    )  # fmt: skip
    RobertaModel(config).save_pretrained(tmp_path)
    backbone = sentence.load_sentence(SentenceParams(weights=str(tmp_path)), "cpu", "float32")
    assert features(backbone, [Sample("0", caption="picture " * 50)]).shape == (1, 24)


def test_a_folder_whose_weights_lack_a_layer_is_refused(tiny_bert, tmp_path):
    folder = shutil.copytree(tiny_bert, tmp_path / "bert")
    weights = timm_image.sparc.read_weights(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "layer.1." not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CorruptFile, match=r"the weights lack encoder.layer.1"):
        sentence.load_sentence(SentenceParams(weights=str(folder)), "cpu", "float32")


def test_sentence_loads_from_the_hubs_cache(tiny_bert, no_hub):
    hub_cache(no_hub, "lab/tiny-bert", *tiny_bert.iterdir())
    from_hub = sentence.load_sentence(SentenceParams(model="lab/tiny-bert"), "cpu", "float32")
    from_folder = sentence.load_sentence(SentenceParams(weights=str(tiny_bert)), "cpu", "float32")
    assert torch.equal(features(from_hub), features(from_folder))


def test_a_folder_without_an_encoder_says_what_is_expected(tmp_path):
    save_file({"x": torch.ones(1)}, tmp_path / "model.safetensors")
    with pytest.raises(CorruptFile, match="holds no text encoder") as error:
        sentence.load_sentence(SentenceParams(weights=str(tmp_path)), "cpu", "float32")
    assert "config.json" in error.value.hint


def test_minilm_is_the_pretrained_one():
    """Its makers' promise, checked: near meanings are near."""
    backbone = sentence.load_minilm(MiniLMParams(), "cpu", "float32")
    texts = ["a dog", "a puppy", "the tax report is due in April"]
    dog, puppy, taxes = features(backbone, [Sample(text, caption=text) for text in texts])
    assert torch.cosine_similarity(dog, puppy, dim=0) > 0.6
    assert torch.cosine_similarity(dog, taxes, dim=0) < 0.2


@pytest.mark.parametrize("variant", [0, 2])
def test_effnet_is_the_pretrained_one(variant, tmp_path, monkeypatch):
    """Clock faces are more alike than a clock and a cat, far more than to a network with random weights."""
    monkeypatch.setenv("SPARC_CACHE", str(tmp_path))
    clocks_and_cats = [
        Sample(code, lambda code=code: open_drawing(code)) for code in ("1F550", "1F551", "1F431", "1F63A")
    ]
    contrast = {}
    for weights in (None, "random"):
        backbone = timm_image.load_effnet(variant, EffnetParams(weights=weights), "cpu", "float32")
        found = torch.nn.functional.normalize(features(backbone, clocks_and_cats), dim=1)
        assert backbone.width == 1280
        similar = found @ found.T
        contrast[weights] = (similar[0, 1] + similar[2, 3] - similar[0, 2] - similar[1, 3]) / 2
    assert contrast[None] > 0.3
    assert contrast["random"] < contrast[None] / 2


def test_effnet_refuses_other_weights(tiny_vit):
    with pytest.raises(CorruptFile, match="do not fit the model 'tf_efficientnet_lite0'"):
        timm_image.load_effnet(0, EffnetParams(weights=str(tiny_vit)), "cpu", "float32")
