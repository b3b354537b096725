"""Cases: images in which the place of each thing is known, from a dataset's masks or composed of held-out images."""

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
"""Pixels per side of a canvas's cell; a canvas has two by two."""
CANVASES = 100
"""Number of composed images."""
MATCH = 0.2
"""Smallest IoU of a right prediction, as in the paper."""

Compose = Callable[[Sequence[Image.Image]], tuple[Image.Image, list[NDArray[np.bool_]]]]
"""Makes one image of several, and the mask of each in it, (height, width)."""


class Wanted(NamedTuple):
    """A thing to find in an image, and where it is."""

    text: str
    """The text that a text stream reads."""
    mask: NDArray[np.bool_]
    """(height, width) of the image, True on the thing."""
    category: str
    """The category in which its prediction is ranked; empty without categories."""
    concepts: tuple[str, ...]
    """Its labels that nothing else in the image has, the most specific first."""


@dataclass(frozen=True)
class Case:
    """An image and the things to find in it."""

    sample: Sample
    wanted: tuple[Wanted, ...]
    places: tuple[int, ...]
    """Places in the dataset of the samples it is made of."""


@dataclass(frozen=True)
class Cases:
    """The cases of a dataset, made one at a time while iterating, the same in every iteration."""

    dataset: Dataset
    what: str
    """The images, in words."""
    places: tuple[tuple[int, ...], ...]
    """Per case, the places in the dataset of the samples it is made of."""
    match: float | None = None
    """Smallest IoU of a right prediction; None without categories to rank predictions in."""
    compose: Compose | None = None
    """Makes a case's image of its samples; None if every case is one sample with masks."""

    @property
    def composed(self) -> bool:
        """True if each case is composed of several samples."""
        return self.compose is not None

    def __len__(self) -> int:
        """Return the number of cases, unreadable ones included."""
        return len(self.places)

    def __iter__(self) -> Iterator[Case]:
        """Yield the cases; those with a sample that cannot be read are left out."""
        labels = _labels(self.dataset)
        for places in self.places:
            try:
                if self.compose is None:
                    yield _segmented(self.dataset, places[0])
                else:
                    yield _composed(self.dataset, places, self.compose, labels)
            except BadSample:
                continue


def cases_of(dataset: Dataset, *, count: int | None = None, seed: int = 0) -> Cases:
    """Take each image of a segmented dataset with its masks, or else compose canvases of four images.

    count: number of canvases, by default CANVASES.

    Raises MissingData if canvases are needed and the dataset has fewer than four images.
    """
    firsts = _firsts(dataset)
    if isinstance(dataset, SegmentedDataset):
        return Cases(dataset, "images and the masks of their categories", tuple((place,) for place in firsts), MATCH)
    drawn = _drawn(firsts, 4, count, seed)
    return Cases(dataset, "canvases of four held-out images, each looked for by its caption", drawn, compose=_square)


def chimeras_of(dataset: Dataset, *, count: int | None = None, seed: int = 0) -> Cases:
    """Compose chimeras, one image's upper half on another's lower half, to test whether maps separate their parts.

    count: number of chimeras, by default CANVASES.

    Raises MissingData if the dataset has fewer than two images.
    """
    drawn = _drawn(_firsts(dataset), 2, count, seed)
    what = "chimeras, the upper half of one held-out image on the lower half of another, each looked for by its caption"
    return Cases(dataset, what, drawn, compose=_halves)


def _firsts(dataset: Dataset) -> list[int]:
    """Return the place of the first sample of each image."""
    groups: dict[str, int] = {}
    for place, group in enumerate(dataset.groups):
        groups.setdefault(group, place)
    return list(groups.values())


def _drawn(images: list[int], together: int, count: int | None, seed: int) -> tuple[tuple[int, ...], ...]:
    if len(images) < together:
        raise MissingData(
            f"expected {together} held-out images or more, found {len(images)}", hint="hold out more samples"
        )
    generator = random.Random(seed)
    return tuple(tuple(generator.sample(images, together)) for _ in range(CANVASES if count is None else count))


def _segmented(dataset: Dataset, place: int) -> Case:
    """Return an image and its categories, each to be found by its name."""
    assert isinstance(dataset, SegmentedDataset)
    masks = dataset.masks(place)
    wanted = (Wanted(label, mask, label, (label,)) for label, mask in masks.items() if mask.any())
    return Case(dataset[place], tuple(wanted), (place,))


def _composed(dataset: Dataset, places: Sequence[int], compose: Compose, labels: Mapping[int, tuple[str, ...]]) -> Case:
    """Compose one image of several, each to be found by its caption and by the labels that no other has."""
    samples = [dataset[place] for place in places]
    canvas, masks = compose([sample.image() for sample in samples])
    wanted = []
    for place, sample, mask in zip(places, samples, masks, strict=True):
        others = {label for other in places if other != place for label in labels.get(other, ())}
        alone = tuple(label for label in labels.get(place, ()) if label not in others)
        wanted.append(Wanted(sample.text(), mask, "", alone))
    name = " ".join(sample.id for sample in samples)
    return Case(Sample(name, lambda: canvas), tuple(wanted), tuple(places))


def _square(images: Sequence[Image.Image]) -> tuple[Image.Image, list[NDArray[np.bool_]]]:
    """Compose four images two by two."""
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
    """Compose the first image's upper half and the second image's lower half."""
    upper, lower = (_on_white(image, 2 * CELL) for image in images)
    lower.paste(upper.crop((0, 0, 2 * CELL, CELL)), (0, 0))
    above = np.zeros((2 * CELL, 2 * CELL), np.bool_)
    above[:CELL] = True
    return lower, [above, ~above]


def _on_white(image: Image.Image, side: int) -> Image.Image:
    """Return the whole image, centred on a white square."""
    scale = side / max(image.size)
    image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    square = Image.new("RGB", (side, side), "white")
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def _labels(dataset: Dataset) -> dict[int, tuple[str, ...]]:
    """Return the labels of each sample with all their ancestors, the deepest first."""
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
