"""A sheet of latents as a picture: layout and drawing, nothing about what is drawn."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from PIL import Image, ImageDraw, ImageFont

from sparc.errors import BadSample
from sparc.system.files import write_atomically

if TYPE_CHECKING:
    from sparc.plugins.contracts import Sample

MARGIN, GAP, COLUMN_GAP = 40, 8, 44
BAR = 4
INK, PALE, RULE, BARS, ACCENT, PAPER = "#1c1c22", "#6f6f78", "#e4e4e8", "#a9a9b4", "#e8730c", "#ffffff"
TYPOGRAPHIC = "‘’“”«»°·"
"""Signs beyond ASCII that the bundled font has."""
DASHES = str.maketrans("–—−•", "---·")


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


class Sheet:
    """Draws latents one below another, streams side by side."""

    def __init__(self, modalities: Mapping[str, str], *, large: bool) -> None:
        self._modalities = modalities
        self._card = 152 if large else 92
        self._across, self._down = (3, 2) if large else (5, 1)
        self._count = self._across * self._down
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
        """Title, what it is about, how to read it, and the streams' names."""
        lines = _wrap(_legible(subtitle), _font(17), self._width - 2 * MARGIN)
        self._room(150 + 24 * len(lines))
        self._draw.text((MARGIN, self._y), title, INK, _font(32))
        self._y += 48
        for line in lines:
            self._draw.text((MARGIN, self._y), line, PALE, _font(17))
            self._y += 24
        self._legend()
        for number, (name, modality) in enumerate(self._modalities.items()):
            shown = _shorten(_legible(name), _font(21), self._column - 70, cut=False)
            self._draw.text((self._left(number), self._y), shown, INK, _font(21))
            x = self._left(number) + self._draw.textlength(shown, _font(21)) + 10
            self._draw.text((x, self._y + 5), modality, PALE, _font(16))
        self._y += 40

    def _legend(self) -> None:
        x, y = float(MARGIN), self._y + 5
        if len(self._modalities) > 1:
            self._draw.rectangle((x, y, x + 15, y + 15), outline=ACCENT, width=3)
            x += 24 + self._words(x + 24, "shown in every stream", PALE, 16) + 24
        self._draw.rectangle((x, y + 7, x + 26, y + 7 + BAR), BARS)
        self._words(x + 36, "activation", PALE, 16)
        self._y += 50

    def latent(self, found: Drawable, sample: Callable[[int], Sample]) -> None:
        """One latent: what it is called, and its top samples in each stream."""
        height = self._down * (self._card + GAP + BAR) - GAP
        self._room(height + 90)
        self._draw.line((MARGIN, self._y, self._width - MARGIN, self._y), RULE, 1)
        self._y += 14
        self._name(found)
        self._y += 36
        shown = {name: best[: self._count] for name, best in found.top.items()}
        strongest = max((value for best in shown.values() for _, value in best), default=1.0)
        rows = [{row for row, _ in best} for best in shown.values()]
        shared = set.intersection(*rows) if len(rows) > 1 else set()
        for number, (name, modality) in enumerate(self._modalities.items()):
            best = [(sample(row), value / strongest, row in shared) for row, value in shown[name]]
            if not best:
                self._draw.text((self._left(number), self._y + 8), "silent on these samples", PALE, _font(17))
            elif modality == "text":
                self._captions(self._left(number), best, height)
            else:
                self._pictures(self._left(number), best)
        self._y += height + 22

    def _name(self, found: Drawable) -> None:
        """Concept, number and agreement, on one line."""
        x: float = MARGIN
        if found.concept:
            x += self._words(x, found.concept, INK, 22) + 16
            x += self._words(x, f"{found.of_concept} of its {found.active} samples", PALE, 16) + 16
        x += self._words(x, f"latent {found.latent}", PALE if found.concept else INK, 16 if found.concept else 22) + 16
        if len(self._modalities) > 1:
            self._words(x, f"correlation between streams {found.correlation:.2f}", PALE, 16)

    def _words(self, x: float, text: str, colour: str, size: int) -> float:
        """Write on the current line; returns the width."""
        text = _legible(text)
        self._draw.text((x, self._y + 20), text, colour, _font(size), anchor="ls")
        return self._draw.textlength(text, _font(size))

    def _left(self, number: int) -> int:
        return MARGIN + number * (self._column + COLUMN_GAP)

    def _framed(self, sample: Sample, x: int, y: int, size: int, *, shared: bool) -> None:
        self._image.paste(_thumbnail(sample, size - 6), (x + 3, y + 3))
        width = 1 if not shared else 3 if size > 40 else 2
        self._draw.rectangle((x, y, x + size - 1, y + size - 1), outline=ACCENT if shared else RULE, width=width)

    def _pictures(self, left: int, best: list[tuple[Sample, float, bool]]) -> None:
        """Images in a grid, a bar of the activation below each."""
        for position, (sample, strength, shared) in enumerate(best):
            x = left + position % self._across * (self._card + GAP)
            y = self._y + position // self._across * (self._card + GAP + BAR)
            self._framed(sample, x, y, self._card, shared=shared)
            self._draw.rectangle((x, y + self._card + 2, x + self._card * strength, y + self._card + 1 + BAR), BARS)

    def _captions(self, left: int, best: list[tuple[Sample, float, bool]], height: int) -> None:
        """Captions as lines, their image small before them."""
        step = height // self._count
        thumb, font, line = step - 2, _font(17 if step > 24 else 16), 20
        for position, (sample, strength, shared) in enumerate(best):
            y = self._y + position * step
            # The image only helps to see what is meant: a caption may be all that there is of a sample.
            with suppress(BadSample):
                self._framed(sample, left, y, thumb, shared=shared)
            x = left + thumb + 10
            self._draw.rectangle((x, y + thumb * (1 - strength), x + BAR - 1, y + thumb - 1), BARS)
            x += BAR + 10
            texts = _fit(sample.text(), font, left + self._column - x, max(1, thumb // line))
            middle = y + thumb / 2 - line * (len(texts) - 1) / 2
            for row, text in enumerate(texts):
                self._draw.text((x, middle + row * line), text, ACCENT if shared else INK, font, anchor="lm")

    def save(self, path: Path) -> None:
        """Write the sheet as a PNG, atomically. Raises StorageError."""
        picture = self._image.quantize(256, dither=Image.Dither.NONE)
        write_atomically(path, lambda temporary: picture.save(temporary, format="PNG", optimize=True))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _legible(text: str) -> str:
    """What the font can draw of a text, which is English: accents are dropped, and other signs are a question mark."""
    bare = "".join(
        sign for sign in unicodedata.normalize("NFKD", text.translate(DASHES)) if not unicodedata.combining(sign)
    )
    return "".join(sign if sign.isascii() or sign in TYPOGRAPHIC else "?" for sign in bare)


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


def _fit(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float, count: int) -> list[str]:
    """The text in at most `count` lines of at most `width` pixels; what had to be left out is an ellipsis."""
    lines = _wrap(_legible(text), font, width)
    cut = len(lines) > count
    return [_shorten(line, font, width, cut=cut and number == count - 1) for number, line in enumerate(lines[:count])]


def _shorten(line: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float, *, cut: bool) -> str:
    """Drop what does not fit; an ellipsis stands for it, and for what is `cut` off after the line."""
    if not cut and font.getlength(line) <= width:
        return line
    while line and font.getlength(f"{line}…") > width:
        line = line[:-1]
    return f"{line.rstrip(' ,;:')}…"
