"""The tables of an evaluation that `sparc evaluate` shows and `sparc train` omits."""

from __future__ import annotations

import math

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from sparc.cli.tables.layout import NumberTable
from sparc.evaluation.report import (
    Classifier,
    CodeMeasures,
    Concepts,
    Interval,
    Probes,
    PurityConcepts,
    Report,
    Sharing,
)


def details(report: Report) -> list[RenderableType]:
    """Return tables of patterns, sharing, concepts and probes, as far as they were measured."""
    parts: list[RenderableType] = []
    if len(report.streams) > 1:
        parts += ["", _patterns(report.joint, report.solo, report.streams)]
    if report.sharing is not None:
        parts += ["", _sharing(report.sharing)]
    if isinstance(report.concepts, PurityConcepts):
        parts += ["", _purity(report.concepts), _note(_of_purity(report.concepts))]
    elif report.concepts is not None:
        parts += ["", _concepts(report.concepts), _note(_of_concepts(report.concepts))]
    if report.probes is not None:
        parts += ["", _single(report.probes, report.streams), _note(_of_single(report.probes))]
        if report.probes.classifiers:
            parts += ["", _classifiers(report.probes), _note(_of_classifiers(report.probes))]
    return parts


def _note(text: str) -> Text:
    return Text(text, style="dim")


def number(value: float | None) -> str:
    """Format a number with three decimals, None as a dash."""
    return "-" if value is None else f"{value:.3f}"


def with_reach(value: float, interval: Interval | None) -> str:
    """Format a number and the longer arm of its 95% interval."""
    if interval is None:
        return number(value)
    return f"{number(value)}±{max(value - interval[0], interval[1] - value):.3f}".replace("±0.", "±.")


def _patterns(joint: CodeMeasures, solo: CodeMeasures, streams: tuple[str, ...]) -> Table:
    """Tabulate mixed latents by the streams in which they are active, and dead latents by stream."""
    counts = [{pattern.streams: pattern.latents for pattern in encoded.patterns} for encoded in (joint, solo)]
    table = NumberTable("Latents, stream by stream", "", "joint", "solo")
    for pattern in dict.fromkeys(name for found in counts for name in found):
        table.add_row(Text(f"active in {', '.join(pattern)} only"), *(str(found.get(pattern, 0)) for found in counts))
    for name in streams:
        table.add_row(Text(f"never active in {name}"), str(joint.dead_in[name]), str(solo.dead_in[name]))
    return table


def _sharing(found: Sharing) -> Table:
    """Tabulate how much streams share when each selects its own latents."""
    table = NumberTable("Sharing, solo", "", "", "null")
    for pair in found.overlaps:
        table.add_row(
            Text(f"overlap of active latents, {pair.first} ↔ {pair.second}"), number(pair.overlap), number(pair.null)
        )
    table.add_row(
        "active in both of two streams, mean over latents", number(found.cofiring), number(found.cofiring_null)
    )
    table.add_row("entropy of a latent over the streams, 1 is even", number(found.entropy))
    table.add_row("latents active in two streams or more", str(found.shared))
    for name, count in found.only.items():
        table.add_row(Text(f"latents active in {name} only"), str(count))
    table.add_row("latents with a duplicate", str(found.duplicates))
    return table


def _concepts(found: Concepts) -> Table:
    """Tabulate the names of latents by depth, and how evenly they spread over the labels."""
    table = NumberTable(
        f"Concepts by {found.rule}",
        "\ndepth",
        "\nlabels",
        "latents\nnamed",
        "\nhold",
        "labels\ntaken",
        "\neffective",
        "taken by\nfrequent",
        "rank\ncorrelation",
    )
    for row in found.depths:
        table.add_row(
            *map(str, (row.depth, row.labels, row.named, row.confirmed, row.taken)),
            f"{row.effective:.1f}",
            "-" if row.frequent_share is None else f"{row.frequent_share:.0%}",
            number(row.frequency_correlation),
        )
    return table


def _of_concepts(found: Concepts) -> str:
    mean = "" if found.purity is None or found.lift is None else f"; purity {found.purity:.2f}, lift {found.lift:.1f}"
    return (
        f"{found.confirmed} of {found.named} names hold on images not used to find them{mean}\n"
        "taken by frequent: share of the names that go to the most frequent tenth of the labels\n"
        "rank correlation: between the number of a label's images and the number of latents it names"
    )


def _purity(found: PurityConcepts) -> Table:
    """Tabulate the names of latents by the paper's rule, stream by stream."""
    table = NumberTable("Concepts by purity, joint", "", "latents named", "labels taken", "effective", "purity", "lift")
    for stream, names in found.streams.items():
        values = (f"{names.effective:.1f}", number(names.purity), number(names.lift))
        table.add_row(Text(stream), str(names.named), str(names.taken), *values)
    return table


def _of_purity(found: PurityConcepts) -> str:
    return (
        f"{found.agreed} latents have the same name in every stream\n"
        "the paper's rule: a label that 0.3 or more of a latent's 50 strongest labelled samples have\n"
        "lift: purity over the label's frequency, 1 for a name that says nothing; measured on the same samples"
    )


def _single(found: Probes, streams: tuple[str, ...]) -> Table:
    """Tabulate the log-loss of the best single latent for a label."""
    table = NumberTable("1-D probes: log-loss of the best latent", "", *streams)
    for way, losses in found.single.items():
        table.add_row(way, *(number(losses.get(name)) for name in streams))
    return table


def _of_single(found: Probes) -> str:
    return f"mean over {found.labels} labels, classes balanced; predicting 1/2 gives {math.log(2):.3f}"


def _classifiers(found: Probes) -> Table:
    """Tabulate the mean average precision of classifiers on features and codes."""
    table = NumberTable("Classifiers: mean average precision", "features", "linear", "MLP")
    for one in found.classifiers:
        table.add_row(Text(_features(one)), number(one.linear), number(one.mlp))
    return table


def _of_classifiers(found: Probes) -> str:
    return f"{found.labels} labels, {found.train} training and {found.test} test samples; chance {found.chance:.3f}"


def _features(one: Classifier) -> str:
    seen = one.source if one.source == one.target else f"{one.source} → {one.target}"
    return f"{one.features}, {seen}"
