"""A timm model as a backbone: features of images before the classifier, and of each patch alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from sparc.plugins import InvalidConfig, Sample

if TYPE_CHECKING:
    from torch import Tensor, nn


def to_pixels(transform: Callable[[Any], Tensor], samples: Sequence[Sample]) -> Tensor:
    """Return the pixels (B, 3, H, W) of the samples' images."""
    import torch

    return torch.stack([transform(sample.image()) for sample in samples])


class TimmBackbone:
    """A timm model without its classifier. `config` is timm's data configuration, which preprocesses the images."""

    def __init__(self, model: nn.Module, config: dict[str, Any], device: str) -> None:
        import torch
        from timm.data import create_transform

        self._layout: Any = torch.channels_last  # with it, convolutions are faster on a GPU and on a CPU
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
