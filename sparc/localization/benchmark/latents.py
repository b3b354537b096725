"""Maps of single latents: how well they point, for latents that fire seldom and for latents that fire often."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparc.errors import PluginError
from sparc.localization.benchmark.cases import Cases
from sparc.localization.benchmark.report import LatentsReport
from sparc.localization.benchmark.scores import points_right
from sparc.localization.request import METHODS
from sparc.localization.targets import latents_target
from sparc.localization.view import View
from sparc.models import Models

GROUPS = 3
"""Number of groups of trials, by how often their latent fires."""


class _Trial(NamedTuple):
    """One latent pointed at on one canvas, by every method that the architecture allows."""

    latent: int
    right: dict[str, bool]
    breadth: dict[str, float]


@dataclass
class _Kept:
    """The latents that a stream keeps of single images, each encoded alone once."""

    models: Models
    cases: Cases
    stream: str
    by_place: dict[int, frozenset[int]] = field(default_factory=dict)

    def latents(self, place: int) -> frozenset[int]:
        """Return the latents that are active in the image at `place` in the dataset."""
        if place not in self.by_place:
            features_1D = View(self.models, self.stream, self.cases.dataset[place]).features
            codes = self.models.space.encode({self.stream: features_1D})[self.stream]
            self.by_place[place] = frozenset(codes.indices[codes.values > 0].tolist())
        return self.by_place[place]

    def frequency(self, latent: int) -> float:
        """Return the share of the encoded images that keep a latent."""
        return sum(latent in kept for kept in self.by_place.values()) / len(self.by_place)


def measure_latents(
    models: Models,
    canvases: Cases,
    *,
    seed: int = 0,
    on_case: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[LatentsReport, ...]:
    """Point at one latent of each image of each canvas, drawn from those that no other image of the canvas keeps.

    A map is right if its peak lies on that image. Results are grouped in thirds, by how often the latent fires.

    Raises InvalidConfig if no image stream has a grid.
    """
    streams = models.with_grid()
    on_case(0, len(canvases))
    kept = {stream: _Kept(models, canvases, stream) for stream in streams}
    trials: dict[str, list[_Trial]] = {stream: [] for stream in streams}
    random = np.random.default_rng(seed)
    for number, case in enumerate(canvases):
        for stream in streams:
            latents = [kept[stream].latents(place) for place in case.places]
            view = View(models, stream, case.sample)
            for place, wanted in enumerate(case.wanted):
                own = sorted(latents[place].difference(*latents[:place], *latents[place + 1 :]))
                if own:
                    trials[stream].append(_trial(view, own[random.integers(len(own))], wanted.mask))
        on_case(number + 1, len(canvases))
    return tuple(report for stream in streams for report in _reports(kept[stream], trials[stream]))


def _trial(view: View, latent: int, mask: NDArray[np.bool_]) -> _Trial:
    trial = _Trial(latent, {}, {})
    for method in METHODS:
        target = latents_target(view.models.space, view.stream, [latent], {}, view.features, gradient=method != "dense")
        try:
            values = view.map(method, target)
        except PluginError:  # the architecture does not allow the method; `measure_localization` reports why
            continue
        trial.right[method] = points_right(values, view.box, mask)
        low, high = values.min(), values.max()
        trial.breadth[method] = float((values >= (low + high) / 2).mean())
    return trial


def _reports(kept: _Kept, trials: list[_Trial]) -> list[LatentsReport]:
    """Return a report per method and third of the trials."""
    frequency = np.array([kept.frequency(trial.latent) for trial in trials])
    found = []
    for method in METHODS:
        places = [place for place in np.argsort(frequency, kind="stable") if method in trials[place].right]
        for group in np.array_split(np.array(places, dtype=np.int64), GROUPS):
            if len(group):
                found.append(
                    LatentsReport(
                        stream=kept.stream,
                        method=method,
                        frequency=float(frequency[group].mean()),
                        queries=len(group),
                        pointing=float(np.mean([trials[place].right[method] for place in group])),
                        breadth=float(np.mean([trials[place].breadth[method] for place in group])),
                    )
                )
    return found
