"""A benchmark of maps: how often they point at the right place, on images where the place is known.

Read the modules in this order:

    cases.py      images with known places: masks of a dataset, or images composed of held-out ones
    pointers.py   the ways to point at something: through the space, and baselines without it
    scores.py     a map against a mask: pointing, IoU, average precision
    measure.py    every way on every case
    latents.py    maps of single latents, by how often they fire
    report.py     the results, and the file `localization.json`
    run.py        all of it for one run
"""

from sparc.localization.benchmark.cases import Case, Cases, Wanted, cases_of, chimeras_of
from sparc.localization.benchmark.latents import measure_latents
from sparc.localization.benchmark.measure import measure_localization
from sparc.localization.benchmark.report import LatentsReport, LocalizationFile, LocalizationReport
from sparc.localization.benchmark.run import measure_all

__all__ = [
    "Case",
    "Cases",
    "LatentsReport",
    "LocalizationFile",
    "LocalizationReport",
    "Wanted",
    "cases_of",
    "chimeras_of",
    "measure_all",
    "measure_latents",
    "measure_localization",
]
