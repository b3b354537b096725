"""Hierarchical Jaccard: does a latent stand for the same labels in every stream? With intervals and both nulls.

The bootstrap is ours because scipy.stats.bootstrap resamples with replacement, which biases an overlap of counts, and
counts again for each replicate; ours draws half of the parts twice each (see `bootstrap`) and counts once per part.
benchmarks/ours_and_libraries.py shows both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.sparse import csr_array, hstack
from scipy.special import stdtrit
from torch import Tensor

from sparc.core.codes import Codes
from sparc.evaluation.encoding import Encodings, activity, encode_joint
from sparc.evaluation.labels import Levels, levels, parts, summed
from sparc.evaluation.report import DepthOverlap, Interval, Overlap, SoloOverlap
from sparc.evaluation.work import Spread, alone
from sparc.plugins.contracts import Taxonomy

PARTS = 32
"""Parts of the samples that the bootstrap draws. A standard error from 32 parts is itself known to about an eighth."""
FEWEST_PARTS = 16
"""Parts needed for an interval: with fewer, intervals come out too narrow."""
REPLICATES = 50
COUNTS = 2**22
"""Counts in memory at a time: (P, l, J), with as many latents l as fit."""


class Activity(NamedTuple):
    """The samples that activate each latent, and the samples that have the stream at all."""

    active: Mapping[str, csr_array]
    """(N, L) per stream."""
    present: Mapping[str, NDArray[np.bool_]]
    """(N,) per stream."""


def shuffles(names: Sequence[str], n_samples: int, seed: int) -> dict[str, Tensor]:
    """Draw an order of the samples for each stream but the first, which keeps its own."""
    generator = np.random.default_rng([seed, 1])
    orders = {name: torch.from_numpy(generator.permutation(n_samples)) for name in names}
    orders[names[0]] = torch.arange(n_samples)
    return orders


def hierarchical_jaccard(
    encodings: Encodings, labels: csr_array, taxonomy: Taxonomy, groups: Sequence[str], seed: int
) -> tuple[DepthOverlap, ...]:
    """Measure the overlap of the labels that a latent stands for in each stream, at every depth, with both nulls.

    In the null, the samples of every stream but the first are permuted, each stream in its own order, and rows keep
    their labels. labels: (N, C) multi-hot, columns as in `taxonomy.labels`. groups: the bootstrap keeps each whole.
    """
    space, features = encodings.space, encodings.features
    orders = shuffles(list(space.streams), labels.shape[0], seed)
    shuffled = {name: features[name][orders[name].to(features[name].device)] for name in space.streams}
    solo = _solo_kinds(encodings, orders)
    kinds = {
        "joint": solo["solo"]._replace(active=_activities(encodings.joint)),
        "joint_null": solo["solo_null"]._replace(active=_activities(encode_joint(space, shuffled, encodings.spread))),
        **solo,
    }
    draws = bootstrap(groups, seed)
    return tuple(DepthOverlap(**fields) for fields in by_depth(kinds, labels, taxonomy, draws, encodings.spread))


def solo_jaccard(
    encodings: Encodings, labels: csr_array, taxonomy: Taxonomy, groups: Sequence[str], seed: int
) -> tuple[SoloOverlap, ...]:
    """Measure what `hierarchical_jaccard` measures, for solo codes only."""
    kinds = _solo_kinds(encodings, shuffles(list(encodings.space.streams), labels.shape[0], seed))
    draws = bootstrap(groups, seed)
    return tuple(SoloOverlap(**fields) for fields in by_depth(kinds, labels, taxonomy, draws, encodings.spread))


def _solo_kinds(encodings: Encodings, orders: Mapping[str, Tensor]) -> dict[str, Activity]:
    """Return the activity of solo codes, and that of the codes in the shuffled orders."""
    there = {name: present_N.cpu().numpy() for name, present_N in encodings.present.items()}
    shuffled = {name: codes[orders[name].to(codes.indices.device)] for name, codes in encodings.solo.items()}
    there_shuffled = {name: there[name][orders[name].numpy()] for name in there}
    return {
        "solo": Activity(_activities(encodings.solo), there),
        "solo_null": Activity(_activities(shuffled), there_shuffled),
    }


def _activities(codes: Mapping[str, Codes]) -> dict[str, csr_array]:
    return {name: activity(code) for name, code in codes.items()}


def by_depth(
    kinds: Mapping[str, Activity], labels: csr_array, taxonomy: Taxonomy, draws: Draws, spread: Spread = alone
) -> list[dict[str, Any]]:
    """Measure the overlap of each kind at every depth. Returns per depth the fields of `DepthOverlap`."""
    by_level = levels(labels, taxonomy)
    overlaps = {kind: jaccard(activity, by_level, draws, spread) for kind, activity in kinds.items()}
    return [
        {"depth": depth, **{kind: overlap[depth] for kind, overlap in overlaps.items()}}
        for depth in range(taxonomy.max_depth + 1)
    ]


class Draws(NamedTuple):
    """Bootstrap replicates of the samples, drawn by parts."""

    part: NDArray[np.intp]
    """(N,) the part of each sample."""
    weights: NDArray[np.float32]
    """(R, P), how often each part is drawn; the first row draws each once, which gives the estimate itself."""


def bootstrap(groups: Sequence[str], seed: int) -> Draws:
    """Draw half of the parts twice each, per replicate: the half-sample bootstrap (McCarthy 1969).

    Drawing with replacement would give replicates of different numbers of distinct samples, and overlaps of counts
    depend on that number.
    """
    part_N = parts(groups, PARTS)
    count = int(part_N.max()) + 1
    generator = np.random.default_rng([seed, 2])
    weights_RP = np.ones((1 + REPLICATES, count), np.float32)
    for weights_P in weights_RP[1:]:
        weights_P[:] = 2 * (generator.permutation(count) < count / 2)
    return Draws(part_N, weights_RP)


def jaccard(activity: Activity, by_level: Levels, draws: Draws, spread: Spread = alone) -> list[Overlap]:
    """Return, per depth, the mean over latents of the overlap of label counts (arXiv 2507.06265, section 4).

    Labels are counted per latent and stream, over the samples that activate the latent. The overlap of two streams
    alive in the latent is the sum of the minima of their counts over the sum of the maxima, over samples that have both
    streams. The overlaps of all such pairs are averaged. A latent active only in samples without labels overlaps 0.
    """
    n_latents = next(iter(activity.active.values())).shape[1]
    shape = (len(draws.weights), by_level.counted.shape[1])
    total_RH, alive_R = torch.zeros(shape, dtype=torch.float64), torch.zeros(shape[0], dtype=torch.float64)
    overlap_of, blocks = _by_latent(activity, by_level, draws)

    def summed_over(latents: slice) -> tuple[Tensor, Tensor]:
        mean_RlH, pairs_Rl = overlap_of(latents)
        return mean_RlH.sum(dim=1), (pairs_Rl > 0).sum(dim=1)

    for sum_RH, some_R in spread(summed_over, blocks):
        total_RH += sum_RH
        alive_R += some_R
    over_all_RH, over_alive_RH = total_RH / n_latents, total_RH / alive_R.unsqueeze(1)
    return _overlaps(over_all_RH.numpy(), over_alive_RH.numpy(), n_parts=draws.weights.shape[1])


def latent_jaccard(
    encodings: Encodings, labels: csr_array, taxonomy: Taxonomy, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the overlap of each latent at each depth in solo codes, and that on shuffled pairs: (L, H) both.

    NaN for a latent that is not active in two streams of the same samples. `hierarchical_jaccard` has the means.
    """
    orders = shuffles(list(encodings.space.streams), labels.shape[0], seed)
    by_level = levels(labels, taxonomy)
    once = Draws(np.zeros(labels.shape[0], np.intp), np.ones((1, 1), np.float32))
    found = []
    for kind in _solo_kinds(encodings, orders).values():
        overlap_of, blocks = _by_latent(kind, by_level, once)
        parts = [
            torch.where(pairs_Rl.unsqueeze(2) > 0, mean_RlH, torch.nan)[0].numpy()
            for mean_RlH, pairs_Rl in map(overlap_of, blocks)
        ]
        found.append(np.concatenate(parts))
    return found[0], found[1]


def _by_latent(
    activity: Activity, by_level: Levels, draws: Draws
) -> tuple[Callable[[slice], tuple[Tensor, Tensor]], list[slice]]:
    """Return a function, and the blocks of latents that it takes one by one.

    It returns the overlaps of the latents (R, l, H), 0 without a pair, and their pairs (R, l).
    """
    active, pairs = _sides(activity)
    weights_RP = torch.from_numpy(draws.weights)
    # The last column counts samples; no depth counts it.
    counted_JH = F.pad(torch.from_numpy(by_level.counted), (0, 0, 0, 1))
    label_counts, blocks = _label_counts(active, by_level.columns, draws.part)

    def overlap_of(latents: slice) -> tuple[Tensor, Tensor]:
        by_part = label_counts(latents)
        counts = {name: _drawn(weights_RP, counts_PlJ) for name, counts_PlJ in by_part.items()}
        sums = {name: _drawn(weights_RP, counts_PlJ @ counted_JH) for name, counts_PlJ in by_part.items()}
        overlap_RlH = torch.zeros_like(next(iter(sums.values())), dtype=torch.float64)
        pairs_Rl = torch.zeros(overlap_RlH.shape[:2])
        for first, second in pairs:
            both_Rl = (counts[first][:, :, -1] > 0) & (counts[second][:, :, -1] > 0)
            minima_RlH = torch.minimum(counts[first], counts[second]) @ counted_JH
            maxima_RlH = sums[first] + sums[second] - minima_RlH
            overlap_RlH += both_Rl.unsqueeze(2) * (minima_RlH.double() / maxima_RlH.clamp(min=1))
            pairs_Rl += both_Rl
        return overlap_RlH / pairs_Rl.clamp(min=1).unsqueeze(2), pairs_Rl

    return overlap_of, blocks


def _sides(activity: Activity) -> tuple[dict[str, csr_array], list[tuple[str, str]]]:
    """Return activity tables (N, L) by name, and for each pair of streams the names of its two tables.

    If every sample has both streams, these are the streams' own tables; else the tables of the samples that have both.
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


def _drawn(weights_RP: Tensor, counts_PlX: Tensor) -> Tensor:
    return (weights_RP @ counts_PlX.flatten(1)).view(len(weights_RP), *counts_PlX.shape[1:])


def _label_counts(
    active: Mapping[str, csr_array], columns: csr_array, part_N: NDArray[np.intp]
) -> tuple[Callable[[slice], dict[str, Tensor]], list[slice]]:
    """Return a function, and the blocks of latents that it takes one by one.

    It counts per stream the samples that activate each latent, by label, then all: (P, l, J + 1).
    """
    order_N = np.argsort(part_N, kind="stable")
    ends_P = np.cumsum(np.bincount(part_N))
    slices = [slice(low, high) for low, high in zip([0, *ends_P[:-1]], ends_P, strict=True)]
    every_N1 = csr_array(np.ones((columns.shape[0], 1), np.float32))
    columns_NJ = csr_array(hstack([columns, every_N1]))[order_N]
    by_part = [columns_NJ[part] for part in slices]
    by_latent = {
        name: [csr_array(matrix[order_N[part]].astype(np.float32).T) for part in slices]
        for name, matrix in active.items()
    }
    n_latents = next(iter(active.values())).shape[1]

    def counts_of(latents: slice) -> dict[str, Tensor]:
        counts: dict[str, Tensor] = {}
        for name, active_by_part in by_latent.items():
            pairs = zip(active_by_part, by_part, strict=True)
            counts[name] = torch.from_numpy(np.stack([summed(some[latents], rows_nJ) for some, rows_nJ in pairs]))
        return counts

    size = max(1, COUNTS // (columns_NJ.shape[1] * len(slices)))
    return counts_of, [slice(start, start + size) for start in range(0, n_latents, size)]


def _overlaps(over_all_RH: NDArray[np.float64], over_alive_RH: NDArray[np.float64], *, n_parts: int) -> list[Overlap]:
    found = []
    for all_R, alive_R in zip(over_all_RH.T, over_alive_RH.T, strict=True):
        some = np.isfinite(alive_R[0])
        found.append(
            Overlap(
                all=float(all_R[0]),
                alive=float(alive_R[0]) if some else None,
                all_interval=_interval(all_R, n_parts),
                alive_interval=_interval(alive_R, n_parts) if some else None,
            )
        )
    return found


def _interval(values_R: NDArray[np.float64], n_parts: int) -> Interval | None:
    """Return the 95% interval from the spread of the replicates around their own mean; None if the parts are too few.

    The spread around the estimate would be too large: drawing samples twice biases overlaps.
    """
    estimate, replicates = values_R[0], values_R[1:][np.isfinite(values_R[1:])]
    if n_parts < FEWEST_PARTS or len(replicates) < 2:
        return None
    # With an odd number of parts the halves differ by one, which shrinks the variance slightly; correct for it.
    odd = np.sqrt((n_parts + 1) / (n_parts - 1)) if n_parts % 2 else 1.0
    reach = float(stdtrit(n_parts - 1, 0.975) * odd * np.std(replicates, ddof=1))
    return max(0.0, float(estimate) - reach), min(1.0, float(estimate) + reach)
