"""Fonts for names and captions in any script: each word is drawn in the first font that has all of its characters.

Pillow's own font has Latin letters without accents, and matplotlib's DejaVu Sans has the alphabets of Europe and the
Near East. The extra `fonts` brings Noto Sans for most other scripts. The machine's own fonts come last.
"""

from __future__ import annotations

import contextlib
import importlib.util
import re
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from PIL import ImageFont

from sparc.errors import install
from sparc.system.graphemes import start_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.ImageDraw import ImageDraw

PACKAGES = ("manimgx_fonts", "noto_cjk_sans_otc")
"""Packages of the extra `fonts`: Noto Sans for the scripts of Asia and Africa with symbols, and for East Asia."""
SUFFIXES = (".ttf", ".ttc", ".otf")
BOX = "\u25a1"
"""Drawn in place of a character that no font has."""
_TYPOGRAPHIC = frozenset("‘’“”«»°·…")
"""Characters beyond ASCII that Pillow's own font has."""
_DASHES = str.maketrans("–—−•", "---·")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_INVISIBLE = ("Cc", "Cf", "Mn", "Me", "Zs")
"""Categories of characters that need no glyph of their own: controls, joiners, marks and spaces."""


class Pen(NamedTuple):
    """Text of one size in any script, for Pillow."""

    size: int

    def length(self, text: str) -> float:
        """Return the width of a text in pixels."""
        return sum(_font(file, self.size).getlength(run) for file, run in _runs(text))

    def write(self, draw: ImageDraw, place: tuple[float, float], text: str, colour: str, anchor: str = "la") -> None:
        """Draw a text to the right of `place`, which is its top (`la`), middle (`lm`) or baseline (`ls`)."""
        runs = _runs(text)
        x, y = place
        if len(runs) > 1 or (runs and runs[0][0] is not None):  # fonts differ in height and share a baseline
            ascent, descent = ImageFont.load_default(self.size).getmetrics()  # type: ignore[union-attr]
            y += {"la": ascent, "lm": (ascent - descent) / 2, "ls": 0}[anchor]
            anchor = "ls"
        for file, run in runs:
            font = _font(file, self.size)
            draw.text((x, y), run, colour, font, anchor=anchor)
            x += font.getlength(run)


def wrap(text: str, pen: Pen, width: float) -> list[str]:
    """Break a text into lines of at most `width` pixels; a longer word gets a line of its own."""
    lines: list[str] = []
    for word in text.split():
        if lines and pen.length(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def fit(text: str, pen: Pen, width: float, count: int) -> list[str]:
    """Break a text into at most `count` lines of at most `width` pixels, with an ellipsis for the rest."""
    lines = wrap(text, pen, width)
    cut = len(lines) > count
    return [shorten(line, pen, width, cut=cut and number == count - 1) for number, line in enumerate(lines[:count])]


def shorten(line: str, pen: Pen, width: float, *, cut: bool) -> str:
    """Shorten a line to `width` pixels, ending in an ellipsis if it was shortened or if text after it was `cut`."""
    if not cut and pen.length(line) <= width:
        return line
    while line and pen.length(f"{line}…") > width:
        line = start_of(line, len(line) - 1)
    return f"{line.rstrip(' ,;:')}…"


def printed_length(text: str, size: int, *, bold: bool = False) -> float:
    """Return the width of a text in a figure, in points. Fonts for other scripts have no bold face."""
    plain = _dejavu().with_name("DejaVuSans-Bold.ttf") if bold else _dejavu()
    runs = ((plain if file in (None, _dejavu()) else file, run) for file, run in _runs(text))
    return sum(_font(file, size).getlength(run) for file, run in runs)


@contextlib.contextmanager
def covering(figure: Figure) -> Iterator[None]:
    """Give each text of a figure the fonts for its characters. A character that no font has becomes a box."""
    import logging

    from matplotlib.font_manager import fontManager
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        needed = [file for file, _ in _runs(text.get_text()) if file is not None and file != _dejavu()]
        if needed:
            for file in needed:
                fontManager.addfont(file)
            text.set_fontfamily(["DejaVu Sans", *dict.fromkeys(_family(file) for file in needed)])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        finder = logging.getLogger("matplotlib.font_manager")
        before = finder.level
        finder.setLevel(logging.ERROR)  # it reports each bold word whose font has no bold face
        try:
            yield
        finally:
            finder.setLevel(before)


def _runs(text: str) -> Sequence[tuple[Path | None, str]]:
    """Return the parts of a text with the font that draws each; None is Pillow's own font."""
    text = _CONTROLS.sub(" ", unicodedata.normalize("NFC", text).translate(_DASHES))
    if all(sign.isascii() or sign in _TYPOGRAPHIC for sign in text):
        return [(None, text)] if text else []
    # Pillow's own font is left out, since a line that mixes it with another looks uneven.
    parts: list[tuple[Path | None, str]] = []
    for word in re.findall(r"\S+|\s+", text):
        parts += [(None, " ")] if word.isspace() else _parts(word)
    # Words of one font with the spaces between them are one run, so that the script's direction orders them. A space
    # between two fonts is a run of its own: at the end of a word that is written to the left, it would be on its left.
    for before, number, after in zip(parts, range(1, len(parts)), parts[2:], strict=False):
        if parts[number] == (None, " ") and before[0] == after[0]:
            parts[number] = (before[0], " ")
    return [(file, "".join(part for _, part in run)) for file, run in groupby(parts, key=itemgetter(0))]


def _parts(word: str) -> list[tuple[Path, str]]:
    """Return a word with the first font that has all of it, or else each character with its own font."""
    signs = frozenset(ord(sign) for sign in word if unicodedata.category(sign) not in _INVISIBLE)
    for file in _files():
        if signs <= _characters(file):
            return [(file, word)]
    if len(word) > 1:
        # Marks stay with the letter that they stand on.
        letters = re.findall(r"[^\u0300-\u036f\u200d\ufe0e\ufe0f][\u0300-\u036f\u200d\ufe0e\ufe0f]*", word)
        if len(letters) > 1:
            return [part for letter in letters for part in _parts(letter)]
    for file in _machine_files():
        if signs <= _characters(file):
            return [(file, word)]
    _warn()
    return [(_dejavu(), BOX)]


@cache
def _warn() -> None:
    """Say once that a font is missing, and what to do."""
    warnings.warn(
        f"no installed font has some characters of these texts, which are drawn as boxes: {install('fonts')}",
        stacklevel=2,
    )


@cache
def _dejavu() -> Path:
    from matplotlib import get_data_path

    return Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


@cache
def _files() -> tuple[Path, ...]:
    """Return DejaVu Sans and the fonts of the packages, in the order in which they are tried."""
    found = [_dejavu()]
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            found += sorted(path for path in Path(folder).iterdir() if path.suffix in SUFFIXES)
    return tuple(file for file in found if "Italic" not in file.name)


@cache
def _machine_files() -> tuple[Path, ...]:
    from matplotlib.font_manager import findSystemFonts

    return tuple(Path(file) for file in sorted(findSystemFonts()))


@cache
def _characters(file: Path) -> frozenset[int]:
    """Return the code points that a font has; none for a font that cannot be read."""
    from fontTools.ttLib import TTFont, TTLibError

    try:
        with TTFont(file, lazy=True, fontNumber=0) as font:
            return frozenset(font.getBestCmap() or ())
    except (TTLibError, OSError):
        return frozenset()


@cache
def _family(file: Path) -> str:
    from matplotlib.font_manager import FontProperties

    return FontProperties(fname=str(file)).get_name()


@cache
def _font(file: Path | None, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size) if file is None else ImageFont.truetype(file, size)
