"""Reports of the benchmark, and the file `localization.json` that holds them in a run."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict

from sparc.system.brief import Brief
from sparc.system.files import read_model, write_json

Interval = tuple[float, float]


class _Frozen(Brief, BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class WayReport(_Frozen):
    """Scores of one stream and one way to point."""

    stream: str
    target: str
    """`caption`, `concept`, or an empty string for a baseline."""
    method: str
    selection: str
    queries: int
    pointing: float
    """Share of queries whose map has its peak in the mask."""
    pointing_interval: Interval
    """95% interval by a bootstrap over images."""
    threshold: float
    """Threshold from which on a map predicts; chosen on half of the images, used on the other half."""
    miou: float
    """Mean IoU on the other half, a constant map counting 0."""
    map: float | None
    """Mean average precision on the other half, predictions ranked by the target's value; None without categories."""
    likeness: float | None
    """Mean correlation between the maps of different queries on one image; None if no image has two queries."""
    deletion: float | None
    """Mean area under the deletion curve, lower is better; only for captions with joint selection and for chance."""
    insertion: float | None
    """Mean area under the insertion curve, higher is better."""


class LocalizationReport(_Frozen):
    """Scores of every way to point on one set of images."""

    what: str
    """The images, in words."""
    images: int
    match: float | None
    """Smallest IoU of a right prediction: 0.2 on masks, as in the paper; None on composed images."""
    chance: float
    """Mean share of the image that a mask covers: the accuracy of a random guess."""
    ways: tuple[WayReport, ...]
    refused: dict[str, str]
    """Methods that an architecture does not allow: `STREAM METHOD` to the reason."""
    layers: int | None = None
    """Number of last layers that attention relevance went through; None for all layers."""


class LatentsReport(_Frozen):
    """Scores of one stream's maps of single latents, for latents that fire about equally often."""

    stream: str
    method: str
    frequency: float
    """Mean share of images that keep the latent, each encoded alone."""
    queries: int
    pointing: float
    """Share of queries whose map has its peak on the one image of the canvas that keeps the latent."""
    breadth: float
    """Mean share of the grid above half of the map's range; 1 for a constant map."""


class LocalizationFile(_Frozen):
    """The content of `localization.json`."""

    dataset: str
    split: str
    random_weights: tuple[str, ...]
    """Streams with random weights, whose numbers say nothing about a model."""
    report: LocalizationReport
    parts: LocalizationReport | None
    """Scores on chimeras; None on a segmented dataset."""
    latents: tuple[LatentsReport, ...]

    def write(self, path: Path) -> None:
        """Write the file, atomically. Raises StorageError."""
        write_json(path, self.model_dump(mode="json"))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file that `write` wrote. Raises MissingData, CorruptFile."""
        hint = f"measure it again: sparc evaluate {path.parent} --localization"
        return read_model(path, cls, what="the localization of a run", hint=hint)
