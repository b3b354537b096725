"""Real architectures, made small, with random weights that have an effect in every layer."""

from functools import cache
from weakref import WeakValueDictionary

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers as hf
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from sparc.config import SpaceConfig
from sparc.localization.trace import traced
from sparc.localization.view import View
from sparc.models import Models
from sparc.plugins.contracts import Sample
from sparc.storage.checkpoint import SharedLatentSpace
from sparc_plugins import clip, timm_image
from sparc_plugins.clip import ClipParams
from sparc_plugins.hf_encoders.encoder import Encoder
from sparc_plugins.hf_encoders.image import ImageBackbone
from sparc_plugins.hf_encoders.text import TextBackbone, TextRecipe
from sparc_plugins.timm_image import TimmParams
from tests.plugins.backbones import noise

PICTURES = [noise(number) for number in range(2)]
CAPTIONS = [Sample("short", caption="picture"), Sample("long", caption="picture number 1 2 3 4")]
VOCABULARY = ["<pad>", "<unk>", "<s>", "</s>", "picture", "number", *map(str, range(10))]
VIT = {"depth": 2, "embed_dim": 48, "num_heads": 3}
SMALL = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
EYE = {**SMALL, "image_size": 32, "patch_size": 8}
ENDS = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
TONGUE = {**SMALL, "vocab_size": len(VOCABULARY), "max_position_embeddings": 12, **ENDS}
CLIP = {
    "embed_dim": 20,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "layers": 2, "width": 32, "head_width": 16},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "layers": 2, "width": 32, "heads": 2},
}


def awake(model):
    """Redraw all weights: with the default ones some layers add almost nothing, and attention is uniform."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            drawn = torch.randn(weight.shape, generator=generator)
            if weight.ndim > 1:
                weight.copy_(drawn / weight[0].numel() ** 0.5)
            else:
                weight.copy_(0.1 * drawn + (0 if "bias" in name else 1))


def timm_stream(model, **options):
    params = TimmParams(model=model, weights="random")
    backbone = timm_image.load_timm(params, "cpu", backbone="timm", **options)
    if options:
        awake(backbone.model)
    return backbone


@cache
def towers():
    import open_clip

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny", CLIP)
        # Other tests check which models are in use.
        patch.setattr(clip, "_loaded", WeakValueDictionary())
        params = ClipParams(model="tiny", weights="random")
        both = [load(params, "cpu") for load in (clip.load_image_tower, clip.load_text_tower)]
    awake(both[0].clip.net)
    return both


def tokenizer(**options):
    """Return a tokenizer of whole words with a start and an end token, like those of BERT and CLIP."""
    backend = Tokenizer(models.WordLevel({word: place for place, word in enumerate(VOCABULARY)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("<s>", 2), ("</s>", 3)]
    backend.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    names = {"pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "<s>"}
    return hf.PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=12, **names, **options)


def hf_encoder(config, modality):
    model = hf.AutoModel.from_config(config)
    awake(model)
    return Encoder(model, modality, "cpu")


def hf_image(config, processor, pool="pooled"):
    return ImageBackbone(hf_encoder(config, "vision"), processor, pool, has_pooler=True)


def hf_text(config, pool="pooled", **options):
    return TextBackbone(hf_encoder(config, "text"), tokenizer(**options), TextRecipe((pool,)), has_pooler=True)


def clip_config():
    return hf.CLIPConfig(vision_config=EYE, text_config=TONGUE, projection_dim=20)


def siglip_config():
    return hf.SiglipConfig(vision_config=EYE, text_config={**TONGUE, "projection_size": 24})


IMAGES = {
    "dinov2": lambda: timm_stream("vit_small_patch14_reg4_dinov2", img_size=56, global_pool="token", **VIT),
    "dinov3": lambda: timm_stream("vit_small_patch16_dinov3", img_size=64, global_pool="token", **VIT),
    "pooled": lambda: timm_stream("vit_tiny_patch16_224", img_size=64, global_pool="avg", class_token=False, **VIT),
    "siglip": lambda: timm_stream("vit_base_patch16_siglip_224", img_size=64, **VIT),
    "effnet-lite0": lambda: timm_stream("tf_efficientnet_lite0"),
    "resnet": lambda: timm_stream("test_resnet"),
    "swin": lambda: timm_stream("swin_tiny_patch4_window7_224", embed_dim=12, depths=(1, 1, 1, 1), num_heads=(1,) * 4),
    "pvt": lambda: timm_stream("pvt_v2_b0", embed_dims=(8, 8, 8, 8), depths=(1, 1, 1, 1), num_heads=(1,) * 4),
    "maxvit": lambda: timm_stream("test_maxvit"),
    "clip-img": lambda: towers()[0],
    "hf-clip": lambda: hf_image(clip_config(), hf.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32)),
    "hf-siglip": lambda: hf_image(siglip_config(), hf.SiglipImageProcessor(size={"height": 32, "width": 32})),
}
TEXTS = {
    "clip-txt": lambda: towers()[1],
    "bert": lambda: hf_text(hf.BertConfig(**TONGUE), "mean"),
    "hf-clip-txt": lambda: hf_text(clip_config()),
    "hf-siglip-txt": lambda: hf_text(siglip_config(), model_input_names=["input_ids"]),
    "qwen3": lambda: hf_text(hf.Qwen3Config(**TONGUE, num_key_value_heads=1, head_dim=12), "mean", padding_side="left"),
    "mpnet": lambda: hf_text(hf.MPNetConfig(**TONGUE), "mean"),
}


@cache
def stream(name):
    """Return a backbone, shared by all tests, which must not change it."""
    return {**IMAGES, **TEXTS}[name]()


def batch(name, count=1):
    """Return preprocessed pictures or captions; the captions differ in length."""
    samples = PICTURES if name in IMAGES else CAPTIONS
    return stream(name).preprocess(samples[-count:])


def features(backbone, prepared):
    with torch.inference_mode():
        return backbone.forward(prepared)


def trace_of(name, count=1, layers=None):
    return traced(name, stream(name), batch(name, count), layers)


def direction(width, seed=0):
    """Return a linear target with a different weight in each dimension."""
    weights = torch.randn(width, generator=torch.Generator().manual_seed(seed))
    return lambda rows: rows @ weights


class Cells:
    """A backbone that is linear in the pixels: patches are mean colours of cells, the feature their weighted sum."""

    width = 3

    def __init__(self, grid, weights=None):
        self.grid = grid
        cells = grid[0] * grid[1]
        self.weights = torch.full((cells,), 1 / cells) if weights is None else torch.tensor(weights).float().flatten()

    @staticmethod
    def preprocess(samples):
        pixels = np.stack([np.asarray(sample.image(), np.float32) for sample in samples])
        return torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255

    def forward(self, batch):
        return self.forward_tokens(batch)[0]

    def forward_tokens(self, batch):
        patches = F.adaptive_avg_pool2d(batch, self.grid).flatten(2).mT
        return self.weights @ patches, patches


def view(backbone, image):
    """Return the view of an image by a backbone; the space of its models is not used."""
    space = SharedLatentSpace(SpaceConfig(streams={"stream": backbone.width}, n_latents=8, k=2))
    sample = Sample("image", lambda: image)
    return View(Models(space, {"stream": backbone}, {"stream": "image"}), "stream", sample)
