"""Streams `clip-img` and `clip-txt`: the two towers of any CLIP model of open_clip."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sparc

if TYPE_CHECKING:
    from torch import Tensor


class ClipParams(sparc.Params):
    """Parameters of both streams."""

    model: str = "ViT-B-32"
    """open_clip's name of the architecture."""
    pretrained: str = "datacomp_xl_s13b_b90k"
    """open_clip's tag of the weights."""
    weights: str | None = None
    """A local file or folder, or `random`; else the hub's. `pretrained` still says how images are normalised."""


@dataclass(frozen=True)
class Transform:
    """Images of samples to pixels (B, 3, H, W)."""

    transform: Callable[[Any], Tensor]

    def __call__(self, samples: Sequence[sparc.Sample]) -> Tensor:
        """Transform each image and stack them."""
        import torch

        return torch.stack([self.transform(sample.image()) for sample in samples])


@dataclass(frozen=True)
class Tokenize:
    """Captions of samples to token ids (B, T). The tokenizer is made where it is used, since it may not pickle."""

    model: str

    def __call__(self, samples: Sequence[sparc.Sample]) -> Tensor:
        """Tokenize each caption; what is longer than the model reads is cut."""
        tokens: Tensor = _tokenizer(self.model)([sample.text() for sample in samples])
        return tokens


@dataclass(frozen=True)
class ClipBackbone:
    """One tower of a CLIP model; its feature is the embedding, not normalised."""

    encode: Callable[[Tensor], Tensor]
    preprocess: Callable[[Sequence[sparc.Sample]], Tensor]
    width: int
    dtype: Any

    def forward(self, batch: Tensor) -> Tensor:
        """Embeddings (B, d) of pixels (B, 3, H, W) or of token ids (B, T)."""
        return self.encode(batch.to(self.dtype) if batch.is_floating_point() else batch)


def load_image_tower(params: ClipParams, device: str, dtype: str) -> ClipBackbone:
    """Load the image tower. Raises as `load_model`."""
    import torch

    model, transform, width = load_model(params, device, dtype, "clip-img")
    return ClipBackbone(model.encode_image, Transform(transform), width, getattr(torch, dtype))


def load_text_tower(params: ClipParams, device: str, dtype: str) -> ClipBackbone:
    """Load the text tower. Raises as `load_model`."""
    import torch

    model, _, width = load_model(params, device, dtype, "clip-txt")
    return ClipBackbone(model.encode_text, Tokenize(params.model), width, getattr(torch, dtype))


def load_model(params: ClipParams, device: str, dtype: str, backbone: str) -> tuple[Any, Any, int]:
    """Load a model, its image transform and the width of its embeddings; both towers share one load.

    Raises:
        UnknownName: open_clip has no such model or tag.
        WeightsUnavailable: the hub's weights cannot be had.
        CorruptFile, MissingData: local weights do not fit the model, or are not there.
    """
    _check_names(params)
    path = None
    if params.weights != "random":
        path = sparc.local_weights(params.weights) if params.weights else _from_hub(params, backbone)
    return _load(params.model, params.pretrained, path, device, dtype)


@lru_cache(maxsize=1)
def _load(model: str, pretrained: str, path: Path | None, device: str, dtype: str) -> tuple[Any, Any, int]:
    import open_clip
    import torch

    if path is not None:
        sparc.read_weights(path)  # open_clip's own message for a broken file tells less
    config = open_clip.get_pretrained_cfg(model, pretrained)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            net, _, transform = open_clip.create_model_and_transforms(
                model,
                pretrained=str(path) if path else None,
                device=device,
                force_quick_gelu=bool(config.get("quick_gelu")),
                image_mean=config.get("mean"),
                image_std=config.get("std"),
                image_interpolation=config.get("interpolation"),
                image_resize_mode=config.get("resize_mode"),
                pretrained_image=False,
            )
    except OSError as error:  # a text tower of transformers asks the hub for its configuration
        raise _needs_the_hub(model, error) from error
    except (RuntimeError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise sparc.CorruptFile(
            f"the weights {path} do not fit the model '{model}': {reason}", hint="check model= and weights="
        ) from error
    net = net.eval().requires_grad_(False).to(dtype=getattr(torch, dtype))
    return net, transform, int(open_clip.get_model_config(model)["embed_dim"])


@lru_cache(maxsize=1)
def _tokenizer(model: str) -> Any:
    import open_clip

    try:
        return open_clip.get_tokenizer(model)
    except OSError as error:
        raise _needs_the_hub(model, error) from error


def _needs_the_hub(model: str, error: OSError) -> sparc.WeightsUnavailable:
    """What transformers could not find: configuration or tokenizer of a text tower that is one of its models."""
    import open_clip

    text = open_clip.get_model_config(model)["text_cfg"]
    repo = text.get("hf_tokenizer_name") or text.get("hf_model_name")
    return sparc.WeightsUnavailable("clip-txt", f"{repo} (configuration and tokenizer)", str(error).splitlines()[0])


def _check_names(params: ClipParams) -> None:
    import open_clip

    models = open_clip.list_models()
    if params.model not in models:
        raise _unknown("model", params.model, models)
    tags = open_clip.list_pretrained_tags_by_model(params.model)
    # With weights of one's own the tag still says how images are normalised; where there is none, open_clip's default.
    if tags and params.pretrained not in tags and (params.weights is None or "pretrained" in params.model_fields_set):
        raise _unknown(f"weights of '{params.model}'", params.pretrained, tags)


def _unknown(kind: str, name: str, known: Sequence[str]) -> sparc.UnknownName:
    near = difflib.get_close_matches(name, known, n=3) or list(known[:10])
    return sparc.UnknownName(f"open_clip has no {kind} named '{name}'", hint=f"did you mean one of {', '.join(near)}?")


def _hub_repo(params: ClipParams) -> tuple[str, tuple[str, ...]]:
    """Repository and names of its weights file, the preferred first."""
    import open_clip

    where = str(open_clip.get_pretrained_cfg(params.model, params.pretrained).get("hf_hub") or "")
    owner, _, rest = where.strip("/").partition("/")
    name, _, filename = rest.partition("/")
    if not name:
        raise sparc.WeightsUnavailable("clip-img", params.pretrained, "open_clip does not serve them from the hub")
    return f"{owner}/{name}", (filename,) if filename else (
        "open_clip_model.safetensors",
        "open_clip_pytorch_model.bin",
    )


def _from_hub(params: ClipParams, backbone: str) -> Path:
    repo, names = _hub_repo(params)
    return sparc.hub_file(repo, names, backbone=backbone)


def identify(params: ClipParams) -> str:
    """Say which weights `params` mean."""
    _check_names(params)
    if params.weights is not None:
        return sparc.identify_weights(params.weights, "")
    repo, names = _hub_repo(params)
    return sparc.identify_weights(None, f"{repo}/{names[0]}")


@sparc.hookimpl
def sparc_backbones() -> list[sparc.BackboneSpec]:
    """Offer the two towers."""
    spec = partial(sparc.BackboneSpec, params=ClipParams, identify=identify)
    summary = "{} of any CLIP model of open_clip: [model=ARCHITECTURE,pretrained=TAG]"
    return [
        spec(name="clip-img", modality="image", load=load_image_tower, summary=summary.format("image tower")),
        spec(name="clip-txt", modality="text", load=load_text_tower, summary=summary.format("text tower")),
    ]
