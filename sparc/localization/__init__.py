"""Point at things in images: where a caption, or a latent, is found in the image by each image stream of a run.

The trained space and the backbones come from `sparc.models`. Read the modules in this order, which is that of the work:

    request.py    what to look for, in which images: checked, and the images decoded (imports no torch)
    view.py       an image as one backbone sees it, and a caption as one text stream reads it
    targets.py    what a map explains: the dot product with a caption's code, or the activation of some latents
    methods.py    how a map is made: dense codes, attention relevance, Grad-CAM, LayerCAM
    trace.py      the attention and activations of one forward pass, which the gradient methods need
    geometry.py   where a backbone's grid lies in the image, and a map in pixels of the image
    words.py      how much of a match each word of the caption carries
    held_out.py   scores of the same query on held-out images, with which a score is compared
    pipeline.py   `localize`: all of the above, for each image, query and stream
    picture.py    the results as a figure
    perturb.py    deletion and insertion curves of a map
    benchmark/    how often maps point at the right place

Shapes, in names and comments: B rows of a batch, D width of a stream's features, L latents of the space, K latents that
a code keeps, P patches of a grid (rows * columns), T tokens of a caption, C channels of an activation, S steps of a
curve, H and W rows and columns of a grid.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sparc.localization.request import Query, Request, checked_request, paired_request

if TYPE_CHECKING:
    from sparc.localization.benchmark import LocalizationFile
    from sparc.localization.held_out import HeldOutImages, held_out_images
    from sparc.localization.picture import draw
    from sparc.localization.pipeline import Carrier, Localization, localize

_LAZY = {
    "Carrier": "pipeline",
    "Localization": "pipeline",
    "LocalizationFile": "benchmark",
    "HeldOutImages": "held_out",
    "draw": "picture",
    "held_out_images": "held_out",
    "localize": "pipeline",
}

__all__ = [
    "Carrier",
    "HeldOutImages",
    "Localization",
    "LocalizationFile",
    "Query",
    "Request",
    "checked_request",
    "draw",
    "held_out_images",
    "localize",
    "paired_request",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"sparc.localization.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'sparc.localization' has no attribute '{name}'")
