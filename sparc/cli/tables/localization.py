"""Tables of a localisation benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sparc.cli.progress import console
from sparc.cli.tables.details import number, with_reach
from sparc.cli.tables.layout import NumberTable
from sparc.session.verbs import dry_warning

if TYPE_CHECKING:
    from sparc.localization.benchmark.report import LatentsReport, LocalizationFile, LocalizationReport, WayReport

TARGETS = {"caption": "by its caption", "concept": "by latents of its name", "": "without the space"}
LEGEND = (
    "pointing  share of queries whose map peaks inside the target; ± 95% interval, bootstrap over images",
    "alike     correlation between the maps of different queries on one image: 1 if all maps are equal",
    "deletion, insertion  share of the match left as the map's strongest places are removed, or added, first;",
    "          it may exceed 1; a random map gives the baseline",
)

LATENTS_LEGEND = (
    "queries: a latent that only one image of the canvas keeps, one per image, in thirds by how often it fires",
    "kept by   share of images that keep the latent, each encoded alone",
    "broad     share of the grid above half of the map's range: 1 if the map is constant",
)


def print_localization(file: LocalizationFile) -> None:
    """Print the tables of a run's localisation benchmark."""
    title, caption = f"{file.dataset} {file.split}", dry_warning(file.random_weights) if file.random_weights else ""
    for one in (file.report, file.parts):
        if one is not None:
            console.print()
            console.print(localization_table(one, title=title, caption=caption))
    if file.latents:
        console.print()
        console.print(latents_table(file.latents))


def localization_table(report: LocalizationReport, *, title: str, caption: str = "") -> RenderableType:
    """Return title, warning, one table per stream, the legend, and the methods that were refused with the reason."""
    parts: list[RenderableType] = [
        Text.assemble((title, "bold"), f"  {report.images} {report.what}; a blind guess is right {report.chance:.3f}")
    ]
    if caption:
        parts.append(Text(caption, style="bold yellow"))
    for stream, ways in groupby(report.ways, key=attrgetter("stream")):
        parts += ["", _stream(stream, list(ways), report.match)]
    parts += ["", *(Text(line, style="dim") for line in LEGEND)]
    if report.layers is not None:
        parts.append(Text(f"relevance  through the last {_layers(report.layers)} only", style="dim"))
    parts += [Text(f"not measured  {reason}", style="dim") for reason in report.refused.values()]
    return Group(*parts)


def _layers(count: int) -> str:
    return "layer" if count == 1 else f"{count} layers"


def _stream(stream: str, ways: list[WayReport], match: float | None) -> Table:
    precision = () if match is None else (f"AP@{match:.1f}",)
    headers = ("pointing", "mIoU", *precision, "alike", "deletion", "insertion")
    table = NumberTable(f"Pointing with {stream}", "", *headers)
    for target, rows in groupby(ways, key=attrgetter("target")):
        table.add_row(Text(TARGETS[target], style="dim"))
        for way in rows:
            pointing = with_reach(way.pointing, way.pointing_interval)
            maps = () if match is None else (way.map,)
            table.add_row(
                Text(f"  {way.method}{f', {way.selection}' if way.selection else ''}"),
                pointing,
                *(number(value) for value in (way.miou, *maps, way.likeness, way.deletion, way.insertion)),
            )
    return table


def latents_table(reports: Sequence[LatentsReport]) -> RenderableType:
    """Tabulate how well maps of single latents point, by thirds of the queries, one table per stream."""
    parts: list[RenderableType] = [Text("Latents, seldom to frequent", style="bold")]
    for stream, of_stream in groupby(reports, key=attrgetter("stream")):
        table = NumberTable(f"Pointing with {stream} at what a latent stands for", "", "kept by", "pointing", "broad")
        for method, rows in groupby(of_stream, key=attrgetter("method")):
            for row in rows:
                table.add_row(
                    Text(f"  {method}"), *(number(value) for value in (row.frequency, row.pointing, row.breadth))
                )
        parts += ["", table]
    return Group(*parts, "", *(Text(line, style="dim") for line in LATENTS_LEGEND))
