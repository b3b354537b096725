"""Tables of what a space recovers of planted data."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from sparc.benchmarks.planted import DepthAgreement, Recovery
from sparc.benchmarks.recovery import Directions
from sparc.cli.tables.details import number
from sparc.cli.tables.layout import NumberTable

LEGEND = (
    "own     latents that suit a stream best; one: a latent for all streams. Above: share with |cosine| above 0.9",
    "fitted  least squares from the true strengths in the training samples: how much of a direction they hold",
    "joint   streams of a sample encoded together; solo: each stream encoded alone; uncompleted: solo without guesses",
    "oracle  orthogonal matching pursuit with the true directions, k per sample, above the best threshold",
    "null    the same on shuffled pairs",
)


def recovery_tables(found: Recovery) -> Iterator[RenderableType]:
    """Yield the tables of directions, supports and agreement, and a legend."""
    yield Text(
        f"{found.train_samples:,} training samples, {found.samples:,} held-out samples with {found.active:.1f} of "
        f"{found.concepts} shared concepts each"
    )
    yield ""
    yield _directions(found)
    yield ""
    yield _supports(found)
    if found.agreement:
        yield ""
        yield _agreement(found.agreement)
    yield ""
    for line in LEGEND:
        yield Text(line, style="dim")


def _directions(found: Recovery) -> Table:
    kinds = ("own", "one", "fitted")
    headers = [header for kind in kinds for header in (f"{kind}\n|cosine|", "\nabove")]
    table = NumberTable("Directions of shared concepts", "\nstream", *headers)
    for name, stream in found.streams.items():
        scores = (stream.directions, stream.shared_directions, stream.fitted_directions)
        table.add_row(Text(name), *(cell for one in scores for cell in _cells(one)))
    return table


def _cells(score: Directions) -> tuple[str, str]:
    return number(score.cosine), f"{score.above:.0%}"


def _supports(found: Recovery) -> Table:
    headers = ("space\nprecision", "\nrecall", "\nF1", "oracle\nprecision", "\nrecall", "\nF1")
    table = NumberTable("Supports: concepts of held-out samples", "\nstream", "", *headers)
    for name, stream in found.streams.items():
        for way, both in (("joint", stream.joint), ("solo", stream.solo), ("uncompleted", stream.uncompleted)):
            if both is None:
                continue
            scores = [number(one) for score in (both.space, both.oracle) for one in vars(score).values()]
            table.add_row(Text(name), way, *scores)
    return table


def _agreement(rows: tuple[DepthAgreement, ...]) -> Table:
    ways = {"joint": ("null", "oracle"), "solo": ("null", "oracle"), "uncompleted": ("null",)}
    headers = [header for way, others in ways.items() for header in (f"{way}\nspace", *(f"\n{one}" for one in others))]
    table = NumberTable("Agreement: Jaccard of labels, over all latents", "\ndepth", *headers)
    for row in rows:
        joint = (row.joint, row.joint_null, row.joint_oracle)
        solo = (row.solo, row.solo_null, row.solo_oracle, row.uncompleted, row.uncompleted_null)
        table.add_row(str(row.depth), *map(number, (*joint, *solo)))
    return table
