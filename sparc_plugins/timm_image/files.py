"""Make timm models: with random weights, or with those of a file, whose names and classes can differ."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparc.plugins import (
    CorruptFile,
    InvalidConfig,
    SparcError,
    library_of,
    read_weights,
    refusal,
    seeded,
    without_prefix,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

_MISFITS = (RuntimeError, KeyError, ValueError, AttributeError, TypeError)
"""Errors of timm for weights that are not the model's."""
_HINTS: dict[str | None, str] = {
    "open_clip": "these are weights of CLIP as open_clip names them: use the streams clip-img and clip-txt",
    "transformers": "these are weights as transformers names them: use the stream hf-image, with weights=FOLDER",
}


def created(name: str, options: dict[str, Any], overlay: dict[str, Any] | None = None) -> nn.Module:
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
        raise wrong_size(name, options.get("img_size"), error) from error


def check_size(model: Any, name: str, size: int) -> None:
    """Raise InvalidConfig for a size that is no multiple of the model's patches: some would leave the rest out."""
    sides = getattr(getattr(model, "patch_embed", None), "patch_size", None) or ()
    if wrong := [side for side in sides if size % side]:
        raise wrong_size(name, size, ValueError(f"expected a multiple of its patch size, {wrong[0]}"))


def wrong_size(name: str, size: int | None, error: Exception) -> InvalidConfig:
    """Return the error for a size of images that a model does not have."""
    reason = " ".join(str(error).split())[:200]
    return InvalidConfig(
        f"size={size}: the model '{name}' does not work at this size: {reason}",
        hint="choose a multiple of the model's patch size, 14 or 16 for most; or leave size= out",
    )


def pretrained(name: str, path: Path, options: dict[str, Any]) -> nn.Module:
    """Return a timm model with the weights in a file. Their prefix, and the classes they were trained on, can differ.

    Raises:
        CorruptFile: the file is damaged, or these are not this model's weights.
        InvalidConfig: the model does not have the size in `options`.
    """
    state = read_weights(path)
    try:
        return _loaded(name, state, options)
    except _MISFITS as error:
        inside = without_prefix(state, created(name, options).state_dict(), path)
        if inside.keys() == state.keys():
            raise does_not_fit(path, name, state, error) from error
    try:
        return _loaded(name, inside, options)
    except _MISFITS as error:
        raise does_not_fit(path, name, inside, error) from error


def _loaded(name: str, state: Mapping[str, Tensor], options: dict[str, Any]) -> nn.Module:
    """Return a timm model with these weights, of the classes that they have. Raises one of `_MISFITS`."""
    failure: Exception | None = None
    for classes in dict.fromkeys((None, _classes(name, state))):
        overlay = {"state_dict": dict(state)} | ({} if classes is None else {"num_classes": classes})
        try:
            model = created(name, options, overlay)
        except _MISFITS as error:
            failure = failure or error
        else:
            config: Any = model.pretrained_cfg
            config["state_dict"] = None  # else the file's tensors stay in memory
            return model
    raise failure or RuntimeError


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


def does_not_fit(path: Path, name: str, state: Mapping[str, Tensor], error: Exception) -> SparcError:
    """Return the error for weights that are not those of a model; or for a lack of memory, if that is what it is."""
    reason = " ".join(str(error).split())[:200]
    hint = _HINTS.get(library_of(state), "check model= and weights=")
    message = f"the weights {path} do not fit the model '{name}': {reason}"
    return refusal(error, f"load {path}") or CorruptFile(message, hint=hint)
