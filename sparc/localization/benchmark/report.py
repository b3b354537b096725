"""What was found out about maps: reports, as they are written into a run."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

Interval = tuple[float, float]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class WayReport(_Record):
    """How well one stream points in one way."""

    stream: str
    target: str
    """`caption`, `concept`, or, of a baseline, nothing."""
    method: str
    selection: str
    queries: int
    pointing: float
    """Share of queries whose map has its peak where the wanted is."""
    pointing_interval: Interval
    """95%, by a bootstrap over images."""
    threshold: float
    """At which maps count as predictions: chosen on half of the images, for what follows on the other half."""
    miou: float
    """Mean IoU, a map of nothing counting 0."""
    map: float | None
    """Mean average precision at the report's IoU, predictions ranked by the target's value; None without categories."""
    likeness: float | None
    """Mean correlation between the maps of different queries on one image; None where no image has two."""
    deletion: float | None
    """Mean area under the deletion curve, the lower the better; None but for captions, joint, and for chance."""
    insertion: float | None
    """Mean area under the insertion curve, the higher the better."""


class LocalizationReport(_Record):
    """What a localisation benchmark found."""

    what: str
    """The images, in words."""
    images: int
    match: float | None
    """IoU at which a prediction counts as right: 0.2 on masks, as in the paper; None on canvases."""
    chance: float
    """Mean share of an image that the wanted takes: how often a blind guess is right."""
    ways: tuple[WayReport, ...]
    refused: dict[str, str]
    """Methods that an architecture does not allow, by stream and method, with the reason."""


class LatentsReport(_Record):
    """How well one stream's maps of single latents point, of latents that fire about as often."""

    stream: str
    method: str
    frequency: float
    """Mean share of images that keep the latent, each encoded alone."""
    queries: int
    pointing: float
    """Share of queries whose map has its peak on the one image of a canvas that keeps the latent when seen alone."""
    breadth: float
    """Mean share of the grid above half of the map's range: 1 where it is the same everywhere."""
