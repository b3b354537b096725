"""Plots of a report. Every number is drawn beside the null or the chance level that it must beat."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparc.plotting import figures
from sparc.plotting.figures import COLOURS, GREY, INK, PALE, WIDTH, Mark, Segment, label, look, new_figure, number, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

    from sparc.evaluation.report import DepthOverlap, Probes, PurityConcepts, Report

JOINT, SOLO = Mark("joint", COLOURS[0], "o"), Mark("solo", COLOURS[1], "s")
LINEAR, MLP = Mark("linear", COLOURS[2], "o"), Mark("MLP", COLOURS[3], "D")
SEARCHES = {
    "latents": Mark("latents", COLOURS[2], "o"),
    "reconstruction": Mark("reconstruction", COLOURS[4], "s"),
    "cross": Mark("cross-reconstruction", COLOURS[3], "D"),
    "raw": Mark("raw features", COLOURS[7], "^"),
}
NAMED_PATTERNS = 6
"""Patterns with a segment of their own; the others share one, because many streams have too many patterns to read."""


def draw(report: Report, folder: Path) -> list[Path]:
    """Write a plot, PNG and SVG, of each section of the report, and remove the plots of sections it lacks.

    Returns the paths written. Raises StorageError.
    """
    written = []
    for name, drawing in DRAWINGS.items():
        with look():
            figure = drawing(report)
        if figure is None:
            figures.discard(folder / name)
        else:
            written += save(figure, folder / name)
    return written


def reconstruction(report: Report) -> Figure:
    """Draw NMSE above R² for every pair of streams, joint beside solo, on one colour scale."""
    streams = report.streams
    row = 0.9 if len(streams) < 4 else 0.72
    figure = new_figure(WIDTH, 1.5 + row * len(streams) + 0.6 * figures.crowded(streams))
    grid = figure.subplots(2, 2, sharex=True, sharey=True)
    measures = (("nmse", "NMSE, {}: lower is better", COLOURS[1]), ("r2", "R², {}: higher is better", COLOURS[0]))
    for line, (measure, title, colour) in zip(grid, measures, strict=True):
        both = [getattr(way, measure) for way in (report.joint, report.solo)]
        known = [cell for matrix in both for row in matrix.values() for cell in row.values() if cell is not None]
        for axes, way, matrix in zip(line, ("joint", "solo"), both, strict=True):
            cells = [[matrix[source][target] for target in streams] for source in streams]
            figures.heat_map(axes, cells, streams, colour, high=min(1.0, max([0.01, *known])))
            axes.set_title(title.format(way))
    figure.supxlabel("rebuilt stream (target)")
    figure.supylabel("from (source)")
    return figure


def alignment(report: Report) -> Figure | None:
    """Draw the Jaccard overlap of labels by depth, with its intervals and its nulls."""
    if not report.jaccard:
        return None
    figure = new_figure(WIDTH, 3.6)
    over_all, over_alive = figure.subplots(1, 2, sharey=True)
    _overlaps(over_all, report.jaccard, "all")
    _overlaps(over_alive, report.jaccard, "alive")
    over_all.set(title="Over all latents, as in the paper", ylabel="Jaccard overlap of labels (bars: 95%)")
    over_alive.set_title("Over latents alive in two streams")
    figures.legend(figure, over_all)
    return figure


def _overlaps(axes: Axes, depths: Sequence[DepthOverlap], over: str) -> None:
    """Draw the four kinds of overlap, slightly apart so that their bars do not hide each other."""
    for mark, aside in ((JOINT, -0.04), (SOLO, 0.04)):
        places = [depth.depth + aside for depth in depths]
        found = [getattr(depth, mark.words) for depth in depths]
        nulls = [getattr(depth, f"{mark.words}_null") for depth in depths]
        null = Mark(f"{mark.words}, shuffled pairs", GREY, mark.marker, open=True)
        intervals = [getattr(overlap, f"{over}_interval") for overlap in found]
        figures.curve(axes, places, [getattr(overlap, over) for overlap in found], mark, intervals)
        figures.curve(axes, places, [getattr(overlap, over) for overlap in nulls], null)
    axes.set(xlabel="depth of the labels", xticks=[depth.depth for depth in depths], ylim=(0, 1.02))
    axes.set_xlim(depths[0].depth - 0.3, depths[-1].depth + 0.3)
    axes.grid(axis="y")


def latents(report: Report) -> Figure:
    """Draw the streams that latents are alive in; beside it, the overlap of index sets between streams."""
    segments = _segments(report)
    pairs = report.sharing.overlaps if report.sharing else ()
    bar, line = 0.9, 0.2
    lines = 1.5 + sum(len(one.words.splitlines()) for one in segments)
    height = max(bar + line * lines, line * (len({pair.first for pair in pairs}) + len(pairs)))
    figure = new_figure(WIDTH, height + 0.9)
    layout: Any = [["bars", "overlap"], ["table", "overlap"]] if pairs else [["bars"], ["table"]]
    widths = [1.7, 1] if pairs else [1]
    panels = figure.subplot_mosaic(layout, height_ratios=[bar, height - bar], width_ratios=widths)
    figures.composition(panels["bars"], panels["table"], segments, ("joint", "solo"), (height - bar) / line)
    panels["bars"].set_title(f"Where {report.n_latents} latents are alive")
    if pairs:
        axes = panels["overlap"]
        overlaps, nulls = ([getattr(pair, which) for pair in pairs] for which in ("overlap", "null"))
        places = figures.paired_rows(axes, [(f"{label(pair.first)} and", label(pair.second)) for pair in pairs])
        axes.hlines(places, nulls, overlaps, GREY, linewidth=1)
        figures.dots(axes, overlaps, places, SOLO)
        figures.dots(axes, nulls, places, Mark("shuffled pairs", GREY, "o", open=True))
        figures.from_zero(axes)
        axes.set(title="Overlap of index sets", xlabel="Jaccard, mean over samples")
        figures.legend(figure, axes, where="right")
    return figure


def _segments(report: Report) -> list[Segment]:
    """Return the segments that all latents fall into, from those alive in all streams to the dead."""
    ways = (report.joint, report.solo)
    found = [{pattern.streams: pattern.latents for pattern in way.patterns} for way in ways]
    counts = {streams: [way.get(streams, 0) for way in found] for both in found for streams in both}
    largest = sorted(counts, key=lambda streams: (-sum(counts[streams]), streams))
    named, rest = sorted(largest[:NAMED_PATTERNS], key=len, reverse=True), largest[NAMED_PATTERNS:]
    entries = [("alive in all" if len(report.streams) > 1 else "alive", [way.alive for way in ways])]
    entries += [(_belonging(streams, report.streams), counts[streams]) for streams in named]
    if rest:
        sums = [sum(counts[streams][way] for streams in rest) for way in range(2)]
        entries.append((f"{len(rest)} other sets of streams", sums))
    segments = [Segment(*entry, shade) for entry, shade in zip(entries, figures.shades(len(entries)), strict=True)]
    return [*segments, Segment("dead", [way.dead for way in ways], PALE)]


def _belonging(streams: Sequence[str], every: Sequence[str]) -> str:
    """Describe a pattern by its streams, or by the missing streams if that is shorter."""
    missing = [label(name) for name in every if name not in streams]
    if 1 < len(streams) > len(missing):
        words = f"all but {', '.join(missing)}"
    else:
        words = ("only " if len(streams) == 1 else "") + " and ".join(map(label, streams))
    return textwrap.fill(words, 34, break_on_hyphens=False)


def retrieval(report: Report) -> Figure | None:
    """Draw recall at 1, 5 and 10 for every pair of streams, by every way of comparing."""
    if not report.retrieval:
        return None
    pairs = report.retrieval
    lines = len({pair.query for pair in pairs}) + len(pairs)
    figure = new_figure(WIDTH, 1.3 + lines * (0.28 if lines < 12 else 0.22))
    grid = figure.subplots(1, 3, sharex=True, sharey=True)
    for axes, cut in zip(grid, ("r1", "r5", "r10"), strict=True):
        names = [(f"with {label(pair.query)}", f"in {label(pair.target)}") for pair in pairs]
        places = figures.paired_rows(axes, names)
        for aside, (kind, mark) in zip((-0.18, -0.06, 0.06, 0.18), SEARCHES.items(), strict=True):
            values = [getattr(getattr(pair, kind), cut, None) for pair in pairs]  # `raw` may be None
            if any(value is not None for value in values):
                figures.dots(axes, values, [place + aside for place in places], mark)
        tops, bottoms = [place - 0.5 for place in places], [place + 0.5 for place in places]
        chances = [getattr(pair.chance, cut) for pair in pairs]
        axes.vlines(chances, tops, bottoms, GREY, linewidth=1.5, label="chance", zorder=1)
        axes.set_title(f"R@{cut[1:]}", fontweight="normal")
    figures.from_zero(grid[0])
    figures.headline(figure, "Retrieval: search with one stream in another, each encoded alone")
    figures.legend(figure, grid[0])
    return figure


def concepts(report: Report) -> Figure | None:
    """Draw, per depth, the labels that name a latent, and the share of named latents that frequent labels take."""
    if not (found := report.concepts):
        return None
    if found.rule == "purity":
        return _purity(report, found)
    depths = found.depths
    figure = new_figure(WIDTH, 1.9 + 0.5 * len(depths))
    counts, shares = figure.subplots(1, 2, sharey=True, width_ratios=[1.6, 1])
    places = figures.rows(counts, [f"depth {depth.depth}" for depth in depths])
    tick = 0.006 * max(depth.labels for depth in depths)
    ticks = [depth.effective - tick for depth in depths]
    counts.barh(places, [depth.labels for depth in depths], 0.36, color=PALE, label="labels")
    counts.barh(places, [depth.taken for depth in depths], 0.36, color=COLOURS[2], label="of these, names of latents")
    counts.barh(places, tick, 0.36, ticks, color=INK, label="effective number of names")
    shares.barh(places, [depth.frequent_share or 0 for depth in depths], 0.36, color=COLOURS[2])
    shares.axvline(0.1, color=GREY, linewidth=1.5, label="a tenth", zorder=0)
    for place, depth in zip(places, depths, strict=True):
        counts.text(0, place - 0.33, f"{depth.taken} of {depth.labels}, effective {depth.effective:.1f}", va="center")
        end = max(0.1, depth.frequent_share or 0)
        shares.text(end + 0.02, place, number(depth.frequent_share, 2), va="center")
    figures.from_zero(counts)
    counts.locator_params(axis="x", integer=True)
    figures.bare_left(shares)
    counts.set_xlabel("labels")
    shares.set(xlabel="share that the most frequent tenth takes", xlim=(0, 1.1), xticks=[0, 0.2, 0.4, 0.6, 0.8, 1])
    size = f"{found.named} of {report.n_latents}, {found.confirmed} confirmed"
    figures.headline(figure, f"Latents named by {found.rule}: {size}")
    figures.legend(figure, counts, shares)
    return figure


def _purity(report: Report, found: PurityConcepts) -> Figure:
    """Draw, per stream, the latents that the paper's rule names, and the labels that it names them after."""
    figure = new_figure(WIDTH, 1.4 + 0.4 * len(found.streams))
    axes = figure.subplots()
    places = figures.rows(axes, [label(stream) for stream in found.streams])
    names = found.streams.values()
    for words, aside, colour, counts in (
        ("latents with a name", -0.17, PALE, [one.named for one in names]),
        ("labels that are names", 0.17, COLOURS[2], [one.taken for one in names]),
    ):
        bars = axes.barh([place + aside for place in places], counts, 0.32, color=colour, label=words)
        axes.bar_label(bars, padding=3)
    axes.margins(x=0.08)  # room for the numbers
    figures.from_zero(axes)
    axes.locator_params(axis="x", integer=True)
    size = f"{found.agreed} of {report.n_latents} alike in all streams"
    figures.headline(figure, f"Latents named by the paper's rule: {size}")
    figures.legend(figure, axes)
    return figure


def probes(report: Report) -> Figure | None:
    """Draw the log-loss of the best latent per label, and below it the precision of the classifiers."""
    if not report.probes:
        return None
    drawings = [_single, _classifiers] if report.probes.classifiers else [_single]
    figure = new_figure(WIDTH, len(drawings) * (1.4 + 0.26 * len(report.streams)))
    for drawing, place in zip(drawings, figure.subfigures(len(drawings), 1, squeeze=False)[:, 0], strict=True):
        drawing(place, report.probes, report.streams)
    return figure


def _single(figure: SubFigure, found: Probes, streams: Sequence[str]) -> None:
    axes = figure.subplots()
    places = figures.rows(axes, [label(name) for name in streams])
    for mark, aside in ((JOINT, -0.1), (SOLO, 0.1)):
        losses = found.single.get(mark.words, {})
        figures.dots(axes, [losses.get(name) for name in streams], [place + aside for place in places], mark)
    axes.axvline(math.log(2), color=GREY, linewidth=1.5, label="predicting 1/2, ln 2", zorder=1)
    figures.from_zero(axes)
    figures.headline(figure, "Best single latent for a label: log-loss, lower is better")
    figures.legend(figure, axes)


def _classifiers(figure: SubFigure, found: Probes, streams: Sequence[str]) -> None:
    """Draw a row per target stream; a row of cross-reconstruction has a mark per source stream."""
    kinds = list(dict.fromkeys(one.features for one in found.classifiers))
    grid = figure.subplots(1, len(kinds), sharex=True, sharey=True, squeeze=False)[0]
    for axes, kind in zip(grid, kinds, strict=True):
        group = [one for one in found.classifiers if one.features == kind]
        place = dict(zip(streams, figures.rows(axes, [label(name) for name in streams]), strict=True))
        figures.dots(axes, [one.linear for one in group], [place[one.target] - 0.16 for one in group], LINEAR)
        figures.dots(axes, [one.mlp for one in group], [place[one.target] + 0.16 for one in group], MLP)
        axes.axvline(found.chance, color=GREY, linewidth=1.5, label="chance", zorder=1)
        axes.set_title(kind, fontweight="normal")
        if any(one.source != one.target for one in group):
            axes.set_xlabel("from each other stream")
    figures.from_zero(grid[0])
    figures.headline(figure, "All features read for a label: mean average precision, higher is better")
    figures.legend(figure, grid[0])


DRAWINGS: dict[str, Callable[[Report], Figure | None]] = {
    drawing.__name__: drawing for drawing in (reconstruction, alignment, latents, retrieval, concepts, probes)
}
"""Drawings by file name. A drawing returns None if the report lacks its section."""
