"""Tables of an evaluation, with a legend that separates joint from solo numbers."""

from __future__ import annotations

from itertools import permutations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sparc.cli.output import say
from sparc.cli.progress import console
from sparc.cli.tables.details import details, number, with_reach
from sparc.cli.tables.layout import NumberTable
from sparc.cli.tables.summary import mean_nmse
from sparc.evaluation.faults import faults, width_of_few
from sparc.evaluation.report import DepthOverlap, EvaluationFile, Ranks, Report, Retrieval, Uncompleted
from sparc.session.verbs import dry_warning
from sparc.storage.run import Run

LEGEND = (
    "joint  streams of a sample encoded together, as in the paper: latents are shared",
    "solo   each stream encoded alone, as in a search",
    "null   the same on shuffled pairs: the value without any correspondence",
    "±      95% interval, bootstrap over samples",
)
_GUESSED = "; completion guesses the others"
"""Addition to the line of `solo` for a space with a completion."""


def evaluation_tables(
    report: Report, *, title: str, caption: str = "", everything: bool = False
) -> list[RenderableType]:
    """Return the tables of `sparc train`, or all tables if `everything`; `caption` is a warning at the top."""
    size = f"{report.samples} held-out samples, {report.n_latents} latents, {report.k} kept"
    parts: list[RenderableType] = [Text.assemble((title, "bold"), f"  {size}, {report.selection} selection")]
    if caption:
        parts.append(Text(caption, style="bold yellow"))
    parts += ["", _reconstruction(report)]
    if report.jaccard:
        parts += ["", _alignment(report)]
    parts += ["", _latents(report)]
    if everything:
        parts += details(report)
    if report.retrieval:
        parts += ["", _retrieval(report, everything=everything)]
    if report.uncompleted is not None:
        parts += ["", _completion(report, report.uncompleted)]
    parts += ["", *(Text(line, style="dim") for line in _legend(report))]
    return [Group(*parts)]


def _legend(report: Report) -> list[str]:
    """Return the lines of the legend, for what the tables show."""
    shown = {"null": bool(report.jaccard), "±": any(_has_interval(row) for row in report.jaccard)}
    return [
        line + (_GUESSED if line.startswith("solo") and report.uncompleted else "")
        for line in LEGEND
        if shown.get(line.split()[0], True)
    ]


def _has_interval(row: DepthOverlap) -> bool:
    return any(overlap.all_interval is not None for overlap in (row.joint, row.solo))


def print_evaluation(run: Run, *, everything: bool | None = None) -> None:
    """Print the tables of a run's evaluation: all of them if `everything`, by default as much as was measured."""
    file = EvaluationFile.read(run.evaluation)
    everything = bool(file.report.probes and file.report.probes.classifiers) if everything is None else everything
    title = f"{file.dataset} {file.split}"
    caption = dry_warning(file.random_weights) if file.random_weights else ""
    console.print()
    for table in evaluation_tables(file.report, title=title, caption=caption, everything=everything):
        console.print(table)
    few = width_of_few(file.report)
    for line in ([few] if few is not None else []) + faults(file.report):
        say(console, line, style="yellow", indent=0)


def _reconstruction(report: Report) -> Table:
    """Return a table with a row per ordered pair of streams, self before cross."""
    table = NumberTable("Reconstruction", "\nfrom → to", "joint\nNMSE", "\nR²", "solo\nNMSE", "\nR²")
    pairs = [(name, name) for name in report.streams] + list(permutations(report.streams, 2))
    for source, target in pairs:
        cells = []
        for encoded in (report.joint, report.solo):
            cells += [number(encoded.nmse[source][target]), number(encoded.r2[source][target])]
        table.add_row(Text(f"{source} → {target}"), *cells)
    return table


def _alignment(report: Report) -> Table:
    """Return a table with a row per depth, over all latents and over alive ones."""
    kinds = ("\njoint", "joint\nnull", "\nsolo", "solo\nnull")
    headers = [f"{over if place == 0 else ''}\n{kind}" for over in ("all", "alive") for place, kind in enumerate(kinds)]
    table = NumberTable("Alignment: Jaccard of labels, over all and over alive latents", "\n\ndepth", *headers)
    for row in report.jaccard:
        overlaps = (row.joint, row.joint_null, row.solo, row.solo_null)
        over_all = [
            number(overlap.all) if kind.endswith("null") else with_reach(overlap.all, overlap.all_interval)
            for kind, overlap in zip(kinds, overlaps, strict=True)
        ]
        table.add_row(str(row.depth), *over_all, *(number(overlap.alive) for overlap in overlaps))
    return table


def _completion(report: Report, uncompleted: Uncompleted) -> Table:
    """Return a table of the solo measures without and with completion; means over streams, and over pairs of them."""
    table = NumberTable("Completion of missing streams, solo", "", "without, as in the paper", "with")
    both = (uncompleted.codes, report.solo)
    for title, same in (("self NMSE", True), ("cross NMSE", False)):
        table.add_row(title, *(number(mean_nmse(codes, same=same)) for codes in both))
    for plain, completed in zip(uncompleted.jaccard, report.jaccard, strict=True):
        overlaps = [(row.solo.all, row.solo_null.all) for row in (plain, completed)]
        title = f"Jaccard at depth {plain.depth} (null)"
        table.add_row(title, *(f"{number(overlap)} ({number(null)})" for overlap, null in overlaps))
    for title, rank in (("R@1 by latents", "r1"), ("R@10 by latents", "r10")):
        found = [[getattr(pair.latents, rank) for pair in pairs] for pairs in (uncompleted.retrieval, report.retrieval)]
        if all(found):
            table.add_row(title, *(number(sum(ranks) / len(ranks)) for ranks in found))
    return table


def _latents(report: Report) -> Table:
    """Tabulate alive, mixed and dead latents, and the mean number of active latents per sample."""
    active = [f"\n{name}" if place else f"active per sample\n{name}" for place, name in enumerate(report.streams)]
    table = NumberTable("Latents", "", "\nalive in all", "\nin some", "\ndead", *active)
    for way, encoded in (("joint", report.joint), ("solo", report.solo)):
        counts = (encoded.alive, encoded.mixed, encoded.dead)
        table.add_row(way, *map(str, counts), *(f"{encoded.l0[name]:.1f}" for name in report.streams))
    return table


def _retrieval(report: Report, *, everything: bool) -> Table:
    """Return a table with a row per ordered pair of streams, by latents, by cross-reconstruction, then chance."""
    table = NumberTable("Retrieval, solo", "search with → in", "R@1", "R@5", "R@10", "median rank", "MRR")
    kinds = {"latents": "by latents", "cross": "by cross-reconstruction"}
    if everything:
        kinds |= {"reconstruction": "by reconstruction", "raw": "by features, without latents"}
    for kind, title in kinds.items():
        found = [(pair, ranks) for pair in report.retrieval if (ranks := getattr(pair, kind)) is not None]
        if found:
            table.add_row(Text(title, style="italic"))
        for pair, ranks in found:
            table.add_row(Text(f"{pair.query} → {pair.target}"), *_ranks(ranks))
    for name, ranks in _chances(report).items():
        table.add_row(Text(name), *_ranks(ranks), style="dim")
    return table


def _chances(report: Report) -> dict[str, Ranks]:
    """Return chance by title: one line if all pairs agree, else one per two streams or per direction."""
    first, *others = report.retrieval
    if all(_chance(pair) == _chance(first) for pair in others):
        return {f"chance, of {first.candidates}": first.chance}
    by_names = {(pair.query, pair.target): pair for pair in report.retrieval}
    lines: dict[str, Ranks] = {}
    for (query, target), pair in by_names.items():
        back = by_names.get((target, query))
        if back is None or _chance(back) != _chance(pair):
            lines[f"chance, {query} → {target}, of {pair.candidates}"] = pair.chance
        elif f"chance, {target} ↔ {query}, of {pair.candidates}" not in lines:
            lines[f"chance, {query} ↔ {target}, of {pair.candidates}"] = pair.chance
    return lines


def _chance(pair: Retrieval) -> tuple[int, Ranks]:
    return pair.candidates, pair.chance


def _ranks(ranks: Ranks) -> list[str]:
    return [number(ranks.r1), number(ranks.r5), number(ranks.r10), f"{ranks.median:.0f}", number(ranks.mrr)]
