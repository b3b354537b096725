"""The source of a timm model: its parameters, its file of weights, and the configuration that timm writes beside it.

`config.json` of timm says how images are prepared (mean, std, crop, interpolation, size), with which arguments the
model is made (its pooling, its number of classes), and which architecture it is.
"""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

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

CONFIG = "config.json"
HUB, FOLDER = "hf-hub:", "local-dir:"
FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


class TimmParams(Params):
    """Parameters of the stream `timm`."""

    model: str
    """Name of the model in timm, with or without the tag of its weights; or `hf-hub:OWNER/NAME` or `local-dir:PATH`
    with timm's config.json."""
    weights: str | None = None
    """Local file or folder, or `random`; default: the hub's. timm's config.json beside the file says how images are
    prepared and the model is made."""
    revision: str | None = None
    """Branch, tag or commit of the hub's repository; default: the newest. `model=NAME@REVISION` is the same."""

    size: int | None = Field(default=None, gt=0)
    """Height and width of the images in pixels; default: the model's own, 224 for `dinov2`."""
    crop_pct: float | None = Field(default=None, gt=0, le=1)
    """Part of the resized image's shorter side that the central crop keeps: 0.875 at 224 resizes to 256. Default: the
    model's own."""

    @model_validator(mode="before")
    @classmethod
    def _split(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not str(values.get("model", "")).startswith(FOLDER):
            return revision_from_name(values)
        folder = Path(str(values["model"]).removeprefix(FOLDER)).expanduser().resolve()
        return {**values, "model": f"{FOLDER}{folder}"}

    @property
    def repo(self) -> str | None:
        """Repository of `hf-hub:OWNER/NAME`; None for another model."""
        return self.model.removeprefix(HUB) if self.model.startswith(HUB) else None

    @property
    def local(self) -> str | None:
        """Path of local weights; None for the hub's and for random ones."""
        if self.weights is None and self.model.startswith(FOLDER):
            return self.model.removeprefix(FOLDER)
        return None if self.weights == "random" else self.weights


@dataclass(frozen=True)
class Source:
    """A model that timm can make."""

    name: str
    """Name of the model in timm."""
    weights: Path | None
    """File of weights; None: random ones."""
    folder: Path | None = None
    """Folder of timm's config.json; None: timm's own configuration of that name."""

    @property
    def made_from(self) -> str:
        """The name with which `timm.create_model` makes the model."""
        return self.name if self.folder is None else f"{FOLDER}{self.folder}"

    def pretrained_cfg(self) -> dict[str, Any]:
        """Return timm's configuration of the weights."""
        if self.folder is None:
            from timm.models import get_pretrained_cfg

            config = get_pretrained_cfg(self.name)
            return {} if config is None else dict(config.to_dict())
        with reading(self.folder / CONFIG):
            stated = json.loads((self.folder / CONFIG).read_text(encoding="utf-8"))
        return dict(stated.get("pretrained_cfg", stated))


def check(params: TimmParams) -> None:
    """Check parameters without reading weights.

    Raises:
        UnknownName: timm has no such model.
        InvalidConfig: parameters exclude each other, or the configuration beside the weights names another model.
        MissingData, CorruptFile: the configuration of `local-dir:` does not exist, or is none.
    """
    local = f"model={params.model}" if params.model.startswith(FOLDER) else None
    local = local if params.weights is None else f"weights={params.weights}"
    if local is not None and params.revision is not None:
        raise InvalidConfig(
            f"{local} beside revision={params.revision}: a revision is one of the hub's weights",
            hint="leave one of the two out",
        )
    if not params.model.startswith((HUB, FOLDER)):
        _check_name(params.model)
        config_beside(params)
        return
    if params.weights not in (None, "random"):
        raise InvalidConfig(
            f"weights={params.weights} beside model={params.model}, which has weights of its own",
            hint="leave weights= out; or name the architecture, model=ARCHITECTURE,weights=PATH",
        )
    if params.model.startswith(FOLDER):
        _architecture(Path(params.model.removeprefix(FOLDER)) / CONFIG, needed=True)


def find(params: TimmParams, repo: str, backbone: str) -> Source:
    """Return the source of a model, whose weights are those of `repo` on the hub unless they are local.

    Raises the errors of `check`, and:
        WeightsUnavailable: the hub's files are not cached and cannot be downloaded.
        MissingData: local weights do not exist.
    """
    check(params)
    of_hub = partial(hub_file, repo, backbone=backbone, revision=params.revision)
    random = params.weights == "random"
    if params.repo is not None:
        config = of_hub([CONFIG])
        return Source(str(_architecture(config, needed=True)), None if random else of_hub(FILES), config.parent)
    if params.model.startswith(FOLDER):
        folder = Path(params.model.removeprefix(FOLDER))
        weights = None if random else local_weights(str(folder))
        return Source(str(_architecture(folder / CONFIG, needed=True)), weights, folder)
    if params.local is None:
        return Source(params.model, None if random else of_hub(FILES))
    beside = config_beside(params)
    return Source(params.model, local_weights(params.local), None if beside is None else beside.parent)


def config_beside(params: TimmParams) -> Path | None:
    """Return timm's configuration beside local weights; None if there is none.

    Raises InvalidConfig if it names another architecture than `model`.
    """
    if params.local is None:
        return None
    path = local_weights(params.local).parent / CONFIG
    architecture = _architecture(path)
    if architecture is None:
        return None
    asked = params.model.partition(".")[0]
    if params.weights is not None and architecture.partition(".")[0] != asked:
        raise InvalidConfig(
            f"model={params.model} beside weights={params.weights}, whose {CONFIG} names the architecture "
            f"'{architecture}'",
            hint=f"model={architecture.partition('.')[0]}; or move the weights away from that {CONFIG}",
        )
    return path


def _architecture(path: Path, *, needed: bool = False) -> str | None:
    """Return the architecture that timm's config.json names; None without one, or if it is another library's.

    Raises:
        CorruptFile: it is no JSON; or, if it is `needed`, another library's.
        MissingData: it is `needed`, and there is none.
        UnknownName: timm has no such architecture.
    """
    if not path.is_file():
        if needed:
            raise MissingData(
                f"expected {CONFIG} in {path.parent}, found none",
                hint="download it with the weights; or name the architecture, model=ARCHITECTURE,weights=FOLDER",
            )
        return None
    try:
        with reading(path):
            content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CorruptFile(f"{path} is no JSON: {error}", hint="download it again; or remove it") from error
    found = content.get("architecture") if isinstance(content, dict) else None
    if not isinstance(found, str) or not found:
        if needed:
            raise CorruptFile(
                f"{path}: expected timm's configuration, with 'architecture', found none",
                hint="for a model of transformers use the stream hf-image, with weights=FOLDER",
            )
        return None
    _check_name(found.partition(".")[0])
    return found


def _check_name(name: str) -> None:
    import timm

    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture) or (tag and name not in timm.list_pretrained(f"{architecture}.*")):
        near = difflib.get_close_matches(name, timm.list_models() + timm.list_pretrained(), n=3)
        hint = f"did you mean {', '.join(near)}?" if near else "python -c 'import timm; print(timm.list_models())'"
        if "/" in name:
            hint = f"for a repository on the hub, model={HUB}{name}; for a folder, model={FOLDER}PATH"
        raise UnknownName(f"timm has no model named '{name}'", hint=f"{hint} (timm {timm.__version__})")
