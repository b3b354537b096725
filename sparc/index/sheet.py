"""The answers of a search as one picture: a row of hits per query and stream."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from PIL import Image, ImageDraw

from sparc.errors import BadSample
from sparc.index.results import Found, Hit, plain
from sparc.plotting.fonts import Pen, fit, shorten
from sparc.plugins.contracts import Sample
from sparc.system.files import write_output

MARGIN, GAP, CARD, ACROSS = 40, 16, 168, 6
LINES = 7
"""Most lines of a text that was found."""
INK, PALE, RULE, BARS, PAPER = "#1c1c22", "#6f6f78", "#e4e4e8", "#e8730c", "#ffffff"
WIDTH = 2 * MARGIN + ACROSS * (CARD + GAP) - GAP


def write_sheet(found: Sequence[Found], path: Path, *, title: str, notes: Sequence[str] = ()) -> None:
    """Write the picture, a PNG. Raises StorageError; an image that cannot be read any more is an empty card."""
    sheet = _Sheet()
    sheet.text(title, Pen(32), INK)
    for note in notes:
        sheet.text(note, Pen(17), INK)
    for one in found:
        sheet.found(one)
    write_output(path, lambda temporary: sheet.image.save(temporary, "PNG"))


class _Sheet:
    """A picture that grows downward."""

    def __init__(self) -> None:
        self.image = Image.new("RGB", (WIDTH, MARGIN), PAPER)
        self._y = MARGIN

    def _room(self, height: int) -> ImageDraw.ImageDraw:
        """Extend the picture by `height` pixels below what is drawn, and return a pencil for it."""
        taller = Image.new("RGB", (WIDTH, self._y + height + MARGIN), PAPER)
        taller.paste(self.image)
        self.image = taller
        return ImageDraw.Draw(taller)

    def text(self, text: str, pen: Pen, colour: str) -> None:
        """Draw a text of any length across the picture, in at most two lines."""
        for line in fit(plain(text), pen, WIDTH - 2 * MARGIN, 2):
            draw = self._room(pen.size * 3 // 2)
            pen.write(draw, (MARGIN, self._y), line, colour)
            self._y += pen.size * 3 // 2

    def found(self, found: Found) -> None:
        """Draw the query, and its hits in rows."""
        draw = self._room(20)
        draw.line((MARGIN, self._y + 10, WIDTH - MARGIN, self._y + 10), RULE, 1)
        self._y += 20
        query = Path(found.query).name if found.modality == "image" else found.query
        self.text(query, Pen(22), INK)
        self.text(f"{found.query_stream} → {found.target_stream}, {found.candidates:,} searched", Pen(16), PALE)
        if not found.hits:
            self.text("nothing shares a latent with the query", Pen(16), PALE)
        for start in range(0, len(found.hits), ACROSS):
            self._row(found.hits[start : start + ACROSS], found.target_modality)

    def _row(self, hits: Sequence[Hit], modality: str) -> None:
        draw = self._room(CARD + 80)
        for number, hit in enumerate(hits):
            x = MARGIN + number * (CARD + GAP)
            if modality == "image":
                self._picture(hit.sample, x)
            else:
                self._words(draw, hit.sample, x)
            y = self._y + CARD + 6
            draw.rectangle((x, y, x + round(CARD * max(0.0, min(1.0, hit.score))), y + 4), BARS)
            shared = ", ".join(plain(str(one)) for one in hit.concepts[:2])
            for place, line in enumerate((f"{hit.score:.3f}  {plain(hit.name)}", shared)):
                Pen(14).write(draw, (x, y + 8 + 20 * place), shorten(line, Pen(14), CARD, cut=False), PALE)
        self._y += CARD + 80 - GAP

    def _picture(self, sample: Sample, x: int) -> None:
        with suppress(BadSample):
            picture = sample.image()
            picture.thumbnail((CARD, CARD))
            self.image.paste(picture, (x + (CARD - picture.width) // 2, self._y + (CARD - picture.height) // 2))

    def _words(self, draw: ImageDraw.ImageDraw, sample: Sample, x: int) -> None:
        for number, line in enumerate(fit(plain(sample.caption or ""), Pen(16), CARD, LINES)):
            Pen(16).write(draw, (x, self._y + 24 * number), line, INK)
