"""The look of the contact sheet, the page that `sparc explore` writes: layout, colours, fonts, and the words on it.

Its title and subtitle come from `sparc/session/exploring.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

from sparc.errors import BadSample
from sparc.plotting.fonts import Pen, fit, shorten, wrap
from sparc.system.files import write_output

if TYPE_CHECKING:
    from sparc.explorer.meanings import Meaning
    from sparc.plugins.contracts import Sample

MARGIN, GAP, COLUMN_GAP = 40, 8, 44
BAR = 4
INK, PALE, RULE, BARS, ACCENT, PAPER = "#1c1c22", "#6f6f78", "#e4e4e8", "#a9a9b4", "#e8730c", "#ffffff"


def draw(
    meanings: Sequence[Meaning],
    sample: Callable[[int], Sample],
    modalities: Mapping[str, str],
    path: Path,
    *,
    title: str,
    subtitle: str,
) -> None:
    """Write a PNG of latents, one below another, with the streams side by side: images or captions.

    sample: returns the sample of a row. modalities: per stream, `image` or `text`. Raises StorageError.
    """
    sheet = ContactSheet(modalities, large=len(meanings) == 1)
    sheet.heading(title, subtitle)
    for meaning in meanings:
        sheet.latent(meaning, sample)
    sheet.save(path)


class ContactSheet:
    """A picture that grows downward, latent by latent, with a column per stream."""

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
        """Extend the sheet so that `height` more pixels fit."""
        if self._y + height + MARGIN > self._image.height:
            taller = Image.new("RGB", (self._width, self._y + height + MARGIN), PAPER)
            taller.paste(self._image)
            self._image, self._draw = taller, ImageDraw.Draw(taller)

    def heading(self, title: str, subtitle: str) -> None:
        """Draw the title, the subtitle, the legend and the names of the streams."""
        lines = wrap(subtitle, Pen(17), self._width - 2 * MARGIN)
        self._room(150 + 24 * len(lines))
        Pen(32).write(self._draw, (MARGIN, self._y), title, INK)
        self._y += 48
        for line in lines:
            Pen(17).write(self._draw, (MARGIN, self._y), line, PALE)
            self._y += 24
        self._legend()
        for number, (name, modality) in enumerate(self._modalities.items()):
            shown = shorten(name, Pen(21), self._column - 70, cut=False)
            Pen(21).write(self._draw, (self._left(number), self._y), shown, INK)
            x = self._left(number) + Pen(21).length(shown) + 10
            Pen(16).write(self._draw, (x, self._y + 5), modality, PALE)
        self._y += 40

    def _legend(self) -> None:
        x, y = float(MARGIN), self._y + 5
        if len(self._modalities) > 1:
            self._draw.rectangle((x, y, x + 15, y + 15), outline=ACCENT, width=3)
            x += 24 + self._words(x + 24, "shown in every stream", PALE, 16) + 24
        self._draw.rectangle((x, y + 7, x + 26, y + 7 + BAR), BARS)
        self._words(x + 36, "activation", PALE, 16)
        self._y += 50

    def latent(self, meaning: Meaning, sample: Callable[[int], Sample]) -> None:
        """Draw one latent: its name, and its top samples in each stream."""
        height = self._down * (self._card + GAP + BAR) - GAP
        self._room(height + 90)
        self._draw.line((MARGIN, self._y, self._width - MARGIN, self._y), RULE, 1)
        self._y += 14
        self._name(meaning)
        self._y += 36
        shown = {name: best[: self._count] for name, best in meaning.top.items()}
        strongest = max((value for best in shown.values() for _, value in best), default=1.0)
        rows = [{row for row, _ in best} for best in shown.values()]
        shared = set.intersection(*rows) if len(rows) > 1 else set()
        for number, (name, modality) in enumerate(self._modalities.items()):
            best = [(sample(row), value / strongest, row in shared) for row, value in shown[name]]
            if not best:
                Pen(17).write(self._draw, (self._left(number), self._y + 8), "silent on these samples", PALE)
            elif modality == "text":
                self._captions(self._left(number), best, height)
            else:
                self._pictures(self._left(number), best)
        self._y += height + 22

    def _name(self, meaning: Meaning) -> None:
        """Draw the latent's name, number and correlation on one line."""
        x: float = MARGIN
        name = meaning.name
        if name is not None:
            x += self._words(x, name.label, INK, 22) + 16
            if name.purity is not None:
                x += self._words(x, f"purity {name.purity:.2f} on held-out images", PALE, 16) + 16
        x += self._words(x, f"latent {meaning.latent}", INK if name is None else PALE, 22 if name is None else 16) + 16
        if len(self._modalities) > 1:
            self._words(x, f"correlation between streams {meaning.correlation:.2f}", PALE, 16)

    def _words(self, x: float, text: str, colour: str, size: int) -> float:
        """Write on the current line, and return the width in pixels."""
        Pen(size).write(self._draw, (x, self._y + 20), text, colour, "ls")
        return Pen(size).length(text)

    def _left(self, number: int) -> int:
        return MARGIN + number * (self._column + COLUMN_GAP)

    def _framed(self, sample: Sample, x: int, y: int, size: int, *, shared: bool) -> None:
        self._image.paste(_thumbnail(sample, size - 6), (x + 3, y + 3))
        width = 1 if not shared else 3 if size > 40 else 2
        self._draw.rectangle((x, y, x + size - 1, y + size - 1), outline=ACCENT if shared else RULE, width=width)

    def _pictures(self, left: int, best: list[tuple[Sample, float, bool]]) -> None:
        """Draw images in a grid, each above a bar of its activation."""
        for position, (sample, strength, shared) in enumerate(best):
            x = left + position % self._across * (self._card + GAP)
            y = self._y + position // self._across * (self._card + GAP + BAR)
            self._framed(sample, x, y, self._card, shared=shared)
            self._draw.rectangle((x, y + self._card + 2, x + self._card * strength, y + self._card + 1 + BAR), BARS)

    def _captions(self, left: int, best: list[tuple[Sample, float, bool]], height: int) -> None:
        """Draw captions as lines, each after a small image and a bar of its activation."""
        step = height // self._count
        thumb, pen, line = step - 2, Pen(17 if step > 24 else 16), 20
        for position, (sample, strength, shared) in enumerate(best):
            y = self._y + position * step
            # The image is optional here: a sample may have a caption only.
            with suppress(BadSample):
                self._framed(sample, left, y, thumb, shared=shared)
            x = left + thumb + 10
            bottom = y + thumb - 1
            # Pillow refuses a bar that would be less than a pixel high.
            self._draw.rectangle((x, min(y + thumb * (1 - strength), bottom), x + BAR - 1, bottom), BARS)
            x += BAR + 10
            texts = fit(sample.text(), pen, left + self._column - x, max(1, thumb // line))
            middle = y + thumb / 2 - line * (len(texts) - 1) / 2
            for row, text in enumerate(texts):
                pen.write(self._draw, (x, middle + row * line), text, ACCENT if shared else INK, "lm")

    def save(self, path: Path) -> None:
        """Write the sheet as a PNG, atomically. Raises StorageError."""
        picture = self._image.quantize(256, dither=Image.Dither.NONE)
        write_output(path, lambda temporary: picture.save(temporary, format="PNG", optimize=True))


def _thumbnail(sample: Sample, size: int) -> Image.Image:
    """Return the whole image, centred on a white square."""
    image = sample.image()
    image.thumbnail((size, size), Image.Resampling.LANCZOS)
    square = Image.new("RGB", (size, size), PAPER)
    square.paste(image, ((size - image.width) // 2, (size - image.height) // 2))
    return square
