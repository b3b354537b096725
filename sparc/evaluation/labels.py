"""Labels at every depth of a taxonomy, as one sparse matrix; and the parts of the samples that the bootstrap draws."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, hstack

from sparc.plugins.contracts import Taxonomy


class Levels(NamedTuple):
    """Labels as every depth of a taxonomy counts them.

    Depth d counts a label above d if the sample itself has it, and a label at d if the sample has it or a descendant
    that is lifted to it. So two columns per label are enough for all depths; one if no other label is lifted to it.
    """

    lifted: csr_array
    """(N, C) float32, 1 if the sample has the label, or a descendant that is lifted to it."""
    columns: csr_array
    """(N, J) float32: `lifted`, then the labels of the samples themselves, for the labels whose two columns differ."""
    counted: NDArray[np.float32]
    """(J, H), 1 if the depth counts the column."""
    depths: NDArray[np.intp]
    """(C,) depth of each label."""


def levels(labels: csr_array, taxonomy: Taxonomy) -> Levels:
    """Arrange labels, (N, C) multi-hot with columns as in `taxonomy.labels`, for all depths.

    An ancestor that several labels of a sample share counts once.
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
    own = binary(labels)
    lifted = binary(own @ lift)
    differs_C = _totals(own) < _totals(lifted)
    at_H = np.arange(taxonomy.max_depth + 1)
    above_CH = depths[:, None] < at_H
    counted = np.concatenate([(depths[:, None] == at_H) | (above_CH & ~differs_C[:, None]), above_CH[differs_C]])
    columns = hstack([lifted, own[:, np.flatnonzero(differs_C)]])
    return Levels(lifted, csr_array(columns), counted.astype(np.float32), depths)


def _totals(matrix: csr_array) -> NDArray[np.float64]:
    return np.asarray(matrix.sum(axis=0, dtype=np.float64)).ravel()


def binary(matrix: csr_array) -> csr_array:
    """Return a matrix with 1 in place of every nonzero, float32, without stored zeros."""
    found = csr_array(matrix, copy=True)
    found.eliminate_zeros()
    found.data = np.ones(len(found.data), dtype=np.float32)
    return found


def parts(groups: Sequence[str], count: int) -> NDArray[np.intp]:
    """Return the part of each sample, (N,), below `count`. Groups stay whole, and parts have equally many groups.

    The parts depend on the names of the groups alone, not on the order of the samples.
    """
    names, group_N = np.unique(np.asarray(groups), return_inverse=True)
    drawn = [hashlib.sha256(f"part:{name}".encode()).digest() for name in names]
    part_G = np.empty(len(names), dtype=np.intp)
    part_G[sorted(range(len(names)), key=drawn.__getitem__)] = np.arange(len(names)) % count
    return np.asarray(part_G[group_N])


def summed(active_LN: csr_array, labels_NX: csr_array) -> NDArray[np.float32]:
    """Count, per latent, the samples that activate it, by label: (L, X).

    active_LN: float32, 1 where active; labels_NX: float32, 0 or 1.
    """
    counts: NDArray[np.float32] = (active_LN @ labels_NX).toarray()
    return counts
