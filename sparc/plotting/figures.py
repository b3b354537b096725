"""One look for all plots, saved as PNG for the screen and SVG for print; equal numbers give equal bytes."""

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
from sparc.plotting.fonts import covering
from sparc.system.files import write_output
from sparc.system.refusals import writing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase

Numbers = Sequence[float | None]
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")
"""The palette of Okabe and Ito, which readers with any colour vision can tell apart."""
GREY = "#8a8a8a"
"""Colour of nulls and of chance."""
INK, PALE = "#26262b", "#e6e6ea"
"""Colour of words and axes; colour of guides and of empty cells."""
WIDTH = 8.0
"""Inches. The smallest words stay readable if a page shows the picture 800 pixels wide."""
DASH = "–"
"""Text in place of a missing number."""
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
    "svg.hashsalt": "sparc",  # without it, the ids in the file are random
    "svg.fonttype": "none",
}


@contextmanager
def look() -> Iterator[None]:
    """Apply our settings within a `with` block, whatever the user's own settings of matplotlib are."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        yield


def new_figure(width: float, height: float) -> Figure:
    """Make an empty figure of this size in inches, with automatic layout and no window."""
    from matplotlib.figure import Figure

    with look():
        return Figure(figsize=(width, height), layout="constrained")


def save(figure: Figure, path: Path) -> list[Path]:
    """Write `path`.png and `path`.svg; return both paths. Raises StorageError."""
    for file in files(path):
        write(figure, file)
        figure.set_layout_engine("none")  # keep this layout for the next file
    return files(path)


def check_name(file: Path) -> str:
    """Return the format named by a file's suffix, such as png. Raises InvalidConfig if matplotlib cannot write it."""
    from matplotlib.backend_bases import FigureCanvasBase

    kind = file.suffix[1:].lower()
    known = FigureCanvasBase.get_supported_filetypes()
    if kind not in known:
        raise InvalidConfig(f"expected a picture's name, found {file}", hint=f"end it with .png, or {', '.join(known)}")
    return kind


def write(figure: Figure, file: Path) -> None:
    """Write one file, in the format of its suffix, such as .png, .svg or .pdf.

    Raises StorageError; InvalidConfig for a format that matplotlib does not know.
    """
    kind = check_name(file)
    metadata = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}.get(kind)
    with look(), covering(figure):
        write_output(file, partial(figure.savefig, format=kind, metadata=metadata))


def discard(path: Path) -> None:
    """Remove the files that `save` writes, if they exist. Raises StorageError."""
    for file in files(path):
        with writing(file):
            file.unlink(missing_ok=True)


def files(path: Path) -> list[Path]:
    """Return the paths that `save` writes."""
    return [path.with_name(f"{path.name}.{suffix}") for suffix in ("png", "svg")]


def number(value: float | None, digits: int = 3) -> str:
    """Format a number: a dash for None, no minus sign before zero."""
    if value is None:
        return DASH
    return f"{value:.0e}" if abs(value) >= 1000 else f"{round(value, digits) + 0.0:.{digits}f}"


def label(name: str, longest: int = 20) -> str:
    """Shorten a name to fit beside an axis, and escape $, which matplotlib reads as the start of a formula."""
    if len(name) > longest:
        name = f"{name[: longest // 2]}…{name[-((longest - 1) // 2) :]}"
    return name.replace("$", r"\$")


def heat_map(axes: Axes, cells: Sequence[Numbers], names: Sequence[str], colour: str, high: float) -> None:
    """Draw a square matrix with its numbers, coloured from white at 0 to `colour` at `high` and above."""
    from matplotlib.colors import LinearSegmentedColormap, Normalize, to_hex, to_rgb

    red, green, blue = (0.3 + 0.7 * part for part in to_rgb(colour))  # pale enough for dark numbers
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
    """Return True if the names do not fit side by side under half a figure."""
    return max(len(label(name)) for name in names) * len(names) > 38


def rows(axes: Axes, names: Sequence[str], heads: Sequence[int] = ()) -> list[int]:
    """List names down the y axis, the group headings at `heads` in bold; return the places of the other names."""
    places = [place for place in range(len(names)) if place not in heads]
    axes.set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.5, -0.5))
    for head in heads:
        axes.yaxis.get_major_ticks()[head].label1.set_fontweight("bold")
    axes.hlines(places, 0, 1, PALE, linewidth=0.8, zorder=0, transform=axes.get_yaxis_transform())
    bare_left(axes)
    return places


def paired_rows(axes: Axes, pairs: Iterable[tuple[str, str]]) -> list[int]:
    """List the second names of pairs down the y axis, grouped below their first name; return their places."""
    names: list[str] = []
    heads: list[int] = []
    for first, group in groupby(pairs, key=itemgetter(0)):
        heads.append(len(names))
        names += [first, *(second for _, second in group)]
    return rows(axes, names, heads)


def bare_left(axes: Axes) -> None:
    """Remove the line and the ticks of the y axis, and keep its labels."""
    axes.tick_params(axis="y", length=0, pad=6)
    axes.spines["left"].set_visible(False)


class Mark(NamedTuple):
    """The symbol of one kind of number, in the plot and in its legend; an open symbol stands for a null."""

    words: str
    colour: str
    marker: str
    open: bool = False


def dots(axes: Axes, values: Numbers, places: Sequence[float], mark: Mark) -> None:
    """Draw a mark at each place on the y axis, above nulls and not clipped at 0; no mark for None."""
    face, edge, width = ("white", mark.colour, 1.1) if mark.open else (mark.colour, "white", 0.6)
    style: Any = {"mfc": face, "mec": edge, "mew": width, "clip_on": False, "zorder": 2.5 if mark.open else 3}
    axes.plot(np.array(values, dtype=float), places, mark.marker, label=mark.words, **style)


def curve(axes: Axes, places: Sequence[float], values: Numbers, mark: Mark, intervals: Sequence[Any] = ()) -> None:
    """Draw a line over places on the x axis, with bars for intervals, and a dash for None."""
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


class Segment(NamedTuple):
    """One segment of the stacked bars of `composition`, with a count per bar."""

    words: str
    counts: Sequence[int]
    colour: str


def composition(bars: Axes, table: Axes, segments: Sequence[Segment], ways: Sequence[str], lines: float) -> None:
    """Draw a stacked bar for each way, and below it a table, `lines` high, of the segments' names and counts."""
    places, before = range(len(ways)), [0] * len(ways)
    for one in segments:
        bars.barh(places, one.counts, left=before, color=one.colour, edgecolor="white", linewidth=0.8, height=0.72)
        before = [so_far + count for so_far, count in zip(before, one.counts, strict=True)]
    bars.set(yticks=places, yticklabels=ways, ylim=(len(ways) - 0.5, -0.5), xlim=(0, max(before)))
    bare_left(bars)
    columns = [1 - 0.14 * place for place in reversed(places)]
    for x, way in zip(columns, ways, strict=True):
        table.text(x, 0.5, way, ha="right", va="center", fontweight="bold")
    y = 1.5
    for one in segments:
        table.barh(y, 0.035, height=0.62, color=one.colour)
        for x, count in zip(columns, one.counts, strict=True):
            table.text(x, y, str(count), ha="right", va="center")
        for line in one.words.splitlines():
            table.text(0.06, y, line, va="center")
            y += 1
    table.set(xlim=(0, 1), ylim=(max(lines, y), 0))
    table.axis("off")


def shades(count: int) -> list[str]:
    """Return `count` colours from dark to light, for ordered segments."""
    from matplotlib.colors import LinearSegmentedColormap, to_hex

    scale = LinearSegmentedColormap.from_list("scale", ["#00543d", COLOURS[2], "#bfe6d9"])
    return [to_hex(colour) for colour in scale(np.linspace(0, 1, count))]


def from_zero(axes: Axes) -> None:
    """Start the x axis at 0."""
    axes.set_xlim(0, axes.get_xlim()[1])


def headline(figure: FigureBase, words: str) -> None:
    """Write a title above all axes; the axes' own titles are then plain."""
    figure.suptitle(words, x=0.012, ha="left", fontweight="bold")


def legend(figure: FigureBase, *axes: Axes, where: str = "center") -> None:
    """Draw one legend for the marks of these axes, below all axes."""
    handles = [handle for each in axes for handle in each.get_legend_handles_labels()[0]]
    place: Any = f"outside lower {where}"
    figure.legend(handles=handles, loc=place, ncols=5)
