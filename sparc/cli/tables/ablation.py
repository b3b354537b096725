"""Table of the results of an ablation, followed by the best settings."""

from __future__ import annotations

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from sparc.ablation.grid import Cell, written
from sparc.ablation.metrics import SELECTED, Metric
from sparc.ablation.results import Results
from sparc.cli.tables.layout import NumberTable
from sparc.session.verbs import dry_warning

SIDE_BY_SIDE = 4
"""Most cells shown as columns; with more, cells are rows, and only the headline metrics are columns."""
ABOUT = (
    "joint     streams encoded together    solo  each alone    bold  the best mean\n"
    "J         Jaccard of labels, at the deepest depth unless noted\n"
    "NMSE, R@  means over streams or pairs"
)


def ablation_tables(results: Results) -> list[RenderableType]:
    """Return title, warning, table, and the best setting by each of the SELECTED metrics."""
    n_seeds = len(results.seeds)
    spread = "one seed" if n_seeds == 1 else f"mean ± standard deviation over {n_seeds} seeds"
    title = Text.assemble((f"{results.data['dataset']} {results.data['split']}", "bold"), f"  {spread}")
    parts: list[RenderableType] = ["", title]
    if weightless := results.data["random_weights"]:
        parts.append(Text(dry_warning(weightless), style="bold yellow"))
    few = len(results.cells) <= SIDE_BY_SIDE
    parts += ["", _columns(results) if few else _rows(results), Text(ABOUT, style="dim"), ""]
    return [*parts, *_winners(results)]


def _columns(results: Results) -> Table:
    """Return a table with a row per metric and a column per cell."""
    table = NumberTable(None, "\n".join(results.cells[0].values))
    for cell in results.cells:
        table.add_column(Text("\n".join(map(written, cell.values.values()))), justify="right", no_wrap=True)
    for metric in results.metrics:
        table.add_row(metric.title, *(_number(results, metric, cell) for cell in results.cells))
    return table


def _rows(results: Results) -> Table:
    """Return a table with a row per cell and a column per headline metric."""
    axis, *others = results.cells[0].values
    table = NumberTable(None, axis)
    for other in others:
        table.add_column(Text(other))
    metrics = [metric for metric in results.metrics if metric.headline]
    for metric in metrics:
        table.add_column(Text(metric.title), justify="right", no_wrap=True)
    for cell in results.cells:
        table.add_row(*map(written, cell.values.values()), *(_number(results, metric, cell) for metric in metrics))
    return table


def _number(results: Results, metric: Metric, cell: Cell) -> Text:
    return Text(_spread(results, metric, cell), style="bold" if results.is_best(metric, cell) else "")


def _spread(results: Results, metric: Metric, cell: Cell) -> str:
    spread = results.spread(metric, cell)
    if spread is None:
        return "-"
    text = f"{spread.mean:.{metric.digits}f}"
    return text if spread.sd is None else f"{text}±{spread.sd:.{metric.digits}f}".replace("±0.", "±.")


def _winners(results: Results) -> list[Text]:
    """Return one line per SELECTED metric that names the best setting."""
    lines = []
    for metric in results.metrics:
        if metric.name in SELECTED and (best := results.best(metric)):
            setting = ", ".join(f"{key} {written(value)}" for key, value in best.values.items())
            lines.append(Text(f"best {metric.title}: {setting}  ({_spread(results, metric, best)})"))
    return lines
