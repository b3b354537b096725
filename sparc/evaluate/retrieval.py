"""Searching one stream with another. Both sides are encoded alone: a shared index set would give the match away."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import permutations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from sparc.core.codes import Codes
from sparc.core.space import LatentSpace
from sparc.evaluate.encoding import Features
from sparc.evaluate.report import Ranks, Retrieval

QUERIES = 512
"""Queries ranked at once: scores are (QUERIES, N)."""

Score = Callable[[slice], NDArray[np.float32]]
"""Scores (queries in the slice, candidates)."""


@torch.inference_mode()
def retrieval(
    space: LatentSpace, features: Features, solo: Mapping[str, Codes], groups: Sequence[str]
) -> tuple[Retrieval, ...]:
    """Search every stream with every other, on latents and on cross-reconstruction (arXiv 2507.06265, section 4).

    Samples of one group are correct answers to each other. Samples that lack either stream are left out.
    """
    batch = space.normalize(features)
    group_N = np.unique(np.asarray(groups), return_inverse=True)[1]
    found = []
    for query, target in permutations(space.streams, 2):
        rows = (batch.present[query] & batch.present[target]).nonzero().squeeze(1)
        group_M = group_N[rows.cpu().numpy()]
        if len(group_M) == 0:
            continue
        found.append(
            Retrieval(
                query=query,
                target=target,
                candidates=len(group_M),
                latents=summarize(rank(on_latents(solo[query][rows], solo[target][rows]), group_M)),
                cross=summarize(
                    rank(on_features(space, solo[query][rows], target, batch.features[target][rows]), group_M)
                ),
                chance=chance(group_M),
            )
        )
    return tuple(found)


def on_latents(query: Codes, target: Codes) -> Score:
    """Cosine between codes; a code without active latents is at cosine 0 from everything."""
    queries, candidates = _unit(query.to_csr()), _unit(target.to_csr())
    return lambda rows: (queries[rows] @ candidates.T).toarray().astype(np.float32)


def on_features(space: LatentSpace, query: Codes, target: str, x_MD: Tensor) -> Score:
    """Cosine between queries decoded into the target stream and the target's normalised features."""
    candidates_MD = F.normalize(x_MD, dim=1)

    def score(rows: slice) -> NDArray[np.float32]:
        decoded_QD = space.decode(query[rows], target)
        return (F.normalize(decoded_QD, dim=1) @ candidates_MD.T).float().cpu().numpy()

    return score


def _unit(matrix: csr_array) -> csr_array:
    norms = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    return csr_array(matrix.multiply(1 / np.where(norms > 0, norms, 1)[:, None]))


def rank(score: Score, group_M: NDArray[np.intp]) -> NDArray[np.int64]:
    """Rank of the best correct candidate of each query: 1 + the number of wrong ones that score as high or higher.

    Ties count against the query: a code without active latents scores alike with all, and must not look good. Nor must
    a score that is not a number, which no comparison finds lower.
    """
    ranks = []
    for start in range(0, len(group_M), QUERIES):
        rows = slice(start, min(start + QUERIES, len(group_M)))
        scores_QM = score(rows)
        correct_QM = group_M[rows][:, None] == group_M[None, :]
        best_Q1 = np.where(correct_QM, scores_QM, -np.inf).max(axis=1, keepdims=True)
        ranks.append(1 + (~(scores_QM < best_Q1) & ~correct_QM).sum(axis=1))
    return np.concatenate(ranks)


def summarize(ranks: NDArray[np.int64]) -> Ranks:
    """Recall at 1, 5 and 10, median rank and mean reciprocal rank."""
    recall = {f"r{k}": float((ranks <= k).mean()) for k in (1, 5, 10)}
    return Ranks(**recall, median=float(np.median(ranks)), mrr=float((1 / ranks).mean()))


def chance(group_M: NDArray[np.intp]) -> Ranks:
    """What a random order of the M candidates gives, exactly.

    With c correct candidates, the rank exceeds j when the first j are all wrong: C(M - c, j) / C(M, j).
    """
    M = len(group_M)
    sizes, counts = np.unique(np.bincount(group_M)[group_M], return_counts=True)
    drawn = np.arange(M)
    beyond_R = np.zeros(M)
    for size, count in zip(sizes, counts, strict=True):
        beyond_R += count / M * np.cumprod(np.maximum(M - size - drawn, 0) / (M - drawn))
    within_R = 1 - beyond_R  # within_R[j - 1]: the probability that the rank is at most j
    probability_R = np.diff(within_R, prepend=0)
    recall = {f"r{k}": float(within_R[min(k, M) - 1]) for k in (1, 5, 10)}
    median = float(np.searchsorted(within_R, 0.5 - 1e-12) + 1)
    return Ranks(**recall, median=median, mrr=float((probability_R / (drawn + 1)).sum()))
