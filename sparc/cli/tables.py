"""An evaluation as tables for people: compact, and honest about what joint and solo mean."""

from __future__ import annotations

from itertools import permutations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sparc.evaluate.report import Ranks, Report

LEGEND = (
    "joint  streams of a sample encoded together, as in the paper: latents are shared",
    "solo   each stream encoded alone, as in a search",
    "null   the same on shuffled pairs: what is left of it when nothing matches",
)


def evaluation_tables(report: Report, *, title: str, caption: str = "") -> list[RenderableType]:
    """Title, reconstruction, alignment and retrieval; `caption` is a warning that stands above all."""
    size = f"{report.samples} held-out samples, {report.n_latents} latents, {report.k} kept"
    parts: list[RenderableType] = [Text.assemble((title, "bold"), f"  {size}, {report.selection} selection")]
    if caption:
        parts.append(Text(caption, style="bold yellow"))
    parts += ["", _reconstruction(report)]
    if report.jaccard:
        parts += ["", _alignment(report)]
    parts += ["", _latents(report)]
    if report.retrieval:
        parts += ["", _retrieval(report)]
    parts += ["", *(Text(line, style="dim") for line in LEGEND)]
    return [Group(*parts)]


def _reconstruction(report: Report) -> Table:
    """A row per pair of streams, self before cross."""
    table = _table("Reconstruction", "from → to", "joint NMSE", "R²", "solo NMSE", "R²")
    pairs = [(name, name) for name in report.streams] + list(permutations(report.streams, 2))
    for source, target in pairs:
        cells = []
        for encoded in (report.joint, report.solo):
            cells += [_number(encoded.nmse[source][target]), _number(encoded.r2[source][target])]
        table.add_row(Text(f"{source} → {target}"), *cells)
    return table


def _alignment(report: Report) -> Table:
    """A row per depth; over all latents, then over those alive."""
    kinds = ("joint", "null", "solo", "null")
    headers = [
        f"{over if number == 0 else ''}\n{kind}" for over in ("all", "alive") for number, kind in enumerate(kinds)
    ]
    table = _table("Alignment: Jaccard of labels, over all and over alive latents", "\ndepth", *headers)
    for row in report.jaccard:
        overlaps = (row.joint, row.joint_null, row.solo, row.solo_null)
        over_all = [_number(overlap.all) for overlap in overlaps]
        table.add_row(str(row.depth), *over_all, *(_number(overlap.alive) for overlap in overlaps))
    return table


def _latents(report: Report) -> Table:
    """Which latents are alive, and how many are active in a sample."""
    active = [f"\n{name}" if number else f"active per sample\n{name}" for number, name in enumerate(report.streams)]
    table = _table("Latents", "", "\nalive in all", "\nin some", "\ndead", *active)
    for way, encoded in (("joint", report.joint), ("solo", report.solo)):
        counts = (encoded.alive, encoded.mixed, encoded.dead)
        table.add_row(way, *map(str, counts), *(f"{encoded.l0[name]:.1f}" for name in report.streams))
    return table


def _retrieval(report: Report) -> Table:
    """A row per ordered pair of streams; on latents, then on cross-reconstruction, then chance."""
    table = _table("Retrieval, solo", "search with → in", "R@1", "R@5", "R@10", "median rank", "MRR")
    for title, kind in (("by latents", "latents"), ("by cross-reconstruction", "cross")):
        table.add_row(Text(title, style="italic"))
        for pair in report.retrieval:
            table.add_row(Text(f"{pair.query} → {pair.target}"), *_ranks(getattr(pair, kind)))
    for name, ranks in _chances(report).items():
        table.add_row(Text(name), *_ranks(ranks), style="dim")
    return table


def _chances(report: Report) -> dict[str, Ranks]:
    """One line where all pairs have the same chance; where samples lack streams, one for each two streams."""
    first, *others = report.retrieval
    if all(pair.chance == first.chance for pair in others):
        return {f"chance, of {first.candidates}": first.chance}
    # Which of the two is searched makes no difference: the samples that have both are the candidates.
    two = {frozenset((pair.query, pair.target)): pair for pair in reversed(report.retrieval)}
    return {
        f"chance, {pair.query} ↔ {pair.target}, of {pair.candidates}": pair.chance for pair in reversed(two.values())
    }


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim")
    table.add_column(first, no_wrap=True)
    for header in others:
        table.add_column(Text(header), justify="right", no_wrap=True)
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _ranks(ranks: Ranks) -> list[str]:
    return [_number(ranks.r1), _number(ranks.r5), _number(ranks.r10), f"{ranks.median:.0f}", _number(ranks.mrr)]
