"""One plot per axis of an ablation: headline metrics over its values, one line per combination of the other axes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparc.ablation.grid import Cell, Grid, Value, written
from sparc.ablation.metrics import Metric
from sparc.ablation.results import Results
from sparc.plotting import figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SPREAD = 4
"""Smallest ratio of the largest to the smallest value for which an axis is logarithmic."""
STYLES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
CHARACTERS = 100
"""Characters that fit in one line of the legend."""


def draw(results: Results, grid: Grid, folder: Path) -> list[Path]:
    """Write `axis-KEY.png` and `.svg` for each axis, and return their paths. Raises StorageError."""
    metrics = [metric for metric in results.metrics if metric.headline]
    if not metrics:
        return []
    return [
        path for axis in grid for path in figures.save(_figure(results, grid, axis, metrics), folder / f"axis-{axis}")
    ]


def _figure(results: Results, grid: Grid, axis: str, metrics: list[Metric]) -> Any:
    columns = len(metrics) if len(metrics) <= 3 else 2
    lines = math.ceil(len(metrics) / columns)
    figure = figures.new_figure(figures.WIDTH, 2.6 * lines)
    with figures.look():
        panels = figure.subplots(lines, columns, squeeze=False).flat
        for panel, metric in zip(panels, metrics, strict=True):
            _panel(panel, results, grid, axis, metric)
        if len(grid) > 1:
            handles, labels = panels[0].get_legend_handles_labels()
            columns = max(1, CHARACTERS // (max(map(len, labels)) + 6))
            figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)
    return figure


def _panel(panel: Axes, results: Results, grid: Grid, axis: str, metric: Metric) -> None:
    values = grid[axis]
    places = _places(values)
    for number, (label, cells) in enumerate(_lines(results, grid, axis)):
        spreads = [
            (place, spread)
            for place, cell in zip(places, cells, strict=True)
            if (spread := results.spread(metric, cell))
        ]
        panel.errorbar(
            [place for place, _ in spreads],
            [spread.mean for _, spread in spreads],
            yerr=[spread.sd or 0 for _, spread in spreads],
            label=label,
            color=figures.COLOURS[number % len(figures.COLOURS)],
            linestyle=STYLES[number // len(figures.COLOURS) % len(STYLES)],
            marker=MARKERS[number % len(MARKERS)],
            markersize=5,
            alpha=0.8,  # keeps overlapping lines visible
            capsize=2,
        )
    panel.set_title(metric.title)
    panel.set_xlabel(axis)
    if _logarithmic(values):
        panel.set_xscale("log", base=2)
    panel.set_xticks(places, [written(value) for value in values])
    panel.set_xticks([], minor=True)
    panel.margins(x=0.1)


def _lines(results: Results, grid: Grid, axis: str) -> Iterator[tuple[str, list[Cell]]]:
    """Yield each combination of the other axes: its name, and its cells in the order of the axis's values."""
    by_name = {tuple(cell.values.items()): cell for cell in results.cells}
    others = [key for key in grid if key != axis]
    for combination in product(*(grid[key] for key in others)):
        fixed = dict(zip(others, combination, strict=True))
        cells = [by_name[tuple((key, {**fixed, axis: value}[key]) for key in grid)] for value in grid[axis]]
        yield ", ".join(f"{key} {written(value)}" for key, value in fixed.items()), cells


def _places(values: list[Value]) -> list[float]:
    """Return positions on the axis: numbers at their value, words at 0, 1, 2, ..."""
    return [float(place if isinstance(value, str) else value) for place, value in enumerate(values)]


def _logarithmic(values: list[Value]) -> bool:
    numbers = [value for value in values if not isinstance(value, str)]
    return len(numbers) == len(values) and min(numbers) > 0 and max(numbers) >= SPREAD * min(numbers)
