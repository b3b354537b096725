"""Images and texts that a user gives, as samples: read as those of a dataset are. Imports no torch."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from sparc.errors import BadSample, InvalidConfig, MissingData, SparcError
from sparc.plugins.contracts import Sample
from sparc.plugins.formats import no_image, read_image
from sparc.plugins.images import TooLarge, loaded, read_rgb
from sparc.system.nearby import meant
from sparc.system.refusals import reading, refusal

ImageInput = str | Path | Image.Image
"""The path of an image, or a PIL image."""


def image_sample(image: ImageInput, number: int = 0, *, option: str = "--image") -> Sample:
    """Return a sample that reads an image when its pixels are asked for. `number` names a PIL image.

    Raises MissingData, with the option to check, for a path without a file.
    """
    if isinstance(image, Image.Image):
        return Sample(f"image {number}", lambda: _decoded(f"image {number}", lambda: image))
    path = Path(os.path.expanduser(image))  # Path.expanduser raises for a user that does not exist
    with reading(path):
        if not path.is_file():
            raise MissingData(f"no image at {path}", hint=meant(path, f"check {option}", folder=False))

    def opened() -> Image.Image:
        with reading(path):
            return read_image(path)

    return Sample(str(image), lambda: _decoded(str(path), opened))


def checked_text(text: Any) -> str:
    """Return a text that a model can read. Raises InvalidConfig for anything else, such as bytes that are not UTF-8."""
    if not isinstance(text, str):
        raise InvalidConfig(f"expected a text, found {type(text).__name__}", hint="give a str")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidConfig(
            f"expected a text in UTF-8, found {text[error.start]!a} at letter {error.start}",
            hint="write the text in UTF-8",
        ) from None
    return text


def bytes_sample(content: bytes, name: str) -> Sample:
    """Return a sample of an image file's bytes."""

    def opened() -> Image.Image:
        try:
            return loaded(Image.open(io.BytesIO(content)))
        except UnidentifiedImageError as error:
            raise no_image(name, content) from error

    return Sample(name, lambda: _decoded(name, opened, "give a JPEG or a PNG; texts and paths are read as UTF-8"))


def decoded(sample: Sample) -> Sample:
    """Return a sample of this module with its image decoded now, so that nothing reads it again.

    Raises:
        BadSample: the image does not decode, or is larger than the limits.
        StorageError, OutOfMemory: the machine refuses to read it.
    """
    assert sample.open_image is not None
    pixels = sample.open_image()
    return Sample(sample.id, lambda: pixels, sample.caption, sample.image_id)


def _decoded(name: str, open_image: Callable[[], Image.Image], hint: str = "convert it to JPEG or PNG") -> Image.Image:
    """Read an image as RGB. The errors name the file, and no option that only training has."""
    try:
        return read_rgb(open_image)
    except BadSample as error:
        raise BadSample(error.message, hint=hint) from error
    except SparcError:
        raise
    except TooLarge as error:
        hint = f"crop it or make it smaller; or train with {error.remedy}, a limit that holds for the run"
        raise BadSample(f"{name} has {error}", hint=hint) from error
    except Exception as error:  # Pillow raises a dozen unrelated types for broken files
        if (found := refusal(error, f"read {name}")) is not None:
            raise found from error
        raise BadSample(f"{name} does not decode: {error}", hint="give an image, such as a PNG or a JPEG") from error
