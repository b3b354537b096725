"""The dataset `digits`: the 1,797 handwritten digits of scikit-learn, 8 x 8 pixels, each with a caption and labels.

The images come without captions. A caption is measured on the image: it says whether the strokes are thin or bold and
which way the digit leans, compared with other images of the same digit.

Letters in shapes: N samples of a split.
"""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING, NamedTuple

from sparc.plugins import DatasetSpec, Params, Sample, Taxonomy, held_out, hookimpl

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image
    from scipy.sparse import csr_array

SPARC_CONTRACT = 1
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
EVEN, PRIME = (0, 2, 4, 6, 8), (2, 3, 5, 7)
WEIGHTS = ("thin", "", "bold")
SLANTS = ("leaning left", "", "leaning right")


def taxonomy() -> Taxonomy:
    """Return the taxonomy of the labels: numbers are even or odd, and some are prime; stroke and slant are apart."""
    kinds = {"number": (), "even": ("number",), "odd": ("number",), "prime": ("number",)}
    digits = {
        name: ("even" if digit in EVEN else "odd", *(("prime",) if digit in PRIME else ()))
        for digit, name in enumerate(NAMES)
    }
    looks = {"stroke": (), "thin": ("stroke",), "bold": ("stroke",)}
    slants = {"slant": (), "leaning left": ("slant",), "leaning right": ("slant",)}
    return Taxonomy({**kinds, **digits, **looks, **slants})


class Pictures(NamedTuple):
    """All images, with stroke, digit and slant of each."""

    pixels: NDArray[np.uint8]
    """(N, 8, 8), from 0 without ink to 255."""
    words: list[tuple[str, str, str]]
    """Stroke, digit and slant of each image; stroke and slant are empty in the middle third."""


@cache
def read_pictures() -> Pictures:
    """Read the images that ship with scikit-learn, and measure stroke and slant."""
    import numpy as np
    from sklearn.datasets import load_digits

    found = load_digits()
    ink = found.images / 16
    weights, slants = _third(ink.mean(axis=(1, 2)), found.target), _third(_slant(ink), found.target)
    words = [
        (WEIGHTS[weight], NAMES[digit], SLANTS[slant])
        for weight, digit, slant in zip(weights, found.target, slants, strict=True)
    ]
    return Pictures((ink * 255).round().astype(np.uint8), words)


def _slant(ink: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the slant (N,): the slope of a line fitted to the ink, positive if it leans right."""
    import numpy as np

    down, right = np.mgrid[:8, :8]
    total = ink.sum(axis=(1, 2))
    right, down = (axis - ((ink * axis).sum(axis=(1, 2)) / total)[:, None, None] for axis in (right, down))
    return -(ink * right * down).sum(axis=(1, 2)) / (ink * down**2).sum(axis=(1, 2))


def _third(values: NDArray[np.float64], digits: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return 0, 1 or 2 for each image, (N,): the lower, middle or upper third among images of its digit."""
    import numpy as np

    thirds = np.zeros(len(values), np.int64)
    for digit in range(10):
        same = digits == digit
        thirds[same] = np.searchsorted(np.quantile(values[same], (1 / 3, 2 / 3)), values[same])
    return thirds


class Digits:
    """One split of the dataset; a fifth of the images is held out."""

    def __init__(self, params: Params, split: str) -> None:
        everything = read_pictures()
        names = [f"digit-{number:04d}" for number in range(len(everything.words))]
        chosen = [number for number, name in enumerate(names) if held_out(name, 0.2) == (split == "test")]
        self.ids = [names[number] for number in chosen]
        self.groups = self.ids
        self.taxonomy = taxonomy()
        self._pixels = everything.pixels[chosen]
        self._words = [everything.words[number] for number in chosen]

    def __len__(self) -> int:
        """Return the number of samples, N."""
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        """Return one sample, with a caption such as "a bold seven leaning left"."""
        caption = " ".join(("a", *filter(None, self._words[index])))
        return Sample(self.ids[index], partial(draw, self._pixels[index]), caption)

    def labels(self) -> csr_array:
        """Return multi-hot labels (N, labels), the words of each caption; the taxonomy adds their ancestors."""
        import numpy as np
        from scipy.sparse import csr_array

        column = {label: place for place, label in enumerate(self.taxonomy.labels)}
        places = [(row, column[word]) for row, words in enumerate(self._words) for word in words if word]
        return csr_array((np.ones(len(places)), tuple(zip(*places, strict=True))), shape=(len(self), len(column)))


def draw(pixels: NDArray[np.uint8]) -> Image:
    """Return an image of pixels (8, 8). It is a function of the module, so that samples can be pickled."""
    from PIL import Image

    return Image.fromarray(pixels)


def identify(params: Params) -> str:
    """Return a constant identity, since scikit-learn has never changed these data."""
    return "scikit-learn load_digits 1797"


@hookimpl
def sparc_datasets() -> list[DatasetSpec]:
    """Return the dataset."""
    return [
        DatasetSpec(
            name="digits",
            open=Digits,
            summary="1,797 handwritten digits of 8 x 8 pixels with captions, from scikit-learn",
            identify=identify,
            defaults={
                "stream": ["hog", "tiny-image", "char-ngrams"],
                "n-latents": 256,
                "k": 16,
                "epochs": 20,
                "lr": 4e-3,
            },
        )
    ]
