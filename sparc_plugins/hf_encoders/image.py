"""Image encoders of transformers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sparc.plugins import InvalidConfig, Sample
from sparc_plugins.hf_encoders.encoder import Encoder, check_pool
from sparc_plugins.hf_encoders.pooling import POOLS

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Pixels:
    """Preprocessing with the model's own image processor. Picklable."""

    processor: Any

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Return the processor's tensors for the samples' images.

        Raises InvalidConfig if the processor makes images of different sizes, which cannot be one batch.
        """
        images = [sample.image() for sample in samples]
        try:
            return dict(self.processor(images=images, return_tensors="pt"))
        except ValueError as error:  # transformers' type for whatever cannot become one tensor
            sizes = {
                tuple(self.processor(images=[image], return_tensors="pt")["pixel_values"].shape) for image in images
            }
            if len(sizes) == 1:
                raise
            raise InvalidConfig(
                f"the image processor makes images of {len(sizes)} sizes from {len(images)} images: expected one size",
                hint="in preprocessor_config.json, state a size of height and width, or a crop (do_center_crop)",
            ) from error


def sized(processor: Any, size: int | None, crop_pct: float | None) -> Any:
    """Return an image processor that makes images of a size, cropped from images resized to size / crop_pct.

    None keeps what the processor does. Raises InvalidConfig for a processor of images of their own proportions.
    """
    if size is None and crop_pct is None:
        return processor
    options = json.loads(processor.to_json_string())
    resize, crop = options.get("size") or {}, options.get("crop_size") if options.get("do_center_crop") else None
    made = (crop or resize).get("height")
    if made is None or not options.get("do_resize", True):
        raise InvalidConfig(
            f"size and crop_pct: expected an image processor of one size, found size {resize}",
            hint="leave size= and crop_pct= out",
        )
    side = size or made
    if crop is None and crop_pct is None:
        changes: dict[str, Any] = {"size": {"height": side, "width": side}}
    else:
        before = resize.get("shortest_edge") or resize.get("height") or made
        changes = {
            "size": {"shortest_edge": int(side / (crop_pct or made / before))},
            "crop_size": {"height": side, "width": side},
            "do_center_crop": True,
        }
    return type(processor).from_dict(options | changes)


class ImageBackbone:
    """An image encoder of transformers."""

    def __init__(self, encoder: Encoder, processor: Any, pool: str, has_pooler: bool) -> None:
        import torch
        from PIL import Image

        self.encoder, self.pool = encoder, pool
        self.preprocess = Pixels(processor)
        options = json.loads(processor.to_json_string())
        self.preprocessing: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
        self.preprocessing |= {"model": type(encoder.tower).__name__, "pooling": pool}
        blank = self.preprocess([Sample("blank", lambda: Image.new("RGB", (64, 64)))])
        with torch.inference_mode():
            states, pooled = encoder.first_run(blank)
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
        """Return features (B, d) of a batch from the image processor."""
        return self._reduce(batch)[0]

    def forward_tokens(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return features (B, d), and those of each patch (B, rows * columns, d'), row by row.

        With `pool=pooled`, the model's head is applied to each patch alone, so that d' = d. If the head is not known,
        or the features are a token or the mean token, patches have their last hidden states.

        Raises:
            InvalidConfig: the model has no patch tokens, or their number depends on the image.
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
        if states.ndim == 4:  # a CNN's map (B, d, rows, columns)
            states = states.flatten(2).transpose(1, 2)
        tokens: Tensor = states[:, self._prefix :]
        if self.pool == "mean":
            mask = batch.get("pixel_attention_mask", torch.ones(tokens.shape[:2], device=tokens.device))
            return POOLS["mean"](tokens, mask), tokens
        return pooled if self.pool == "pooled" else states[:, 0], tokens


def _head(model: Any, tower: Any, states: Tensor, pooled: Tensor, prefix: int) -> Callable[[Tensor], Tensor] | None:
    """Return the function with which the model's head turns single tokens (M, d') into features (M, d), or None.

    Each candidate is accepted only if it reproduces `pooled` from the input of the model's own pooling: its first
    token, or the mean of its map. None if no candidate does.
    """
    import torch

    project = getattr(model, "visual_projection", torch.nn.Identity())
    if hasattr(tower, "head") and states.ndim == 3:  # SigLIP pools by attention over all tokens, here over one
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
    """Return rows and columns of the patches (None if unknown), and the number of tokens before the patches."""
    if states.ndim == 4:
        return (states.shape[2], states.shape[3]), 0
    patch = getattr(config, "patch_size", None)
    if patch is None or pixels.ndim != 4:
        return None, 0
    height, width = (patch, patch) if isinstance(patch, int) else patch
    grid = (pixels.shape[2] // height, pixels.shape[3] // width)
    prefix = states.shape[1] - grid[0] * grid[1]
    # There are fewer tokens than patches if the model merges them, as Swin does.
    return (grid, prefix) if prefix >= 0 else (None, 0)
