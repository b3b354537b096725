"""Names for latents: the label that the images activating a latent have more often than other images do.

A name is found on one half of the images and checked on the other. These names are stored with a run, and only
confirmed names are shown. Data without labels have words of captions instead, by the same rule. `purity.py` has the
paper's rule.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.special import bdtrc, entr, xlogy

from sparc.core.codes import Codes
from sparc.evaluation.encoding import activity
from sparc.evaluation.labels import levels, summed
from sparc.evaluation.latents import rounded
from sparc.evaluation.report import ConceptDepth, Concepts
from sparc.plugins.contracts import Taxonomy
from sparc.plugins.datasets import held_out
from sparc.storage.latent_names import LatentName

SIGNIFICANCE = 0.05
"""Largest probability of a chance find, over all labels of a depth; and of a chance confirmation."""
COUNTS = 2**21
"""Counts of latents by terms in memory at a time."""
FREQUENT = 0.1
"""Share of the labels, the most frequent ones, whose take of the names is reported."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Counts:
    """Counts of images in one half."""

    both: NDArray[np.float32]
    """(L, C) k: images that activate the latent and have the label."""
    active: Floats
    """(L,) n: images that activate the latent."""
    labelled: Floats
    """(C,) K: images that have the label."""
    images: int
    """N."""

    def at(self, latents: Ints, labels: Ints) -> tuple[Floats, Floats, Floats]:
        """Return k, n and K of pairs of a latent and a label."""
        return self.both[latents, labels].astype(np.float64), self.active[latents], self.labelled[labels]


class Halves(NamedTuple):
    """Counts on the half that names are found on and on the half that they are checked on."""

    finding: Counts
    checking: Counts
    depths: NDArray[np.intp]
    """(C,) depth of each label."""


@dataclass(frozen=True)
class Names:
    """A label per latent (L,), and its score on the checking half."""

    label: Ints
    """Column of the label; -1 if none is found."""
    confirmed: NDArray[np.bool_]
    purity: Floats
    """Share of the latent's images that have the label; NaN without a name or without an image."""
    lift: Floats
    """Purity over the label's frequency; NaN also if no image of the checking half has the label."""


def count_halves(codes: Mapping[str, Codes], labels: csr_array, taxonomy: Taxonomy, groups: Sequence[str]) -> Halves:
    """Count, per half, the images that activate each latent in any stream, by label.

    labels: (N, C) multi-hot, columns as in `taxonomy.labels`; a sample also has the ancestors of its labels. Images are
    counted, not samples, because captions of one image are not independent.
    """
    by_depth = levels(labels, taxonomy)
    return images_of(codes, by_depth.lifted, by_depth.depths, groups).halves()


@dataclass(frozen=True)
class Images:
    """Images, the latents that any of their streams activates, and their terms: labels, or words of captions."""

    active: csr_array
    """(G, L), 0 or 1."""
    terms: csr_array
    """(G, C), 0 or 1."""
    depths: NDArray[np.intp]
    """(C,) depth of each term."""
    checking: NDArray[np.bool_]
    """(G,), True in the half that names are checked on."""

    def halves(self, latents: slice = slice(None)) -> Halves:
        """Count, per half, the images that activate each of these latents, by term."""
        active = csr_array(self.active[:, latents])
        finding, checking = (_counted(active, self.terms, rows_G) for rows_G in (~self.checking, self.checking))
        return Halves(finding, checking, self.depths)

    def blocks(self) -> Iterator[tuple[slice, Halves]]:
        """Yield the counts of some latents at a time, at most COUNTS counts each."""
        size = max(1, COUNTS // max(1, self.terms.shape[1]))
        for start in range(0, self.active.shape[1], size):
            block = slice(start, min(start + size, self.active.shape[1]))
            yield block, self.halves(block)


def images_of(codes: Mapping[str, Codes], terms: csr_array, depths: NDArray[np.intp], groups: Sequence[str]) -> Images:
    """Merge the samples of each image. terms: (N, C), 0 or 1. groups: image of each sample."""
    names, group_N = np.unique(np.asarray(groups), return_inverse=True)
    active = _of_images(functools.reduce(csr_array.maximum, (activity(code) for code in codes.values())), group_N)
    # Hash more than the bare name: a dataset may have drawn its held-out samples by the hash of the name.
    checking_G = np.array([held_out(f"concepts: {name}", 0.5) for name in names], dtype=bool)
    return Images(active, _of_images(terms, group_N), depths, checking_G)


def concepts(halves: Halves) -> tuple[Concepts, Names]:
    """Name every latent, and summarise the names.

    The name is the label whose frequency among the latent's images is least likely if as many images were drawn at
    random, if that is significant. Labels of one depth compete first; a latent is called by the best of the winners.
    """
    by_label = halves.finding.labelled + halves.checking.labelled
    at_depths = list(_at_depths(halves))
    depths = [_depth(depth, found, by_label, own) for depth, (own, found, _) in enumerate(at_depths)]
    best = _best([found for _, found, _ in at_depths], np.stack([score_L for _, _, score_L in at_depths]))
    return (
        Concepts(
            rule="enrichment",
            named=int((best.label >= 0).sum()),
            confirmed=int(best.confirmed.sum()),
            # Mean over all names: confirmed names were selected for being pure on the same images.
            purity=_mean(best.purity),
            lift=_mean(best.lift),
            depths=tuple(depths),
        ),
        best,
    )


def word_names(images: Images, words: Sequence[str]) -> dict[int, LatentName]:
    """Name latents by the words of captions, by the rule of `concepts`; for data without labels."""
    found: dict[int, LatentName] = {}
    for block, halves in images.blocks():
        at_depths = list(_at_depths(halves))
        best = _best([one for _, one, _ in at_depths], np.stack([score_L for _, _, score_L in at_depths]))
        named = {latent: words[label] for latent, label in enumerate(best.label.tolist()) if label >= 0}
        found |= {
            block.start + latent: LatentName(
                label=word,
                depth=0,
                purity=rounded(float(best.purity[latent])),
                lift=rounded(float(best.lift[latent])),
                confirmed=bool(best.confirmed[latent]),
            )
            for latent, word in named.items()
        }
    return found


class Enriched(NamedTuple):
    """A term that the images of a latent have more often than other images do."""

    term: int
    """Its column."""
    both: int
    """Images that have it and activate the latent."""
    labelled: int
    """Images that have it."""
    active: int
    """Images that activate the latent."""
    purity: float | None
    """Share of the latent's images that have it, on the checking half; None if that half has none of them."""
    confirmed: bool
    """True if it is found on one half, among all terms of its depth, and holds on the other, as a name must."""


def enriched(halves: Halves, count: int) -> list[list[Enriched]]:
    """Return, per latent, the `count` terms that are enriched most, each of them significant on its own.

    They are counted on both halves together, in the order of the scores that names compete by.
    """
    finding, checking, depth_C = halves
    both = Counts(
        finding.both + checking.both,
        finding.active + checking.active,
        finding.labelled + checking.labelled,
        finding.images + checking.images,
    )
    scores_LC = _scores(both, np.arange(len(depth_C)))
    count = min(count, scores_LC.shape[1])
    place_Lc = np.argpartition(-scores_LC, count - 1, axis=1)[:, :count]
    score_Lc = np.take_along_axis(scores_LC, place_Lc, axis=1)
    order_Lc = np.lexsort((place_Lc, -score_Lc), axis=1)
    place_Lc = np.take_along_axis(place_Lc, order_Lc, axis=1)
    score_Lc = np.take_along_axis(score_Lc, order_Lc, axis=1)
    latents, places = np.nonzero(np.isfinite(score_Lc))
    terms = place_Lc[latents, places]
    holds = _by_chance(both, latents, terms) < SIGNIFICANCE
    latents, terms = latents[holds], terms[holds]
    tried_C = np.array([max(1, int((finding.labelled[depth_C == depth] > 0).sum())) for depth in depth_C])
    confirmed = (
        (_by_chance(finding, latents, terms) * tried_C[terms] < SIGNIFICANCE)
        & (_by_chance(checking, latents, terms) < SIGNIFICANCE)
        & (checking.labelled[terms] > 0)
        & (checking.active[latents] > 0)
    )
    found: list[list[Enriched]] = [[] for _ in range(len(scores_LC))]
    for latent, term, sure in zip(latents.tolist(), terms.tolist(), confirmed.tolist(), strict=True):
        n_checked = checking.active[latent]
        found[latent].append(
            Enriched(
                term,
                int(both.both[latent, term]),
                int(both.labelled[term]),
                int(both.active[latent]),
                float(checking.both[latent, term] / n_checked) if n_checked else None,
                sure,
            )
        )
    return found


def latent_names(names: Names, taxonomy: Taxonomy) -> dict[int, LatentName]:
    """Return the name of each latent that has one, as it is stored with the run."""
    return {
        latent: LatentName(
            label=taxonomy.labels[label],
            depth=taxonomy.depth(taxonomy.labels[label]),
            purity=rounded(float(names.purity[latent])),
            lift=rounded(float(names.lift[latent])),
            confirmed=bool(names.confirmed[latent]),
        )
        for latent, label in enumerate(names.label.tolist())
        if label >= 0
    }


def _mean(values_L: Floats) -> float | None:
    known_L = np.isfinite(values_L)
    return float(values_L[known_L].mean()) if known_L.any() else None


def _of_images(of_samples: csr_array, group_N: NDArray[np.intp]) -> csr_array:
    """Merge the samples of an image: (N, columns) to (G, columns), 0 or 1."""
    n_samples = len(group_N)
    members = csr_array(
        (np.ones(n_samples, np.float32), (group_N, np.arange(n_samples))), shape=(int(group_N.max()) + 1, n_samples)
    )
    found = csr_array(members @ of_samples)
    found.data = np.ones_like(found.data)
    return found


def _counted(active: csr_array, lifted: csr_array, rows_G: NDArray[np.bool_]) -> Counts:
    rows = np.flatnonzero(rows_G)
    some, labels = active[rows], lifted[rows]
    return Counts(
        both=summed(csr_array(some.T), labels),
        active=np.asarray(some.sum(axis=0), dtype=np.float64).ravel(),
        labelled=np.asarray(labels.sum(axis=0), dtype=np.float64).ravel(),
        images=len(rows),
    )


def _scores(counts: Counts, own: Ints) -> Floats:
    """Score how well each label of `own` names each latent, (L, own); -inf if it does not at all."""
    both = counts.both[:, own].astype(np.float64)
    share_LC = both / np.maximum(counts.active, 1)[:, None]
    overall_C = counts.labelled[own] / max(1, counts.images)
    # The log-likelihood ratio bounds the probability. A z-score would rank a rare label first because of one image.
    rest = counts.active[:, None] - both
    with_LC = xlogy(both, share_LC) - xlogy(both, overall_C)
    without_LC = xlogy(rest, 1 - share_LC) - xlogy(rest, 1 - overall_C)
    return np.where(share_LC > overall_C, with_LC + without_LC, -np.inf)


def _at_depths(halves: Halves) -> Iterator[tuple[Ints, Names, Floats]]:
    """Yield, per depth, its terms, the name of each latent by them, and the scores of the names."""
    for depth in range(int(halves.depths.max()) + 1):
        own = np.flatnonzero(halves.depths == depth)
        yield own, *_named(halves, own)


def _best(at_depths: list[Names], scores_HL: Floats) -> Names:
    """Choose, per latent, the depth whose name scores best; the lowest depth on a tie."""
    latents = np.arange(scores_HL.shape[1])
    best_L = scores_HL.argmax(axis=0)

    def of_best(field: str) -> Any:
        return np.stack([getattr(one, field) for one in at_depths])[best_L, latents]

    return Names(of_best("label"), of_best("confirmed"), of_best("purity"), of_best("lift"))


def _named(halves: Halves, own: Ints) -> tuple[Names, Floats]:
    """Choose the best label of `own` per latent, if it is good enough; check it on the other half; return its score."""
    finding, checking = halves.finding, halves.checking
    scores_LC = _scores(finding, own)
    latents = np.arange(len(scores_LC))
    place_L = scores_LC.argmax(axis=1)
    best_L, score_L = own[place_L], scores_LC[latents, place_L]
    tried = max(1, int((finding.labelled[own] > 0).sum()))
    good_L = np.isfinite(score_L) & (_by_chance(finding, latents, best_L) * tried < SIGNIFICANCE)
    both, active, labelled = checking.at(latents, best_L)
    known_L = good_L & (active > 0)
    purity_L = np.where(known_L, both / np.maximum(active, 1), np.nan)
    share_L = labelled / max(1, checking.images)
    lift_L = np.where(known_L & (share_L > 0), purity_L / np.where(share_L > 0, share_L, 1), np.nan)
    holds_L = _by_chance(checking, latents, best_L) < SIGNIFICANCE
    # A label that no image of the checking half has cannot be confirmed.
    confirmed_L = known_L & holds_L & (labelled > 0)
    found = Names(np.where(good_L, best_L, -1), confirmed_L, purity_L, lift_L)
    return found, np.where(good_L, score_L, -np.inf)


def _by_chance(counts: Counts, latents: Ints, labels: Ints) -> Floats:
    """Probability that at least k of n images, drawn at random with replacement, have the label."""
    both, active, labelled = counts.at(latents, labels)
    return np.asarray(bdtrc(both - 1, active.astype(np.int64), labelled / max(1, counts.images)))


def _depth(depth: int, names: Names, images_C: Floats, own: Ints) -> ConceptDepth:
    from scipy.stats import spearmanr  # takes half a second to import, so only evaluations with labels pay it

    there = own[images_C[own] > 0]
    named = names.label[names.label >= 0]
    latents_C = np.bincount(named, minlength=len(images_C))[there]
    share_C = latents_C[latents_C > 0] / max(1, len(named))
    most = np.argsort(-images_C[there], kind="stable")[: int(np.ceil(FREQUENT * len(there)))]
    varied = len(there) > 2 and np.ptp(latents_C) > 0 and np.ptp(images_C[there]) > 0
    return ConceptDepth(
        depth=depth,
        labels=len(there),
        named=len(named),
        confirmed=int(names.confirmed.sum()),
        taken=int((latents_C > 0).sum()),
        effective=float(np.exp(entr(share_C).sum())) if len(named) else 0.0,
        frequent_share=float(latents_C[most].sum() / len(named)) if len(named) else None,
        frequency_correlation=float(spearmanr(images_C[there], latents_C).statistic) if varied else None,
    )
