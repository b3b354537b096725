"""The metrics that an ablation compares, each read from the report of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from statistics import mean
from typing import Literal

from sparc.evaluation import Report


@dataclass(frozen=True)
class Metric:
    """A number in the report of a run."""

    name: str
    title: str
    better: Literal["lower", "higher"] | None
    """None for a baseline such as a null, and for numbers that are high even if the streams share nothing."""
    read: Callable[[Report], float | None]
    headline: bool = False
    digits: int = 3


def _mean(values: Iterable[float | None]) -> float | None:
    """Mean of the values; None if there are none or any of them is None."""
    numbers = list(values)
    there = [number for number in numbers if number is not None]
    return mean(there) if there and len(there) == len(numbers) else None


def _nmse(report: Report, way: Literal["joint", "solo"], *, same: bool) -> float | None:
    """Mean NMSE over streams if `same`, else over ordered pairs of different streams."""
    rows = getattr(report, way).nmse.items()
    return _mean(number for source, row in rows for target, number in row.items() if (source == target) == same)


def _jaccard(report: Report, kind: str, over: Literal["all", "alive"], depth: int = -1) -> float | None:
    """Hierarchical Jaccard at a depth; None without labels."""
    value: float | None = getattr(getattr(report.jaccard[depth], kind), over) if report.jaccard else None
    return value


def _probe(report: Report, way: Literal["joint", "solo"]) -> float | None:
    return _mean(report.probes.single[way].values()) if report.probes is not None else None


METRICS = (
    Metric("self-nmse-joint", "self NMSE, joint", "lower", lambda r: _nmse(r, "joint", same=True), headline=True),
    Metric("self-nmse-solo", "self NMSE, solo", "lower", lambda r: _nmse(r, "solo", same=True)),
    Metric("cross-nmse-joint", "cross NMSE, joint", "lower", lambda r: _nmse(r, "joint", same=False)),
    Metric("cross-nmse-solo", "cross NMSE, solo", "lower", lambda r: _nmse(r, "solo", same=False), headline=True),
    Metric("jaccard-joint", "J, joint", None, lambda r: _jaccard(r, "joint", "all")),
    Metric("jaccard-joint-alive", "J alive, joint", None, lambda r: _jaccard(r, "joint", "alive")),
    Metric("jaccard-solo", "J, solo", "higher", lambda r: _jaccard(r, "solo", "all"), headline=True),
    Metric("jaccard-joint-null", "J null, joint", None, lambda r: _jaccard(r, "joint_null", "all")),
    Metric("jaccard-solo-null", "J null, solo", None, lambda r: _jaccard(r, "solo_null", "all")),
    Metric("alive", "alive in all, joint", "higher", lambda r: r.joint.alive, digits=0),
    Metric("dead", "dead, joint", "lower", lambda r: r.joint.dead, digits=0),
    Metric("mixed", "alive in some, joint", "lower", lambda r: r.joint.mixed, digits=0),
    Metric("recall-1", "R@1 by latents", "higher", lambda r: _mean(pair.latents.r1 for pair in r.retrieval)),
    Metric(
        "recall-10",
        "R@10 by latents",
        "higher",
        lambda r: _mean(pair.latents.r10 for pair in r.retrieval),
        headline=True,
    ),
    Metric("cross-recall-10", "R@10 by cross", "higher", lambda r: _mean(pair.cross.r10 for pair in r.retrieval)),
    Metric("probe-joint", "probe loss, joint", "lower", lambda r: _probe(r, "joint")),
    Metric("probe-solo", "probe loss, solo", "lower", lambda r: _probe(r, "solo")),
)
"""All metrics. J is the hierarchical Jaccard at the deepest depth; a probe uses one latent."""
SELECTED = ("cross-nmse-solo", "jaccard-solo", "recall-10")
"""Metrics for which the table names the best setting."""


def depth_metrics(depths: int) -> tuple[Metric, ...]:
    """Return the metrics of hierarchical Jaccard at each depth but the deepest, which METRICS covers; depth 0 first."""
    kinds = {"joint": "joint", "joint_null": "null, joint", "solo": "solo", "solo_null": "null, solo"}
    return tuple(
        Metric(
            f"jaccard-{kind.replace('_', '-')}-depth-{depth}",
            f"J depth {depth} {title}",
            "higher" if kind == "solo" else None,
            partial(_jaccard, kind=kind, over="all", depth=depth),
        )
        for depth in range(depths - 1)
        for kind, title in kinds.items()
    )
