"""An image as one backbone sees it: features, patches, what happened on the way, and where the grid lies."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sparc.errors import InvalidConfig, PluginError
from sparc.localization.methods import by_gradient, dense
from sparc.localization.models import Models
from sparc.localization.targets import Target
from sparc.localization.trace import Trace, traced
from sparc.plugins.batches import mapped
from sparc.plugins.contracts import GridBackbone, Sample
from sparc.plugins.geometry import Box, measured_box


@dataclass(frozen=True, eq=False)
class View:
    """An image as one backbone sees it; computed when asked for, once for all that is looked for in it."""

    models: Models
    stream: str
    sample: Sample

    @cached_property
    def grid(self) -> tuple[int, int]:
        """Rows and columns. Raises InvalidConfig where the backbone has none."""
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
        """In RGB."""
        return self.sample.image()

    @cached_property
    def box(self) -> Box:
        """What the grid covers of the image."""
        return measured_box(self.stream, self.models.backbones[self.stream], self.image.size)

    @cached_property
    def batch(self) -> Any:
        """The image alone, as the backbone prepares it, on its device."""
        return mapped(
            self.models.backbones[self.stream].preprocess([self.sample]), lambda tensor: tensor.to(self.models.device)
        )

    @cached_property
    def _patches(self) -> Tensor:
        """(P, D) in the space of the features."""
        backbone = self.models.backbones[self.stream]
        _ = self.grid
        assert isinstance(backbone, GridBackbone)
        with torch.inference_mode():
            _, patches_1PD = backbone.forward_tokens(self.batch)
        if patches_1PD.shape[-1] != backbone.width:
            raise PluginError(
                f"stream '{self.stream}': expected patches of width {backbone.width} as its features have, found "
                f"{patches_1PD.shape[-1]}",
                hint="choose another --method; or repair its forward_tokens",
            )
        return patches_1PD[0].float()

    @cached_property
    def traced(self) -> tuple[Tensor, Trace]:
        """Features (1, D) in their graph, and what happened on the way."""
        _ = self.grid
        features_1D, trace = traced(self.stream, self.models.backbones[self.stream], self.batch)
        return features_1D.float(), trace

    @cached_property
    def features(self) -> Tensor:
        """Features (1, D) of the image, without graph."""
        with torch.inference_mode():
            return self.models.backbones[self.stream].forward(self.batch).float().clone()

    def map(self, method: str, target: Target) -> NDArray[np.float32]:
        """How much each cell has to do with the target, (rows, columns)."""
        if method == "dense":
            values = dense(self._patches, target)
        else:
            values = by_gradient(method, self.stream, *self.traced, self.grid, target)
        return values.detach().reshape(self.grid).float().cpu().numpy()
