"""Liveness and sharing of latents: the streams that activate each, how often together, and duplicate latents."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.special import entr
from torch import Tensor

from sparc.core.codes import Codes
from sparc.core.space import LatentSpace
from sparc.evaluation.encoding import activity
from sparc.evaluation.report import IndexOverlap, Pattern, Sharing

DUPLICATE = 0.9
"""Smallest cosine between the decoders of two duplicates, all streams side by side."""
COMPARED_LATENTS = 1024
"""Latents compared with all others at a time, so that cosines are (COMPARED_LATENTS, A)."""

Floats = NDArray[np.float64]


class Liveness(NamedTuple):
    """Numbers of latents by the streams that they are active in at least once."""

    alive: int
    """Active in all streams."""
    dead: int
    """Active in no stream."""
    mixed: int
    """Active in some streams only."""
    patterns: tuple[Pattern, ...]
    """The mixed latents by the streams they are active in, most frequent pattern first."""
    dead_in: dict[str, int]


def liveness(codes: Mapping[str, Codes], n_latents: int) -> Liveness:
    """Count latents by the streams that they are active in (the paper's all-alive, all-dead and mixed)."""
    names = list(codes)
    alive_LS = np.stack([fires(code) > 0 for code in codes.values()], axis=1)
    found, counts = np.unique(alive_LS, axis=0, return_counts=True)
    by_pattern = {tuple(row): int(count) for row, count in zip(found.tolist(), counts.tolist(), strict=True)}
    everywhere, nowhere = by_pattern.pop((True,) * len(names), 0), by_pattern.pop((False,) * len(names), 0)
    patterns = [
        Pattern(streams=tuple(name for name, alive in zip(names, row, strict=True) if alive), latents=count)
        for row, count in by_pattern.items()
    ]
    return Liveness(
        alive=everywhere,
        dead=nowhere,
        mixed=n_latents - everywhere - nowhere,
        patterns=tuple(sorted(patterns, key=lambda pattern: (-pattern.latents, pattern.streams))),
        dead_in={name: int((~alive_LS[:, place]).sum()) for place, name in enumerate(names)},
    )


def mean_l0(codes: Codes, present_N: Tensor) -> float:
    """Return the number of active latents per sample, over the samples that have the stream."""
    return int((codes.values > 0).sum()) / max(1, int(present_N.sum()))


def fires(codes: Codes) -> NDArray[np.int64]:
    """Count the samples that activate each latent, (L,)."""
    active = codes.indices[codes.values > 0].cpu()
    return torch.bincount(active, minlength=codes.n_latents).numpy()


class PerLatent(NamedTuple):
    """The values that `Sharing` averages, per latent (L,); NaN for a dead latent, or with a single stream."""

    fires: dict[str, NDArray[np.int64]]
    cofiring: Floats
    entropy: Floats
    twin: NDArray[np.int64]
    """The alive latent with the nearest decoder; -1 for a dead latent, or if no other is alive."""
    likeness: Floats
    """Cosine with the twin's decoder."""


def sharing(
    space: LatentSpace, solo: Mapping[str, Codes], present: Mapping[str, Tensor], orders: Mapping[str, Tensor]
) -> tuple[Sharing, PerLatent]:
    """Measure how streams share latents, each encoded alone.

    present: per stream (N,) bool. orders: per stream (N,), the shuffled samples of the null.
    """
    names = list(solo)
    there = {name: present[name].cpu().numpy() for name in names}
    active = {name: activity(code) for name, code in solo.items()}
    shuffled = {name: active[name][orders[name].numpy()] for name in names}
    there_shuffled = {name: there[name][orders[name].numpy()] for name in names}
    counts = {name: fires(code) for name, code in solo.items()}
    alive_LS = np.stack([counts[name] > 0 for name in names], axis=1)
    streams_L = alive_LS.sum(axis=1)
    cofiring_L, cofiring_null_L = _cofiring(active, there), _cofiring(shuffled, there_shuffled)
    rates = {name: counts[name] / max(1, there[name].sum()) for name in names}
    entropy_L = _entropy(np.stack(list(rates.values()), axis=1))
    twin_L, likeness_L = twins(space, streams_L > 0)
    overlaps = [
        IndexOverlap(
            first=first,
            second=second,
            overlap=_overlap(active[first], active[second], there[first] & there[second]),
            null=_overlap(shuffled[first], shuffled[second], there_shuffled[first] & there_shuffled[second]),
        )
        for first, second in combinations(names, 2)
    ]
    found = Sharing(
        overlaps=tuple(overlaps),
        shared=int((streams_L > 1).sum()),
        only={name: int((alive_LS[:, place] & (streams_L == 1)).sum()) for place, name in enumerate(names)},
        dead=int((streams_L == 0).sum()),
        duplicates=int((likeness_L >= DUPLICATE).sum()),
        cofiring=_mean(cofiring_L),
        cofiring_null=_mean(cofiring_null_L),
        entropy=_mean(entropy_L),
    )
    return found, PerLatent(counts, cofiring_L, entropy_L, twin_L, likeness_L)


def _overlap(first: csr_array, second: csr_array, both_N: NDArray[np.bool_]) -> float:
    """Return the Jaccard overlap of active latents, mean over samples that have both streams and any active latent."""
    shared_N = _sum(first * second, axis=1)
    union_N = _sum(first, axis=1) + _sum(second, axis=1) - shared_N
    counted_N = both_N & (union_N > 0)
    return float((shared_N[counted_N] / union_N[counted_N]).mean()) if counted_N.any() else 0.0


def _cofiring(active: Mapping[str, csr_array], there: Mapping[str, NDArray[np.bool_]]) -> Floats:
    """Return, per latent, samples active in both streams over samples active in either, mean over pairs of streams."""
    shares = [np.full(next(iter(active.values())).shape[1], np.nan)]
    for first, second in combinations(active, 2):
        rows = np.flatnonzero(there[first] & there[second])
        one, other = active[first][rows], active[second][rows]
        both_L = _sum(one * other, axis=0)
        either_L = _sum(one, axis=0) + _sum(other, axis=0) - both_L
        shares.append(np.where(either_L > 0, both_L / np.maximum(either_L, 1), np.nan))
    by_pair_XL = np.stack(shares)
    counted_L = np.isfinite(by_pair_XL).sum(axis=0)
    return np.where(counted_L > 0, np.nansum(by_pair_XL, axis=0) / np.maximum(counted_L, 1), np.nan)


def _entropy(rates_LS: Floats) -> Floats:
    """Return the entropy of each latent's activations over the streams, as a share of the largest possible."""
    total_L = rates_LS.sum(axis=1)
    if rates_LS.shape[1] == 1:
        return np.full(len(total_L), np.nan)
    share_LS = rates_LS / np.where(total_L > 0, total_L, 1)[:, None]
    return np.where(total_L > 0, entr(share_LS).sum(axis=1) / np.log(rates_LS.shape[1]), np.nan)


@torch.inference_mode()
def twins(space: LatentSpace, alive_L: NDArray[np.bool_]) -> tuple[NDArray[np.int64], Floats]:
    """Find, per alive latent, the other alive latent with the nearest decoder, and the cosine of the two.

    Decoders are compared with all streams side by side.
    """
    twin_L = np.full(len(alive_L), -1, dtype=np.int64)
    likeness_L = np.full(len(alive_L), np.nan)
    alive = torch.from_numpy(np.flatnonzero(alive_L))
    if len(alive) < 2:
        return twin_L, likeness_L
    decoder_AT = F.normalize(space.decoder[alive.to(space.decoder.device)], dim=1)
    for start in range(0, len(alive), COMPARED_LATENTS):
        cosine_aA = decoder_AT[start : start + COMPARED_LATENTS] @ decoder_AT.T
        cosine_aA.diagonal(offset=start).fill_(-torch.inf)
        best = cosine_aA.max(dim=1)
        own = alive[start : start + COMPARED_LATENTS].numpy()
        twin_L[own], likeness_L[own] = alive[best.indices.cpu()].numpy(), best.values.cpu().numpy()
    return twin_L, likeness_L


def _sum(matrix: csr_array, *, axis: int) -> Floats:
    return np.asarray(matrix.sum(axis=axis, dtype=np.float64)).ravel()


def _mean(values: Floats) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None
