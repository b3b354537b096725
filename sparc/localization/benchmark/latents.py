"""Do maps of latents point right, whether they fire seldom or often?"""

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
from sparc.localization.methods import METHODS
from sparc.localization.models import Models
from sparc.localization.targets import latents_target
from sparc.localization.view import View

GROUPS = 3
"""Of queries, by how often their latent fires."""


class _Query(NamedTuple):
    latent: int
    right: dict[str, bool]
    """By method."""
    breadth: dict[str, float]


@dataclass
class _Seen:
    """What a stream keeps of single images, each encoded alone."""

    models: Models
    cases: Cases
    stream: str
    kept: dict[int, frozenset[int]] = field(default_factory=dict)

    def latents(self, place: int) -> frozenset[int]:
        """Latents that are active in an image."""
        if place not in self.kept:
            features_1D = View(self.models, self.stream, self.cases.dataset[place]).features
            codes = self.models.space.encode({self.stream: features_1D})[self.stream]
            self.kept[place] = frozenset(codes.indices[codes.values > 0].tolist())
        return self.kept[place]

    def frequency(self, latent: int) -> float:
        """Share of the images that were seen whose code has the latent."""
        return sum(latent in kept for kept in self.kept.values()) / len(self.kept)


def measure_latents(
    models: Models,
    canvases: Cases,
    *,
    seed: int = 0,
    on_case: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[LatentsReport, ...]:
    """On each canvas ask for one latent of each image, drawn from those that it alone keeps when seen by itself.

    A map that is right has its peak on that image. Queries are told in thirds, by how often their latent fires.
    """
    streams = models.with_grid()
    seen = {stream: _Seen(models, canvases, stream) for stream in streams}
    queries: dict[str, list[_Query]] = {stream: [] for stream in streams}
    draw = np.random.default_rng(seed)
    for number, case in enumerate(canvases):
        for stream in streams:
            kept = [seen[stream].latents(place) for place in case.places]
            view = View(models, stream, case.sample)
            for place, wanted in enumerate(case.wanted):
                own = sorted(kept[place].difference(*kept[:place], *kept[place + 1 :]))
                if own:
                    queries[stream].append(_asked(view, own[draw.integers(len(own))], wanted.mask))
        on_case(number + 1, len(canvases))
    return tuple(report for stream in streams for report in _reports(seen[stream], queries[stream]))


def _asked(view: View, latent: int, mask: NDArray[np.bool_]) -> _Query:
    query = _Query(latent, {}, {})
    for method in METHODS:
        target = latents_target(view.models.space, view.stream, [latent], {}, view.features, gradient=method != "dense")
        try:
            values = view.map(method, target)
        except PluginError:  # the architecture does not allow it: measure_localization says why
            continue
        query.right[method] = points_right(values, view.box, mask)
        low, high = values.min(), values.max()
        query.breadth[method] = float((values >= (low + high) / 2).mean())
    return query


def _reports(seen: _Seen, queries: list[_Query]) -> list[LatentsReport]:
    """A report per method and third of the queries."""
    frequency = np.array([seen.frequency(query.latent) for query in queries])
    found = []
    for method in METHODS:
        places = [place for place in np.argsort(frequency, kind="stable") if method in queries[place].right]
        for some in np.array_split(np.array(places, dtype=np.int64), GROUPS):
            if len(some):
                found.append(
                    LatentsReport(
                        stream=seen.stream,
                        method=method,
                        frequency=float(frequency[some].mean()),
                        queries=len(some),
                        pointing=float(np.mean([queries[place].right[method] for place in some])),
                        breadth=float(np.mean([queries[place].breadth[method] for place in some])),
                    )
                )
    return found
