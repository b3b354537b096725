"""Streams `clip-img` and `clip-txt`: the image and the text tower of any CLIP model in open_clip."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from pydantic import model_validator

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
    revision_from_name,
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
    """Name of the architecture in open_clip."""
    pretrained: str = TAG
    """Tag of the weights in open_clip."""
    weights: str | None = None
    """Local file or folder, or `random`; default: the hub's. `pretrained` still selects how images are normalised."""
    revision: str | None = None
    """Branch, tag or commit of the hub's repository; default: the newest. `model=NAME@REVISION` is the same."""

    _split = model_validator(mode="before")(revision_from_name)


def to_pixels(transform: Callable[[Any], Tensor], samples: Sequence[Sample]) -> Tensor:
    """Return the pixels (B, 3, H, W) of the samples' images."""
    import torch

    return torch.stack([transform(sample.image()) for sample in samples])


def to_tokens(model: str, samples: Sequence[Sample]) -> Tensor:
    """Return the token ids (B, T) of the samples' captions, truncated to the model's context length."""
    tokens: Tensor = _tokenizer(model)([sample.text() for sample in samples])
    return tokens


@dataclass(frozen=True, eq=False)
class Clip:
    """A loaded model, shared by the backbones of its two towers."""

    net: Any
    transform: Callable[[Any], Tensor]
    preprocessing: dict[str, Any]
    """open_clip's own configuration of image preprocessing."""
    width: int
    layout: Any
    """Memory format of the pixels."""


class ImageTower:
    """Image tower of a CLIP model. Its feature is the embedding, not normalised."""

    def __init__(self, clip: Clip) -> None:
        self.clip = clip
        self.width = clip.width
        self.preprocess = partial(to_pixels, clip.transform)
        self.preprocessing = clip.preprocessing
        self.grid: tuple[int, int] | None = None
        """Rows and columns of the patch tokens; None if open_clip does not return them."""
        visual = clip.net.visual
        if hasattr(visual, "output_tokens") and hasattr(visual, "grid_size") and visual.attn_pool is None:
            rows, columns = visual.grid_size
            self.grid = (int(rows), int(columns))
            # A shallow copy shares the weights, and returns the tokens as well.
            self._with_tokens = copy.copy(visual)
            self._with_tokens.output_tokens = True

    def forward(self, batch: Tensor) -> Tensor:
        """Return the embeddings (B, d) of pixels (B, 3, H, W)."""
        features: Tensor = self.clip.net.encode_image(batch.to(memory_format=self.clip.layout), normalize=False)
        return features

    def forward_tokens(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Return embeddings (B, d), and normed and projected patch tokens (B, rows * columns, d), row by row.

        Raises:
            InvalidConfig: the tower has no patch tokens, or open_clip does not return them.
        """
        if self.grid is None:
            raise InvalidConfig(
                f"{type(self.clip.net.visual).__name__}: expected an image tower that gives its patch tokens, "
                "found one that does not",
                hint="choose one of open_clip's own vision transformers, such as clip-img[model=ViT-B-32]",
            )
        features, tokens = self._with_tokens(batch.to(memory_format=self.clip.layout))
        visual = self.clip.net.visual
        if getattr(visual, "final_ln_after_pool", False):
            tokens = visual.ln_post(tokens)
        return features, tokens if visual.proj is None else tokens @ visual.proj


class TextTower:
    """Text tower of a CLIP model. Its feature is the embedding, not normalised."""

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
        """Return the embeddings (B, d) of token ids (B, T)."""
        features: Tensor = self.clip.net.encode_text(batch, normalize=False)
        return features

    def words(self, caption: str) -> list[tuple[str, list[int]]]:
        """Return the words with the positions of their tokens; none if the tokenizer is not CLIP's own."""
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


def load_image_tower(params: ClipParams, device: str) -> ImageTower:
    """Load the image tower. Raises the errors of `load_model`."""
    return ImageTower(load_model(params, device, "clip-img"))


def load_text_tower(params: ClipParams, device: str) -> TextTower:
    """Load the text tower. Raises the errors of `load_model`."""
    return TextTower(load_model(params, device, "clip-txt"), params.model)


_loaded: WeakValueDictionary[tuple[Any, ...], Clip] = WeakValueDictionary()
"""Models that a backbone in this process still uses."""


def load_model(params: ClipParams, device: str, backbone: str) -> Clip:
    """Load a model, or return the loaded one if a backbone already uses it, so that both towers share one model.

    Raises:
        UnknownName: open_clip has no such model or tag.
        WeightsUnavailable: the hub's weights are not cached and cannot be downloaded.
        CorruptFile, MissingData: local weights do not fit the model, or do not exist.
    """
    _check_names(params)
    path = None
    if params.weights != "random":
        path = local_weights(params.weights) if params.weights else _from_hub(params, backbone)
    key = (params.model, params.pretrained, path, device)
    clip = _loaded.get(key)
    if clip is None:
        clip = _loaded[key] = _load(params.model, params.pretrained, path, device)
    return clip


def _load(model: str, pretrained: str, path: Path | None, device: str) -> Clip:
    import open_clip
    import torch

    if path is not None:
        read_weights(path)  # its error for a broken file is clearer than open_clip's
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
    except OSError as error:  # a text tower from transformers downloads its configuration
        raise _needs_the_hub(model, error) from error
    except (RuntimeError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CorruptFile(
            f"the weights {path} do not fit the model '{model}': {reason}", hint="check model= and weights="
        ) from error
    # cuDNN convolutions are faster with channels last.
    layout = torch.channels_last if device.startswith("cuda") else torch.contiguous_format
    net = net.eval().requires_grad_(False).to(dtype=torch.float32, memory_format=layout)
    preprocessing = {
        name: list(value) if isinstance(value, tuple) else value for name, value in net.visual.preprocess_cfg.items()
    }
    width = int(open_clip.get_model_config(model)["embed_dim"])
    return Clip(net, transform, preprocessing, width, layout)


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
    """Return the error for a text tower from transformers whose configuration or tokenizer cannot be downloaded."""
    text = _text_config(model)
    repo = text.get("hf_tokenizer_name") or text.get("hf_model_name")
    return WeightsUnavailable("clip-txt", f"{repo} (configuration and tokenizer)", str(error).splitlines()[0])


def _check_names(params: ClipParams) -> None:
    import open_clip

    models = open_clip.list_models()
    if params.model not in models:
        raise _unknown("model", params.model, models)
    tags = open_clip.list_pretrained_tags_by_model(params.model)
    # With local weights the tag still selects how images are normalised; without a tag, open_clip's default applies.
    if tags and params.pretrained not in tags and (params.weights is None or "pretrained" in params.model_fields_set):
        raise _unknown(f"weights of '{params.model}'", params.pretrained, tags)


def _unknown(kind: str, name: str, known: Sequence[str]) -> UnknownName:
    near = difflib.get_close_matches(name, known, n=3) or list(known[:10])
    return UnknownName(f"open_clip has no {kind} named '{name}'", hint=f"did you mean one of {', '.join(near)}?")


def _hub_repo(params: ClipParams) -> tuple[str, tuple[str, ...]]:
    """Return the hub repository and the names of its weights file, in order of preference."""
    import open_clip

    where = str(open_clip.get_pretrained_cfg(params.model, params.pretrained).get("hf_hub") or "")
    owner, _, rest = where.strip("/").partition("/")
    name, _, filename = rest.partition("/")
    if not name:
        raise WeightsUnavailable("clip-img", params.pretrained, "open_clip does not serve them from the hub")
    return f"{owner}/{name}", (filename,) if filename else FILES


def _from_hub(params: ClipParams, backbone: str) -> Path:
    repo, names = _hub_repo(params)
    return hub_file(repo, names, backbone=backbone, revision=params.revision)


def identify(params: ClipParams) -> str:
    """Return the identity of the weights. The default model and missing local weights need no import of open_clip."""
    identified = partial(identify_weights, backbone="clip-img", revision=params.revision)
    local = None if params.weights is None else identified(params.weights, "")
    if (params.model, params.pretrained) == (ARCHITECTURE, TAG):
        return local or identified(None, REPOSITORY, file=FILES[0])
    _check_names(params)
    if local is not None:
        return local
    repo, names = _hub_repo(params)
    return identified(None, repo, file=names[0])


def space_of(params: ClipParams) -> str:
    """Return the name of the space that both towers of a model share. Uses no network."""
    where = f"{params.pretrained}@{params.revision}" if params.weights is None else identify(params)
    return f"{params.model} {where}"


@hookimpl
def sparc_backbones() -> list[BackboneSpec]:
    """Return the two towers."""
    spec = partial(
        BackboneSpec,
        params=ClipParams,
        identify=identify,
        shared_space=space_of,
        width=512,
        has_weights=partial(in_hub_cache, REPOSITORY, FILES),
    )
    summary = "{} of any CLIP model of open_clip"
    return [
        spec(name="clip-img", modality="image", load=load_image_tower, summary=summary.format("image tower")),
        spec(name="clip-txt", modality="text", load=load_text_tower, summary=summary.format("text tower")),
    ]
