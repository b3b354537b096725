"""A sheet of latents as a picture: layout and drawing, nothing about what is drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from PIL import Image, ImageDraw, ImageFont

from sparc.errors import BadSample
from sparc.files import write_atomically

if TYPE_CHECKING:
    from sparc.contracts import Sample

MARGIN = 36
GAP = 8
COLUMN_GAP = 36
INK, PALE, RULE, ACCENT, PAPER = "#1c1c22", "#77777f", "#e2e2e6", "#e8830c", "#ffffff"


class Drawable(Protocol):
    """What a sheet draws of a latent."""

    @property
    def latent(self) -> int: ...  # noqa: D102
    @property
    def correlation(self) -> float: ...  # noqa: D102
    @property
    def concept(self) -> str: ...  # noqa: D102
    @property
    def of_concept(self) -> int: ...  # noqa: D102
    @property
    def active(self) -> int: ...  # noqa: D102
    @property
    def top(self) -> Mapping[str, list[tuple[int, float]]]: ...  # noqa: D102
    def shared(self) -> set[int]: ...  # noqa: D102


class Sheet:
    """Draws latents one below another, streams side by side."""

    def __init__(self, modalities: Mapping[str, str], *, large: bool) -> None:
        self._modalities = modalities
        self._card = 150 if large else 80
        self._across = 3 if large else 6
        self._down = 2 if large else 1
        self._lines = 6 if large else 5
        self._column = self._across * (self._card + GAP) - GAP
        self._width = 2 * MARGIN + len(modalities) * (self._column + COLUMN_GAP) - COLUMN_GAP
        self._image = Image.new("RGB", (self._width, 64), PAPER)
        self._draw = ImageDraw.Draw(self._image)
        self._y = MARGIN

    def _room(self, height: int) -> None:
        """Make the sheet high enough for what is drawn next."""
        if self._y + height + MARGIN > self._image.height:
            taller = Image.new("RGB", (self._width, self._y + height + MARGIN), PAPER)
            taller.paste(self._image)
            self._image, self._draw = taller, ImageDraw.Draw(taller)

    def heading(self, title: str, subtitle: str) -> None:
        """Title, a line below it, and the streams' names."""
        lines = _wrap(subtitle, _font(15), self._width - 2 * MARGIN)
        self._room(90 + 20 * len(lines))
        self._draw.text((MARGIN, self._y), title, INK, _font(26))
        self._y += 40
        for line in lines:
            self._draw.text((MARGIN, self._y), line, PALE, _font(15))
            self._y += 20
        self._y += 16
        for number, (name, modality) in enumerate(self._modalities.items()):
            self._draw.text((self._left(number), self._y), name, INK, _font(18))
            width = self._draw.textlength(name, _font(18))
            self._draw.text((self._left(number) + width + 8, self._y + 3), modality, PALE, _font(14))
        self._y += 34

    def latent(self, found: Drawable, sample: Callable[[int], Sample]) -> None:
        """One latent: what it is called, and its top samples in each stream."""
        height = self._down * (self._card + GAP + 6)
        self._room(height + 60)
        self._draw.line((MARGIN, self._y, self._width - MARGIN, self._y), RULE, 1)
        self._y += 12
        x = MARGIN + self._words(MARGIN, f"latent {found.latent}", INK, 17) + 14
        if found.concept:
            x += self._words(x, found.concept, ACCENT, 17) + 14
            x += self._words(x, f"{found.of_concept} of {found.active} samples", PALE, 14) + 14
        if len(self._modalities) > 1:
            self._words(x, f"correlation between streams {found.correlation:.2f}", PALE, 14)
        self._y += 30
        strongest = max((value for best in found.top.values() for _, value in best), default=1.0)
        for number, (name, modality) in enumerate(self._modalities.items()):
            best = [(sample(row), value / strongest, row in found.shared()) for row, value in found.top[name]]
            if not best:
                self._draw.text((self._left(number), self._y + 8), "silent on these samples", PALE, _font(14))
            elif modality == "text":
                self._captions(self._left(number), best, height)
            else:
                self._pictures(self._left(number), best)
        self._y += height + 14

    def _words(self, x: float, text: str, colour: str, size: int) -> float:
        """Write on the current line; returns the width."""
        self._draw.text((x, self._y + 17 - size), text, colour, _font(size))
        return self._draw.textlength(text, _font(size))

    def _left(self, number: int) -> int:
        return MARGIN + number * (self._column + COLUMN_GAP)

    def _pictures(self, left: int, best: list[tuple[Sample, float, bool]]) -> None:
        """Images in a grid, a bar of the activation below each."""
        for position, (sample, strength, shared) in enumerate(best[: self._across * self._down]):
            x = left + position % self._across * (self._card + GAP)
            y = self._y + position // self._across * (self._card + GAP + 6)
            self._image.paste(_thumbnail(sample, self._card), (x, y))
            box = (x, y, x + self._card - 1, y + self._card - 1)
            self._draw.rectangle(box, outline=ACCENT if shared else RULE, width=3 if shared else 1)
            self._draw.rectangle((x, y + self._card + 3, x + self._card * strength, y + self._card + 6), ACCENT)

    def _captions(self, left: int, best: list[tuple[Sample, float, bool]], height: int) -> None:
        """Captions as lines, their image small beside them."""
        count = min(len(best), self._lines)
        line = height // self._lines
        thumb = line - 4
        font = _font(15 if line > 26 else 13)
        for position, (sample, _, shared) in enumerate(best[:count]):
            y = self._y + position * line
            x = left
            with suppress(BadSample):  # a caption may be all that there is of a sample
                self._image.paste(_thumbnail(sample, thumb), (x, y))
            x += thumb + 8
            self._draw.rectangle((x, y, x + 4, y + thumb), ACCENT if shared else RULE)
            x += 12
            lines = _wrap(sample.text(), font, left + self._column - x)[: max(1, thumb // 18)]
            top = y + (thumb - 18 * len(lines)) // 2
            for row, text in enumerate(lines):
                self._draw.text((x, top + row * 18), text, INK, font)

    def save(self, path: Path) -> None:
        """Write the sheet as a PNG, atomically. Raises StorageError."""
        legend = "Bars: activation.  Orange frames: on top in every stream."
        self._room(30)
        self._draw.text((MARGIN, self._y), legend, PALE, _font(14))
        picture = self._image.quantize(200, dither=Image.Dither.NONE)
        write_atomically(path, lambda temporary: picture.save(temporary, format="PNG", optimize=True))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _thumbnail(sample: Sample, size: int) -> Image.Image:
    """The image, whole, on white in a square."""
    image = sample.image()
    image.thumbnail((size, size), Image.Resampling.LANCZOS)
    square = Image.new("RGB", (size, size), PAPER)
    square.paste(image, ((size - image.width) // 2, (size - image.height) // 2))
    return square


def _wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> list[str]:
    """Break a text into lines of at most `width` pixels; a longer word stands alone."""
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
