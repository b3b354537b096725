"""Say in words what is wrong with a trained space, and which option changes it."""

from __future__ import annotations

import math

from sparc.errors import counted
from sparc.evaluation.report import Report

FEW = 30
"""Held-out samples below which the width of the numbers is said."""
MOST = 0.5
"""Share of dead latents from which on the space is too large for its data."""


def faults(report: Report) -> list[str]:
    """Return a line for each fault that the measurements of held-out samples show; none for a sound space.

    - A stream is rebuilt worse than by its mean, from its own code or from those of other streams.
    - Most latents are dead: no held-out sample activates them in any stream.
    - No pair of streams finds more than chance, by latents; of few samples this says nothing.
    """
    lines = []
    below = {
        source: [target for target, value in row.items() if value is not None and value < 0]
        for source, row in report.joint.r2.items()
    }
    own = [name for name, targets in below.items() if name in targets]
    if own:
        lines.append(
            f"{', '.join(own)}: rebuilt worse than by the mean of the samples (R² below 0): try --normalization "
            "standard, more --epochs, or another --lr"
        )
    others = [f"{a} → {b}" for a, targets in below.items() for b in targets if a != b and b not in own]
    if others:
        lines.append(
            f"{', '.join(others)}: rebuilt worse than by the mean of the samples (R² below 0): check that the samples "
            "of both streams belong together, and train on more of them"
        )
    if report.joint.dead > MOST * report.n_latents:
        enough = max(16, 2 ** int(math.log2(max(1, 2 * (report.n_latents - report.joint.dead)))))
        lines.append(
            f"{report.joint.dead:,} of {report.n_latents:,} latents are dead on held-out samples: --n-latents "
            f"{enough} is enough for these data"
        )
    # R@10 of ten samples is 1 by chance; the mean reciprocal rank tells with few samples too.
    ranks = [(pair.latents.mrr, pair.chance.mrr) for pair in report.retrieval]
    if report.samples >= FEW and ranks and all(found <= chance for found, chance in ranks):
        lines.append(
            "a search by latents finds no more than chance: the streams have learned nothing in common; check that "
            "their rows show the same samples, and train on more of them or for more --epochs"
        )
    return lines


def width_of_few(report: Report) -> str | None:
    """Return how wide the numbers of fewer than FEW held-out samples are; None for more.

    The width is the largest half of a 95% interval of a share, 1.96 standard errors of a coin: 0.98 / √N.
    """
    if report.samples >= FEW:
        return None
    width = min(1.0, 0.98 / math.sqrt(max(1, report.samples)))
    return (
        f"these numbers are of {counted(report.samples, 'held-out sample')}: a share, such as R@1, may be off by "
        f"{width:.2f} either way (95%), so smaller differences say nothing; add samples, or hold out more of them"
    )
