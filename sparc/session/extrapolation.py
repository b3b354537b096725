"""From the times of evaluations of a few sizes to that of all held-out samples, part by part.

The time of a part is a sum of terms that are not negative: some grow with the samples, some with the labels that have
enough samples, and searches with the square of the samples.
"""

from __future__ import annotations

import functools
from math import ceil
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import nnls

from sparc.evaluation.classifiers import BATCH, EPOCHS, STEPS
from sparc.evaluation.labels import levels
from sparc.evaluation.probes import frequent, in_test
from sparc.session.samples import some_held_out

if TYPE_CHECKING:
    from sparc.evaluation import HeldOut

CLASSIFIERS = "classifiers"
"""Word in the names of the parts that `sparc evaluate` adds."""
WEAK = 0.01
"""Weight of the wish that all terms have the same part, beside that of a measured time."""
PROBES, SEARCHES, UNCOMPLETED, SHARING = "single latents", "retrieval", "without completion", "sharing"


class Sizes:
    """Evaluations of several sizes."""

    def __init__(self, held_out: HeldOut, n_latents: int, kept: int) -> None:
        """Start without evaluations. kept: latents that a sample keeps, in all streams together, at most."""
        self._n_latents, self._kept = n_latents, kept
        self._held_out = held_out
        self._every = len(held_out.groups)
        self._counts: list[int] = []
        self._parts: list[dict[str, float]] = []
        self._peaks: list[int | None] = []

    def add(self, count: int, parts: dict[str, float], peak: int | None) -> None:
        """Add an evaluation of `count` samples: the seconds of its parts, and the peak memory of the process."""
        self._counts.append(count)
        self._parts.append(parts)
        self._peaks.append(peak)

    def seconds(self, *, classifiers: bool) -> float:
        """Return the seconds of an evaluation of all samples."""
        names = [name for name in self._parts[-1] if classifiers or CLASSIFIERS not in name]
        if self._counts[-1] == self._every:
            return sum(self._parts[-1][name] for name in names)
        return sum(self._extrapolated(name) for name in names)

    def _extrapolated(self, name: str) -> float:
        """Return the seconds of a part of an evaluation of all samples."""
        times = np.array([parts.get(name, 0.0) for parts in self._parts])
        counts = np.array(self._counts)[times > 0]
        times = times[times > 0]
        rows = np.array([self._terms(name, count) for count in counts])
        every = np.array(self._terms(name, self._every))
        # The largest size weighs most: it is the nearest to that of all samples.
        weights_N1 = (counts**0.5 / times)[:, None]
        last = np.maximum(rows[-1], 1)
        # Few sizes cannot tell the terms apart: each then gets the same part of the time.
        apart_KK = WEAK * weights_N1[-1, 0] * np.eye(len(last))
        equal_K = WEAK * weights_N1[-1, 0] * np.full(len(last), times[-1] / len(last))
        terms_XK = np.concatenate([rows / last * weights_N1, apart_KK])
        factors, _ = nnls(terms_XK, np.concatenate([times * weights_N1[:, 0], equal_K]))
        fitted, grown = (float((terms / last * factors).sum()) for terms in (rows[-1], every))
        return float(times[-1]) * grown / fitted if fitted > 0 else float(times[-1])

    def memory(self) -> int | None:
        """Return the peak memory of an evaluation of all samples."""
        found = [peak for peak in self._peaks if peak is not None]
        if len(found) < 2 or self._counts[-1] == self._every:
            return found[-1] if found else None
        slope = max(0.0, (found[-1] - found[-2]) / (self._counts[-1] - self._counts[-2]))
        return int(found[-1] + slope * (self._every - self._counts[-1]))

    def _terms(self, name: str, count: int) -> tuple[float, ...]:
        """Return what the time of a part may be proportional to, for a number of samples."""
        if CLASSIFIERS in name:
            batches = ceil(max(1, count // 2) / BATCH)
            passes = max(EPOCHS, ceil(STEPS / batches))
            return 1.0, passes * count, self._labels(count)
        if PROBES in name:
            return 1.0, self._labels(count), self._labels(count) * count
        if SEARCHES in name or UNCOMPLETED in name:
            return 1.0, count, count * count
        if name == SHARING:
            return 1.0, count, min(self._n_latents, count * self._kept) ** 2
        return 1.0, count

    @functools.cache  # noqa: B019  # the object lives as long as its process
    def _labels(self, count: int) -> int:
        """Count the labels that enough of `count` samples have."""
        some = some_held_out(self._held_out, count)
        if some.labelled is None:
            return 0
        lifted, test_N = levels(*some.labelled).lifted, in_test(some.groups)
        group_N = np.unique(np.asarray(some.groups), return_inverse=True)[1]
        train, test = (frequent(lifted, group_N, part_N.nonzero()[0]) for part_N in (~test_N, test_N))
        return int((train & test).sum())
