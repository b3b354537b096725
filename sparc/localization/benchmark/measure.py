"""Measure every way to point on every case: pointing, IoU, average precision, likeness, deletion and insertion."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from sparc.errors import MissingData, PluginError
from sparc.localization.benchmark.cases import Case, Cases, Wanted
from sparc.localization.benchmark.pointers import RANDOM, Pointer, Way
from sparc.localization.benchmark.report import Interval, LocalizationReport, WayReport
from sparc.localization.benchmark.scores import THRESHOLDS, likeness, mean_average_precision, overlaps, points_right
from sparc.localization.perturb import area, perturbed
from sparc.localization.targets import Target
from sparc.localization.view import View
from sparc.models import Models

PERTURBED = 20
"""Number of cases on which one map is checked by perturbation, at a cost of 22 forward passes each."""
CAPTION = Way("caption", "dense", "joint")
"""The way whose target checks the random maps."""
DRAWS = 1000
"""Number of bootstrap samples."""


@dataclass
class _Scores:
    """The scores of one stream and way so far, one entry per query."""

    image: list[int] = field(default_factory=list)
    right: list[bool] = field(default_factory=list)
    overlap: list[NDArray[np.float64]] = field(default_factory=list)
    score: list[float] = field(default_factory=list)
    category: list[str] = field(default_factory=list)
    likeness: list[float] = field(default_factory=list)
    deletion: list[float] = field(default_factory=list)
    insertion: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class _SeenCase:
    """A case as every image stream sees it."""

    number: int
    wanted: Sequence[Wanted]
    views: Mapping[str, View]
    perturb: int | None
    """Place of the one wanted thing whose map is checked by perturbation."""


def measure_localization(
    models: Models,
    cases: Cases,
    *,
    perturb: int = PERTURBED,
    seed: int = 0,
    on_case: Callable[[int, int], None] = lambda done, total: None,
) -> LocalizationReport:
    """Point with every image stream of `models` that has a grid; the first text stream reads the captions.

    perturb: number of cases on which one map is also checked by perturbation.

    Raises:
        InvalidConfig: no image stream has a grid.
        MissingData: no case has anything to point at.
    """
    streams = models.with_grid()
    pointer = Pointer(models, seed)
    by_way: dict[str, dict[Way, _Scores]] = {
        stream: {way: _Scores() for way in pointer.ways(stream)} for stream in streams
    }
    refused: dict[str, str] = {}
    areas: list[float] = []
    images = 0
    on_case(0, len(cases))
    for number, case in enumerate(cases):
        images += bool(case.wanted)
        areas += [float(wanted.mask.mean()) for wanted in case.wanted]
        seen = _seen(models, case, number, perturb=number < perturb)
        for stream in streams:
            for way in list(by_way[stream]):
                try:
                    _point(pointer, way, stream, seen, by_way[stream][way])
                except PluginError as error:
                    refused[f"{stream} {way.method}"] = error.message
                    del by_way[stream][way]
        on_case(number + 1, len(cases))
    if not areas:
        raise MissingData("no held-out image has anything to point at", hint="choose another dataset")
    rows = [
        _report(stream, way, scores, cases.match, seed)
        for stream, ways in by_way.items()
        for way, scores in ways.items()
        if len(scores.right) > 1
    ]
    chance = float(np.mean(areas))
    return LocalizationReport(
        what=cases.what,
        images=images,
        match=cases.match,
        chance=chance,
        ways=tuple(rows),
        refused=refused,
        layers=models.layers,
    )


def _seen(models: Models, case: Case, number: int, *, perturb: bool) -> _SeenCase:
    views = {stream: View(models, stream, case.sample) for stream in models.of("image")}
    # Cycle through the places of the case, so that each of the four on a canvas is checked.
    place = number % len(case.wanted) if perturb and case.wanted else None
    return _SeenCase(number, case.wanted, views, place)


def _point(pointer: Pointer, way: Way, stream: str, seen: _SeenCase, scores: _Scores) -> None:
    """Point at everything wanted in a case in one way, and add the scores. Raises PluginError."""
    view = seen.views[stream]
    others = [other for name, other in seen.views.items() if name != stream]
    maps = []
    for place, wanted in enumerate(seen.wanted):
        target = pointer.target(way, view, wanted, others)
        if way.target and target is None:
            continue
        values = pointer.map(way, view, target, place)
        maps.append(values)
        scores.image.append(seen.number)
        scores.right.append(points_right(values, view.box, wanted.mask))
        scores.overlap.append(overlaps(values, view.box, wanted.mask))
        scores.category.append(wanted.category)
        with torch.inference_mode():
            scores.score.append(1.0 if target is None else float(target(view.features)[0]))
        if place == seen.perturb:
            # Random maps are checked with the caption's target, to show the curves of an uninformed map.
            by_caption = (way.target, way.selection) == (CAPTION.target, CAPTION.selection)
            checked = pointer.target(CAPTION, view, wanted) if way == RANDOM else target if by_caption else None
            if checked is not None:
                _perturb(view, values, checked, scores)
    if len(maps) > 1:
        scores.likeness += likeness(maps)


def _perturb(view: View, values: NDArray[np.float32], target: Target, scores: _Scores) -> None:
    """Add the areas under the map's curves, unless the backbone reads no pixels that could be changed."""
    try:
        curves = perturbed(view, values, target)
    except PluginError:
        return
    if curves is not None:
        scores.deletion.append(area(curves.deletion))
        scores.insertion.append(area(curves.insertion))


def _report(stream: str, way: Way, scores: _Scores, match: float | None, seed: int) -> WayReport:
    image, right = np.array(scores.image), np.array(scores.right)
    order = np.random.default_rng(seed).permutation(np.unique(image))
    tuning = np.isin(image, order[: len(order) // 2])
    overlap = np.stack(scores.overlap)
    best = int(overlap[tuning].mean(axis=0).argmax()) if tuning.any() else len(THRESHOLDS) // 2
    held = ~tuning
    at_best = overlap[held, best]
    categories = [category for category, kept in zip(scores.category, held.tolist(), strict=True) if kept]
    return WayReport(
        stream=stream,
        target=way.target,
        method=way.method,
        selection=way.selection,
        queries=len(right),
        pointing=float(right.mean()),
        pointing_interval=_interval(right, image, seed),
        threshold=float(THRESHOLDS[best]),
        miou=float(at_best.mean()),
        map=None
        if match is None
        else mean_average_precision(np.array(scores.score)[held], at_best >= match, categories),
        likeness=_mean(scores.likeness),
        deletion=_mean(scores.deletion),
        insertion=_mean(scores.insertion),
    )


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _interval(right: NDArray[np.bool_], image: NDArray[np.int64], seed: int) -> Interval:
    """Return the 95% bootstrap interval of a mean over queries, drawing whole images with all their queries.

    `scipy.stats.bootstrap` gives the same numbers (benchmarks/ours_and_libraries.py), but refuses a single image.
    """
    _, place = np.unique(image, return_inverse=True)
    hits, counts = np.bincount(place, weights=right), np.bincount(place)
    drawn = np.random.default_rng(seed).integers(0, len(counts), (DRAWS, len(counts)))
    low, high = np.quantile(hits[drawn].sum(axis=1) / counts[drawn].sum(axis=1), [0.025, 0.975])
    return float(low), float(high)
