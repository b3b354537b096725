"""What image and text encoders of transformers share: reading them, running them, and reducing tokens to features."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparc.plugins import InvalidConfig, seeded

if TYPE_CHECKING:
    from torch import Tensor


def read_model(folder: Path, random: bool) -> tuple[Any, bool]:
    """The model, and whether its pooler is one that was trained.

    Raises:
        ValueError: the weights lack something else; and whatever transformers raises for what it cannot read.
    """
    from transformers import AutoConfig, AutoModel

    if random:
        config = AutoConfig.from_pretrained(folder)
        return seeded(lambda: AutoModel.from_config(config)), True
    model, loaded = AutoModel.from_pretrained(folder, use_safetensors=True, output_loading_info=True)
    # transformers draws what the file lacks at random.
    lacking = sorted(loaded["missing_keys"])
    if wanted := [name for name in lacking if not name.startswith("pooler.")]:
        raise ValueError(f"the weights lack {wanted[0]} and {len(wanted) - 1} more")
    return model, not lacking


class Encoder:
    """A model of transformers, or that tower of a two-tower model that reads images (`vision`) or captions (`text`)."""

    def __init__(self, model: Any, modality: str, device: str, dtype: str) -> None:
        import torch

        self.dtype: torch.dtype = getattr(torch, dtype)
        self.device = device
        self.model, self.tower, self._run = model, model, model
        if hasattr(model, "vision_model") and hasattr(model, "text_model"):
            setattr(model, "text_model" if modality == "vision" else "vision_model", None)
            self.tower = getattr(model, f"{modality}_model")
            self._run = model.get_image_features if modality == "vision" else model.get_text_features
        model.eval().requires_grad_(False).to(device, self.dtype)

    def __call__(self, inputs: Mapping[str, Tensor]) -> tuple[Any, Any]:
        """The last hidden states, and the pooled output (B, d) or None."""
        inputs = {
            name: value.to(self.device, self.dtype if value.is_floating_point() else None)
            for name, value in inputs.items()
        }
        output = self._run(**inputs)
        if not hasattr(output, "last_hidden_state"):  # transformers 4 gives the embedding alone
            return self.tower(**inputs).last_hidden_state, output
        pooled = getattr(output, "pooler_output", None)
        return output.last_hidden_state, None if pooled is None else pooled.flatten(1)


def reduce(pool: str, tokens: Any, pooled: Any, mask: Any) -> Tensor:
    """Features (B, d) as `pool` asks, the mean being over the tokens where `mask` (B, tokens) is not 0."""
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
    """Raise InvalidConfig where the model does not offer that pool."""
    if not offered[pool]:
        has = ", ".join(name for name, there in offered.items() if there) or "none of them"
        raise InvalidConfig(
            f"pool={pool}: expected what the model offers, {has}; found a {type(model).__name__}",
            hint="choose another pool=, or another model",
        )
