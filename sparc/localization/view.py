"""Views: an image as one backbone sees it (features, patches, trace, grid), a caption as one backbone reads it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sparc.errors import InvalidConfig, PluginError
from sparc.localization.methods import by_gradient, dense
from sparc.localization.targets import Target
from sparc.localization.trace import Trace, traced
from sparc.models import Models
from sparc.plugins.batches import mapped
from sparc.plugins.contracts import GridBackbone, Sample
from sparc.plugins.geometry import Box, measured_box


@dataclass(frozen=True, eq=False)
class View:
    """An image as one backbone sees it. Each property is computed on first use and shared by all queries."""

    models: Models
    stream: str
    sample: Sample

    @cached_property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the patches. Raises InvalidConfig if the backbone has no grid."""
        grid = getattr(self.models.backbones[self.stream], "grid", None)
        if grid is None:
            raise InvalidConfig(
                f"stream '{self.stream}': expected a backbone with a grid of patches, found one without",
                hint=f"name others with --stream: {', '.join(self.models.of('image'))}",
            )
        rows, columns = grid
        return rows, columns

    @cached_property
    def image(self) -> Image.Image:
        """The image in RGB."""
        return self.sample.image()

    @cached_property
    def box(self) -> Box:
        """The part of the image that the grid covers."""
        return measured_box(self.stream, self.models.backbones[self.stream], self.image.size)

    @cached_property
    def batch(self) -> Any:
        """The image as a batch of one, preprocessed, on the device."""
        return mapped(
            self.models.backbones[self.stream].preprocess([self.sample]), lambda tensor: tensor.to(self.models.device)
        )

    @cached_property
    def _patches(self) -> Tensor:
        """Patches (P, D) in the space of the features. Raises InvalidConfig, PluginError."""
        backbone = self.models.backbones[self.stream]
        _ = self.grid
        assert isinstance(backbone, GridBackbone)
        with torch.inference_mode():
            _, patches_1PD = backbone.forward_tokens(self.batch)
        if patches_1PD.shape[-1] != backbone.width:
            raise PluginError(
                f"stream '{self.stream}': expected patches of width {backbone.width} as its features have, found "
                f"{patches_1PD.shape[-1]}",
                hint="choose another --method; or fix its forward_tokens",
            )
        return patches_1PD[0].float()

    @cached_property
    def traced(self) -> tuple[Tensor, Trace]:
        """Features (1, D) in their autograd graph, and the trace of their forward pass."""
        _ = self.grid
        features_1D, trace = traced(self.stream, self.models.backbones[self.stream], self.batch, self.models.layers)
        return features_1D.float(), trace

    @cached_property
    def features(self) -> Tensor:
        """Features (1, D), without a graph."""
        with torch.inference_mode():
            return self.models.backbones[self.stream].forward(self.batch).float().clone()

    def map(self, method: str, target: Target) -> NDArray[np.float32]:
        """Return the map of a target, (rows, columns), by one of `METHODS`. Raises InvalidConfig, PluginError."""
        if method == "dense":
            values = dense(self._patches, target)
        else:
            values = by_gradient(method, self.stream, *self.traced, self.grid, target)
        return values.detach().reshape(self.grid).float().cpu().numpy()


class Caption(NamedTuple):
    """A caption as one text stream reads it."""

    stream: str
    text: str
    batch: Any
    """The caption as a batch of one, preprocessed, on the device."""
    features: Tensor
    """(1, D)"""


def read_caption(models: Models, text: str, *, stream: str | None = None) -> Caption:
    """Read a caption with `stream`, or with the first text stream. Raises InvalidConfig if there is no text stream."""
    stream = models.first_of("text") if stream is None else stream
    backbone = models.backbones[stream]
    batch = mapped(backbone.preprocess([Sample(text, caption=text)]), lambda tensor: tensor.to(models.device))
    with torch.inference_mode():
        return Caption(stream, text, batch, backbone.forward(batch).float().clone())
