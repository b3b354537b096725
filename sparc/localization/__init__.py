"""Does a map point right? A benchmark on images where it is known what is where."""

from sparc.localization.benchmark import LocalizationReport, measure_localization
from sparc.localization.cases import Case, Cases, Wanted, cases_of

__all__ = ["Case", "Cases", "LocalizationReport", "Wanted", "cases_of", "measure_localization"]
