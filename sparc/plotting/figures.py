"""Plots as files: one look for all of them, PNG to show and SVG to print, the same bytes from the same numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sparc.errors import InvalidConfig
from sparc.system.files import storage_error, write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase

Numbers = Sequence[float | None]
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")
"""Of Okabe and Ito: told apart by people with any colour vision."""
GREY = "#8a8a8a"
"""For nulls and chance."""
INK, PALE = "#26262b", "#e6e6ea"
"""For words and axes; for guides and for what is empty."""
WIDTH = 8.0
"""Inches, so that the smallest words are readable where a page shows a picture 800 pixels wide."""
DASH = "–"
"""Stands where there is no number."""
SETTINGS: Any = {
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "grid.color": PALE,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "figure.titlesize": 10,
    "figure.labelsize": 9,
    "figure.constrained_layout.hspace": 0.06,
    "savefig.dpi": 150,
    "svg.hashsalt": "sparc",  # else ids in the file are drawn anew each time
    "svg.fonttype": "none",
}


@contextmanager
def look() -> Iterator[None]:
    """Within it, axes, titles and legends are made in our look, whatever the user's own settings of matplotlib are."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        yield


def new_figure(width: float, height: float) -> Figure:
    """Make an empty figure of this size in inches, laid out by itself; nothing is shown on a screen."""
    from matplotlib.figure import Figure

    with look():
        return Figure(figsize=(width, height), layout="constrained")


def save(figure: Figure, path: Path) -> list[Path]:
    """Write `path` with .png and .svg; returns both. Raises StorageError."""
    for file in files(path):
        write(figure, file)
        figure.set_layout_engine("none")  # the next file looks the same
    return files(path)


def check_name(file: Path) -> str:
    """Return the kind of picture that a file's name ends with. Raises InvalidConfig for one that cannot be written."""
    from matplotlib.backend_bases import FigureCanvasBase

    kind = file.suffix[1:].lower()
    known = FigureCanvasBase.get_supported_filetypes()
    if kind not in known:
        raise InvalidConfig(f"expected a picture's name, found {file}", hint=f"end it with .png, or {', '.join(known)}")
    return kind


def write(figure: Figure, file: Path) -> None:
    """Write one file, of the kind that its name ends with, such as .png, .svg or .pdf.

    Raises StorageError; InvalidConfig for a kind that matplotlib does not know.
    """
    kind = check_name(file)
    metadata = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}.get(kind)
    with look():
        write_atomically(file, partial(figure.savefig, format=kind, metadata=metadata))


def discard(path: Path) -> None:
    """Remove what `save` wrote, where there is such. Raises StorageError."""
    for file in files(path):
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(file, error) or error from error


def files(path: Path) -> list[Path]:
    """What `save` writes."""
    return [path.with_name(f"{path.name}.{suffix}") for suffix in ("png", "svg")]


def number(value: float | None, digits: int = 3) -> str:
    """Write a number for people: a dash for none, and no sign before a zero."""
    if value is None:
        return DASH
    return f"{value:.0e}" if abs(value) >= 1000 else f"{round(value, digits) + 0.0:.{digits}f}"


def label(name: str, longest: int = 20) -> str:
    """Make a name fit beside an axis, and mean itself: matplotlib would read what is between two $ as a formula."""
    if len(name) > longest:
        name = f"{name[: longest // 2]}…{name[-((longest - 1) // 2) :]}"
    return name.replace("$", r"\$")


def heat_map(axes: Axes, cells: Sequence[Numbers], names: Sequence[str], colour: str, high: float) -> None:
    """Draw a square matrix with its numbers in the cells, from white at 0 to `colour` at `high` and above."""
    from matplotlib.colors import LinearSegmentedColormap, Normalize, to_hex, to_rgb

    red, green, blue = (0.3 + 0.7 * part for part in to_rgb(colour))  # so pale that dark words can be read on it
    scale = LinearSegmentedColormap.from_list("scale", ["#fbfbfb", to_hex((red, green, blue))]).with_extremes(bad=PALE)
    axes.pcolormesh(np.array(cells, dtype=float), cmap=scale, norm=Normalize(0, high), edgecolors="white", linewidth=2)
    size, digits = (9, 3) if len(names) <= 4 else (8, 2)
    for (row, column), cell in np.ndenumerate(np.array(cells, dtype=object)):
        axes.text(column + 0.5, row + 0.5, number(cell, digits), ha="center", va="center", fontsize=size)
    ticks, labels = [place + 0.5 for place in range(len(names))], [label(name) for name in names]
    slanted: Any = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if crowded(names) else {}
    axes.set_xticks(ticks, labels, **slanted)
    axes.set(yticks=ticks, yticklabels=labels, ylim=(len(names), 0))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def crowded(names: Sequence[str]) -> bool:
    """Whether names have no room side by side under half a figure."""
    return max(len(label(name)) for name in names) * len(names) > 38


def rows(axes: Axes, names: Sequence[str], heads: Sequence[int] = ()) -> list[int]:
    """Make the y axis a list of names from top to bottom, those at `heads` bold, as they are above a group.

    Returns the places of the others.
    """
    places = [place for place in range(len(names)) if place not in heads]
    axes.set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.5, -0.5))
    for head in heads:
        axes.yaxis.get_major_ticks()[head].label1.set_fontweight("bold")
    axes.hlines(places, 0, 1, PALE, linewidth=0.8, zorder=0, transform=axes.get_yaxis_transform())
    bare_left(axes)
    return places


def paired_rows(axes: Axes, pairs: Iterable[tuple[str, str]]) -> list[int]:
    """Make a row of each second, below the first, which those have in common that follow each other."""
    names: list[str] = []
    heads: list[int] = []
    for first, group in groupby(pairs, key=itemgetter(0)):
        heads.append(len(names))
        names += [first, *(second for _, second in group)]
    return rows(axes, names, heads)


def bare_left(axes: Axes) -> None:
    """Leave names on the y axis, without a line and ticks."""
    axes.tick_params(axis="y", length=0, pad=6)
    axes.spines["left"].set_visible(False)


class Mark(NamedTuple):
    """What stands for one kind of number, in the plot and in its legend; open where the number is of chance."""

    words: str
    colour: str
    marker: str
    open: bool = False


def dots(axes: Axes, values: Numbers, places: Sequence[float], mark: Mark) -> None:
    """Draw a mark at each place on the y axis, whole at 0 and above its chance; none where there is no number."""
    face, edge, width = ("white", mark.colour, 1.1) if mark.open else (mark.colour, "white", 0.6)
    style: Any = {"mfc": face, "mec": edge, "mew": width, "clip_on": False, "zorder": 2.5 if mark.open else 3}
    axes.plot(np.array(values, dtype=float), places, mark.marker, label=mark.words, **style)


def curve(axes: Axes, places: Sequence[float], values: Numbers, mark: Mark, intervals: Sequence[Any] = ()) -> None:
    """Draw a line over places on the x axis, with bars for intervals; a dash stands where there is no number."""
    style: Any = {"color": mark.colour, "zorder": 2 if mark.open else 3}
    line: Any = {"linestyle": "--", "markerfacecolor": "white"} if mark.open else {}
    line |= {"marker": mark.marker, "markersize": 4.5, "label": mark.words}
    axes.plot(places, np.array(values, dtype=float), **line, **style)
    for place, interval in zip(places, intervals, strict=False):
        if interval is not None:
            axes.plot([place, place], interval, marker="_", linewidth=1.2, **style)
    for place, value in zip(places, values, strict=True):
        if value is None and not mark.open:
            axes.annotate(DASH, (place, 0), (7, 2), textcoords="offset points", ha="center", fontweight="bold", **style)


class Part(NamedTuple):
    """A part of a whole, which is counted in several ways."""

    words: str
    counts: Sequence[int]
    colour: str


def composition(bars: Axes, table: Axes, parts: Sequence[Part], ways: Sequence[str], lines: float) -> None:
    """Draw a stacked bar for each way, and the parts' names and counts in the same order as a table of `lines` high."""
    places, before = range(len(ways)), [0] * len(ways)
    for part in parts:
        bars.barh(places, part.counts, left=before, color=part.colour, edgecolor="white", linewidth=0.8, height=0.72)
        before = [so_far + count for so_far, count in zip(before, part.counts, strict=True)]
    bars.set(yticks=places, yticklabels=ways, ylim=(len(ways) - 0.5, -0.5), xlim=(0, max(before)))
    bare_left(bars)
    columns = [1 - 0.14 * place for place in reversed(places)]
    for x, way in zip(columns, ways, strict=True):
        table.text(x, 0.5, way, ha="right", va="center", fontweight="bold")
    y = 1.5
    for part in parts:
        table.barh(y, 0.035, height=0.62, color=part.colour)
        for x, count in zip(columns, part.counts, strict=True):
            table.text(x, y, str(count), ha="right", va="center")
        for line in part.words.splitlines():
            table.text(0.06, y, line, va="center")
            y += 1
    table.set(xlim=(0, 1), ylim=(max(lines, y), 0))
    table.axis("off")


def shades(count: int) -> list[str]:
    """Colours from dark to light, for parts in an order."""
    from matplotlib.colors import LinearSegmentedColormap, to_hex

    scale = LinearSegmentedColormap.from_list("scale", ["#00543d", COLOURS[2], "#bfe6d9"])
    return [to_hex(colour) for colour in scale(np.linspace(0, 1, count))]


def from_zero(axes: Axes) -> None:
    """Let the x axis begin at 0, and hold all that is drawn."""
    axes.set_xlim(0, axes.get_xlim()[1])


def headline(figure: FigureBase, words: str) -> None:
    """Say above all axes what they show; their own titles are plain then."""
    figure.suptitle(words, x=0.012, ha="left", fontweight="bold")


def legend(figure: FigureBase, *axes: Axes, where: str = "center") -> None:
    """Explain below all axes the marks of these."""
    handles = [handle for each in axes for handle in each.get_legend_handles_labels()[0]]
    place: Any = f"outside lower {where}"
    figure.legend(handles=handles, loc=place, ncols=5)
