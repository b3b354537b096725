"""Streams `clip-img` and `clip-txt`: the image and the text tower of any CLIP model in open_clip."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from sparc.plugins import (
    BackboneSpec,
    CorruptFile,
    WeightsUnavailable,
    hookimpl,
    hub_file,
    identify_weights,
    in_hub_cache,
    library_of,
    local_weights,
    read_weights,
    refusal,
    seeded,
    sha256,
    weight_files,
    without_prefix,
)
from sparc_plugins.clip.source import (
    ARCHITECTURE,
    CONFIG,
    FILES,
    HUB,
    TAG,
    ClipImageParams,
    ClipParams,
    Source,
    check,
    config_beside,
    find,
)
from sparc_plugins.clip.tokenizers import identify_tokenizer, needs_the_hub, stamp, with_text_model, with_tokenizer
from sparc_plugins.clip.towers import Clip, ImageTower, TextTower, cropped

if TYPE_CHECKING:
    from torch import Tensor

REPOSITORY = "laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K"


def load_image_tower(params: ClipParams, device: str) -> ImageTower:
    """Load the image tower. Raises the errors of `load_model` and of `cropped`."""
    if not isinstance(params, ClipImageParams):  # those of the text tower
        return ImageTower(load_model(params, device, "clip-img")[0])
    clip, _ = load_model(params, device, "clip-img", size=params.size)
    return ImageTower(clip if params.crop_pct is None else cropped(clip, params.crop_pct))


def load_text_tower(params: ClipParams, device: str) -> TextTower:
    """Load the text tower. Raises the errors of `load_model`."""
    clip, source = load_model(params, device, "clip-txt")
    return TextTower(clip, with_tokenizer(source, params))


_loaded: WeakValueDictionary[tuple[Any, ...], Clip] = WeakValueDictionary()
"""Models that a backbone in this process still uses, by their source, their files as they are now, and the device."""


def load_model(params: ClipParams, device: str, backbone: str, *, size: int | None = None) -> tuple[Clip, Source]:
    """Load a model, or return the loaded one if a backbone already uses it, so that both towers share one model.

    Raises:
        UnknownName: open_clip has no such model or tag.
        InvalidConfig: nothing says with which activation local weights were trained; or parameters that exclude each
            other.
        WeightsUnavailable: the hub's weights are not cached and cannot be downloaded.
        CorruptFile, MissingData: local weights do not fit the model, or do not exist.
    """
    source = with_text_model(find(params, backbone), params)
    path = None if params.weights == "random" else _file(params, backbone)
    key = (source, stamp([] if path is None else weight_files(path)), device, size)
    clip = _loaded.get(key)
    if clip is None:
        clip = _loaded[key] = _load(source, path, device, size)
    return clip, source


def _file(params: ClipParams, backbone: str) -> Path:
    """Return the file of weights, or its index."""
    if params.weights is not None:
        return local_weights(params.weights, FILES)
    if params.own or params.model.startswith(HUB):
        repo, names = _hub_repo(params)
        return hub_file(repo, names, backbone=backbone, revision=params.revision)
    return local_weights(str(params.folder), FILES)


def _load(source: Source, path: Path | None, device: str, size: int | None) -> Clip:
    import open_clip
    import torch
    from open_clip.transformer import QuickGELU

    state = None if path is None else read_weights(path)
    preprocess = json.loads(source.preprocess)
    create = partial(
        open_clip.create_model_and_transforms,
        source.model if source.folder is None else f"local-dir:{source.folder}",
        load_weights=False,
        device=device,
        quick_gelu=source.quick_gelu,
        force_image_size=size,
        image_mean=preprocess.get("mean"),
        image_std=preprocess.get("std"),
        image_interpolation=preprocess.get("interpolation"),
        image_resize_mode=preprocess.get("resize_mode"),
        pretrained_image=False,
        pretrained_text=False,
    )
    if source.text_model is not None:
        create = partial(create, text_cfg={**source.text_config, "hf_model_pretrained": False})
    try:
        net, _, transform = seeded(create)
    except OSError as error:  # a text tower from transformers downloads its configuration
        raise needs_the_hub(source, error) from error
    if path is not None and state is not None:
        _fill(net, state, path, source)
    # Convolutions are faster with channels last, on a GPU and on a CPU.
    net = net.eval().requires_grad_(False).to(dtype=torch.float32, memory_format=torch.channels_last)
    preprocessing = {
        name: list(value) if isinstance(value, tuple) else value for name, value in net.visual.preprocess_cfg.items()
    }
    activation = "quick_gelu" if any(isinstance(part, QuickGELU) for part in net.modules()) else "gelu"
    return Clip(net, transform, preprocessing, int(json.loads(source.config)["embed_dim"]), activation)


def _fill(net: Any, state: Mapping[str, Tensor], path: Path, source: Source) -> None:
    """Load weights into a model by open_clip's own function, which knows the names and shapes of many trainings.

    Raises CorruptFile if they are not this model's weights.
    """
    from open_clip.factory import load_checkpoint
    from safetensors.torch import save_file

    named = without_prefix(state, net.state_dict(), path)
    try:
        if path.suffix.lower() == ".safetensors" and named.keys() == state.keys():
            load_checkpoint(net, str(path))
            return
        # That function reads a file; what other kinds of files hold becomes one that it can read.
        with tempfile.TemporaryDirectory() as folder:
            plain = Path(folder) / "weights.safetensors"
            save_file({name: tensor.contiguous().clone() for name, tensor in named.items()}, plain)
            load_checkpoint(net, str(plain))
    except Exception as error:  # open_clip raises many unrelated types for weights of another model
        if (found := refusal(error, f"load {path}")) is not None:
            raise found from error
        reason = " ".join(str(error).split())[:200]
        raise CorruptFile(
            f"the weights {path} do not fit the model '{source.model}': {reason}", hint=_hint(named, path)
        ) from error


def _hint(state: Mapping[str, Tensor], path: Path) -> str:
    """Return what to run with weights that do not fit."""
    if library_of(state) == "transformers":
        return "these are weights as transformers names them: use the streams hf-image and hf-text, with weights=FOLDER"
    if (path.parent / CONFIG).is_file():
        return f"check model= and weights=; {CONFIG} beside them says what they are: model=local-dir:{path.parent}"
    return "check model= and weights="


def _hub_repo(params: ClipParams) -> tuple[str, tuple[str, ...]]:
    """Return the hub repository and the names of its weights file, in order of preference."""
    if not params.own:
        return params.repo, FILES
    import open_clip

    where = str(open_clip.get_pretrained_cfg(params.model, params.pretrained).get("hf_hub") or "")
    owner, _, rest = where.strip("/").partition("/")
    name, _, filename = rest.partition("/")
    if not name:
        raise WeightsUnavailable("clip-img", params.pretrained, "open_clip does not serve them from the hub")
    return f"{owner}/{name}", (filename,) if filename else FILES


def identify_text(params: ClipParams) -> str:
    """Return the identity of the text tower: of the weights, and of its tokenizer if that has files of its own."""
    found = identify(params)
    if found == "random" or (params.model, params.pretrained) == (ARCHITECTURE, TAG):  # its tokenizer is open_clip's
        return found
    tokenizer = identify_tokenizer(params)
    return found if tokenizer is None else f"{found} {tokenizer}"


def identify(params: ClipParams) -> str:
    """Return the identity of the weights. The default model and missing local weights need no import of open_clip."""
    by_commit = partial(identify_weights, None, backbone="clip-img", revision=params.revision)
    if params.weights is None and (params.model, params.pretrained) == (ARCHITECTURE, TAG):
        return by_commit(REPOSITORY, files=FILES)
    if params.weights not in (None, "random"):
        local_weights(str(params.weights), FILES)
    check(params)
    if params.weights == "random":
        return params.weights
    if params.weights is None and (params.own or params.model.startswith(HUB)):
        repo, names = _hub_repo(params)
        return by_commit(repo, files=names)
    where = str(params.weights or params.folder)
    found = identify_weights(where, "", backbone="clip-img", files=FILES)
    config = config_beside(params) if params.own else params.folder / CONFIG
    return found if config is None else f"sha256:{hashlib.sha256(f'{found} {sha256(config)}'.encode()).hexdigest()}"


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
        shared_space=space_of,
        width=512,
        has_weights=partial(in_hub_cache, REPOSITORY, FILES),
    )
    summary = "{} of any CLIP model of open_clip"
    return [
        spec(
            name="clip-img",
            modality="image",
            params=ClipImageParams,
            load=load_image_tower,
            summary=summary.format("image tower"),
            identify=identify,
        ),
        spec(
            name="clip-txt",
            modality="text",
            load=load_text_tower,
            summary=summary.format("text tower"),
            identify=identify_text,
        ),
    ]
