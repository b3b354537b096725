"""Whether a latent means the same in every stream: hierarchical Jaccard, and which latents are alive where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from sparc.contracts import Taxonomy
from sparc.core.codes import Codes
from sparc.core.space import LatentSpace
from sparc.evaluate.encoding import Features, activity, encode_joint
from sparc.evaluate.report import Depth, Overlap

Activity = Mapping[str, csr_array]


def liveness(codes: Mapping[str, Codes], n_latents: int) -> tuple[int, int, int]:
    """Count latents active at least once in all streams, in none, and in some only."""
    alive_SL = np.stack([activity(code).sum(axis=0) > 0 for code in codes.values()])
    everywhere, nowhere = int(alive_SL.all(axis=0).sum()), int((~alive_SL.any(axis=0)).sum())
    return everywhere, nowhere, n_latents - everywhere - nowhere


def mean_l0(codes: Codes, present_N: Tensor) -> float:
    """Active latents per sample, over the samples that have the stream."""
    return int((codes.values > 0).sum()) / max(1, int(present_N.sum()))


def hierarchical_jaccard(
    space: LatentSpace,
    features: Features,
    joint: Mapping[str, Codes],
    solo: Mapping[str, Codes],
    labels: csr_array,
    taxonomy: Taxonomy,
    seed: int,
) -> tuple[Depth, ...]:
    """Overlap of the labels that a latent stands for in each stream, at every depth, with both nulls.

    In the null every stream but the first has its samples permuted, each stream in its own order; all else stays, and a
    row keeps its labels. labels: (N, n_labels) multi-hot, columns as in `taxonomy.labels`.
    """
    orders = shuffles(list(space.streams), labels.shape[0], seed)
    shuffled = {name: features[name][orders[name].to(features[name].device)] for name in space.streams}
    kinds: dict[str, Activity] = {
        "joint": {name: activity(code) for name, code in joint.items()},
        "solo": {name: activity(code) for name, code in solo.items()},
        "joint_null": {name: activity(code) for name, code in encode_joint(space, shuffled).items()},
        "solo_null": {name: activity(code[orders[name].to(code.indices.device)]) for name, code in solo.items()},
    }
    depths = []
    for depth in range(taxonomy.max_depth + 1):
        lifted = lift_labels(labels, taxonomy, depth)
        overlaps = {kind: jaccard(active, lifted) for kind, active in kinds.items()}
        depths.append(Depth(depth=depth, **overlaps))
    return tuple(depths)


def shuffles(names: Sequence[str], n_samples: int, seed: int) -> dict[str, Tensor]:
    """An order of the samples per stream: the first stream's is left, the others are drawn."""
    generator = np.random.default_rng([seed, 1])
    orders = {name: torch.from_numpy(generator.permutation(n_samples)) for name in names}
    orders[names[0]] = torch.arange(n_samples)
    return orders


def lift_labels(labels: csr_array, taxonomy: Taxonomy, depth: int) -> csr_array:
    """Labels lifted to their ancestors at `depth`: (N, n_labels), 0 or 1.

    A label that lies no deeper stays itself. A sample whose labels share an ancestor counts it once.
    """
    column = {label: number for number, label in enumerate(taxonomy.labels)}
    targets = [column[taxonomy.lift(label, depth)] for label in taxonomy.labels]
    size = len(targets)
    lift = csr_array((np.ones(size), (np.arange(size), targets)), shape=(size, size))
    lifted = csr_array(labels.astype(np.float64) @ lift)
    lifted.data = np.ones_like(lifted.data)
    return lifted


def jaccard(active: Activity, labels: csr_array) -> Overlap:
    """Mean over latents of the overlap of label counts between streams (arXiv 2507.06265, section 4).

    Per latent and stream, the counts of labels over the samples that activate it; for two streams alive in the latent
    the sum of minima over the sum of maxima of their counts; averaged over the pairs of streams alive in the latent.
    active: (N, L) per stream; labels: (N, n_labels). Samples without labels count nothing, so a latent that stands for
    such samples alone overlaps 0.
    """
    counts = {name: csr_array(matrix.T @ labels) for name, matrix in active.items()}
    alive = {name: np.asarray(matrix.sum(axis=0)).ravel() > 0 for name, matrix in active.items()}
    n_latents = len(next(iter(alive.values())))
    total_L = np.zeros(n_latents)
    pairs_L = np.zeros(n_latents)
    for first, second in combinations(active, 2):
        both_L = alive[first] & alive[second]
        total_L += np.where(both_L, _overlap(counts[first], counts[second]), 0)
        pairs_L += both_L
    mean_L = total_L / np.maximum(pairs_L, 1)
    n_alive = int((pairs_L > 0).sum())
    return Overlap(all=float(mean_L.mean()), alive=float(mean_L.sum() / n_alive) if n_alive else None)


def _overlap(first: csr_array, second: csr_array) -> NDArray[np.float64]:
    minima = np.asarray(first.minimum(second).sum(axis=1)).ravel()
    maxima = np.asarray(first.maximum(second).sum(axis=1)).ravel()
    return minima / np.where(maxima > 0, maxima, 1)
