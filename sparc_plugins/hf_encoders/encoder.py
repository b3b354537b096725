"""Code that image and text encoders of transformers share: run a model, reduce its tokens to features."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sparc.plugins import InvalidConfig

if TYPE_CHECKING:
    from torch import Tensor


class Encoder:
    """A model of transformers, or one tower of a two-tower model. `modality` is `vision` or `text`."""

    inputs: frozenset[str]
    """Names of the inputs that the model takes."""

    def __init__(self, model: Any, modality: str, device: str) -> None:
        if model.config.is_encoder_decoder:
            model = model.get_encoder()
        self.device = device
        self.model, self.tower, self._run = model, model, model
        if hasattr(model, "vision_model") and hasattr(model, "text_model"):
            setattr(model, "text_model" if modality == "vision" else "vision_model", None)
            self.tower = getattr(model, f"{modality}_model")
            self._run = model.get_image_features if modality == "vision" else model.get_text_features
        elif type(model).__name__.endswith("WithProjection"):
            self.tower = getattr(model, f"{modality}_model")
        self._embeds = "image_embeds" if modality == "vision" else "text_embeds"
        self._patches = 0
        if model.config.model_type == "vit_mae":
            # A masked autoencoder drops most patches at random and shuffles the rest, unless it is told not to.
            model.config.mask_ratio = 0.0
            self._patches = (model.config.image_size // model.config.patch_size) ** 2
        if hasattr(self.tower, "set_attention_type"):
            # BigBird attends in blocks to long captions, some drawn at random, until the first short one, with which
            # it changes to full attention for good: features would depend on what was computed before.
            self.tower.set_attention_type("original_full")
        called = model.forward if self._run is model else self._run
        self.inputs = frozenset(inspect.signature(called).parameters)
        model.eval().requires_grad_(False).to(device).float()  # transformers loads the dtype of the file

    def __call__(self, inputs: Mapping[str, Tensor]) -> tuple[Any, Any]:
        """Return the last hidden states, and the pooled output (B, d) or None."""
        inputs = {name: value.to(self.device) for name, value in inputs.items()}
        if self._patches:
            inputs["noise"] = self._in_order(len(inputs["pixel_values"]))
        output = self._run(**inputs)
        if not hasattr(output, "last_hidden_state"):  # transformers 4 returns the embedding alone
            return self.tower(**inputs).last_hidden_state, output
        pooled = getattr(output, self._embeds, None)  # of a tower with its projection
        pooled = getattr(output, "pooler_output", None) if pooled is None else pooled
        return output.last_hidden_state, None if pooled is None else pooled.flatten(1)

    def _in_order(self, count: int) -> Tensor:
        """Return the noise (B, P) by which a masked autoencoder sorts its patches, rising: they stay in order."""
        import torch

        return torch.arange(self._patches, device=self.device).expand(count, -1) / self._patches

    def first_run(self, inputs: Mapping[str, Tensor]) -> tuple[Any, Any]:
        """Run the model as `__call__` does.

        Raises:
            InvalidConfig: the model needs other inputs or images of another size, or gives no hidden states.
        """
        try:
            return self(inputs)
        except (TypeError, ValueError, AttributeError, KeyError, RuntimeError) as error:
            if (found := self._sizes(inputs)) is not None:
                raise InvalidConfig(
                    f"{type(self.tower).__name__}: expected images of {found[0]} pixels, as config.json states, found "
                    f"{found[1]} from the image processor",
                    hint="in preprocessor_config.json, state the size (or crop_size) of the model: height and width",
                ) from error
            raise InvalidConfig(
                f"{type(self.tower).__name__} does not run on {', '.join(inputs)} alone: {error}",
                hint="choose a model that encodes images or text alone",
            ) from error

    def _sizes(self, inputs: Mapping[str, Tensor]) -> tuple[str, str] | None:
        """Return the sizes of images in the model's configuration and in `inputs`; None if equal or unknown."""
        stated = getattr(self.tower.config, "image_size", None)
        pixels = inputs.get("pixel_values")
        if stated is None or pixels is None or pixels.ndim != 4:
            return None
        sides = (stated, stated) if isinstance(stated, int) else tuple(stated)
        height, width = pixels.shape[2:]
        return None if sides == (height, width) else (f"{sides[0]} x {sides[1]}", f"{height} x {width}")


def check_pool(pool: str, offered: Mapping[str, bool], model: Any) -> None:
    """Raise InvalidConfig if the model does not offer that pool."""
    if not offered.get(pool, True):
        has = ", ".join(name for name, there in offered.items() if there) or "none of them"
        raise InvalidConfig(
            f"pool={pool}: expected what the model offers, {has}; found a {type(model).__name__}",
            hint="choose another pool=, or another model",
        )
