"""Localizations as a figure: the image, each stream's map on it, and the words and latents that carried the match."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from sparc.config import Scale
from sparc.localization.pipeline import Localization
from sparc.plotting import figures
from sparc.plotting.fonts import printed_length

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

PANEL = 2.4
"""Inches per side of an image."""
PIXELS = 480
"""Pixels of an image's longer side in the figure."""
WORDS = 40
"""Largest number of words shown."""
SIZE, SMALL, GAP = 10, 8, 5
"""Size of the query's words, size of the latents' words, and the gap between two words, in points."""
LINE = ":\n"
WARM = (0.84, 0.37, 0.0)
"""The colour of strong patches and words: figures.COLOURS[1]."""


def draw(found: Sequence[Localization], *, scale: Scale = "common") -> Figure:
    """Draw localizations, a row per image and query: the image, then each stream's map on it.

    scale: `common` colours a map by how far its score stands out from those of held-out images, so that what is not
    there stays pale; without held-out images, by its share of the stream's highest score in the figure. `own` colours
    each map by its own highest value.
    """
    rows = [list(group) for _, group in groupby(found, key=lambda one: (one.name, one.query))]
    across = 1 + max(len(row) for row in rows)
    figure = figures.new_figure(PANEL * across + 0.3, (PANEL + 1.2) * len(rows))
    strengths = [1.0] * len(found) if scale == "own" else _strengths(found)
    strength_of = {id(one): strength for one, strength in zip(found, strengths, strict=True)}
    with figures.look():
        for part, row in zip(figure.subfigures(len(rows), squeeze=False).ravel(), rows, strict=True):
            _draw_row(part, [(one, strength_of[id(one)]) for one in row], across)
    return figure


def _strengths(found: Sequence[Localization]) -> list[float]:
    """Return the colour's strength of each map on the common scale, 0 to 1."""
    highest: dict[str, float] = {}
    for one in found:
        highest[one.stream] = max(highest.get(one.stream, 0.0), one.score)
    return [
        one.standing.strength if one.standing else max(0.0, one.score) / (highest[one.stream] or 1.0) for one in found
    ]


def save(figure: Figure, path: Path) -> None:
    """Write the figure in the format of the file's suffix. Raises StorageError, InvalidConfig."""
    figures.write(figure, path)


def _shown(image: Image.Image) -> Image.Image:
    scale = PIXELS / max(image.size)
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))


def _draw_row(part: SubFigure, maps: Sequence[tuple[Localization, float]], across: int) -> None:
    """Draw the maps of one image and query, each with the strength of its colour."""
    row = [one for one, _ in maps]
    image = _shown(row[0].image)
    width = 72 * (PANEL * across + 0.3) * 0.97
    lines = _lines(row[0], width)
    part.suptitle("\n" * (len(lines) - 1) + " ")  # reserves the height of the query's lines
    _pack(part, lines, "upper left")
    axes = part.subplots(1, across, squeeze=False)[0]
    for each in axes:
        each.axis("off")
    axes[0].imshow(image)
    axes[0].set_title("\n" * _title(row[0]).count("\n") + " ", fontsize=SMALL)
    for each, (one, strength) in zip(axes[1:], maps, strict=False):
        _overlay(each, one, image, strength)
    carried = [line for one in row for line in _wrapped(_carried(one), width)]
    part.supxlabel("\n" * (len(carried) - 1) + " ", fontsize=SMALL)  # reserves the height of these lines
    _pack(part, carried, "lower left")


class _Word(NamedTuple):
    """A word of a line, with its strength from 0 to 1; None is a word without a strength."""

    text: str
    strength: float | None = None

    @property
    def width(self) -> float:
        """Width in points."""
        bold = self.strength is not None
        return printed_length(self.text, SIZE if bold else SMALL, bold=bold)


def _lines(one: Localization, width: float) -> list[list[_Word]]:
    """Return the query as lines of words that fit into a width in points."""
    words = [(word.text, word.relevance) for word in one.words[:WORDS]] or [(str(one.query), 0.0)]
    strongest = max(relevance for _, relevance in words) or 1.0
    lines = _wrapped([_Word(text, relevance / strongest) for text, relevance in words], width)
    # The words of a script that is written to the left stand in that order too.
    leftward = unicodedata.bidirectional(next(filter(str.isalpha, str(one.query)), "a")) in ("R", "AL")
    return [line[::-1] for line in lines] if leftward else lines


def _wrapped(words: Sequence[_Word], width: float) -> list[list[_Word]]:
    """Break words into lines of a width in points, and a word that is wider, as in a script without spaces."""
    lines: list[list[_Word]] = [[]]
    room = width
    for word in words:
        for piece in _pieces(word, width):
            needed = piece.width + GAP
            if lines[-1] and needed > room:
                lines.append([])
                room = width
            lines[-1].append(piece)
            room -= needed
    return lines


def _pieces(word: _Word, width: float) -> list[_Word]:
    pieces = [word._replace(text="")]
    for sign in word.text:
        longer = pieces[-1]._replace(text=pieces[-1].text + sign)
        if pieces[-1].text and longer.width > width:
            longer = word._replace(text=sign)
            pieces.append(longer)
        pieces[-1] = longer
    return pieces


def _pack(part: SubFigure, lines: Sequence[Sequence[_Word]], corner: str) -> None:
    """Write lines of words into a corner of a figure, darker for stronger words.

    Each word is a text of its own, since the direction of a script orders the words of one text.
    """
    from matplotlib.offsetbox import AnchoredOffsetbox, HPacker, TextArea, VPacker

    rows: list[Artist] = []
    for line in filter(None, lines):
        words: list[Artist] = []
        for text, strength in line:
            style: Any = {"fontsize": SMALL}
            if strength is not None:
                shade = {"facecolor": (*WARM, 0.55 * strength), "edgecolor": "none", "boxstyle": "round,pad=0.15"}
                style = {"fontsize": SIZE, "fontweight": "bold", "bbox": shade}
            words.append(TextArea(text.replace("$", r"\$"), textprops=style))
        rows.append(HPacker(children=words, pad=0, sep=3 if line[0].strength is None else GAP, align="baseline"))
    packed = VPacker(children=rows, pad=0, sep=4, align="left")
    place: Any = {
        "bbox_to_anchor": (0.012, 1 if corner.startswith("upper") else 0),
        "bbox_transform": part.transSubfigure,
    }
    part.add_artist(AnchoredOffsetbox(corner, child=packed, frameon=False, pad=0.2, borderpad=0, **place))


def _overlay(axes: Axes, one: Localization, image: Image.Image, strongest: float) -> None:
    """Draw the image in pale grey, the map above its median in colour, and a ring around its peak.

    strongest: strength of the colour at the peak, 0 to 1.
    """
    grey = np.asarray(image.convert("L"), np.float32)[..., None].repeat(3, axis=2) / 255
    values = one.on_image(image.size)
    low, high = np.nanmedian(values), np.nanmax(values)
    strength = np.clip((values - low) / (high - low), 0, 1) if high > low else np.zeros_like(values)
    hidden = np.isnan(values)
    alpha = 0.85 * strongest * np.nan_to_num(strength)[..., None]
    mixed = (1 - 0.55 * (1 - grey)) * (1 - alpha) + np.array(WARM) * alpha * (0.45 + 0.55 * grey)
    mixed[hidden] = 0.75 + 0.25 * grey[hidden]  # outside of what the backbone sees
    axes.imshow(np.clip(mixed, 0, 1))
    axes.set_title(_title(one), fontweight="normal", fontsize=SMALL)
    if one.peak is not None:
        x, y = one.peak
        scale = image.width / one.size[0]
        colour = figures.INK if strongest > 0 else figures.GREY
        axes.plot(x * scale, y * scale, "o", ms=9, mfc="none", mec=colour, mew=1.4)


def _title(one: Localization) -> str:
    """Return stream and score, and what the score says, broken at the colon to fit above the map."""
    first = f"{figures.label(one.stream)}  {one.score:.3f}"
    return first if one.standing is None else f"{first}\n{one.standing.words.replace(': ', LINE, 1)}"


def _carried(one: Localization) -> list[_Word]:
    """Return the words of the line with a stream's latents."""
    stream = _Word(f"{one.stream}:")
    if not one.carriers:
        return [stream, _Word("the codes share no latent" if one.query.text else "silent on the whole image")]
    words = [stream]
    for number, (latent, share, name) in enumerate(one.carriers):
        end = "," if number < len(one.carriers) - 1 else ""
        words += [_Word(f"latent {latent}")] + ([_Word(name)] if name else []) + [_Word(f"{share:.0%}{end}")]
    return words
