"""Images where it is known what is where: those of a segmented dataset, or such as are made of held-out images."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sparc.errors import BadSample, MissingData
from sparc.plugins.contracts import Dataset, Sample, SegmentedDataset

CELL = 224
"""Pixels of a cell's side on a canvas, which has two by two."""
CANVASES = 100
MATCH = 0.2
"""IoU at which a prediction counts as right: the paper's."""

Draw = Callable[[Sequence[Image.Image]], tuple[Image.Image, list[NDArray[np.bool_]]]]
"""From images to one of them all, and where each is in it, (height, width)."""


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
    places: tuple[int, ...]
    """The samples of the dataset that it is made of."""


@dataclass(frozen=True)
class Cases:
    """Cases of a dataset, made when they are asked for, the same every time."""

    dataset: Dataset
    what: str
    """In words."""
    places: tuple[tuple[int, ...], ...]
    """Per case, the samples that it is made of."""
    match: float | None = None
    """IoU at which a prediction counts as right; None where there are no categories to rank predictions in."""
    draw: Draw | None = None
    """What makes one image of those of a case's samples, and says where each is; None where a sample is a case."""

    def __len__(self) -> int:
        """Count the cases."""
        return len(self.places)

    def __iter__(self) -> Iterator[Case]:
        """Make the cases, one after the other; those of samples that cannot be read are left out."""
        labels = _labels(self.dataset)
        for places in self.places:
            try:
                if self.draw is None:
                    yield _segmented(self.dataset, places[0])
                else:
                    yield _made(self.dataset, places, self.draw, labels)
            except BadSample:
                continue


def cases_of(dataset: Dataset, *, count: int | None = None, seed: int = 0) -> Cases:
    """Take the masks of a segmented dataset, each image once; else draw canvases of four of its images.

    count: of canvases; CANVASES where it is left out.

    Raises MissingData where there are fewer than four images, or no captions.
    """
    firsts = _firsts(dataset)
    if isinstance(dataset, SegmentedDataset):
        return Cases(dataset, "images and the masks of their categories", tuple((place,) for place in firsts), MATCH)
    drawn = _drawn(firsts, 4, count, seed)
    return Cases(dataset, "canvases of four held-out images, each looked for by its caption", drawn, draw=_square)


def chimeras_of(dataset: Dataset, *, count: int | None = None, seed: int = 0) -> Cases:
    """Draw images that are one held-out image's upper half on another's lower half: parts of one thing.

    count: CANVASES where it is left out.

    Raises MissingData where there are fewer than two images, or no captions.
    """
    drawn = _drawn(_firsts(dataset), 2, count, seed)
    what = "chimeras, the upper half of one held-out image on the lower half of another, each looked for by its caption"
    return Cases(dataset, what, drawn, draw=_halves)


def _firsts(dataset: Dataset) -> list[int]:
    """Of each image the first sample."""
    groups: dict[str, int] = {}
    for place, group in enumerate(dataset.groups):
        groups.setdefault(group, place)
    return list(groups.values())


def _drawn(images: list[int], together: int, count: int | None, seed: int) -> tuple[tuple[int, ...], ...]:
    if len(images) < together:
        raise MissingData(
            f"expected {together} held-out images or more, found {len(images)}", hint="hold more samples out"
        )
    generator = random.Random(seed)
    return tuple(tuple(generator.sample(images, together)) for _ in range(CANVASES if count is None else count))


def _segmented(dataset: Dataset, place: int) -> Case:
    """An image and its categories; their names are what is looked for."""
    assert isinstance(dataset, SegmentedDataset)
    masks = dataset.masks(place)
    wanted = (Wanted(label, mask, label, (label,)) for label, mask in masks.items() if mask.any())
    return Case(dataset[place], tuple(wanted), (place,))


def _made(dataset: Dataset, places: Sequence[int], draw: Draw, labels: Mapping[int, tuple[str, ...]]) -> Case:
    """One image of several, each looked for by its caption and by labels that no other has."""
    samples = [dataset[place] for place in places]
    canvas, masks = draw([sample.image() for sample in samples])
    wanted = []
    for place, sample, mask in zip(places, samples, masks, strict=True):
        others = {label for other in places if other != place for label in labels.get(other, ())}
        alone = tuple(label for label in labels.get(place, ()) if label not in others)
        wanted.append(Wanted(sample.text(), mask, "", alone))
    name = " ".join(sample.id for sample in samples)
    return Case(Sample(name, lambda: canvas), tuple(wanted), tuple(places))


def _square(images: Sequence[Image.Image]) -> tuple[Image.Image, list[NDArray[np.bool_]]]:
    """Two by two, and where each is."""
    canvas = Image.new("RGB", (2 * CELL, 2 * CELL), "white")
    masks = []
    for number, image in enumerate(images):
        row, column = divmod(number, 2)
        canvas.paste(_on_white(image, CELL), (column * CELL, row * CELL))
        mask = np.zeros((2 * CELL, 2 * CELL), np.bool_)
        mask[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] = True
        masks.append(mask)
    return canvas, masks


def _halves(images: Sequence[Image.Image]) -> tuple[Image.Image, list[NDArray[np.bool_]]]:
    """The first one's upper half on the second one's lower half, and where each is."""
    upper, lower = (_on_white(image, 2 * CELL) for image in images)
    lower.paste(upper.crop((0, 0, 2 * CELL, CELL)), (0, 0))
    above = np.zeros((2 * CELL, 2 * CELL), np.bool_)
    above[:CELL] = True
    return lower, [above, ~above]


def _on_white(image: Image.Image, side: int) -> Image.Image:
    """The whole image in the middle of a white square."""
    scale = side / max(image.size)
    image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    square = Image.new("RGB", (side, side), "white")
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


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
