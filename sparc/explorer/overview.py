"""The run as a whole: its training curves, and the measures of its evaluation, each with a line on how to read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sparc.evaluation.report import CodeMeasures, Overlap, Report
from sparc.explorer.shown import evenly
from sparc.explorer.statements import significant
from sparc.storage.training_log import HELD_OUT, read_log

_NO_CURVES = ("step", "epoch")
"""Keys of a log that are no curves but the axis."""
_RATE = "lr"
"""Key of the learning rate, a curve only if it changes."""
MOST_STEPS = 500
"""Logged steps drawn, evenly spread."""
_CURVES = {
    "loss": ("Loss", "The sum of all terms that training minimises; it should fall, then flatten."),
    "self": (
        "Rebuilt from its own code",
        "Error of each stream rebuilt from its own code, as a share of the features' energy: 0 is perfect.",
    ),
    "cross": (
        "Rebuilt from another stream's code",
        "Error of each stream rebuilt from the code of another; it stays above the error from its own code.",
    ),
    "aux": ("Auxiliary loss", "Error that dead latents are trained to explain; it brings them back to life."),
    "dead": ("Dead latents", "Latents that no recent sample activated; fewer is better."),
    _RATE: ("Learning rate", "Length of the optimiser's steps; the loss flattens as it falls."),
}
"""Label and reading of each group of curves: the part of the metric's name before `/`."""


def curves(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Return the curves of a training log, and the number of its lines that are damaged. Empty without a log."""
    records, damaged = read_log(path)
    if not records:
        return [], damaged
    records = [records[place] for place in evenly(len(records), MOST_STEPS)]
    keys = list(dict.fromkeys(key for record in records for key in record if key not in _NO_CURVES))
    if len({record.get(_RATE) for record in records} - {None}) < 2:
        keys = [key for key in keys if key != _RATE]
    groups: dict[str, list[str]] = {}
    for key in sorted(keys, key=lambda key: key.startswith(HELD_OUT)):
        groups.setdefault(key.removeprefix(HELD_OUT).split("/", 1)[0], []).append(key)
    steps = [record["step"] for record in records]
    return [
        {
            "name": group,
            "label": _CURVES.get(group, (group, ""))[0],
            "x": steps,
            "series": [
                {"name": _shown(key), "values": [significant(record.get(key)) for record in records]} for key in members
            ],
            "read": _CURVES.get(group, ("", f"The metric '{group}' of the training log."))[1],
        }
        for group, members in groups.items()
    ], damaged


def _shown(key: str) -> str:
    own = key.removeprefix(HELD_OUT)
    return own.split("/", 1)[-1].replace("->", " → ") + (", held out" if own != key else "")


def measures(report: Report | None) -> list[dict[str, Any]]:
    """Return the measures of a report, the solo ones before the joint ones. Empty without a report."""
    if report is None:
        return []
    found = [*_latents(report), *_codes("solo", report.solo, "each stream encoded alone")]
    found += _codes("joint", report.joint, "all streams of a sample encoded together")
    for depth in report.jaccard:
        found.append(_jaccard("solo", depth.depth, depth.solo, depth.solo_null, "each stream encoded alone"))
    for depth in report.jaccard:
        how = "all streams of a sample encoded together, which alone makes most of the overlap"
        found.append(_jaccard("joint", depth.depth, depth.joint, depth.joint_null, how))
    for one in report.retrieval:
        found.append(
            _measure(
                f"retrieval {one.query}>{one.target}",
                f"{one.query} finds {one.target}, R@1",
                one.latents.r1,
                f"Share of the searches by {one.query} whose first find is right, by the cosine of the codes; the null "
                "is a random order.",
                null=one.chance.r1,
            )
        )
    return found


def _jaccard(kind: str, depth: int, overlap: Overlap, null: Overlap, how: str) -> dict[str, Any]:
    return _measure(
        f"{kind} jaccard {depth}",
        f"Jaccard at depth {depth}, {kind}",
        overlap.all,
        f"Overlap of two streams in the labels of the samples that activate a latent, {how}; the {kind} null is the "
        "same on shuffled pairs, and only what is above it is agreement.",
        null=null.all,
    )


def _latents(report: Report) -> list[dict[str, Any]]:
    found = [
        _measure(
            "alive",
            "Latents alive in every stream",
            report.solo.alive,
            f"Of {report.n_latents:,} latents, those that fire in every stream on held-out samples, each stream "
            "encoded alone.",
        ),
        _measure("dead", "Dead latents", report.solo.dead, "Latents that fire in no stream.", better="lower"),
    ]
    if (sharing := report.sharing) is not None:
        found.append(
            _measure(
                "cofiring",
                "Streams fire together, solo",
                sharing.cofiring,
                "Of the samples that activate a latent in either of two streams, the share that does in both; the null "
                "is the same on shuffled pairs.",
                null=sharing.cofiring_null,
            )
        )
        found.append(
            _measure(
                "duplicates",
                "Latents with a duplicate",
                sharing.duplicates,
                "Latents whose decoder is nearly that of another, all streams side by side.",
                better="lower",
            )
        )
    if report.concepts is not None and report.concepts.rule == "enrichment":
        concepts = report.concepts
        found.append(
            _measure(
                "named",
                "Latents with a confirmed name",
                concepts.confirmed,
                "A label found on one half of the images and confirmed on the other.",
            )
        )
        found.append(
            _measure(
                "purity",
                "Purity of names",
                concepts.purity,
                "Share of a latent's images that have its label, on images that did not choose it.",
            )
        )
    return found


def _codes(kind: str, codes: CodeMeasures, how: str) -> list[dict[str, Any]]:
    found = []
    for source, targets in codes.nmse.items():
        for target, value in targets.items():
            own = source == target
            read = (
                f"Error of {target} rebuilt from {'its own' if own else f'the {source}'} code, {how}, as a share of "
                "the features' energy: 0 is perfect."
            )
            label = f"NMSE {source}" if own else f"NMSE {source} → {target}"
            found.append(_measure(f"{kind} nmse {source}>{target}", f"{label}, {kind}", value, read, better="lower"))
    return found


def _measure(
    name: str, label: str, value: float | None, read: str, *, null: float | None = None, better: str = "higher"
) -> dict[str, Any]:
    return {
        "name": name,
        "label": label,
        "value": significant(value, 7),
        "null": significant(null, 7),
        "better": better,
        "read": read,
    }
