"""Labels at every depth of a taxonomy, as one sparse matrix; and parts of the samples, drawn by their groups' names."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.sparse import csc_array, csr_array, hstack
from torch import Tensor

from sparc.plugins.contracts import Taxonomy


class Levels(NamedTuple):
    """Labels as the depths of a taxonomy see them.

    At depth d a sample counts a label above d where it is said of the sample itself, and a label at d where it or one
    lifted to it is. So two columns per label hold what all depths count, and one where nothing is lifted to it.
    """

    lifted: csr_array
    """(N, labels) float32, 0 or 1: whether the sample has the label, or one that is lifted to it."""
    said: csr_array
    """(N, Q) the same, and then what is said of the sample itself, of labels for which that is less."""
    counted: NDArray[np.float32]
    """(Q, depths): whether a depth counts the column."""
    depths: NDArray[np.intp]
    """(labels,) depth of each label."""


def levels(labels: csr_array, taxonomy: Taxonomy) -> Levels:
    """Lay out labels (N, labels) multi-hot, columns as in `taxonomy.labels`, for all depths.

    A sample whose labels share an ancestor counts it once.
    """
    depths = np.array([taxonomy.depth(label) for label in taxonomy.labels], dtype=np.intp)
    column = {label: number for number, label in enumerate(taxonomy.labels)}
    pairs = [
        (column[label], column[taxonomy.lift(label, depth)])
        for label in taxonomy.labels
        for depth in range(taxonomy.depth(label) + 1)
    ]
    below, above = np.array(pairs, dtype=np.intp).reshape(-1, 2).T
    lift = csr_array((np.ones(len(pairs), np.float32), (below, above)), shape=(len(depths), len(depths)))
    itself = _binary(labels)
    lifted = _binary(itself @ lift)
    less_C = _totals(itself) < _totals(lifted)
    at_D = np.arange(taxonomy.max_depth + 1)
    above_CD = depths[:, None] < at_D
    counted = np.concatenate([(depths[:, None] == at_D) | (above_CD & ~less_C[:, None]), above_CD[less_C]])
    said = hstack([lifted, itself[:, np.flatnonzero(less_C)]])
    return Levels(lifted, csr_array(said), counted.astype(np.float32), depths)


def _totals(matrix: csr_array) -> NDArray[np.float64]:
    return np.asarray(matrix.sum(axis=0, dtype=np.float64)).ravel()


def _binary(matrix: csr_array) -> csr_array:
    found = csr_array(matrix, copy=True)
    found.eliminate_zeros()
    found.data = np.ones(len(found.data), dtype=np.float32)
    return found


def parts(groups: Sequence[str], count: int) -> NDArray[np.intp]:
    """One of `count` parts for each sample (N,), the same for all of a group; every part has as many groups.

    By the groups' names alone: the order of the samples changes nothing.
    """
    names, group_N = np.unique(np.asarray(groups), return_inverse=True)
    drawn = [hashlib.sha256(f"part:{name}".encode()).digest() for name in names]
    part_G = np.empty(len(names), dtype=np.intp)
    part_G[sorted(range(len(names)), key=drawn.__getitem__)] = np.arange(len(names)) % count
    return np.asarray(part_G[group_N])


def dense(labels: csr_array) -> Tensor:
    """Labels (N, Q), 0 or 1, as bytes: adding whole rows is faster than looking for the few labels in each."""
    return torch.from_numpy(labels.astype(np.uint8).toarray())


def summed(active: csc_array, labels_NQ: Tensor, latents: slice = slice(None)) -> Tensor:
    """Per latent of a range, how many of the samples that activate it have each label: (l, Q) float32.

    active: (N, L), 1 where active; labels_NQ: float32, 0 or 1.
    """
    first, last, _ = latents.indices(active.shape[1])
    starts = torch.from_numpy(active.indptr[first : last + 1].astype(np.int64))
    samples = torch.from_numpy(active.indices[starts[0] : starts[-1]].astype(np.int64))
    return F.embedding_bag(samples, labels_NQ, starts[:-1] - starts[0], mode="sum")
