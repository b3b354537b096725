"""Localizations as a figure: the image, each stream's map on it, and the words and latents that carried the match."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from sparc.localization.pipeline import Localization
from sparc.plotting import figures

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
LETTERS = 80
"""Letters of a line of words."""
WARM = (0.84, 0.37, 0.0)
"""The colour of strong patches and words: figures.COLOURS[1]."""


def draw(found: Sequence[Localization]) -> Figure:
    """Draw localizations, a row per image and query: the image, then each stream's map on it."""
    rows = [list(group) for _, group in groupby(found, key=lambda one: (one.name, one.query))]
    across = 1 + max(len(row) for row in rows)
    figure = figures.new_figure(PANEL * across + 0.3, (PANEL + 1.0) * len(rows))
    with figures.look():
        for part, row in zip(figure.subfigures(len(rows), squeeze=False).ravel(), rows, strict=True):
            _draw_row(part, row, across, _shown(row[0].image))
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write the figure in the format of the file's suffix. Raises StorageError, InvalidConfig."""
    figures.write(figure, path)


def _shown(image: Image.Image) -> Image.Image:
    scale = PIXELS / max(image.size)
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))


def _draw_row(part: SubFigure, row: Sequence[Localization], across: int, image: Image.Image) -> None:
    lines = _lines(row[0])
    part.suptitle("\n" * (len(lines) - 1) + " ")  # reserves the height of the query's lines
    _write(part, lines)
    axes = part.subplots(1, across, squeeze=False)[0]
    for each in axes:
        each.axis("off")
    axes[0].imshow(image)
    axes[0].set_title(" ")
    for each, one in zip(axes[1:], row, strict=False):
        _overlay(each, one, image)
    carried = "\n".join(f"{figures.label(one.stream)}: {_carried(one)}" for one in row)
    part.supxlabel(carried.replace("$", r"\$"), x=0.012, ha="left", fontsize=8)


def _lines(one: Localization) -> list[list[tuple[str, float]]]:
    """Return the query as lines of words, each word with its strength from 0 to 1."""
    words = [(word.text, word.relevance) for word in one.words[:WORDS]] or [(str(one.query), 0.0)]
    strongest = max(relevance for _, relevance in words) or 1.0
    lines: list[list[tuple[str, float]]] = [[]]
    for text, relevance in words:
        if lines[-1] and sum(len(word) + 1 for word, _ in lines[-1]) + len(text) > LETTERS:
            lines.append([])
        lines[-1].append((figures.label(text, LETTERS), relevance / strongest))
    return lines


def _write(part: SubFigure, lines: Sequence[Sequence[tuple[str, float]]]) -> None:
    """Write the words above all axes, darker for stronger ones."""
    from matplotlib.offsetbox import AnchoredOffsetbox, HPacker, TextArea, VPacker

    rows: list[Artist] = []
    for line in lines:
        words: list[Artist] = []
        for text, strength in line:
            shade: Any = {"facecolor": (*WARM, 0.55 * strength), "edgecolor": "none", "boxstyle": "round,pad=0.15"}
            words.append(TextArea(text, textprops={"fontweight": "bold", "fontsize": 10, "bbox": shade}))
        rows.append(HPacker(children=words, pad=0, sep=5, align="baseline"))
    packed = VPacker(children=rows, pad=0, sep=4, align="left")
    place: Any = {"bbox_to_anchor": (0.012, 1), "bbox_transform": part.transSubfigure}
    part.add_artist(AnchoredOffsetbox("upper left", child=packed, frameon=False, pad=0.2, borderpad=0, **place))


def _overlay(axes: Axes, one: Localization, image: Image.Image) -> None:
    """Draw the image in pale grey, the map above its median in colour, and a ring around its peak."""
    grey = np.asarray(image.convert("L"), np.float32)[..., None].repeat(3, axis=2) / 255
    values = one.on_image(image.size)
    low, high = np.nanmedian(values), np.nanmax(values)
    strength = np.clip((values - low) / (high - low), 0, 1) if high > low else np.zeros_like(values)
    hidden = np.isnan(values)
    alpha = 0.85 * np.nan_to_num(strength)[..., None]
    mixed = (1 - 0.55 * (1 - grey)) * (1 - alpha) + np.array(WARM) * alpha * (0.45 + 0.55 * grey)
    mixed[hidden] = 0.75 + 0.25 * grey[hidden]  # outside of what the backbone sees
    axes.imshow(np.clip(mixed, 0, 1))
    axes.set_title(f"{figures.label(one.stream)}  {one.score:.3f}", fontweight="normal")
    if one.peak is not None:
        x, y = one.peak
        scale = image.width / one.size[0]
        axes.plot(x * scale, y * scale, "o", ms=9, mfc="none", mec=figures.INK, mew=1.4)


def _carried(one: Localization) -> str:
    if not one.carriers:
        return "the codes share no latent" if one.query.text else "silent on the whole image"
    return ", ".join(f"{latent} {name} {share:.0%}".replace("  ", " ") for latent, share, name in one.carriers)
