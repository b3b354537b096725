"""Points at everything that is wanted in every case, in every way, and counts how often that is right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from sparc.errors import MissingData, PluginError
from sparc.localization.benchmark.cases import Cases, Wanted
from sparc.localization.benchmark.report import Interval, LocalizationReport, WayReport
from sparc.localization.benchmark.scores import THRESHOLDS, likeness, mean_average_precision, overlaps, points_right
from sparc.localization.benchmark.pointers import RANDOM, Pointer, Way
from sparc.localization.models import Models
from sparc.localization.perturb import area, perturbed
from sparc.localization.targets import Target
from sparc.localization.view import View

PERTURBED = 20
"""Cases of which one map is checked by perturbation, which takes 22 forwards each."""
CAPTION = Way("caption", "dense", "joint")
"""What maps at random are checked against."""
DRAWS = 1000


@dataclass
class _Found:
    """What was found in one way so far, a number per query."""

    image: list[int] = field(default_factory=list)
    right: list[bool] = field(default_factory=list)
    overlap: list[NDArray[np.float64]] = field(default_factory=list)
    score: list[float] = field(default_factory=list)
    category: list[str] = field(default_factory=list)
    likeness: list[float] = field(default_factory=list)
    deletion: list[float] = field(default_factory=list)
    insertion: list[float] = field(default_factory=list)


def measure_localization(
    models: Models,
    cases: Cases,
    *,
    perturb: int = PERTURBED,
    seed: int = 0,
    on_case: Callable[[int, int], None] = lambda done, total: None,
) -> LocalizationReport:
    """Point with every image stream of `models` that has a grid; captions are read by the first text stream.

    perturb: cases of which one map is checked by perturbation too.

    Raises:
        InvalidConfig: no image stream has a grid.
        MissingData: no case has anything to point at.
    """
    streams = models.with_grid()
    pointer = Pointer(models, seed)
    found: dict[str, dict[Way, _Found]] = {
        stream: {way: _Found() for way in pointer.ways(stream)} for stream in streams
    }
    refused: dict[str, str] = {}
    areas: list[float] = []
    images = 0
    for number, case in enumerate(cases):
        images += bool(case.wanted)
        areas += [float(wanted.mask.mean()) for wanted in case.wanted]
        views = {stream: View(models, stream, case.sample) for stream in models.of("image")}
        # Each time another place of the image, of which a canvas has four.
        checked = number % len(case.wanted) if number < perturb and case.wanted else None
        for stream in streams:
            others = [view for name, view in views.items() if name != stream]
            for way in list(found[stream]):
                try:
                    _point(pointer, way, views[stream], others, case.wanted, number, checked, found[stream][way])
                except PluginError as error:
                    refused[f"{stream} {way.method}"] = error.message
                    del found[stream][way]
        on_case(number + 1, len(cases))
    if not areas:
        raise MissingData("no held-out image has anything to point at", hint="choose another dataset")
    rows = [
        _report(stream, way, of, cases.match, seed)
        for stream, ways in found.items()
        for way, of in ways.items()
        if len(of.right) > 1
    ]
    chance = float(np.mean(areas))
    return LocalizationReport(
        what=cases.what, images=images, match=cases.match, chance=chance, ways=tuple(rows), refused=refused
    )


def _point(
    pointer: Pointer,
    way: Way,
    view: View,
    others: Sequence[View],
    wanted: Sequence[Wanted],
    number: int,
    checked_place: int | None,
    found: _Found,
) -> None:
    maps = []
    for place, one in enumerate(wanted):
        target = pointer.target(way, view, one, others)
        if way.target and target is None:
            continue
        values = pointer.map(way, view, target, place)
        maps.append(values)
        found.image.append(number)
        found.right.append(points_right(values, view.box, one.mask))
        found.overlap.append(overlaps(values, view.box, one.mask))
        found.category.append(one.category)
        with torch.inference_mode():
            found.score.append(1.0 if target is None else float(target(view.features)[0]))
        if place == checked_place:
            checked = (
                target if way[::2] == CAPTION[::2] else pointer.target(CAPTION, view, one) if way == RANDOM else None
            )
            if checked is not None:
                _perturb(view, values, checked, found)
    if len(maps) > 1:
        found.likeness += likeness(maps)


def _perturb(view: View, values: NDArray[np.float32], target: Target, found: _Found) -> None:
    """Check a map, where the backbone's pixels are there to be changed."""
    try:
        curves = perturbed(view, values, target)
    except PluginError:
        return
    if curves is not None:
        found.deletion.append(area(curves.deletion))
        found.insertion.append(area(curves.insertion))


def _report(stream: str, way: Way, found: _Found, match: float | None, seed: int) -> WayReport:
    image, right = np.array(found.image), np.array(found.right)
    order = np.random.default_rng(seed).permutation(np.unique(image))
    tuning = np.isin(image, order[: len(order) // 2])
    overlap = np.stack(found.overlap)
    best = int(overlap[tuning].mean(axis=0).argmax()) if tuning.any() else len(THRESHOLDS) // 2
    held = ~tuning
    at_best = overlap[held, best]
    categories = [category for category, kept in zip(found.category, held.tolist(), strict=True) if kept]
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
        else mean_average_precision(np.array(found.score)[held], at_best >= match, categories),
        likeness=_mean(found.likeness),
        deletion=_mean(found.deletion),
        insertion=_mean(found.insertion),
    )


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _interval(right: NDArray[np.bool_], image: NDArray[np.int64], seed: int) -> Interval:
    """Of a mean over queries, images being drawn anew with all their queries."""
    _, place = np.unique(image, return_inverse=True)
    hits, counts = np.bincount(place, weights=right), np.bincount(place)
    drawn = np.random.default_rng(seed).integers(0, len(counts), (DRAWS, len(counts)))
    low, high = np.quantile(hits[drawn].sum(axis=1) / counts[drawn].sum(axis=1), [0.025, 0.975])
    return float(low), float(high)
