"""Results of an ablation: every metric of every run, mean and spread over seeds, and the best cell by each metric."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from sparc.ablation.grid import Cell, written
from sparc.ablation.metrics import METRICS, Metric, depth_metrics
from sparc.evaluation.report import EvaluationFile, Report
from sparc.storage.run import Run
from sparc.system.brief import Brief
from sparc.system.cells import csv_cell
from sparc.system.files import write_atomically, write_json


@dataclass(frozen=True)
class Spread:
    """A metric of a cell over its seeds."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return mean(self.values)

    @property
    def sd(self) -> float | None:
        """Sample standard deviation over seeds; None for a single seed."""
        return stdev(self.values) if len(self.values) > 1 else None


@dataclass(frozen=True, repr=False)
class Results(Brief):
    """Metrics of all cells."""

    cells: tuple[Cell, ...]
    seeds: tuple[int, ...]
    metrics: tuple[Metric, ...]
    """Metrics that at least one cell has."""
    spreads: Mapping[tuple[str, str], Spread]
    """Spread by metric name and cell name; absent if a run of the cell lacks the metric."""
    data: Mapping[str, Any]
    """Dataset and split of the held-out samples, and streams with random weights."""

    def spread(self, metric: Metric, cell: Cell) -> Spread | None:
        """Return a metric of a cell; None if one of its runs lacks the metric."""
        return self.spreads.get((metric.name, cell.name))

    def best(self, metric: Metric) -> Cell | None:
        """Return the cell with the best mean, the first on a tie; None if the metric has no better direction."""
        found = {cell.name: spread.mean for cell in self.cells if (spread := self.spread(metric, cell))}
        if metric.better is None or not found:
            return None
        best = min(found.values()) if metric.better == "lower" else max(found.values())
        return next(cell for cell in self.cells if found.get(cell.name) == best)

    def is_best(self, metric: Metric, cell: Cell) -> bool:
        """Return True if no cell has a better mean, and at least one has a worse mean."""
        best, own = self.best(metric), self.spread(metric, cell)
        means = {spread.mean for one in self.cells if (spread := self.spread(metric, one))}
        if best is None or own is None or len(means) == 1:
            return False
        top = self.spread(metric, best)
        return top is not None and own.mean == top.mean

    def to_json(self) -> dict[str, Any]:
        """Return plain data: metrics with their best cell, and cells with all their numbers."""
        metrics = {
            metric.name: {"title": metric.title, "better": metric.better, "best": best.name if best else None}
            for metric, best in ((metric, self.best(metric)) for metric in self.metrics)
        }
        cells = [
            {"name": cell.name, "values": cell.values, "metrics": dict(self._numbers(cell))} for cell in self.cells
        ]
        return {**self.data, "seeds": list(self.seeds), "metrics": metrics, "cells": cells}

    def write(self, folder: Path) -> list[Path]:
        """Write `results.json` and `results.csv` (one row per cell), and return their paths. Raises StorageError."""
        table, data = folder / "results.csv", folder / "results.json"
        write_json(data, self.to_json())
        write_atomically(table, self._write_csv)
        return [data, table]

    def _numbers(self, cell: Cell) -> Iterable[tuple[str, dict[str, Any]]]:
        for metric in self.metrics:
            if spread := self.spread(metric, cell):
                by_seed = dict(zip(map(str, self.seeds), spread.values, strict=True))
                yield metric.name, {"seeds": by_seed, "mean": spread.mean, "sd": spread.sd}

    def _write_csv(self, path: Path) -> None:
        axes = list(self.cells[0].values)
        names = [name for metric in self.metrics for name in (metric.name, f"{metric.name} sd")]
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(map(csv_cell, [*axes, "seeds", *names]))
            for cell in self.cells:
                row = [*map(written, cell.values.values()), str(len(self.seeds))]
                for metric in self.metrics:
                    spread = self.spread(metric, cell)
                    numbers = (spread.mean, spread.sd) if spread else (None, None)
                    row += ["" if number is None else repr(number) for number in numbers]
                writer.writerow(row)


def collect(cells: Sequence[Cell], seeds: Sequence[int], run: Callable[[Cell, int], Run]) -> Results:
    """Read the evaluations of all runs, at least one of which must exist. Raises CorruptFile.

    A cell with a missing run has no values.
    """
    reports: dict[str, list[Report]] = {cell.name: [] for cell in cells}
    content: dict[str, Any] = {}
    for cell, seed in product(cells, seeds):
        evaluation = run(cell, seed).evaluation
        if evaluation.is_file():
            file = EvaluationFile.read(evaluation)
            reports[cell.name].append(file.report)
            content = file.model_dump(mode="json", exclude={"report"})
    depths = max(len(report.jaccard) for of_cell in reports.values() for report in of_cell)
    spreads: dict[tuple[str, str], Spread] = {}
    for metric, (cell_name, of_cell) in product((*METRICS, *depth_metrics(depths)), reports.items()):
        values = [value for report in of_cell if (value := metric.read(report)) is not None]
        if len(values) == len(seeds):
            spreads[metric.name, cell_name] = Spread(tuple(values))
    there = {metric for metric, _ in spreads}
    found = tuple(metric for metric in (*METRICS, *depth_metrics(depths)) if metric.name in there)
    return Results(tuple(cells), tuple(seeds), found, spreads, content)
