"""Code that image and text encoders of transformers share: read a model, run it, reduce its tokens to features."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparc.plugins import InvalidConfig, seeded

if TYPE_CHECKING:
    from torch import Tensor


def read_model(folder: Path, random: bool) -> tuple[Any, bool]:
    """Return the model, and True if its pooler has trained (or random, if `random`) weights.

    Raises:
        ValueError: the weights lack tensors other than the pooler's. transformers raises other types for files it
            cannot read.
    """
    from transformers import AutoConfig, AutoModel

    if random:
        config = AutoConfig.from_pretrained(folder)
        return seeded(lambda: AutoModel.from_config(config)), True
    model, loaded = AutoModel.from_pretrained(folder, use_safetensors=True, output_loading_info=True)
    # transformers initialises tensors that the file lacks at random.
    lacking = sorted(loaded["missing_keys"])
    if wanted := [name for name in lacking if not name.startswith("pooler.")]:
        raise ValueError(f"the weights lack {wanted[0]} and {len(wanted) - 1} more")
    return model, not lacking


class Encoder:
    """A model of transformers, or one tower of a two-tower model. `modality` is `vision` or `text`."""

    def __init__(self, model: Any, modality: str, device: str) -> None:
        self.device = device
        self.model, self.tower, self._run = model, model, model
        if hasattr(model, "vision_model") and hasattr(model, "text_model"):
            setattr(model, "text_model" if modality == "vision" else "vision_model", None)
            self.tower = getattr(model, f"{modality}_model")
            self._run = model.get_image_features if modality == "vision" else model.get_text_features
        model.eval().requires_grad_(False).to(device).float()  # transformers loads the dtype of the file

    def __call__(self, inputs: Mapping[str, Tensor]) -> tuple[Any, Any]:
        """Return the last hidden states, and the pooled output (B, d) or None."""
        inputs = {name: value.to(self.device) for name, value in inputs.items()}
        output = self._run(**inputs)
        if not hasattr(output, "last_hidden_state"):  # transformers 4 returns the embedding alone
            return self.tower(**inputs).last_hidden_state, output
        pooled = getattr(output, "pooler_output", None)
        return output.last_hidden_state, None if pooled is None else pooled.flatten(1)


def reduce(pool: str, tokens: Any, pooled: Any, mask: Any) -> Tensor:
    """Return features (B, d): `pooled`, the class token, or the mean of the tokens where `mask` (B, T) is not 0."""
    features: Tensor
    if pool == "pooled":
        features = pooled
    elif pool == "class":
        features = tokens[:, 0]
    else:
        mask = mask.unsqueeze(-1).to(tokens.dtype)
        features = (tokens * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
    return features


def check_pool(pool: str, offered: Mapping[str, bool], model: Any) -> None:
    """Raise InvalidConfig if the model does not offer that pool."""
    if not offered[pool]:
        has = ", ".join(name for name, there in offered.items() if there) or "none of them"
        raise InvalidConfig(
            f"pool={pool}: expected what the model offers, {has}; found a {type(model).__name__}",
            hint="choose another pool=, or another model",
        )
