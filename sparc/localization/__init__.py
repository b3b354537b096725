"""The verb `attribute`: which part of an image, and which words of a caption, the shared latents come from."""

from sparc.localization.pipeline import Carrier, Localization, Query, localize
from sparc.localization.models import Models, load_models
from sparc.localization.picture import draw

__all__ = ["Carrier", "Localization", "Models", "Query", "draw", "load_models", "localize"]
