"""Does a map point right? A benchmark on images where it is known what is where."""

from sparc.localization.benchmark.cases import Case, Cases, Wanted, cases_of, chimeras_of
from sparc.localization.benchmark.latents import measure_latents
from sparc.localization.benchmark.measure import measure_localization
from sparc.localization.benchmark.report import LatentsReport, LocalizationReport

__all__ = [
    "Case",
    "Cases",
    "LatentsReport",
    "LocalizationReport",
    "Wanted",
    "cases_of",
    "chimeras_of",
    "measure_latents",
    "measure_localization",
]
