"""Names for latents: the label that the samples which activate a latent have more often than others do.

A name is found on one half of the samples and checked on the other. Which half is decided by image, so that what is
checked was not seen.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array, csr_array
from scipy.stats import binom, spearmanr

from sparc.contracts import Taxonomy
from sparc.core.codes import Codes
from sparc.datasets import held_out
from sparc.evaluate.encoding import activity
from sparc.evaluate.labels import dense, levels, summed
from sparc.evaluate.report import ConceptDepth, Concepts

PURITY = 0.3
"""The paper's rule: a latent stands for the label that more than this share of its samples has."""
SIGNIFICANCE = 0.05
"""Odds of finding a name by chance, over all labels of a depth; and of confirming one."""
FREQUENT = 0.1
"""The labels with most samples that are looked at: a tenth."""
RULES = ("enrichment", "purity")

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Counts:
    """Samples of one half, in counts."""

    both: Floats
    """(L, labels) k: that activate the latent and have the label."""
    active: Floats
    """(L,) n: that activate the latent."""
    labelled: Floats
    """(labels,) K: that have the label."""
    samples: int
    """N."""

    def at(self, latents: Ints, labels: Ints) -> tuple[Floats, Floats, Floats]:
        """k, n and K of some latents and the labels paired with them."""
        return self.both[latents, labels], self.active[latents], self.labelled[labels]


@dataclass(frozen=True)
class Names:
    """A label per latent (L,), -1 where none is found, and what the other half of the samples says of it."""

    label: Ints
    confirmed: NDArray[np.bool_]
    purity: Floats
    """Share of the latent's samples that have the label; not a number where there is no name or no sample."""
    lift: Floats
    """Purity over the label's frequency."""


def concepts(
    codes: Mapping[str, Codes], labels: csr_array, taxonomy: Taxonomy, groups: Sequence[str], *, rule: str
) -> tuple[Concepts, Names]:
    """Name every latent by the labels of the samples that activate it in any stream.

    By `enrichment`, the label whose frequency among them lies most standard deviations above its frequency at large,
    where that is more than chance gives; by `purity`, the paper's rule, the most frequent one, above 0.3. labels:
    (N, n_labels) multi-hot, columns as in `taxonomy.labels`; a sample has the labels above its own too. Each depth has
    names of its own; a latent is called by the best of them.
    """
    by_depth = levels(labels, taxonomy)
    active = functools.reduce(csr_array.maximum, (activity(code) for code in codes.values()))
    # Not by the bare name, by which a dataset may have drawn its held-out samples.
    checking_N = np.array([held_out(f"concepts: {group}", 0.5) for group in groups], dtype=bool)
    finding, checking = (_counted(active, by_depth.lifted, rows_N) for rows_N in (~checking_N, checking_N))
    scores_LC = (_enrichment if rule == "enrichment" else _purity)(finding)
    by_label = finding.labelled + checking.labelled
    depths, at_depths = [], []
    for depth in range(taxonomy.max_depth + 1):
        own = np.flatnonzero(by_depth.depths == depth)
        at_depths.append(_named(finding, checking, scores_LC, rule, own))
        depths.append(_depth(depth, at_depths[-1], by_label, own))
    names = _best(at_depths, scores_LC)
    sure = names.confirmed
    return (
        Concepts(
            rule=rule,
            named=int((names.label >= 0).sum()),
            confirmed=int(sure.sum()),
            purity=float(names.purity[sure].mean()) if sure.any() else None,
            lift=float(names.lift[sure].mean()) if sure.any() else None,
            depths=tuple(depths),
        ),
        names,
    )


def _counted(active: csr_array, lifted: csr_array, rows_N: NDArray[np.bool_]) -> Counts:
    rows = np.flatnonzero(rows_N)
    some, labels = active[rows], lifted[rows]
    return Counts(
        both=summed(csc_array(some), dense(labels).float()).double().numpy(),
        active=np.asarray(some.sum(axis=0), dtype=np.float64).ravel(),
        labelled=np.asarray(labels.sum(axis=0), dtype=np.float64).ravel(),
        samples=len(rows),
    )


def _enrichment(counts: Counts) -> Floats:
    """Standard deviations that k lies above what n samples drawn at large would have; -inf where that is not above."""
    share_C = counts.labelled / max(1, counts.samples)
    expected_LC = counts.active[:, None] * share_C
    spread_LC = np.sqrt(expected_LC * (1 - share_C))
    above_LC = counts.both - expected_LC
    return np.where((above_LC > 0) & (spread_LC > 0), above_LC / np.where(spread_LC > 0, spread_LC, 1), -np.inf)


def _purity(counts: Counts) -> Floats:
    share_LC = counts.both / np.maximum(counts.active, 1)[:, None]
    return np.where(counts.both > 0, share_LC, -np.inf)


def _best(at_depths: list[Names], scores_LC: Floats) -> Names:
    """Of a latent's names at several depths the one with the best score; the higher one among equals."""
    latents = np.arange(len(scores_LC))
    score_DL = np.stack([np.where(one.label < 0, -np.inf, scores_LC[latents, one.label]) for one in at_depths])
    best_L = score_DL.argmax(axis=0)

    def of_best(field: str) -> Any:
        return np.stack([getattr(one, field) for one in at_depths])[best_L, latents]

    return Names(of_best("label"), of_best("confirmed"), of_best("purity"), of_best("lift"))


def _named(finding: Counts, checking: Counts, scores_LC: Floats, rule: str, own: Ints) -> Names:
    """The best of the labels `own`, where it is good enough; and whether it holds on the other half."""
    latents = np.arange(len(scores_LC))
    best_L = own[scores_LC[:, own].argmax(axis=1)]
    good_L = np.isfinite(scores_LC[latents, best_L])
    if rule == "purity":
        good_L &= scores_LC[latents, best_L] > PURITY
    else:
        tried = max(1, int((finding.labelled[own] > 0).sum()))
        good_L &= _by_chance(finding, latents, best_L) * tried < SIGNIFICANCE
    both, active, labelled = checking.at(latents, best_L)
    known_L = good_L & (active > 0)
    purity_L = np.where(known_L, both / np.maximum(active, 1), np.nan)
    share_L = labelled / max(1, checking.samples)
    lift_L = np.where(known_L & (share_L > 0), purity_L / np.where(share_L > 0, share_L, 1), np.nan)
    holds_L = purity_L > PURITY if rule == "purity" else _by_chance(checking, latents, best_L) < SIGNIFICANCE
    # A label that no sample of the other half has says nothing there, by either rule.
    confirmed_L = known_L & holds_L & (labelled > 0)
    return Names(np.where(good_L, best_L, -1), confirmed_L, purity_L, lift_L)


def _by_chance(counts: Counts, latents: Ints, labels: Ints) -> Floats:
    """Odds that n samples drawn at large, each anew, have the label k times or more."""
    both, active, labelled = counts.at(latents, labels)
    return np.asarray(binom.sf(both - 1, active, labelled / max(1, counts.samples)))


def _depth(depth: int, names: Names, samples_C: Floats, own: Ints) -> ConceptDepth:
    there = own[samples_C[own] > 0]
    named = names.label[names.label >= 0]
    latents_C = np.bincount(named, minlength=len(samples_C))[there]
    share_C = latents_C[latents_C > 0] / max(1, len(named))
    most = np.argsort(-samples_C[there], kind="stable")[: int(np.ceil(FREQUENT * len(there)))]
    varied = len(there) > 2 and np.ptp(latents_C) > 0 and np.ptp(samples_C[there]) > 0
    return ConceptDepth(
        depth=depth,
        labels=len(there),
        named=len(named),
        confirmed=int(names.confirmed.sum()),
        taken=int((latents_C > 0).sum()),
        effective=float(np.exp(-(share_C * np.log(share_C)).sum())) if len(named) else 0.0,
        frequent_share=float(latents_C[most].sum() / len(named)) if len(named) else None,
        frequency_correlation=float(spearmanr(samples_C[there], latents_C).statistic) if varied else None,
    )
