"""The models of a run: its trained space and its frozen backbones; images and texts become named codes.

    models.py    `load_models`, and `Models.encode_images` and `Models.encode_texts`
    streams.py   the streams of a run and what each of them reads (imports no torch)
    inputs.py    images as files, as PIL images and as bytes become samples (imports no torch)
    loading.py   the backbones of several streams
    standing.py  a score among the scores of held-out samples
    forward.py   one call of a backbone, in the precision of the features

Shapes, in names: B samples of a batch, D width of a stream's features, K latents that a code keeps.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparc.models.models import Concept, Models, load_models

__all__ = ["Concept", "Models", "load_models"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module("sparc.models.models"), name)
    raise AttributeError(f"module 'sparc.models' has no attribute '{name}'")
