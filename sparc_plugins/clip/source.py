"""The source of a CLIP model: its parameters, and the architecture, preprocessing and tokenizer that they name.

An architecture is one of open_clip's own, or stands in `open_clip_config.json` beside the weights: in a local folder
(`local-dir:PATH`) or in a repository on the hub (`hf-hub:OWNER/NAME`).
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from sparc.plugins import (
    CorruptFile,
    InvalidConfig,
    MissingData,
    Params,
    UnknownName,
    hub_file,
    local_weights,
    reading,
    revision_from_name,
)

ARCHITECTURE = "ViT-B-32"
TAG = "datacomp_xl_s13b_b90k"
CONFIG = "open_clip_config.json"
HUB, FOLDER = "hf-hub:", "local-dir:"
FILES = (
    "open_clip_model.safetensors",
    "open_clip_model.safetensors.index.json",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "model.safetensors",
    "pytorch_model.bin",
)
"""File names of weights in a repository or a folder, in order of preference."""


class ClipParams(Params):
    """Parameters of both streams."""

    model: str = ARCHITECTURE
    """Name of the architecture in open_clip, or `hf-hub:OWNER/NAME` or `local-dir:PATH` with open_clip_config.json."""
    pretrained: str = TAG
    """Tag of the weights in open_clip, for an architecture of its own."""
    weights: str | None = None
    """Local file or folder, or `random`; default: the hub's. An open_clip_config.json beside the file says how images
    are normalised, unless `pretrained` is given."""
    revision: str | None = None
    """Branch, tag or commit of the hub's repository; default: the newest. `model=NAME@REVISION` is the same."""
    activation: Literal["gelu", "quick_gelu"] | None = None
    """Activation with which the weights were trained; OpenAI's were with quick_gelu. Default: what the tag or
    open_clip_config.json says."""

    @model_validator(mode="before")
    @classmethod
    def _split(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not str(values.get("model", "")).startswith(FOLDER):
            return revision_from_name(values)
        folder = Path(str(values["model"]).removeprefix(FOLDER)).expanduser().resolve()
        return {**values, "model": f"{FOLDER}{folder}"}

    @property
    def own(self) -> bool:
        """True for an architecture of open_clip's own."""
        return not self.model.startswith((HUB, FOLDER))

    @property
    def repo(self) -> str:
        """Repository of `hf-hub:OWNER/NAME`."""
        return self.model.removeprefix(HUB)

    @property
    def folder(self) -> Path:
        """Folder of `local-dir:PATH`."""
        return Path(self.model.removeprefix(FOLDER))


class ClipImageParams(ClipParams):
    """Parameters of the image stream."""

    size: int | None = Field(default=None, gt=0)
    """Side of the images in pixels; default: the model's own."""
    crop_pct: float | None = Field(default=None, gt=0, le=1)
    """Part of the resized image's side that the central crop keeps; default: all of it."""


@dataclass(frozen=True)
class Source:
    """A recipe for a model and its tokenizer; picklable."""

    model: str
    """Name of the architecture, for open_clip and for errors."""
    config: str
    """open_clip's configuration of the architecture, as JSON."""
    preprocess: str
    """Differences from open_clip's default preprocessing of images, as JSON."""
    quick_gelu: bool
    folder: Path | None = None
    """Folder of `open_clip_config.json`; None for an architecture of open_clip's own."""
    tokenizer: Path | None = None
    """Folder of the tokenizer of transformers."""
    text_model: Path | None = None
    """Folder of the configuration of a text tower of transformers."""
    stamp: tuple[tuple[str, int, int, int], ...] = ()
    """A text that changes when a file in that folder is written anew."""

    @property
    def text_config(self) -> dict[str, Any]:
        """open_clip's configuration of the text tower."""
        text: dict[str, Any] = json.loads(self.config)["text_cfg"]
        return text if self.text_model is None else {**text, "hf_model_name": str(self.text_model)}


def find(params: ClipParams, backbone: str) -> Source:
    """Return the source of a model.

    Raises:
        UnknownName: open_clip has no such model or tag.
        WeightsUnavailable: the hub's configuration is not cached and cannot be downloaded.
        MissingData, CorruptFile: the local configuration does not exist, or is none.
        InvalidConfig: nothing says which activation local weights were trained with; or parameters that exclude each
            other.
    """
    check(params)
    if params.own:
        import open_clip

        config = open_clip.get_model_config(params.model)
        preprocess = dict(open_clip.get_pretrained_cfg(params.model, params.pretrained))
        if (beside := config_beside(params)) is not None:
            preprocess = _read(beside).get("preprocess_cfg", {})
        return Source(params.model, json.dumps(config), json.dumps(preprocess), quick_gelu(params))
    if params.model.startswith(HUB):
        path = hub_file(params.repo, [CONFIG], backbone=backbone, revision=params.revision)
    else:
        path = params.folder / CONFIG
    content = _read(path)
    config, preprocess = content["model_cfg"], content.get("preprocess_cfg", {})
    quick = bool(config.get("quick_gelu")) if params.activation is None else params.activation == "quick_gelu"
    return Source(params.model, json.dumps(config), json.dumps(preprocess), quick, path.parent)


def check(params: ClipParams) -> None:
    """Check parameters without reading weights. Raises the errors of `find`, except for the hub's configuration."""
    elsewhere = params.weights not in (None, "random")
    if params.own:
        _check_names(params)
        if elsewhere and params.revision is not None:
            raise InvalidConfig(
                f"weights={params.weights} beside revision={params.revision}: a revision is one of the hub's weights",
                hint="leave one of the two out",
            )
        quick_gelu(params)
        return
    if "pretrained" in params.model_fields_set:
        raise InvalidConfig(
            f"pretrained={params.pretrained} beside model={params.model}, which has weights of its own",
            hint="leave pretrained= out",
        )
    if params.model.startswith(FOLDER):
        _read(params.folder / CONFIG)
        if params.revision is not None:
            raise InvalidConfig(f"revision={params.revision} beside a local folder", hint="leave revision= out")
    elif elsewhere:
        raise InvalidConfig(
            f"weights={params.weights} beside model={params.model}, which has weights of its own",
            hint=f"put {CONFIG} beside the file, and give model={FOLDER}FOLDER",
        )


def quick_gelu(params: ClipParams) -> bool:
    """Return True if the weights for an architecture of open_clip's own were trained with QuickGELU.

    Raises:
        InvalidConfig: the weights are local, others of this architecture were trained with either, and neither a
            parameter nor a configuration beside the weights says which.
    """
    if params.activation is not None:
        return params.activation == "quick_gelu"
    import open_clip

    if open_clip.get_model_config(params.model).get("quick_gelu"):
        return True
    if (beside := config_beside(params)) is not None:
        return bool(_read(beside)["model_cfg"].get("quick_gelu"))
    tags = {tag: open_clip.get_pretrained_cfg(params.model, tag) for tag in _tags(params.model)}
    known = params.weights in (None, "random") or "pretrained" in params.model_fields_set
    if known:
        return bool(tags.get(params.pretrained, {}).get("quick_gelu"))
    either = f"{params.model}-quickgelu" in open_clip.list_models()
    if either or any(tag.get("quick_gelu") for tag in tags.values()):
        raise InvalidConfig(
            f"weights={params.weights}: weights of '{params.model}' were trained with GELU or with QuickGELU, and "
            "a file of weights does not say which",
            hint="add activation=quick_gelu (OpenAI, MetaCLIP, DFN) or activation=gelu (LAION-2B, DataComp); or "
            f"put {CONFIG} beside the file; or name the tag, pretrained=TAG",
        )
    return False


def config_beside(params: ClipParams) -> Path | None:
    """Return the configuration beside local weights, unless a tag is named, which takes its place."""
    if params.weights in (None, "random") or "pretrained" in params.model_fields_set:
        return None
    path = local_weights(str(params.weights), FILES).parent / CONFIG
    return path if path.is_file() else None


def _read(path: Path) -> dict[str, Any]:
    """Read open_clip_config.json. Raises MissingData, CorruptFile."""
    if not path.is_file():
        raise MissingData(
            f"expected {CONFIG} in {path.parent}, found none",
            hint="download it with the weights; or name an architecture of open_clip, model=ViT-B-32",
        )
    try:
        with reading(path):
            content = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise CorruptFile(f"{path} is not JSON: {error}", hint="download it again") from error
    if isinstance(content, dict) and "model_cfg" not in content:
        content = {"model_cfg": content}  # an architecture alone, as open_clip's own files have it
    config = content.get("model_cfg") if isinstance(content, dict) else None
    if not isinstance(config, dict) or not {"embed_dim", "vision_cfg", "text_cfg"} <= config.keys():
        raise CorruptFile(
            f"{path}: expected 'model_cfg' with embed_dim, vision_cfg and text_cfg, found "
            f"{', '.join(map(str, config or content)) or 'nothing'}",
            hint="download it again",
        )
    return dict(content)


def _tags(model: str) -> Sequence[str]:
    import open_clip

    tags: Sequence[str] = open_clip.list_pretrained_tags_by_model(model)
    return tags


def _check_names(params: ClipParams) -> None:
    import open_clip

    models = open_clip.list_models()
    if params.model not in models:
        raise _unknown("model", params.model, models)
    tags = _tags(params.model)
    # With local weights the tag still selects how images are normalised; without a tag, open_clip's default applies.
    if tags and params.pretrained not in tags and (params.weights is None or "pretrained" in params.model_fields_set):
        raise _unknown(f"weights of '{params.model}'", params.pretrained, tags)


def _unknown(kind: str, name: str, known: Sequence[str]) -> UnknownName:
    near = difflib.get_close_matches(name, known, n=3) or list(known[:10])
    hint = f"did you mean one of {', '.join(near)}?"
    if "/" in name:
        hint = f"for a repository on the hub, model={HUB}{name}; for a folder, model={FOLDER}PATH"
    return UnknownName(f"open_clip has no {kind} named '{name}'", hint=hint)
