"""Image encoders of transformers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sparc.plugins import InvalidConfig, Sample
from sparc_plugins.hf_encoders.encoder import Encoder, check_pool, reduce

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Pixels:
    """Images of samples to what the model's own image processor makes of them."""

    processor: Any

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Prepare the images of a batch."""
        return dict(self.processor(images=[sample.image() for sample in samples], return_tensors="pt"))


class ImageBackbone:
    """An image encoder of transformers."""

    def __init__(self, encoder: Encoder, processor: Any, pool: str, has_pooler: bool) -> None:
        import torch
        from PIL import Image

        self.encoder, self.pool = encoder, pool
        self.preprocess = Pixels(processor)
        said = json.loads(processor.to_json_string())
        self.preprocessing: dict[str, Any] = {name: value for name, value in said.items() if value is not None}
        blank = self.preprocess([Sample("blank", lambda: Image.new("RGB", (64, 64)))])
        with torch.inference_mode():
            states, pooled = encoder(blank)
            self.grid, self._prefix = _grid(encoder.tower.config, blank["pixel_values"], states)
            offered = {
                "pooled": has_pooler and pooled is not None,
                "class": self._prefix > 0,
                "mean": self.grid is not None or "pixel_attention_mask" in blank,
            }
            check_pool(pool, offered, encoder.tower)
            self.width = self.forward(blank).shape[1]
            self._head = _head(encoder.model, encoder.tower, states, pooled, self._prefix) if pool == "pooled" else None

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Features (B, d) of what the image processor gives."""
        return self._reduce(batch)[0]

    def forward_tokens(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Features (B, d), and those of each patch (B, rows * columns, d'), row by row.

        They are what the model's head makes of each patch alone, so that d' is d; the last hidden states where the
        features are a token or a mean of those, or where it is not known how that head is built.

        Raises:
            InvalidConfig: the model has no patch tokens, or not the same number for every image.
        """
        if self.grid is None:
            raise InvalidConfig(
                f"{type(self.encoder.tower).__name__}: expected a model with a fixed grid of patches, found none",
                hint="choose a vision transformer of a fixed size",
            )
        features, tokens = self._reduce(batch)
        if self._head is not None:
            tokens = self._head(tokens.flatten(0, 1)).reshape(len(tokens), -1, self.width)
        return features, tokens

    def _reduce(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        import torch

        states, pooled = self.encoder(batch)
        if states.ndim == 4:  # the map (B, d, rows, columns) of a CNN
            states = states.flatten(2).transpose(1, 2)
        tokens: Tensor = states[:, self._prefix :]
        if self.pool == "mean":
            mask = batch.get("pixel_attention_mask", torch.ones(tokens.shape[:2], device=tokens.device))
            return reduce("mean", tokens, pooled, mask), tokens
        return reduce(self.pool, states, pooled, None), tokens


def _head(model: Any, tower: Any, states: Tensor, pooled: Tensor, prefix: int) -> Callable[[Tensor], Tensor] | None:
    """How the model makes its pooled output (N, d) of tokens (N, d') alone; None where it is not known.

    Whatever is tried must make the pooled output of what the model pooled: its first token, or the mean of its map.
    """
    import torch

    project = getattr(model, "visual_projection", torch.nn.Identity())
    if hasattr(tower, "head") and states.ndim == 3:  # SigLIP attends to all tokens: here to one
        return lambda tokens: tower.head(tokens.unsqueeze(1))
    pooler, norm = getattr(tower, "pooler", None), getattr(tower, "layernorm", None)
    ways: list[Callable[[Tensor], Tensor]] = [lambda tokens: tokens]
    if hasattr(tower, "post_layernorm"):
        ways.append(lambda tokens: project(tower.post_layernorm(tokens)))
    if pooler is not None and states.ndim == 3:
        ways.append(lambda tokens: pooler(tokens.unsqueeze(1)))
    if norm is not None:
        ways.append(norm)
    pooled_from = states.flatten(2).mean(dim=2) if states.ndim == 4 else states[:, 0] if prefix else None
    if pooled_from is None:
        return None
    for way in ways:
        made = way(pooled_from)
        if made.shape == pooled.shape and torch.allclose(made, pooled, rtol=1e-4, atol=1e-5):
            return way
    return None


def _grid(config: Any, pixels: Tensor, states: Tensor) -> tuple[tuple[int, int] | None, int]:
    """Rows and columns of the patches, where they are known, and how many other tokens come before them."""
    if states.ndim == 4:
        return (states.shape[2], states.shape[3]), 0
    patch = getattr(config, "patch_size", None)
    if patch is None or pixels.ndim != 4:
        return None, 0
    height, width = (patch, patch) if isinstance(patch, int) else patch
    grid = (pixels.shape[2] // height, pixels.shape[3] // width)
    prefix = states.shape[1] - grid[0] * grid[1]
    # Fewer tokens than patches: a model that merges them, as Swin does.
    return (grid, prefix) if prefix >= 0 else (None, 0)
