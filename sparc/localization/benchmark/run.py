"""Measure everything about one run: its maps on the cases, on chimeras, and of single latents."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from sparc.localization.benchmark.cases import Cases, chimeras_of
from sparc.localization.benchmark.latents import measure_latents
from sparc.localization.benchmark.measure import measure_localization
from sparc.localization.benchmark.report import LatentsReport, LocalizationFile, LocalizationReport
from sparc.models import Models

OnCase = Callable[[str, int, int], None]


def measure_all(
    models: Models,
    cases: Cases,
    *,
    dataset: str,
    split: str,
    seed: int = 0,
    on_case: OnCase = lambda part, done, total: None,
) -> LocalizationFile:
    """Measure maps on `cases`; if these are composed canvases, also on chimeras, and of single latents.

    `Models.with_grid` and `cases_of` raise early what cannot be measured, so call both before other long work.

    dataset, split: names of where the cases come from, for the record.
    on_case: called before the first image and after each as `on_case(part, done, total)`, part being `localize`,
        `parts` or `latents`.

    Raises:
        InvalidConfig: no image stream has a grid.
        MissingData: no case has anything to point at.
    """
    report = measure_localization(models, cases, seed=seed, on_case=partial(on_case, "localize"))
    parts: LocalizationReport | None = None
    latents: tuple[LatentsReport, ...] = ()
    if cases.composed:
        chimeras = chimeras_of(cases.dataset, seed=seed)
        parts = measure_localization(models, chimeras, perturb=0, seed=seed, on_case=partial(on_case, "parts"))
        latents = measure_latents(models, cases, seed=seed, on_case=partial(on_case, "latents"))
    return LocalizationFile(
        dataset=dataset,
        split=split,
        random_weights=tuple(models.random_weights),
        report=report,
        parts=parts,
        latents=latents,
    )
