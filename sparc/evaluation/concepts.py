"""Names for latents: the label that the images which activate a latent have more often than others do.

A name is found on one half of the images and checked on the other.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array, csr_array
from scipy.special import bdtrc, xlogy

from sparc.core.codes import Codes
from sparc.evaluation.encoding import activity
from sparc.evaluation.labels import dense, levels, summed
from sparc.evaluation.report import ConceptDepth, Concepts
from sparc.plugins.contracts import Taxonomy
from sparc.plugins.datasets import held_out

PURITY = 0.3
"""The paper's rule: a latent stands for the label that more than this share of its images has."""
SIGNIFICANCE = 0.05
"""Odds of finding a name by chance, over all labels of a depth; and of confirming one."""
FREQUENT = 0.1
"""The labels with most images that are looked at: a tenth."""
RULES = ("enrichment", "purity")

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Counts:
    """Images of one half, in counts."""

    both: Floats
    """(L, labels) k: that activate the latent and have the label."""
    active: Floats
    """(L,) n: that activate the latent."""
    labelled: Floats
    """(labels,) K: that have the label."""
    images: int
    """N."""

    def at(self, latents: Ints, labels: Ints) -> tuple[Floats, Floats, Floats]:
        """k, n and K of some latents and the labels paired with them."""
        return self.both[latents, labels], self.active[latents], self.labelled[labels]


@dataclass(frozen=True)
class Names:
    """A label per latent (L,), -1 where none is found, and what the other half of the images says of it."""

    label: Ints
    confirmed: NDArray[np.bool_]
    purity: Floats
    """Share of the latent's images that have the label; not a number where there is no name or no image."""
    lift: Floats
    """Purity over the label's frequency; not a number, too, where no image of that half has the label."""


def concepts(
    codes: Mapping[str, Codes], labels: csr_array, taxonomy: Taxonomy, groups: Sequence[str], *, rule: str
) -> tuple[Concepts, Names]:
    """Name every latent by the labels of the images that activate it in any stream.

    By `enrichment`, the label whose frequency among them is least likely for as many images drawn at large, where that
    is more than chance gives; by `purity`, the paper's rule, the most frequent one, above 0.3. labels:
    (N, n_labels) multi-hot, columns as in `taxonomy.labels`; a sample has the labels above its own too. What counts is
    images, not samples: captions of one image say the same of it. Each depth has names of its own; a latent is called
    by the best of them, by the paper's rule by the deepest.
    """
    by_depth = levels(labels, taxonomy)
    names, group_N = np.unique(np.asarray(groups), return_inverse=True)
    active = _of_images(functools.reduce(csr_array.maximum, (activity(code) for code in codes.values())), group_N)
    lifted = _of_images(by_depth.lifted, group_N)
    # Not by the bare name, by which a dataset may have drawn its held-out samples.
    checking_N = np.array([held_out(f"concepts: {name}", 0.5) for name in names], dtype=bool)
    finding, checking = (_counted(active, lifted, rows_N) for rows_N in (~checking_N, checking_N))
    by_label = finding.labelled + checking.labelled
    depths, at_depths, scores = [], [], []
    for depth in range(taxonomy.max_depth + 1):
        own = np.flatnonzero(by_depth.depths == depth)
        found, score_L = _named(finding, checking, rule, own)
        at_depths.append(found)
        scores.append(score_L if rule == "enrichment" else np.where(found.label < 0, -np.inf, depth))
        depths.append(_depth(depth, found, by_label, own))
    best = _best(at_depths, np.stack(scores))
    return (
        Concepts(
            rule=rule,
            named=int((best.label >= 0).sum()),
            confirmed=int(best.confirmed.sum()),
            # Of all names, not of those that hold: these are chosen for being pure on the same images.
            purity=_mean(best.purity),
            lift=_mean(best.lift),
            depths=tuple(depths),
        ),
        best,
    )


def _mean(values_L: Floats) -> float | None:
    known_L = np.isfinite(values_L)
    return float(values_L[known_L].mean()) if known_L.any() else None


def _of_images(of_samples: csr_array, group_N: NDArray[np.intp]) -> csr_array:
    """What holds of any sample of an image, (images, columns), 0 or 1."""
    n_samples = len(group_N)
    members = csr_array(
        (np.ones(n_samples, np.float32), (group_N, np.arange(n_samples))), shape=(int(group_N.max()) + 1, n_samples)
    )
    found = csr_array(members @ of_samples)
    found.data = np.ones_like(found.data)
    return found


def _counted(active: csr_array, lifted: csr_array, rows_N: NDArray[np.bool_]) -> Counts:
    rows = np.flatnonzero(rows_N)
    some, labels = active[rows], lifted[rows]
    return Counts(
        both=summed(csc_array(some), dense(labels).float()).numpy(),
        active=np.asarray(some.sum(axis=0), dtype=np.float64).ravel(),
        labelled=np.asarray(labels.sum(axis=0), dtype=np.float64).ravel(),
        images=len(rows),
    )


def _scores(counts: Counts, own: Ints, rule: str) -> Floats:
    """How well each of the labels `own` names each latent, (L, own); -inf where it does not at all."""
    both = counts.both[:, own].astype(np.float64)
    share_LC = both / np.maximum(counts.active, 1)[:, None]
    large_C = counts.labelled[own] / max(1, counts.images)
    if rule == "purity":
        return np.where(share_LC > large_C, share_LC, -np.inf)  # a label that all images have names nothing
    # The log-likelihood ratio, which bounds the odds: standard deviations would put a rare label first for one image.
    with_LC = xlogy(both, share_LC) - xlogy(both, large_C)
    without_LC = xlogy(counts.active[:, None] - both, 1 - share_LC) - xlogy(counts.active[:, None] - both, 1 - large_C)
    return np.where(share_LC > large_C, with_LC + without_LC, -np.inf)


def _best(at_depths: list[Names], scores_DL: Floats) -> Names:
    """Of a latent's names at several depths the one with the best score; the higher one among equals."""
    latents = np.arange(scores_DL.shape[1])
    best_L = scores_DL.argmax(axis=0)

    def of_best(field: str) -> Any:
        return np.stack([getattr(one, field) for one in at_depths])[best_L, latents]

    return Names(of_best("label"), of_best("confirmed"), of_best("purity"), of_best("lift"))


def _named(finding: Counts, checking: Counts, rule: str, own: Ints) -> tuple[Names, Floats]:
    """The best of the labels `own` where it is good enough, and whether it holds on the other half; and its score."""
    scores_LC = _scores(finding, own, rule)
    latents = np.arange(len(scores_LC))
    place_L = scores_LC.argmax(axis=1)
    best_L, score_L = own[place_L], scores_LC[latents, place_L]
    if rule == "purity":
        good_L = score_L > PURITY
    else:
        tried = max(1, int((finding.labelled[own] > 0).sum()))
        good_L = np.isfinite(score_L) & (_by_chance(finding, latents, best_L) * tried < SIGNIFICANCE)
    both, active, labelled = checking.at(latents, best_L)
    known_L = good_L & (active > 0)
    purity_L = np.where(known_L, both / np.maximum(active, 1), np.nan)
    share_L = labelled / max(1, checking.images)
    lift_L = np.where(known_L & (share_L > 0), purity_L / np.where(share_L > 0, share_L, 1), np.nan)
    holds_L = purity_L > PURITY if rule == "purity" else _by_chance(checking, latents, best_L) < SIGNIFICANCE
    # A label that no image of the other half has says nothing there, by either rule.
    confirmed_L = known_L & holds_L & (labelled > 0)
    found = Names(np.where(good_L, best_L, -1), confirmed_L, purity_L, lift_L)
    return found, np.where(good_L, score_L, -np.inf)


def _by_chance(counts: Counts, latents: Ints, labels: Ints) -> Floats:
    """Odds that n images drawn at large, each anew, have the label k times or more."""
    both, active, labelled = counts.at(latents, labels)
    return np.asarray(bdtrc(both - 1, active.astype(np.int64), labelled / max(1, counts.images)))


def _depth(depth: int, names: Names, samples_C: Floats, own: Ints) -> ConceptDepth:
    from scipy.stats import spearmanr  # half a second, which only evaluations with labels pay

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
