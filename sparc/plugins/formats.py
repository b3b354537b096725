"""Files among the images that no image library reads: what they are, and what to do about them."""

from __future__ import annotations

import codecs
import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sparc.errors import BadSample
from sparc.system.refusals import odd_kind, reading

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def _is_text(start: bytes) -> bool:
    """Return True for the start of a text in UTF-8, which may end within a letter."""
    with contextlib.suppress(UnicodeDecodeError):
        text = codecs.getincrementaldecoder("utf-8")().decode(start)
        return all(one.isprintable() or one.isspace() for one in text)
    return False


_KINDS: dict[str, Callable[[bytes], bool]] = {
    "an HEIC image": lambda start: start[4:8] == b"ftyp" and start[8:12] in _HEIC,
    "a video": lambda start: start[4:8] == b"ftyp" or start[:4] in (b"\x1aE\xdf\xa3", b"RIFF"),
    "a web page, as a failed download leaves it": lambda start: b"<html" in start or b"<!doctype html" in start,
    "an SVG drawing": lambda start: b"<svg" in start,
    "a PDF document": lambda start: start.startswith(b"%pdf"),
    "a text": lambda start: len(start) > 3 and _is_text(start),
}
"""Each kind, by the start of a file in lower case; the first that fits."""
STARTS = 512
"""Bytes that `no_image` needs."""


def no_image(file: object, start: bytes) -> BadSample:
    """Return the error for a file that Pillow cannot identify, with its format. `start` is its first 512 bytes."""
    if not start:
        return BadSample(
            f"{file} is not an image: it is empty",
            hint="copy or download it again; or pass --skip-bad to continue without it",
        )
    lower = start[:STARTS].lower()
    kind = next((kind for kind, fits in _KINDS.items() if fits(lower)), None)
    return BadSample(
        f"{file} is {kind}, which is not read" if kind else f"{file} is of a format that Pillow does not know",
        hint="convert it to JPEG or PNG; or pass --skip-bad to continue without it",
    )


def sample_file(path: str | Path) -> str | Path:
    """Return the path of a sample's file, which need not exist. Raises BadSample for a pipe, a socket or a device."""
    if (found := odd_kind(path)) is not None:
        raise BadSample(
            f"{path}: expected a file, found {found}", hint="replace it; or pass --skip-bad to continue without it"
        )
    return path


def read_image(path: str | Path) -> Image:
    """Read an image from a file, which is closed even if it does not decode.

    Raises BadSample for what is no image or no file; an error of Pillow for a damaged image, and OSError.
    """
    from PIL import Image as Images
    from PIL import UnidentifiedImageError

    from sparc.plugins.images import loaded

    try:
        with Images.open(sample_file(path)) as image:
            return loaded(image)
    except UnidentifiedImageError as error:
        with open(path, "rb") as file:
            raise no_image(path, file.read(STARTS)) from error


def head_fault(path: str | Path, what: str) -> BadSample | None:
    """Return why an image cannot be read, as far as the header of its file tells; None if it does not.

    `what` names the image in the message. The pixels are not decoded. A file that is missing, or that the machine
    refuses to read, is no fault here: the extraction says more.
    """
    from PIL import UnidentifiedImageError

    from sparc.plugins.images import TooLarge, check_header

    without = "or pass --skip-bad to continue without it"
    try:
        file = open(sample_file(path), "rb")  # noqa: SIM115 (it is closed below)
    except BadSample as error:
        return error
    except (OSError, ValueError):
        return None
    with file:
        try:
            check_header(file)
        except UnidentifiedImageError:
            file.seek(0)
            return no_image(what, file.read(STARTS))
        except TooLarge as error:
            return BadSample(f"{what} has {error}", hint=f"pass {error.remedy} to read it; {without}")
        except ValueError as error:
            return BadSample(f"{what} does not decode: {error}", hint=f"convert it to JPEG or PNG; {without}")
        except Exception:  # Pillow raises a dozen unrelated types for broken files
            return None
    return None


def upright_masks(masks: Mapping[str, NDArray[np.bool_]], path: str | Path) -> dict[str, NDArray[np.bool_]]:
    """Return masks (H, W) of the pixels in an image file, by label, turned as `Sample.image` turns the image.

    That follows the image's EXIF orientation. Masks that have the size of the turned image alone were drawn on it and
    stay, and so do all masks if the file cannot be read: reading the image says why.
    """
    from PIL import Image as Images

    from sparc.plugins.images import turned_masks

    try:
        with reading(path), Images.open(path) as image:
            return turned_masks(masks, image)
    except (OSError, ValueError):
        return dict(masks)
