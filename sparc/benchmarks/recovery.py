"""Scores of planted directions and supports that a dictionary recovers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array

GOOD = 0.9
"""A direction counts as found above this |cosine|."""


@dataclass(frozen=True)
class Directions:
    """Agreement of the planted directions of a stream with the decoder's."""

    cosine: float
    """|cosine| of a concept's direction with that of its latent, mean over concepts; 0 for a concept without one."""
    above: float
    """Share of the concepts with a |cosine| above 0.9."""


@dataclass(frozen=True)
class Supports:
    """Agreement of the samples' concepts with their active latents, over all samples and concepts together."""

    precision: float
    """Share of the activations of matched latents at which the sample has the concept."""
    recall: float
    """Share of the samples' concepts whose latent is active."""
    f1: float


def cosines(directions_CD: NDArray[np.floating], columns_LD: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return |cosine| of each direction with each column, (C, L); 0 for a column or a direction that is zero."""
    first, second = (_normalised(rows) for rows in (directions_CD, columns_LD))
    return np.abs(first @ second.T)


def _normalised(rows_XD: NDArray[np.floating]) -> NDArray[np.float64]:
    rows_XD = rows_XD.astype(np.float64)
    norms_X1 = np.linalg.norm(rows_XD, axis=1, keepdims=True)
    return rows_XD / np.where(norms_X1 > 0, norms_X1, 1)


def matched(cosines_CL: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return a latent for each concept, (C,), no latent twice, so that the sum of cosines is largest.

    -1 stands for none, where there are fewer latents than concepts.
    """
    latents_C = np.full(len(cosines_CL), -1, dtype=np.intp)
    concepts, latents = linear_sum_assignment(cosines_CL, maximize=True)
    latents_C[concepts] = latents
    return latents_C


def score_directions(cosines_CL: NDArray[np.float64], latents_C: NDArray[np.intp]) -> Directions:
    """Score the directions of concepts by those of their latents."""
    found_C = np.where(latents_C >= 0, cosines_CL[np.arange(len(cosines_CL)), latents_C], 0)
    return Directions(float(found_C.mean()), float((found_C > GOOD).mean()))


def score_supports(planted_NC: csr_array, active_NL: csr_array, latents_C: NDArray[np.intp]) -> Supports:
    """Score the activity of the concepts' latents; both tables are 1 where a sample has, or activates, something."""
    some_C = latents_C >= 0
    found_NC = active_NL[:, latents_C[some_C]]
    right = float(planted_NC[:, np.flatnonzero(some_C)].multiply(found_NC).sum())
    precision, recall = right / max(1.0, float(found_NC.sum())), right / max(1.0, float(planted_NC.sum()))
    return Supports(precision, recall, 2 * precision * recall / (precision + recall) if right else 0.0)


def at_best_threshold(planted_NC: csr_array, values_NC: csr_array) -> csr_array:
    """Return the activity (N, C) of values above the threshold with the best F1. values_NC: positive, or not stored."""
    values = values_NC.tocoo()
    order = np.argsort(-values.data, kind="stable")
    right = np.asarray(planted_NC[values.row, values.col]).ravel()[order] > 0
    f1 = 2 * np.cumsum(right) / (np.arange(1, len(order) + 1) + planted_NC.nnz)
    found = csr_array(values_NC, copy=True)
    found.data = (values_NC.data >= values.data[order[f1.argmax()]]).astype(np.float32) if len(order) else found.data
    found.eliminate_zeros()
    return found
