"""Searching one stream with another. Both sides are encoded alone: a shared index set would give the match away.

What several samples show, an image with five captions or a caption of two images, is one query and one candidate; what
belongs to one image is a correct answer to each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import permutations
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from sparc.core.codes import Codes
from sparc.core.space import LatentSpace, present
from sparc.evaluation.encoding import Features, chunks
from sparc.evaluation.report import Ranks, Retrieval

SCORES = 2**25
"""Scores in memory at a time: 128 MB."""
MAX_QUERIES = 512

Score = Callable[[slice], Tensor]
"""Scores (queries in the slice, candidates)."""


class Search(NamedTuple):
    """Queries, candidates, and which of them belong together."""

    queries: Tensor
    """(Q,) a sample of each."""
    candidates: Tensor
    """(M,) a sample of each."""
    correct: csr_array
    """(Q, M) bool."""


@torch.inference_mode()
def retrieval(
    space: LatentSpace,
    features: Features,
    solo: Mapping[str, Codes],
    groups: Sequence[str],
    *,
    rows: Mapping[str, Tensor] | None = None,
    shared_spaces: Mapping[str, str] | None = None,
) -> tuple[Retrieval, ...]:
    """Search every stream with every other: by latents, by reconstruction and, where they share a space, by features.

    rows: per stream (N,), the distinct image or caption of each sample; without it every sample has its own. Samples
    that lack either stream are left out. shared_spaces: by stream the name of the space that its features lie in.
    """
    there = {name: present(features[name]) for name in space.streams}
    group_N = np.unique(np.asarray(groups), return_inverse=True)[1]
    found = []
    for query, target in permutations(space.streams, 2):
        both = (there[query] & there[target]).nonzero().squeeze(1).cpu()
        if len(both) == 0:
            continue
        search = _search(both, group_N, *(rows[name] if rows else None for name in (query, target)))
        found.append(_measured(space, features, solo, query, target, search, shared_spaces or {}))
    return tuple(found)


def _search(both: Tensor, group_N: NDArray[np.intp], query_N: Tensor | None, target_N: Tensor | None) -> Search:
    """Lay out the samples `both` as distinct queries and candidates."""
    group_B = group_N[both.numpy()]
    sides = []
    for rows_N in (query_N, target_N):
        rows_B = np.arange(len(both)) if rows_N is None else rows_N[both].numpy()
        _, first, place_B = np.unique(rows_B, return_index=True, return_inverse=True)
        shape = (len(first), int(group_N.max()) + 1)
        members = csr_array((np.ones(len(both), np.float32), (place_B, group_B)), shape=shape)
        sides.append((both[torch.from_numpy(first)], members))
    (queries, of_queries), (candidates, of_candidates) = sides
    return Search(queries, candidates, csr_array(of_queries @ of_candidates.T).astype(bool))


def _measured(
    space: LatentSpace,
    features: Features,
    solo: Mapping[str, Codes],
    query: str,
    target: str,
    search: Search,
    shared_spaces: Mapping[str, str],
) -> Retrieval:
    queries, candidates = solo[query][search.queries], solo[target][search.candidates]
    decoded = on_decoded(space, queries, target)
    unit_MD = _unit_features(space, features, target, search.candidates)
    cross = summarize(rank(between(decoded, unit_MD), search.correct))
    raw = None
    if query in shared_spaces and shared_spaces[query] == shared_spaces.get(target):
        unit_QD = _unit_features(space, features, query, search.queries)
        raw = summarize(rank(between(lambda rows: unit_QD[rows], unit_MD), search.correct))
    del unit_MD  # as large as what comes next
    rebuilt_MD = F.normalize(_decoded(space, candidates, target), dim=1)
    return Retrieval(
        query=query,
        target=target,
        queries=len(search.queries),
        candidates=len(search.candidates),
        latents=summarize(rank(on_latents(queries, candidates), search.correct)),
        reconstruction=summarize(rank(between(decoded, rebuilt_MD), search.correct)),
        cross=cross,
        raw=raw,
        chance=chance(np.diff(search.correct.indptr), len(search.candidates)),
    )


def on_latents(query: Codes, target: Codes) -> Score:
    """Cosine between codes; a code without active latents is at cosine 0 from everything."""
    queries, candidates = _unit(query.to_csr()), csr_array(_unit(target.to_csr()).T)
    return lambda rows: torch.from_numpy((queries[rows] @ candidates).toarray())


def on_decoded(space: LatentSpace, codes: Codes, target: str) -> Callable[[slice], Tensor]:
    """Codes of some samples decoded into the target stream, (rows, D)."""
    return lambda rows: space.decode(codes[rows], target)


def _decoded(space: LatentSpace, codes: Codes, target: str) -> Tensor:
    return torch.cat([space.decode(codes[rows], target) for rows in chunks(len(codes))])


def _unit_features(space: LatentSpace, features: Features, stream: str, samples: Tensor) -> Tensor:
    """Normalised features of some samples, each on unit norm."""
    raw_MD = features[stream][samples.to(features[stream].device)]
    return F.normalize(space.normalize({stream: raw_MD}).features[stream], dim=1)


def between(queries: Callable[[slice], Tensor], unit_MD: Tensor) -> Score:
    """Cosine between features, those of queries made when they are asked for, those of candidates on unit norm."""
    return lambda rows: F.normalize(queries(rows), dim=1) @ unit_MD.T


def _unit(matrix: csr_array) -> csr_array:
    norms = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    return csr_array(matrix.multiply((1 / np.where(norms > 0, norms, 1))[:, None].astype(matrix.dtype)))


def rank(score: Score, correct: csr_array) -> NDArray[np.int64]:
    """Rank of the best correct candidate of each query: 1 + the number of wrong ones that score as high or higher.

    Ties count against the query: a code without active latents scores alike with all, and must not look good. Nor must
    a score that is not a number, which no comparison finds lower. correct: (Q, M) bool, one or more in each row.
    """
    n_queries, n_candidates = correct.shape
    size = max(1, min(MAX_QUERIES, SCORES // max(1, n_candidates)))
    ranks = []
    for start in range(0, n_queries, size):
        rows = slice(start, min(start + size, n_queries))
        scores_QM = score(rows)
        some = correct[rows]
        query = torch.from_numpy(np.repeat(np.arange(some.shape[0]), np.diff(some.indptr))).to(scores_QM.device)
        right = scores_QM[query, torch.from_numpy(some.indices.astype(np.int64)).to(scores_QM.device)]
        best_Q = scores_QM.new_full((len(scores_QM),), -torch.inf).scatter_reduce(0, query, right, "amax")
        below_Q = (scores_QM < best_Q.unsqueeze(1)).sum(dim=1)
        right_not_below_Q = torch.zeros_like(below_Q).scatter_add(0, query, (~(right < best_Q[query])).long())
        ranks.append((1 + n_candidates - below_Q - right_not_below_Q).cpu().numpy())
    return np.concatenate(ranks)


def summarize(ranks: NDArray[np.int64]) -> Ranks:
    """Recall at 1, 5 and 10, median rank and mean reciprocal rank."""
    recall = {f"r{k}": float((ranks <= k).mean()) for k in (1, 5, 10)}
    return Ranks(**recall, median=float(np.median(ranks)), mrr=float((1 / ranks).mean()))


def chance(correct_Q: NDArray[np.intp], candidates: int) -> Ranks:
    """What a random order of the M candidates gives, exactly. correct_Q: how many of them are correct, per query.

    With c correct candidates, the rank exceeds j when the first j are all wrong: C(M - c, j) / C(M, j).
    """
    M = candidates
    sizes, counts = np.unique(correct_Q, return_counts=True)
    drawn = np.arange(M)
    beyond_R = np.zeros(M)
    for size, count in zip(sizes, counts, strict=True):
        beyond_R += count / len(correct_Q) * np.cumprod(np.maximum(M - size - drawn, 0) / (M - drawn))
    within_R = 1 - beyond_R  # within_R[j - 1]: the probability that the rank is at most j
    probability_R = np.diff(within_R, prepend=0)
    recall = {f"r{k}": float(within_R[min(k, M) - 1]) for k in (1, 5, 10)}
    median = float(np.searchsorted(within_R, 0.5 - 1e-12) + 1)
    return Ranks(**recall, median=median, mrr=float((probability_R / (drawn + 1)).sum()))
