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
from sparc_plugins.timm_image.source import Source

if TYPE_CHECKING:
    from torch import Tensor, nn

_AFTER_POOLING = "fc_norm.weight"
"""Tensor of a vision transformer that has its last norm after the pooling, and not before."""

_MISFITS = (RuntimeError, KeyError, ValueError, AttributeError, TypeError)
"""Errors of timm for weights that are not the model's."""
_HINTS: dict[str | None, str] = {
    "open_clip": "these are weights of CLIP as open_clip names them: use the streams clip-img and clip-txt",
    "transformers": "these are weights as transformers names them: use the stream hf-image, with weights=FOLDER",
}


def created(source: Source, options: dict[str, Any], overlay: dict[str, Any] | None = None) -> nn.Module:
    """Return a timm model: with random weights, or with those in the overlay of its configuration.

    Raises InvalidConfig if the model does not have the size in `options`.
    """
    import timm

    def create() -> nn.Module:
        model: nn.Module = timm.create_model(
            source.made_from, pretrained=overlay is not None, pretrained_cfg_overlay=overlay, **options
        )
        return model

    try:
        return seeded(create)
    except AssertionError as error:
        raise wrong_size(source.name, options.get("img_size"), error) from error


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


def pretrained(source: Source, options: dict[str, Any]) -> nn.Module:
    """Return a timm model with the weights in a file. Their prefix, and the classes they were trained on, can differ.

    A vision transformer whose file has a norm after the pooling averages its tokens, as timm trains it with
    `global_pool="avg"`, unless `options` or the configuration beside the file say how it pools.

    Raises:
        CorruptFile: the file is damaged, or these are not this model's weights.
        InvalidConfig: the model does not have the size in `options`.
    """
    path, name = Path(str(source.weights)), source.name
    state = read_weights(path)
    try:
        return _loaded(source, state, options)
    except _MISFITS as error:
        names = set(created(source, options).state_dict())
        inside = without_prefix(state, names, path)
        averaged = _AFTER_POOLING in inside and _AFTER_POOLING not in names
        if averaged and source.folder is None and "global_pool" not in options:
            options = {**options, "global_pool": "avg"}
        elif inside.keys() == state.keys():
            raise does_not_fit(path, name, state, error) from error
    try:
        return _loaded(source, inside, options)
    except _MISFITS as error:
        raise does_not_fit(path, name, inside, error) from error


def _loaded(source: Source, state: Mapping[str, Tensor], options: dict[str, Any]) -> nn.Module:
    """Return a timm model with these weights, of the classes that they have. Raises one of `_MISFITS`."""
    failure: Exception | None = None
    found = _classes(source, state)
    # A configuration beside the file can state two numbers of classes, for which timm would load non-strictly.
    for classes in dict.fromkeys((None, found) if source.folder is None else (found,)):
        # Without a source, timm takes the tensors and not the first file in the folder.
        overlay = {"state_dict": dict(state), "source": None}
        given = options if classes is None else {**options, "num_classes": classes}
        try:
            model = created(source, given, overlay if classes is None else overlay | {"num_classes": classes})
        except _MISFITS as error:
            failure = failure or error
        else:
            config: Any = model.pretrained_cfg
            config["state_dict"] = None  # else the file's tensors stay in memory
            return model
    raise failure or RuntimeError


def _classes(source: Source, state: Mapping[str, Tensor]) -> int | None:
    """Return the number of classes of a file of weights, 0 without a classifier.

    None if it is that of timm's own configuration, or if the model has no classifier.
    """
    config = source.pretrained_cfg()
    classifier = config.get("classifier")
    if not classifier:
        return None
    weight = state.get(f"{classifier if isinstance(classifier, str) else classifier[0]}.weight")
    found = 0 if weight is None else len(weight)
    return None if source.folder is None and found == config.get("num_classes") else found


def does_not_fit(path: Path, name: str, state: Mapping[str, Tensor], error: Exception) -> SparcError:
    """Return the error for weights that are not those of a model; or for a lack of memory, if that is what it is."""
    reason = " ".join(str(error).split())[:200]
    hint = _HINTS.get(library_of(state), "check model= and weights=")
    if _AFTER_POOLING in state:
        hint = (
            "the file is of a model that averages its tokens (global_pool=avg): use the stream timm, with the same file"
        )
    message = f"the weights {path} do not fit the model '{name}': {reason}"
    return refusal(error, f"load {path}") or CorruptFile(message, hint=hint)
