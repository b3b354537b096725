"""Names of latents by the rule of the paper's code: in each stream, the label that its strongest samples share.

Nothing is held out, and frequent labels win often, so the names that sparc stores and shows are those by enrichment
(`concepts.py`). This rule is for comparison with the paper (docs/paper.md).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.special import entr

from sparc.core.codes import Codes
from sparc.evaluation.labels import binary
from sparc.evaluation.report import PurityConcepts, PurityNames

STRONGEST = 50
"""Most samples of a latent that are looked at."""
THRESHOLD = 0.3
"""Smallest share of these samples that must have the label."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def purity_concepts(codes: Mapping[str, Codes], labels: csr_array) -> PurityConcepts:
    """Name every latent in every stream, and summarise the names.

    codes: joint, as in the paper. labels: (N, C) multi-hot, of the samples themselves, without ancestors.
    """
    labels = binary(labels)
    by_stream = {stream: names_by_purity(code, labels) for stream, code in codes.items()}
    first_L, *others = (label_L for label_L, _ in by_stream.values())
    agreed_L = np.logical_and.reduce([first_L >= 0, *(label_L == first_L for label_L in others)])
    n_labelled = len(np.diff(labels.indptr).nonzero()[0])
    frequency_C = np.asarray(labels.sum(axis=0), dtype=np.float64).ravel() / max(1, n_labelled)
    summaries = {stream: _summary(*names, frequency_C) for stream, names in by_stream.items()}
    return PurityConcepts(rule="purity", streams=summaries, agreed=int(agreed_L.sum()))


def names_by_purity(codes: Codes, labels: csr_array) -> tuple[Ints, Floats]:
    """Return the column of each latent's label, (L,), -1 without one, and the share of its samples that have it, (L,).

    A latent's samples are the `STRONGEST` labelled ones that activate it most. Its label is the one that most of them
    have, if at least `THRESHOLD` of them do. Ties go to the first sample and to the first label. Samples count, not
    images, and a sample counts for each of its labels.
    """
    labels = binary(labels)
    labelled = np.diff(labels.indptr).nonzero()[0]
    strongest = _strongest(codes.to_csr()[labelled])
    counts_LC = (strongest @ labels[labelled]).toarray()
    label_L = counts_LC.argmax(axis=1)
    samples_L = np.diff(strongest.indptr)
    share_L = counts_LC[np.arange(len(label_L)), label_L] / np.maximum(samples_L, 1)
    # Division is correctly rounded, so 15 / 50 is the same float as 0.3 and passes.
    return np.where(share_L >= THRESHOLD, label_L, -1), share_L


def _strongest(active_NL: csr_array) -> csr_array:
    """Return (L, N), 1 for the samples of each latent with the largest activations."""
    entries = active_NL.tocoo()
    rows, latents = entries.coords
    order = np.lexsort((rows, -entries.data, latents))
    latents = latents[order]
    starts_L = np.searchsorted(latents, np.arange(active_NL.shape[1]))
    kept = np.arange(len(order)) - starts_L[latents] < STRONGEST
    places = (latents[kept], rows[order][kept])
    return csr_array((np.ones(len(places[0])), places), shape=active_NL.shape[::-1])


def _summary(label_L: Ints, share_L: Floats, frequency_C: Floats) -> PurityNames:
    named_L = label_L >= 0
    if not named_L.any():
        return PurityNames(named=0, taken=0, effective=0.0, purity=None, lift=None)
    purity, called = share_L[named_L], label_L[named_L]
    counts_C = np.bincount(called)
    return PurityNames(
        named=len(called),
        taken=int((counts_C > 0).sum()),
        effective=float(np.exp(entr(counts_C / len(called)).sum())),
        purity=float(purity.mean()),
        lift=float((purity / frequency_C[called]).mean()),
    )
