"""Localizations as a picture: the image, where each stream sees what was looked for, and the words it hangs on."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from sparc import figures
from sparc.attribute.localize import Localization

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

PANEL = 2.4
"""Inches of an image's side."""
PIXELS = 480
"""Of an image's longer side in the picture."""
WORDS = 40
"""Words that are shown at most."""


def draw(found: Sequence[Localization], open_image: Callable[[str], Image.Image] | None = None) -> Figure:
    """Draw localizations: a row per image and query, the image first and then each stream's map on it.

    open_image: from `Localization.image` to the image; where it is left out, that is a path.
    """
    rows = [list(group) for _, group in groupby(found, key=lambda one: (one.image, one.query))]
    across = 1 + max(len(row) for row in rows)
    figure = figures.new_figure(PANEL * across + 0.3, (PANEL + 1.1) * len(rows))
    with figures.look():
        for part, row in zip(figure.subfigures(len(rows), squeeze=False).ravel(), rows, strict=True):
            _draw_row(part, row, across, _shown(row[0], open_image or Image.open))
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write the picture, of the kind that its name ends with. Raises StorageError, InvalidConfig."""
    figures.write(figure, path)


def _shown(one: Localization, open_image: Callable[[Any], Image.Image]) -> Image.Image:
    image = open_image(one.image).convert("RGB")
    image.thumbnail((PIXELS, PIXELS))
    return image


def _draw_row(part: SubFigure, row: Sequence[Localization], across: int, image: Image.Image) -> None:
    figures.headline(part, figures.label(str(row[0].query), 70))
    axes = part.subplots(1, across, squeeze=False)[0]
    for each in axes:
        each.axis("off")
    axes[0].imshow(image)
    axes[0].set_title(" ", fontweight="normal")
    for each, one in zip(axes[1:], row, strict=False):
        _overlay(each, one, image)
    lines = [f"{one.stream}: {_carried(one)}" for one in row]
    if row[0].words:
        lines.insert(0, _words(row[0]))
    part.supxlabel("\n".join(lines).replace("$", r"\$"), x=0.012, ha="left", fontsize=8, color=figures.INK)


def _overlay(axes: Axes, one: Localization, image: Image.Image) -> None:
    """The image in pale grey, what the map shows in colour, and a ring around its peak."""
    grey = np.asarray(image.convert("L"), np.float32)[..., None].repeat(3, axis=2) / 255
    values = one.on_image(image.size)
    low, high = np.nanmin(values), np.nanmax(values)
    strength = np.nan_to_num((values - low) / (high - low) if high > low else np.zeros_like(values))
    hidden = np.isnan(values)
    warm = np.array([0.84, 0.27, 0.0], np.float32)  # as figures.COLOURS[1], stronger
    pale = 1 - 0.55 * (1 - grey)
    alpha = (0.85 * strength**1.5)[..., None]
    mixed = pale * (1 - alpha) + warm * alpha * (0.45 + 0.55 * grey)
    mixed[hidden] = 0.5 + 0.5 * grey[hidden]
    axes.imshow(np.clip(mixed, 0, 1))
    axes.set_title(f"{figures.label(one.stream)}  {one.score:.3f}", fontweight="normal")
    if high > low:
        x, y = one.peak
        scale = image.width / one.size[0]
        axes.plot(x * scale, y * scale, "o", ms=9, mfc="none", mec=figures.INK, mew=1.4)


def _carried(one: Localization) -> str:
    if not one.carriers:
        return "no latent in common" if one.query.text else "silent"
    return ", ".join(
        f"{carrier.latent}{f' {carrier.name}' if carrier.name else ''} {carrier.share:.0%}" for carrier in one.carriers
    )


def _words(one: Localization) -> str:
    best = sorted(one.words, key=lambda word: -word.relevance)[:WORDS]
    told = ", ".join(f"{word.text.strip(',:;.')} {word.relevance:.0%}" for word in best[:6])
    return textwrap.shorten(f"words: {told}", 160)
