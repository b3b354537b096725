"""Retrieval: search one stream with another. Both sides are encoded alone: a shared index set would leak the match.

An image or caption that several samples share, such as an image with five captions, is one query and one candidate.
All images and captions of one group are correct answers to each other.
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

from sparc.core.codes import Codes, norms
from sparc.core.space import LatentSpace
from sparc.evaluation.encoding import Encodings, chunks
from sparc.evaluation.report import Ranks, Retrieval
from sparc.evaluation.work import Spread, alone

SCORES = 2**25
"""Scores in memory at a time: 128 MB of float32."""
MAX_QUERIES = 512

Score = Callable[[slice], Tensor]
"""Computes the scores (queries in the slice, M)."""


class Search(NamedTuple):
    """Queries, candidates, and the correct pairs."""

    queries: Tensor
    """(Q,) a sample that shows each query."""
    candidates: Tensor
    """(M,) a sample that shows each candidate."""
    correct: csr_array
    """(Q, M) bool."""


@torch.inference_mode()
def retrieval(
    encodings: Encodings,
    groups: Sequence[str],
    *,
    rows: Mapping[str, Tensor] | None = None,
    shared_spaces: Mapping[str, str] | None = None,
    on_pair: Callable[[str], None] = lambda pair: None,
) -> tuple[Retrieval, ...]:
    """Search every stream with every other: by latents, by reconstruction, and by features if they share a space.

    Samples that lack either stream are left out. rows: per stream (N,), the number of each sample's image or caption;
    None if all are distinct. shared_spaces: per stream, the name of the space of its features.
    """
    there, spaces = encodings.present, shared_spaces or {}
    group_N = np.unique(np.asarray(groups), return_inverse=True)[1]
    found = []
    for query, target in permutations(encodings.space.streams, 2):
        on_pair(f"{query} → {target}")
        both = (there[query] & there[target]).nonzero().squeeze(1).cpu()
        if len(both) == 0:
            continue
        search = _search(both, group_N, *(rows[name] if rows else None for name in (query, target)))
        comparable = query in spaces and spaces[query] == spaces.get(target)
        found.append(_measured(encodings, query, target, search, comparable=comparable))
    return tuple(found)


def _search(both: Tensor, group_N: NDArray[np.intp], query_N: Tensor | None, target_N: Tensor | None) -> Search:
    """Find the distinct queries and candidates among the samples `both`, which have both streams."""
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


def _measured(encodings: Encodings, query: str, target: str, search: Search, *, comparable: bool) -> Retrieval:
    space = encodings.space
    queries, candidates = encodings.solo[query][search.queries], encodings.solo[target][search.candidates]
    decoded = on_decoded(space, queries, target)
    unit_MD = _unit_features(encodings, target, search.candidates)
    cross = summarize(rank(between(decoded, unit_MD), search.correct, encodings.spread))
    raw = None
    if comparable:
        unit_QD = _unit_features(encodings, query, search.queries)
        raw = summarize(rank(between(lambda rows: unit_QD[rows], unit_MD), search.correct, encodings.spread))
    del unit_MD  # frees memory: the next array is as large
    rebuilt_MD = F.normalize(_decoded(space, candidates, target), dim=1)
    return Retrieval(
        query=query,
        target=target,
        queries=len(search.queries),
        candidates=len(search.candidates),
        latents=summarize(rank(on_latents(queries, candidates), search.correct, encodings.spread)),
        reconstruction=summarize(rank(between(decoded, rebuilt_MD), search.correct, encodings.spread)),
        cross=cross,
        raw=raw,
        chance=chance(np.diff(search.correct.indptr), len(search.candidates)),
    )


def on_latents(query: Codes, target: Codes) -> Score:
    """Score by the cosine between codes. A code without active latents has cosine 0 with every other."""
    queries, candidates = _unit(query.to_csr()), csr_array(_unit(target.to_csr()).T)
    return lambda rows: torch.from_numpy((queries[rows] @ candidates).toarray())


def on_decoded(space: LatentSpace, codes: Codes, target: str) -> Callable[[slice], Tensor]:
    """Return a function that decodes the codes of some rows into the target stream, (rows, D)."""
    return lambda rows: space.decode(codes[rows], target)


def _decoded(space: LatentSpace, codes: Codes, target: str) -> Tensor:
    return torch.cat([space.decode(codes[rows], target) for rows in chunks(len(codes))])


def _unit_features(encodings: Encodings, stream: str, samples: Tensor) -> Tensor:
    raw_ND = encodings.features[stream]
    return unit_features(encodings.space, stream, raw_ND[samples.to(raw_ND.device)])


def unit_features(space: LatentSpace, stream: str, raw_MD: Tensor) -> Tensor:
    """Return the normalised features of raw ones, scaled to unit norm."""
    return F.normalize(space.normalize({stream: raw_MD}).features[stream], dim=1)


def between(queries: Callable[[slice], Tensor], unit_MD: Tensor) -> Score:
    """Score by the cosine between features. `queries` computes those of some rows; unit_MD are the candidates'."""
    return lambda rows: F.normalize(queries(rows), dim=1) @ unit_MD.T


def _unit(matrix: csr_array) -> csr_array:
    norms_B = norms(matrix)
    return csr_array(matrix.multiply((1 / np.where(norms_B > 0, norms_B, 1))[:, None].astype(matrix.dtype)))


def rank(score: Score, correct: csr_array, spread: Spread = alone) -> NDArray[np.int64]:
    """Rank the best correct candidate of each query: 1 + the number of wrong candidates that score as high or higher.

    Ties count against the query, because a code without active latents ties with every candidate. So does NaN, which
    compares as not lower. correct: (Q, M) bool, at least one per row.
    """
    n_queries, n_candidates = correct.shape
    size = max(1, min(MAX_QUERIES, SCORES // max(1, n_candidates)))

    def of_block(start: int) -> NDArray[np.int64]:
        rows = slice(start, min(start + size, n_queries))
        scores_QM = score(rows)
        some = correct[rows]
        query = torch.from_numpy(np.repeat(np.arange(some.shape[0]), np.diff(some.indptr))).to(scores_QM.device)
        right = scores_QM[query, torch.from_numpy(some.indices.astype(np.int64)).to(scores_QM.device)]
        best_Q = scores_QM.new_full((len(scores_QM),), -torch.inf).scatter_reduce(0, query, right, "amax")
        below_Q = (scores_QM < best_Q.unsqueeze(1)).sum(dim=1)
        right_not_below_Q = torch.zeros_like(below_Q).scatter_add(0, query, (~(right < best_Q[query])).long())
        found: NDArray[np.int64] = (1 + n_candidates - below_Q - right_not_below_Q).cpu().numpy()
        return found

    return np.concatenate(list(spread(of_block, range(0, n_queries, size))))


def summarize(ranks: NDArray[np.int64]) -> Ranks:
    """Return recall at 1, 5 and 10, median rank and mean reciprocal rank."""
    recall = {f"r{k}": float((ranks <= k).mean()) for k in (1, 5, 10)}
    return Ranks(**recall, median=float(np.median(ranks)), mrr=float((1 / ranks).mean()))


def chance(correct_Q: NDArray[np.intp], candidates: int) -> Ranks:
    """Return the exact expectation for a random order of the M candidates. correct_Q: number of correct ones per query.

    With c correct candidates, the probability that the first j are all wrong is C(M - c, j) / C(M, j).
    """
    M = candidates
    sizes, counts = np.unique(correct_Q, return_counts=True)
    drawn = np.arange(M)
    beyond_M = np.zeros(M)
    for size, count in zip(sizes, counts, strict=True):
        beyond_M += count / len(correct_Q) * np.cumprod(np.maximum(M - size - drawn, 0) / (M - drawn))
    within_M = 1 - beyond_M  # within_M[j - 1]: the probability that the rank is at most j
    probability_M = np.diff(within_M, prepend=0)
    recall = {f"r{k}": float(within_M[min(k, M) - 1]) for k in (1, 5, 10)}
    median = float(np.searchsorted(within_M, 0.5 - 1e-12) + 1)
    return Ranks(**recall, median=median, mrr=float((probability_M / (drawn + 1)).sum()))
