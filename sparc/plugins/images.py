"""Images as all streams see them: RGB with 8 bits per channel, within limits on pixels and on the ratio of the sides.

An image with more than 8 bits is scaled linearly from its range to 0..255 and rounded. Pillow's own conversion clips
grey values, and cuts colours. The range is, in this order:

- TIFF: 0 to the largest value of `BitsPerSample` if that is below 16, or `SMinSampleValue` to `SMaxSampleValue` if all
  values lie between them. Values equal to GDAL's `nodata` count as missing. So do, without that tag, numbers beyond
  1e20, and one of -9999, -99999, -32767 and -32768 if it is the only negative number.
- Integers without negative ones: 0 to the largest value of 8, 10, 12, 14, ... bits that holds the image's own largest.
- Floating-point numbers without negative ones: 0 to 1, or to their largest if that is at most 2; else 0 to 255; else as
  integers.
- With negative values, beyond the little that resizing makes of zeros: from minus a power of two to a power of two
  (less one, of integers), each the nearest that holds the image's own smallest and largest.

A missing value, or NaN, becomes black. An image of which white is 0 (TIFF) is inverted. An image is turned upright as
its EXIF orientation says, unless the process is told to ignore it (orientation.py). Nothing else is changed: alpha is
dropped, and of several frames the first is read.
"""

from __future__ import annotations

import math
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sparc.config.options import MAX_PIXELS, MAX_SIDE_RATIO, Exif, ExtractionOptions
from sparc.plugins.deep_colours import load_deep
from sparc.plugins.orientation import UPRIGHT, Key, carry, orientation, turned, upright

WHITE = 255
BITS_PER_SAMPLE, WHITE_IS_ZERO, SAMPLE_FORMAT, SMALLEST, LARGEST, NODATA = 258, 262, 339, 340, 341, 42113
"""Numbers of TIFF tags."""
SIGNED = 2
"""Value of the tag SAMPLE_FORMAT."""
SHORT = 2**16
STRIPE = 1 << 20
"""Values that are scaled at a time."""
FILLS = (-9999, -99999, -32767, -32768)
"""Numbers that programs write where a value is missing."""
HUGE = 1e20
"""Smallest of the numbers that programs write where a floating-point value is missing."""
OVERSHOOT = 1 / 16
"""Fraction of the largest value by which resizing may make values of 0 negative."""


@dataclass(frozen=True)
class ImageLimits:
    """Largest image that is read, and whether it is turned upright."""

    pixels: int = MAX_PIXELS
    side_ratio: float = MAX_SIDE_RATIO
    """Longer side over shorter side."""
    exif: Exif = "apply"
    """`apply` turns an image as its EXIF orientation says; `ignore` leaves it as it is stored."""

    @classmethod
    def of(cls, options: ExtractionOptions) -> ImageLimits:
        """Return the limits that options set."""
        return cls(options.max_pixels, options.max_side_ratio, options.exif)


DEFAULT_LIMITS = ImageLimits()
_limits = DEFAULT_LIMITS


class TooLarge(ValueError):
    """An image beyond the limits. `remedy` is the option that raises the limit."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


def limit_images(limits: ImageLimits) -> None:
    """Set how this process reads images, and Pillow's own limit, which applies before an image is decoded."""
    global _limits
    _limits = limits
    Image.MAX_IMAGE_PIXELS = -(-limits.pixels // 2)  # Pillow warns beyond this, and raises beyond twice this
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)


def read_rgb(open_image: Callable[[], Image.Image]) -> Image.Image:
    """Open an image, check its size, and return it as RGB, upright.

    Raises:
        TooLarge: the image is beyond the limits.
        MemoryError: the image does not fit into memory; the text states its size.
        Exception: whatever `open_image` and Pillow raise.
    """
    try:
        image = open_image()
        _check_size(image.size)
        image = loaded(image)
        return upright(as_rgb(image), orientation(image) if _limits.exif == "apply" else UPRIGHT)
    except Image.DecompressionBombError as error:
        size = _size_in(error)
        raise _too_many_pixels(f"{size[0]:,} x {size[1]:,} pixels" if size else str(error), size) from error
    except MemoryError as error:
        size = _size_in(error)
        raise MemoryError(f"it has {size[0]:,} x {size[1]:,} pixels" if size else str(error)) from error


def loaded(image: Image.Image) -> Image.Image:
    """Load an image within the limits, with colours of 10 to 14 bits in 16 scaled by their range.

    Raises TooLarge, and ValueError for PostScript, a program, which Pillow would run.
    """
    check_opened(image)
    tags = getattr(image, "tag_v2", {})
    image, colours = load_deep(image)
    if colours is None:
        return image
    stripes = Stripes(colours.shape, lambda low, high: colours[low:high])
    return carry(image, Image.fromarray(_eight_bits(stripes, image.mode, tags)))


def check_opened(image: Image.Image) -> None:
    """Check what the header of an image tells. Raises TooLarge, and ValueError for no pixels and for PostScript."""
    if getattr(image, "format", None) == "EPS":
        raise ValueError("it is a PostScript program, which is not run: expected pixels")
    _check_size(image.size)


def check_header(file: IO[bytes]) -> None:
    """Check what the first bytes of an image file tell, without decoding it.

    Raises TooLarge, ValueError for no pixels and for PostScript, and whatever Pillow raises.
    """
    try:
        with Image.open(file) as image:
            check_opened(image)
    except Image.DecompressionBombError as error:
        size = _size_in(error)
        raise _too_many_pixels(f"{size[0]:,} x {size[1]:,} pixels" if size else str(error), size) from error


def turned_masks(masks: Mapping[Key, NDArray[np.bool_]], image: Image.Image) -> dict[Key, NDArray[np.bool_]]:
    """Return masks of the stored pixels (H, W) turned as `Sample.image` turns the image, which is opened, not loaded.

    Masks whose size is that of the upright image alone were drawn on it, and stay.
    """
    return turned(masks, image) if _limits.exif == "apply" else dict(masks)


def as_rgb(image: Image.Image) -> Image.Image:
    """Return an image as RGB with 8 bits per channel; more bits are scaled by their range."""
    if image.mode == "RGB":
        return image.convert("RGB")  # a copy, which the caller may change
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})
    if (
        image.mode in ("I", "F")
        or image.mode.startswith("I;16")
        or (image.mode == "L" and _first(tags, SAMPLE_FORMAT) == SIGNED)
    ):
        image = Image.fromarray(_eight_bits(_stripes(image, tags), image.mode, tags))
    elif image.mode in ("La", "RGBa"):
        image = image.convert(image.mode.upper())
    elif image.mode == "P" and isinstance(image.info.get("transparency"), bytes):
        image = image.convert("RGBA")  # the same colours, without Pillow's warning
    return image.convert("RGB")


def _check_size(size: tuple[int, int]) -> None:
    short, long = sorted(size)
    if not short:
        raise ValueError(f"it has no pixels: {size[0]:,} x {size[1]:,}")
    if short * long > _limits.pixels:
        raise _too_many_pixels(f"{size[0]:,} x {size[1]:,} pixels", size)
    if long > _limits.side_ratio * max(short, 1):
        raise TooLarge(
            f"{size[0]:,} x {size[1]:,} pixels: its longer side is {long / max(short, 1):,.0f} times the shorter, "
            f"more than the limit of {_limits.side_ratio:g}",
            f"--max-side-ratio {math.ceil(long / max(short, 1))}",
        )


def _too_many_pixels(shown: str, size: tuple[int, int] | None) -> TooLarge:
    needed = size[0] * size[1] if size else "N"
    return TooLarge(f"{shown}, more than the limit of {_limits.pixels:,} in all", f"--max-pixels {needed}")


def _size_in(error: BaseException) -> tuple[int, int] | None:
    """Return the size of the image that was being read when an error was raised, from the error's traceback.

    Pillow's errors do not state it, and reading the image again to learn it would fail again.
    """
    found: tuple[int, int] | None = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        for name in ("self", "im", "image", "size"):
            value = frame.f_locals.get(name)
            size = value.size if isinstance(value, Image.Image) else value
            if isinstance(size, tuple) and len(size) == 2 and all(isinstance(side, int) for side in size):
                found = size
    return found


def _stripes(image: Image.Image, tags: Mapping[int, Any]) -> Stripes:
    """Return the values of an image, a few rows at a time: all at once would take several times its memory."""
    as_unsigned = image.mode == "I" and _first(tags, SAMPLE_FORMAT) in (None, 1) and _first(tags, BITS_PER_SAMPLE) == 32
    as_signed = image.mode == "L"

    def values(low: int, high: int) -> NDArray[Any]:
        found: NDArray[Any] = np.asarray(image.crop((0, low, image.width, high)))
        if as_unsigned:
            return found.view(np.uint32)  # Pillow reads them as signed
        return found.view(np.int8) if as_signed else found

    return Stripes((image.height, image.width), values)


@dataclass(frozen=True)
class Stripes:
    """Values of an image, (H, W) or (H, W, channels)."""

    shape: tuple[int, ...]
    rows: Callable[[int, int], NDArray[Any]]
    """Return the values from one row to another."""

    def __iter__(self) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Yield the rows of each stripe, and its values."""
        height, *others = self.shape
        step = max(1, STRIPE // max(1, math.prod(others)))
        for low in range(0, height, step):
            rows = slice(low, min(low + step, height))
            yield rows, self.rows(rows.start, rows.stop)


def _eight_bits(stripes: Stripes, mode: str, tags: Mapping[int, Any]) -> NDArray[np.uint8]:
    """Scale values by their range to 0..255."""
    nodata = _nodata(tags)
    nodata = _fill(stripes) if nodata is None else nodata
    found = np.zeros(stripes.shape, np.uint8)
    whole = mode != "F"
    ends = [(known.min().item(), known.max().item()) for _, values in stripes if (known := _known(values, nodata)).size]
    if not ends:
        return found
    low, high = _range(min(one for one, _ in ends), max(one for _, one in ends), whole, tags)
    # A table of all values is several times faster than arithmetic on all pixels.
    table = _scaled(np.arange(SHORT, dtype=np.float32), low, high)
    for rows, values in stripes:
        if nodata is None and values.dtype.kind == "u" and values.dtype.itemsize == 2:
            scaled = table[values]
        else:
            scaled = _scaled(values.astype(np.float32), low, high)
        if _first(tags, WHITE_IS_ZERO) == 0:
            scaled = WHITE - scaled
        if values.dtype.kind == "f" or nodata is not None:
            values = values.astype(np.float32)
            scaled[np.isnan(values) | (~_there(values, nodata) & np.isfinite(values))] = 0
        found[rows] = scaled
    return found


def _known(values: NDArray[Any], nodata: float | None) -> NDArray[Any]:
    """Return the values that are not missing."""
    if values.dtype.kind != "f" and nodata is None:
        return values
    values = values.astype(np.float32)
    known: NDArray[Any] = values[_there(values, nodata)]
    return known


def _there(values: NDArray[Any], nodata: float | None) -> NDArray[np.bool_]:
    there: NDArray[np.bool_] = np.abs(values) < HUGE  # False for NaN and infinity
    return there if nodata is None else there & (values != np.float32(nodata))


def _scaled(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.uint8]:
    """Return values from `low` to `high` as 0..255. Changes `values`."""
    with np.errstate(invalid="ignore", over="ignore"):
        values -= np.float32(low)
        values *= np.float32(WHITE / (high - low))
        np.clip(np.rint(values, out=values), 0, WHITE, out=values)
        return np.asarray(np.nan_to_num(values, copy=False), np.uint8)


def _range(low: float, high: float, whole: bool, tags: Mapping[int, Any]) -> tuple[float, float]:
    """Return the range of an image whose values are `low` to `high`; `whole` is True for integers."""
    smallest, largest, bits = _first(tags, SMALLEST), _first(tags, LARGEST), _first(tags, BITS_PER_SAMPLE)
    if smallest is not None and largest is not None and smallest <= low <= high <= largest and smallest < largest:
        return float(smallest), float(largest)
    if whole and bits is not None and 8 < bits < 16:
        return 0.0, 2.0**bits - 1
    overshoot = not whole and low >= -OVERSHOOT * high
    if low < 0 and not overshoot:
        return -_power_of_two(-low), _power_of_two(high + 1) - 1 if whole else _power_of_two(high)
    if not whole and high <= 2:
        return min(low, 0.0), max(1.0, high)
    used = max(8, math.ceil(high).bit_length())
    used += used % 2
    if whole and used == (bits or 32) and (bits is None or _first(tags, SAMPLE_FORMAT) == SIGNED):
        used -= 1  # the sign takes one
    return min(low, 0.0), 2.0**used - 1


def _power_of_two(value: float) -> float:
    """Return the smallest power of two that is at least `value`; 0 for 0 and less."""
    if value <= 0:
        return 0.0
    fraction, exponent = math.frexp(value)
    return math.ldexp(1.0, exponent - 1 if fraction == 0.5 else exponent)


def _nodata(tags: Mapping[int, Any]) -> float | None:
    """Return the value that stands for a missing one, as GDAL writes it into a TIFF; None without it."""
    try:
        return float(str(tags[NODATA]).strip("\x00 "))
    except (KeyError, ValueError):
        return None


def _fill(stripes: Stripes) -> float | None:
    """Return the number of `FILLS` that stands for missing values; None if other numbers are negative too."""
    negative: set[float] = set()
    for _, values in stripes:
        if values.dtype.kind == "u" or not values.size:
            return None
        below = values[(values < 0) & (np.abs(values) < HUGE)]
        negative |= {float(below.min()), float(below.max())} if below.size else set()
    return negative.pop() if len(negative) == 1 and negative <= set(FILLS) else None


def _first(tags: Mapping[int, Any], number: int) -> Any:
    """Return a TIFF tag's value, of several that of the first channel; None without it."""
    value = tags.get(number)
    return value[0] if isinstance(value, tuple) and value else value
