"""The curves of a training, `training.png` in its run: losses on batches and on held-out samples, and dead latents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sparc.plotting import figures
from sparc.plotting.figures import COLOURS, WIDTH, Mark, label, look, new_figure
from sparc.storage.run import Run
from sparc.storage.training_log import HELD_OUT, Record, read_log

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANELS = {
    "loss": "Loss",
    "self": "NMSE, from its own code",
    "cross": "NMSE, from another's code",
    "aux": "AuxK, from dead latents",
    "dead": "Dead latents",
}
"""Title of each panel, by the part of a metric's name before `/`."""
MOST_SERIES = 6
"""Series of a panel that have a line of their own; of more, their mean is drawn."""


def draw_curves(run: Run) -> Path | None:
    """Draw the curves of a run's log into the run, and return the picture; None if nothing was logged.

    Raises StorageError.
    """
    records, _ = read_log(run.metrics)
    panels = [name for name in PANELS if any(_names(records, name))]
    if not panels:
        return None
    with look():
        figure = new_figure(WIDTH, 0.6 + 2.1 * -(-len(panels) // 2))
        figures.headline(figure, "Solid: on batches of the training. Dashed: on held-out samples, without dropout.")
        grid = figure.subplots(-(-len(panels) // 2), 2, squeeze=False, sharex=True).flatten()
        for axes, name in zip(grid, panels, strict=False):
            _panel(axes, records, name)
        for axes in grid[len(panels) :]:
            axes.axis("off")
    figures.write(figure, run.curves)
    return run.curves


def _names(records: Sequence[Record], panel: str) -> tuple[list[str], list[str]]:
    """Return the metrics of a panel: those on batches, and those on held-out samples."""
    names = dict.fromkeys(name for record in records for name in record)
    own = [name for name in names if name.partition("/")[0] == panel]
    return own, [name for name in names if name.removeprefix(HELD_OUT).partition("/")[0] == panel and name not in own]


def _panel(axes: Axes, records: Sequence[Record], panel: str) -> None:
    """Draw a line for each stream or pair, dashed on held-out samples."""
    own, held_out = _names(records, panel)
    for names, held in ((own, False), (held_out, True)):
        groups = [[name] for name in names] if len(names) <= MOST_SERIES else [names]
        for number, members in enumerate(groups):
            words = members[0].removeprefix(HELD_OUT).partition("/")[2] if len(members) == 1 else "mean"
            words = "" if held and own else " → ".join(map(label, words.split("->")))  # once in the legend
            _line(axes, records, members, Mark(words, COLOURS[number % len(COLOURS)], "o" if held else "", open=held))
    axes.set_title(PANELS[panel])
    axes.xaxis.set_tick_params(labelbottom=True)
    axes.set(xlabel="step", ylim=(0, 1.12 * max(0.01, axes.get_ylim()[1])))
    axes.grid(axis="y")
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize=7, loc="best")


def _line(axes: Axes, records: Sequence[Record], names: Sequence[str], mark: Mark) -> None:
    """Draw the mean of some metrics over the steps at which they were logged."""
    points = []
    for record in records:
        values = [record[name] for name in names if name in record]
        if values:
            points.append((record["step"], sum(values) / len(values)))
    steps, means = zip(*points, strict=True)
    few = "o" if len(points) < 3 else mark.marker
    dashes = "--" if mark.open else "-"
    axes.plot(
        steps, means, dashes, marker=few, markersize=3, color=mark.colour, linewidth=1.2, label=mark.words or None
    )
