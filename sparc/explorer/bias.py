"""Data of the bias check: which samples carry a label or a word, and which of them activate each latent."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from sparc.evaluation.words import FEWEST
from sparc.explorer.shown import Shown, evenly
from sparc.explorer.statements import clean

MOST_SAMPLES = 2000
MOST_TERMS = 5000


def bias_data(shown: Shown) -> dict[str, Any]:
    """Return samples, terms and activity, as positions among at most MOST_SAMPLES evenly spread samples."""
    chosen = evenly(len(shown), MOST_SAMPLES)
    terms = _terms(shown.words.terms, shown.words.samples[chosen], "word")
    if shown.labels is not None and shown.levels is not None:
        terms += _terms(shown.labels[1].labels, shown.levels.lifted[chosen], "label")
    terms.sort(key=lambda term: (-len(term["samples"]), term["kind"], term["term"]))
    fires = {name: _packed(csr_array(matrix[chosen].T)) for name, matrix in shown.rows_of_samples.items()}
    absent = {name: np.flatnonzero(~there[chosen]).tolist() for name, there in shown.there.items()}
    return {"samples": chosen.tolist(), "terms": terms[:MOST_TERMS], "fires": fires, "absent": absent}


def _packed(latents: csr_array) -> dict[str, str]:
    """Return how many positions each latent has, and all positions: 16 bits each, little-endian, as base64.

    As lists of numbers they would take most of the page's memory.
    """
    latents.sort_indices()
    columns = {"counts": np.diff(latents.indptr), "positions": latents.indices}
    return {name: base64.b64encode(column.astype("<u2").tobytes()).decode() for name, column in columns.items()}


def _terms(names: Sequence[str], samples: csr_array, kind: str) -> list[dict[str, Any]]:
    """Return the terms that at least FEWEST of the samples carry. A term of all samples divides none, so it is out."""
    columns = csr_array(samples.T)
    counts = np.diff(columns.indptr)
    there = np.flatnonzero((counts >= FEWEST) & (counts < samples.shape[0]))
    return [
        {
            "term": clean(names[number]),
            "kind": kind,
            "samples": sorted(columns.indices[columns.indptr[number] : columns.indptr[number + 1]].tolist()),
        }
        for number in there.tolist()
    ]
