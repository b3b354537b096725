"""Whether a latent means the same in every stream: hierarchical Jaccard, with intervals and both nulls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.sparse import csc_array, csr_array
from scipy.special import stdtrit
from torch import Tensor

from sparc.core.codes import Codes
from sparc.core.space import LatentSpace, present
from sparc.evaluation.encoding import Features, activity, encode_joint
from sparc.evaluation.labels import Levels, dense, levels, parts, summed
from sparc.evaluation.report import Depth, Interval, Overlap
from sparc.plugins.contracts import Taxonomy

BLOCKS = 32
"""Parts of the samples that the bootstrap draws; a standard error from them is itself good to an eighth."""
FEWEST_BLOCKS = 16
"""Parts from which there is an interval: one from fewer is too narrow."""
REPLICATES = 50
COUNTS = 2**22
"""Counts of labels, of all parts of some latents, made at a time."""


class Activity(NamedTuple):
    """Which samples activate which latents, and which have the stream at all."""

    active: Mapping[str, csr_array]
    """(N, L) per stream."""
    present: Mapping[str, NDArray[np.bool_]]
    """(N,) per stream."""


def shuffles(names: Sequence[str], n_samples: int, seed: int) -> dict[str, Tensor]:
    """An order of the samples per stream: the first stream's is left, the others are drawn."""
    generator = np.random.default_rng([seed, 1])
    orders = {name: torch.from_numpy(generator.permutation(n_samples)) for name in names}
    orders[names[0]] = torch.arange(n_samples)
    return orders


def hierarchical_jaccard(
    space: LatentSpace,
    features: Features,
    joint: Mapping[str, Codes],
    solo: Mapping[str, Codes],
    labels: csr_array,
    taxonomy: Taxonomy,
    groups: Sequence[str],
    seed: int,
) -> tuple[Depth, ...]:
    """Overlap of the labels that a latent stands for in each stream, at every depth, with both nulls.

    In the null every stream but the first has its samples permuted, each stream in its own order; all else stays, and a
    row keeps its labels. labels: (N, n_labels) multi-hot, columns as in `taxonomy.labels`; groups: what the bootstrap
    keeps together.
    """
    orders = shuffles(list(space.streams), labels.shape[0], seed)
    shuffled = {name: features[name][orders[name].to(features[name].device)] for name in space.streams}
    there = {name: present(features[name]).cpu().numpy() for name in space.streams}
    there_shuffled = {name: there[name][orders[name].numpy()] for name in space.streams}
    solo_shuffled = {name: code[orders[name].to(code.indices.device)] for name, code in solo.items()}
    kinds = {
        "joint": Activity({name: activity(code) for name, code in joint.items()}, there),
        "solo": Activity({name: activity(code) for name, code in solo.items()}, there),
        "joint_null": Activity(
            {name: activity(code) for name, code in encode_joint(space, shuffled).items()}, there_shuffled
        ),
        "solo_null": Activity({name: activity(code) for name, code in solo_shuffled.items()}, there_shuffled),
    }
    return by_depth(kinds, labels, taxonomy, groups, seed)


def by_depth(
    kinds: Mapping[str, Activity], labels: csr_array, taxonomy: Taxonomy, groups: Sequence[str], seed: int
) -> tuple[Depth, ...]:
    """Overlap at every depth of what is active, by the kinds that `Depth` has."""
    found = levels(labels, taxonomy)
    draws = bootstrap(groups, seed)
    overlaps = {kind: jaccard(activity, found, draws) for kind, activity in kinds.items()}
    return tuple(
        Depth(depth=depth, **{kind: overlap[depth] for kind, overlap in overlaps.items()})
        for depth in range(taxonomy.max_depth + 1)
    )


class Draws(NamedTuple):
    """Samples drawn anew, by parts."""

    block: NDArray[np.intp]
    """(N,) the part of each sample."""
    weights: NDArray[np.float32]
    """(1 + replicates, parts): how often each part is drawn; once each in the first row."""


def bootstrap(groups: Sequence[str], seed: int) -> Draws:
    """Draw half of the parts twice each, again and again: the half-sample bootstrap (McCarthy 1969).

    Drawing with replacement would repeat more samples in some replicates than in others, and overlaps of counts
    depend on how many different samples there are.
    """
    block_N = parts(groups, BLOCKS)
    count = int(block_N.max()) + 1
    generator = np.random.default_rng([seed, 2])
    weights_RG = np.ones((1 + REPLICATES, count), np.float32)
    for weights_G in weights_RG[1:]:
        weights_G[:] = 2 * (generator.permutation(count) < count / 2)
    return Draws(block_N, weights_RG)


def jaccard(activity: Activity, found: Levels, draws: Draws) -> list[Overlap]:
    """Per depth, the mean over latents of the overlap of label counts between streams (arXiv 2507.06265, section 4).

    Per latent and stream, the counts of labels over the samples that activate it; for two streams alive in the latent
    the sum of minima over the sum of maxima of their counts; averaged over the pairs of streams alive in the latent.
    For a pair the samples count that have both streams. Samples without labels count nothing, so a latent that stands
    for such samples alone overlaps 0.
    """
    active, pairs = _sides(activity)
    n_latents = next(iter(active.values())).shape[1]
    shape = (len(draws.weights), found.counted.shape[1])
    total_RD, alive_R = torch.zeros(shape, dtype=torch.float64), torch.zeros(shape[0], dtype=torch.float64)
    weights_RG = torch.from_numpy(draws.weights)
    # The last column counts samples, which no depth does.
    counted_QD = F.pad(torch.from_numpy(found.counted), (0, 0, 0, 1))
    for by_part in _label_counts(active, found.said, draws.block):
        counts = {name: _drawn(weights_RG, counts_GlQ) for name, counts_GlQ in by_part.items()}
        sums = {name: _drawn(weights_RG, counts_GlQ @ counted_QD) for name, counts_GlQ in by_part.items()}
        overlap_RlD = torch.zeros_like(next(iter(sums.values())), dtype=torch.float64)
        pairs_Rl = torch.zeros(overlap_RlD.shape[:2])
        for first, second in pairs:
            both_Rl = (counts[first][:, :, -1] > 0) & (counts[second][:, :, -1] > 0)
            minima_RlD = torch.minimum(counts[first], counts[second]) @ counted_QD
            maxima_RlD = sums[first] + sums[second] - minima_RlD
            overlap_RlD += both_Rl.unsqueeze(2) * (minima_RlD.double() / maxima_RlD.clamp(min=1))
            pairs_Rl += both_Rl
        mean_RlD = overlap_RlD / pairs_Rl.clamp(min=1).unsqueeze(2)
        total_RD += mean_RlD.sum(dim=1)
        alive_R += (pairs_Rl > 0).sum(dim=1)
    over_all_RD, over_alive_RD = total_RD / n_latents, total_RD / alive_R.unsqueeze(1)
    return _overlaps(over_all_RD.numpy(), over_alive_RD.numpy(), parts=draws.weights.shape[1])


def _sides(activity: Activity) -> tuple[dict[str, csr_array], list[tuple[str, str]]]:
    """Activity to count (N, L), by name, and for each pair of streams the names of its two sides.

    Where every sample has both streams the sides are the streams; else what they are in the samples that have both.
    """
    tables: dict[str, csr_array] = {}
    pairs = []
    for pair in combinations(activity.active, 2):
        both_N = activity.present[pair[0]] & activity.present[pair[1]]
        sides = []
        for name, other in (pair, pair[::-1]):
            side = name if both_N.all() else f"{name} where {other}"
            if side not in tables:
                tables[side] = _where(activity.active[name], both_N)
            sides.append(side)
        pairs.append((sides[0], sides[1]))
    return tables, pairs


def _where(active: csr_array, both_N: NDArray[np.bool_]) -> csr_array:
    if both_N.all():
        return active
    found = csr_array(active.multiply(both_N[:, None].astype(active.dtype)))
    found.eliminate_zeros()
    return found


def _drawn(weights_RG: Tensor, counts_GlX: Tensor) -> Tensor:
    return (weights_RG @ counts_GlX.flatten(1)).view(len(weights_RG), *counts_GlX.shape[1:])


def _label_counts(
    active: Mapping[str, csr_array], said: csr_array, block: NDArray[np.intp]
) -> Iterator[dict[str, Tensor]]:
    """By stream (parts, l, Q + 1): labels of the samples that activate a latent, and their number; some at a time."""
    order_N = np.argsort(block, kind="stable")
    ends_G = np.cumsum(np.bincount(block))
    slices = [slice(low, high) for low, high in zip([0, *ends_G[:-1]], ends_G, strict=True)]
    said_NQ = F.pad(dense(said[order_N]), (0, 1), value=1)
    by_latent = {name: [csc_array(matrix[order_N[part]]) for part in slices] for name, matrix in active.items()}
    n_latents = next(iter(active.values())).shape[1]
    size = max(1, COUNTS // (said_NQ.shape[1] * len(slices)))
    for start in range(0, n_latents, size):
        latents = slice(start, min(start + size, n_latents))
        counts: dict[str, list[Tensor]] = {name: [] for name in active}
        for number, part in enumerate(slices):
            rows_nQ = said_NQ[part].float()
            for name in active:
                counts[name].append(summed(by_latent[name][number], rows_nQ, latents))
        yield {name: torch.stack(parts) for name, parts in counts.items()}


def _overlaps(over_all_RD: NDArray[np.float64], over_alive_RD: NDArray[np.float64], *, parts: int) -> list[Overlap]:
    found = []
    for all_R, alive_R in zip(over_all_RD.T, over_alive_RD.T, strict=True):
        some = np.isfinite(alive_R[0])
        found.append(
            Overlap(
                all=float(all_R[0]),
                alive=float(alive_R[0]) if some else None,
                all_interval=_interval(all_R, parts),
                alive_interval=_interval(alive_R, parts) if some else None,
            )
        )
    return found


def _interval(values_R: NDArray[np.float64], parts: int) -> Interval | None:
    """By the spread of the replicates around their own mean: drawing twice what was drawn once biases overlaps.

    None where the parts are too few for an honest one.
    """
    estimate, replicates = values_R[0], values_R[1:][np.isfinite(values_R[1:])]
    if parts < FEWEST_BLOCKS or len(replicates) < 2:
        return None
    # Of an odd number one part more is drawn than left, which varies a little less.
    odd = np.sqrt((parts + 1) / (parts - 1)) if parts % 2 else 1.0
    reach = float(stdtrit(parts - 1, 0.975) * odd * np.std(replicates, ddof=1))
    return max(0.0, float(estimate) - reach), min(1.0, float(estimate) + reach)
