"""Images where it is known what is where: those of a segmented dataset, or canvases of four held-out images."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sparc.contracts import Dataset, Sample, SegmentedDataset
from sparc.errors import BadSample, MissingData

CELL = 224
"""Pixels of a cell's side on a canvas, which has two by two."""
CANVASES = 100
MATCH = 0.2
"""IoU at which a prediction counts as right: the paper's."""


class Wanted(NamedTuple):
    """What is looked for in an image, and where it is."""

    text: str
    """What a text stream reads."""
    mask: NDArray[np.bool_]
    """(height, width) of the image."""
    category: str
    """What an average precision is averaged over."""
    concepts: tuple[str, ...]
    """Labels of it that nothing else in the image has, the most special first."""


@dataclass(frozen=True)
class Case:
    """An image and what is looked for in it."""

    sample: Sample
    wanted: tuple[Wanted, ...]


@dataclass(frozen=True)
class Cases:
    """Cases of a dataset, made when they are asked for, the same every time."""

    dataset: Dataset
    what: str
    """In words."""
    places: tuple[tuple[int, ...], ...]
    """Per case, the samples that it is made of."""
    match: float | None
    """IoU at which a prediction counts as right; None where there are no categories to rank predictions in."""

    def __len__(self) -> int:
        """Count the cases."""
        return len(self.places)

    def __iter__(self) -> Iterator[Case]:
        """Make the cases, one after the other; those of samples that cannot be read are left out."""
        labels = _labels(self.dataset)
        for places in self.places:
            try:
                yield _canvas(self.dataset, places, labels) if len(places) > 1 else _segmented(self.dataset, places[0])
            except BadSample:
                continue


def cases_of(dataset: Dataset, *, count: int | None = None, seed: int = 0) -> Cases:
    """Take the masks of a segmented dataset, each image once; else draw canvases of four of its images.

    count: of canvases; CANVASES where it is left out.

    Raises MissingData where there are fewer than four images, or no captions.
    """
    groups: dict[str, int] = {}
    for place, group in enumerate(dataset.groups):
        groups.setdefault(group, place)
    firsts = list(groups.values())
    if isinstance(dataset, SegmentedDataset):
        return Cases(dataset, "images and the masks of their categories", tuple((place,) for place in firsts), MATCH)
    if len(firsts) < 4:
        raise MissingData(f"expected four held-out images or more, found {len(firsts)}", hint="hold more samples out")
    generator = random.Random(seed)
    drawn = tuple(tuple(generator.sample(firsts, 4)) for _ in range(CANVASES if count is None else count))
    return Cases(dataset, "canvases of four held-out images, each looked for by its caption", drawn, None)


def _segmented(dataset: Dataset, place: int) -> Case:
    """An image and its categories; their names are what is looked for."""
    assert isinstance(dataset, SegmentedDataset)
    masks = dataset.masks(place)
    wanted = (Wanted(label, mask, label, (label,)) for label, mask in masks.items() if mask.any())
    return Case(dataset[place], tuple(wanted))


def _canvas(dataset: Dataset, places: Sequence[int], labels: Mapping[int, tuple[str, ...]]) -> Case:
    """Four images in a square, each whole on white in its cell."""
    samples = [dataset[place] for place in places]
    canvas = Image.new("RGB", (2 * CELL, 2 * CELL), "white")
    wanted = []
    for number, (place, sample) in enumerate(zip(places, samples, strict=True)):
        image = sample.image()
        scale = CELL / max(image.size)
        image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
        row, column = divmod(number, 2)
        canvas.paste(image, (column * CELL + (CELL - image.width) // 2, row * CELL + (CELL - image.height) // 2))
        mask = np.zeros((2 * CELL, 2 * CELL), np.bool_)
        mask[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] = True
        others = {label for other in places if other != place for label in labels.get(other, ())}
        alone = tuple(label for label in labels.get(place, ()) if label not in others)
        wanted.append(Wanted(sample.text(), mask, "", alone))
    name = " ".join(sample.id for sample in samples)
    return Case(Sample(name, lambda: canvas), tuple(wanted))


def _labels(dataset: Dataset) -> dict[int, tuple[str, ...]]:
    """Of each sample its labels and what they are kinds of, the deepest first."""
    matrix, taxonomy = dataset.labels(), dataset.taxonomy
    if matrix is None or taxonomy is None:
        return {}
    found: dict[int, tuple[str, ...]] = {}
    for row, column in zip(*matrix.nonzero(), strict=True):
        label = taxonomy.labels[int(column)]
        depths = range(taxonomy.depth(label), -1, -1)
        above = tuple(dict.fromkeys(taxonomy.lift(label, depth) for depth in depths))
        found[int(row)] = tuple(sorted({*found.get(int(row), ()), *above}, key=lambda one: (-taxonomy.depth(one), one)))
    return found
