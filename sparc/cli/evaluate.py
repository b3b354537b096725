"""`sparc evaluate`: all measurements of a run."""

from __future__ import annotations

import contextlib
from typing import Any

from sparc.cli.options import RunPath, with_options
from sparc.cli.progress import Screen, console
from sparc.cli.tables.evaluation import print_evaluation
from sparc.cli.tables.localization import print_localization
from sparc.config import EvaluateOptions
from sparc.session.together import Mute
from sparc.storage.run import Run
from sparc.system.processes import leads


class _Tables(Screen):
    """Prints the tables of the evaluation before a benchmark of localisation begins."""

    def evaluated(self, run: Run) -> None:
        """Print everything that was measured."""
        self.close()
        print_evaluation(run, everything=True)
        console.print(f"\nplots and the table of all latents are in {run.pictures}", markup=False, soft_wrap=True)


@with_options(EvaluateOptions)
def evaluate(run: RunPath, given: dict[str, Any]) -> None:
    """Evaluate a run on held-out samples, with the classifiers and plots that `sparc train` omits.

    Prints tables, and writes `evaluation.json`, plots and a table of all latents into the run.

    Examples:

        sparc evaluate runs/openmoji

        sparc evaluate runs/openmoji --concepts purity

        sparc evaluate runs/openmoji --localization

        torchrun --nproc-per-node 2 --no-python sparc evaluate runs/openmoji
    """
    from sparc.session import evaluate as measure
    from sparc.system.memory import keep_freed_memory

    if given.get("localization"):
        keep_freed_memory()
    with _Tables() if leads() else contextlib.nullcontext(Mute()) as screen:
        found = measure(run, listener=screen, **given)
    if found.localization is not None and leads():
        print_localization(found.localization)
