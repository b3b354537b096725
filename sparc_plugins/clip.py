"""Streams `clip-img` and `clip-txt`: the two towers of any CLIP model of open_clip."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from sparc.plugins import (
    BackboneSpec,
    CorruptFile,
    InvalidConfig,
    Params,
    Sample,
    UnknownName,
    WeightsUnavailable,
    hookimpl,
    hub_file,
    identify_weights,
    in_hub_cache,
    local_weights,
    read_weights,
    seeded,
)

if TYPE_CHECKING:
    from torch import Tensor

ARCHITECTURE = "ViT-B-32"
TAG = "datacomp_xl_s13b_b90k"
REPOSITORY = "laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K"
FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


class ClipParams(Params):
    """Parameters of both streams."""

    model: str = ARCHITECTURE
    """open_clip's name of the architecture."""
    pretrained: str = TAG
    """open_clip's tag of the weights."""
    weights: str | None = None
    """A local file or folder, or `random`; else the hub's. `pretrained` still says how images are normalised."""


def to_pixels(transform: Callable[[Any], Tensor], samples: Sequence[Sample]) -> Tensor:
    """Pixels (B, 3, H, W) of the samples' images."""
    import torch

    return torch.stack([transform(sample.image()) for sample in samples])


def to_tokens(model: str, samples: Sequence[Sample]) -> Tensor:
    """Token ids (B, T) of the samples' captions; what is longer than the model reads is cut."""
    tokens: Tensor = _tokenizer(model)([sample.text() for sample in samples])
    return tokens


@dataclass(frozen=True, eq=False)
class Clip:
    """A loaded model: what the backbones of its two towers share."""

    net: Any
    transform: Callable[[Any], Tensor]
    preprocessing: dict[str, Any]
    """How open_clip prepares images, in its own words."""
    width: int
    kind: dict[str, Any]
    """Type and memory layout of the pixels."""


class ImageTower:
    """The image tower of a CLIP model; its feature is the embedding, not normalised."""

    def __init__(self, clip: Clip) -> None:
        self.clip = clip
        self.width = clip.width
        self.preprocess = partial(to_pixels, clip.transform)
        self.preprocessing = clip.preprocessing
        self.grid: tuple[int, int] | None = None
        """Rows and columns of the patch tokens; None where open_clip gives none."""
        visual = clip.net.visual
        if hasattr(visual, "output_tokens") and hasattr(visual, "grid_size") and visual.attn_pool is None:
            rows, columns = visual.grid_size
            self.grid = (int(rows), int(columns))
            # The same tower with the same weights, but told to hand out its tokens as well.
            self._with_tokens = copy.copy(visual)
            self._with_tokens.output_tokens = True

    def forward(self, batch: Tensor) -> Tensor:
        """Embeddings (B, d) of pixels (B, 3, H, W)."""
        features: Tensor = self.clip.net.encode_image(batch.to(**self.clip.kind), normalize=False)
        return features

    def forward_tokens(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings (B, d), and those of the patch tokens (B, rows * columns, d), normed and projected, row by row.

        Raises:
            InvalidConfig: the tower has no patch tokens, or open_clip does not give them.
        """
        if self.grid is None:
            raise InvalidConfig(
                f"{type(self.clip.net.visual).__name__}: expected an image tower that gives its patch tokens, "
                "found one that does not",
                hint="choose one of open_clip's own vision transformers, such as clip-img[model=ViT-B-32]",
            )
        features, tokens = self._with_tokens(batch.to(**self.clip.kind))
        visual = self.clip.net.visual
        if getattr(visual, "final_ln_after_pool", False):
            tokens = visual.ln_post(tokens)
        return features, tokens if visual.proj is None else tokens @ visual.proj


class TextTower:
    """The text tower of a CLIP model; its feature is the embedding, not normalised."""

    def __init__(self, clip: Clip, model: str) -> None:
        self.clip = clip
        self._model = model
        self.width = clip.width
        self.preprocess = partial(to_tokens, model)
        self.preprocessing = {
            "tokenizer": _text_config(model).get("hf_tokenizer_name") or type(_tokenizer(model)).__name__,
            "context_length": _tokenizer(model).context_length,
        }

    def forward(self, batch: Tensor) -> Tensor:
        """Embeddings (B, d) of token ids (B, T)."""
        features: Tensor = self.clip.net.encode_text(batch, normalize=False)
        return features

    def words(self, caption: str) -> list[tuple[str, list[int]]]:
        """Words with the positions of their tokens; none where the tokenizer is not CLIP's own."""
        tokenizer = _tokenizer(self._model)
        ends = getattr(tokenizer, "decoder", None)
        if ends is None:
            return []
        words: list[tuple[str, list[int]]] = []
        begun: list[int] = []
        ids = to_tokens(self._model, [Sample(caption, caption=caption)])[0].tolist()
        for place, token in enumerate(ids[1 : ids.index(tokenizer.eot_token_id)], start=1):
            begun.append(place)
            if ends[token].endswith("</w>"):
                words.append((tokenizer.decode([ids[one] for one in begun]).strip(), begun))
                begun = []
        return words


def load_image_tower(params: ClipParams, device: str, dtype: str) -> ImageTower:
    """Load the image tower. Raises as `load_model`."""
    return ImageTower(load_model(params, device, dtype, "clip-img"))


def load_text_tower(params: ClipParams, device: str, dtype: str) -> TextTower:
    """Load the text tower. Raises as `load_model`."""
    return TextTower(load_model(params, device, dtype, "clip-txt"), params.model)


_loaded: WeakValueDictionary[tuple[Any, ...], Clip] = WeakValueDictionary()
"""Models that some backbone in this process still uses."""


def load_model(params: ClipParams, device: str, dtype: str, backbone: str) -> Clip:
    """Load a model, or return it where a backbone already uses it: both towers share one load.

    Raises:
        UnknownName: open_clip has no such model or tag.
        WeightsUnavailable: the hub's weights cannot be had.
        CorruptFile, MissingData: local weights do not fit the model, or are not there.
    """
    _check_names(params)
    path = None
    if params.weights != "random":
        path = local_weights(params.weights) if params.weights else _from_hub(params, backbone)
    key = (params.model, params.pretrained, path, device, dtype)
    clip = _loaded.get(key)
    if clip is None:
        clip = _loaded[key] = _load(params.model, params.pretrained, path, device, dtype)
    return clip


def _load(model: str, pretrained: str, path: Path | None, device: str, dtype: str) -> Clip:
    import open_clip
    import torch

    if path is not None:
        read_weights(path)  # open_clip's own message for a broken file tells less
    config = open_clip.get_pretrained_cfg(model, pretrained)
    create = partial(
        open_clip.create_model_and_transforms,
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
    try:
        net, _, transform = seeded(create)
    except OSError as error:  # a text tower of transformers asks the hub for its configuration
        raise _needs_the_hub(model, error) from error
    except (RuntimeError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CorruptFile(
            f"the weights {path} do not fit the model '{model}': {reason}", hint="check model= and weights="
        ) from error
    # cuDNN convolves faster where the channels lie together.
    layout = torch.channels_last if device.startswith("cuda") else torch.contiguous_format
    kind = {"dtype": getattr(torch, dtype), "memory_format": layout}
    preprocessing = {
        name: list(said) if isinstance(said, tuple) else said for name, said in net.visual.preprocess_cfg.items()
    }
    width = int(open_clip.get_model_config(model)["embed_dim"])
    return Clip(net.eval().requires_grad_(False).to(**kind), transform, preprocessing, width, kind)


@cache
def _tokenizer(model: str) -> Any:
    import open_clip

    try:
        return open_clip.get_tokenizer(model)
    except OSError as error:
        raise _needs_the_hub(model, error) from error


def _text_config(model: str) -> dict[str, Any]:
    import open_clip

    config: dict[str, Any] = open_clip.get_model_config(model)["text_cfg"]
    return config


def _needs_the_hub(model: str, error: OSError) -> WeightsUnavailable:
    """What transformers could not find: configuration or tokenizer of a text tower that is one of its models."""
    text = _text_config(model)
    repo = text.get("hf_tokenizer_name") or text.get("hf_model_name")
    return WeightsUnavailable("clip-txt", f"{repo} (configuration and tokenizer)", str(error).splitlines()[0])


def _check_names(params: ClipParams) -> None:
    import open_clip

    models = open_clip.list_models()
    if params.model not in models:
        raise _unknown("model", params.model, models)
    tags = open_clip.list_pretrained_tags_by_model(params.model)
    # With weights of one's own the tag still says how images are normalised; where there is none, open_clip's default.
    if tags and params.pretrained not in tags and (params.weights is None or "pretrained" in params.model_fields_set):
        raise _unknown(f"weights of '{params.model}'", params.pretrained, tags)


def _unknown(kind: str, name: str, known: Sequence[str]) -> UnknownName:
    near = difflib.get_close_matches(name, known, n=3) or list(known[:10])
    return UnknownName(f"open_clip has no {kind} named '{name}'", hint=f"did you mean one of {', '.join(near)}?")


def _hub_repo(params: ClipParams) -> tuple[str, tuple[str, ...]]:
    """Repository and names of its weights file, the preferred first."""
    import open_clip

    where = str(open_clip.get_pretrained_cfg(params.model, params.pretrained).get("hf_hub") or "")
    owner, _, rest = where.strip("/").partition("/")
    name, _, filename = rest.partition("/")
    if not name:
        raise WeightsUnavailable("clip-img", params.pretrained, "open_clip does not serve them from the hub")
    return f"{owner}/{name}", (filename,) if filename else FILES


def _from_hub(params: ClipParams, backbone: str) -> Path:
    repo, names = _hub_repo(params)
    return hub_file(repo, names, backbone=backbone)


def identify(params: ClipParams) -> str:
    """Say which weights `params` mean; of the default model without importing open_clip."""
    if (params.model, params.pretrained) == (ARCHITECTURE, TAG):
        return identify_weights(params.weights, f"{REPOSITORY}/{FILES[0]}")
    _check_names(params)
    if params.weights is not None:
        return identify_weights(params.weights, "")
    repo, names = _hub_repo(params)
    return identify_weights(None, f"{repo}/{names[0]}")


@hookimpl
def sparc_backbones() -> list[BackboneSpec]:
    """Offer the two towers."""
    spec = partial(
        BackboneSpec,
        params=ClipParams,
        identify=identify,
        shared_space=lambda params: f"{params.model} {identify(params)}",
        width=512,
        has_weights=partial(in_hub_cache, REPOSITORY, FILES),
    )
    summary = "{} of any CLIP model of open_clip"
    return [
        spec(name="clip-img", modality="image", load=load_image_tower, summary=summary.format("image tower")),
        spec(name="clip-txt", modality="text", load=load_text_tower, summary=summary.format("text tower")),
    ]
