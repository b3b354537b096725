"""Deletion and insertion: how the target changes when the strongest patches of a map are removed or added first."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sparc.errors import PluginError
from sparc.localization.targets import Target
from sparc.localization.view import View
from sparc.plugins.batches import mapped, tensors

CURVE_STEPS = 10
"""Number of steps from the whole image to a plain one."""


class Curves(NamedTuple):
    """The target while more and more of the image is removed, or added, as a share of its value on the whole image.

    A share can exceed 1: a part of the image, or a plain colour, can score higher than the whole image.
    """

    deletion: NDArray[np.float32]
    """(CURVE_STEPS + 1,): the strongest patches take the image's mean colour first. Lower is better."""
    insertion: NDArray[np.float32]
    """(CURVE_STEPS + 1,): the strongest patches appear first, on the image's mean colour. Higher is better."""


def perturbed(view: View, values: NDArray[np.float32], target: Target) -> Curves | None:
    """Return the deletion and insertion curves of a map (rows, columns): Petsiuk et al. 2018 (RISE, arXiv 1806.07421).

    None if the target is not positive on the whole image. Raises PluginError if the backbone reads no pixels.
    """
    pixels = _pixels(view)
    rank = np.empty(values.size, np.int64)
    rank[np.argsort(-values.ravel(), kind="stable")] = np.arange(values.size)
    gone = torch.tensor(np.linspace(0, values.size, CURVE_STEPS + 1)).round()
    first_SHW = (torch.from_numpy(rank) < gone[:, None]).reshape(-1, *values.shape).to(pixels)
    first = F.interpolate(first_SHW.unsqueeze(1), size=pixels.shape[2:], mode="nearest")
    plain = pixels.mean(dim=(2, 3), keepdim=True).expand_as(pixels)
    images = torch.cat([first * plain + (1 - first) * pixels, first * pixels + (1 - first) * plain])
    with torch.inference_mode():
        features = view.models.backbones[view.stream].forward(_with_pixels(view.batch, pixels, images)).float()
        found = target(features)
    whole = float(found[0])
    if not whole > 0:
        return None
    shares: NDArray[np.float32] = (found / whole).float().cpu().numpy()
    return Curves(shares[: CURVE_STEPS + 1], shares[CURVE_STEPS + 1 :])


def area(curve: NDArray[np.float32]) -> float:
    """Return the area under a curve by trapezia, the x axis running from 0 to 1."""
    return float((curve[1:] + curve[:-1]).mean() / 2)


def _pixels(view: View) -> Tensor:
    for tensor in tensors(view.batch):
        if tensor.ndim == 4 and tensor.is_floating_point():
            return tensor
    raise PluginError(f"stream '{view.stream}': expected pixels (B, 3, height, width)", hint="choose another stream")


def _with_pixels(batch: Any, pixels: Tensor, images: Tensor) -> Any:
    """Return the batch with `images` in place of its pixels; its other tensors are repeated for each image."""
    return mapped(batch, lambda tensor: images if tensor is pixels else tensor.expand(len(images), *tensor.shape[1:]))
