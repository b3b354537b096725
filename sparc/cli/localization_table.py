"""A localisation benchmark as a table for people."""

from __future__ import annotations

from itertools import groupby
from operator import attrgetter

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sparc.cli.details import number, plain_table, with_reach
from sparc.localization import LocalizationReport
from sparc.localization.benchmark import WayReport

WORDS = {"caption": "by its caption", "concept": "by latents of its name", "": "without the space"}
LEGEND = (
    "pointing  queries whose map has its peak where the wanted is; ± 95%, by a bootstrap over images",
    "alike     correlation between the maps of different queries on one image: 1 where all see the same",
    "deletion, insertion  what is left of the match as the map's strongest places are blurred first, or come first",
)


def localization_table(report: LocalizationReport, *, title: str) -> RenderableType:
    """Title, a table per stream, what was refused and why, and what the columns are."""
    parts: list[RenderableType] = [
        Text.assemble((title, "bold"), f"  {report.images} {report.what}; a blind guess is right {report.chance:.3f}")
    ]
    for stream, ways in groupby(report.ways, key=attrgetter("stream")):
        parts += ["", _stream(stream, list(ways), report.match)]
    parts += ["", *(Text(line, style="dim") for line in LEGEND)]
    parts += [Text(f"not measured  {reason}", style="dim") for reason in report.refused.values()]
    return Group(*parts)


def _stream(stream: str, ways: list[WayReport], match: float) -> Table:
    headers = ("pointing", "mIoU", f"AP@{match:.1f}", "alike", "deletion", "insertion")
    table = plain_table(f"Pointing with {stream}", "", *headers)
    for target, rows in groupby(ways, key=attrgetter("target")):
        table.add_row(Text(WORDS[target], style="dim"))
        for way in rows:
            pointing = with_reach(way.pointing, way.pointing_interval)
            table.add_row(
                Text(f"  {way.method}{f', {way.selection}' if target == 'caption' else ''}"),
                pointing,
                *(number(value) for value in (way.miou, way.map, way.likeness, way.deletion, way.insertion)),
            )
    return table
