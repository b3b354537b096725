"""Runs as commands find them: opened with what has moved since, and what the user shall know of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparc.cli.progress import console
from sparc.cli.tables import evaluation_tables
from sparc.errors import MisalignedStreams, MissingData
from sparc.session_options import jobs_of, options_of

if TYPE_CHECKING:
    from sparc.config import RunConfig
    from sparc.evaluation import Report
    from sparc.extraction import Job
    from sparc.plugins.registry import Registry
    from sparc.storage.checkpoint import SharedLatentSpace
    from sparc.storage.run import Run

RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="Directory of a run.")]


def open_run(path: Path, places: Mapping[str, Any]) -> tuple[Run, RunConfig, Registry, dict[str, Job]]:
    """A run, its options with what has moved since, and the jobs of its held-out split.

    Raises MisalignedStreams where its data are now other samples than those that it was trained on.
    """
    from sparc.plugins.registry import discover
    from sparc.storage.run import Run

    run = Run.open(path)
    options = options_of(run, places)
    registry = discover()
    registry.remember(run.provenance().get("streams", {}))
    splits = list(jobs_of(options, registry, "cpu").values())
    _check_samples(run, splits[0])
    return run, options, registry, splits[-1]


def _check_samples(run: Run, jobs: Mapping[str, Job]) -> None:
    """Refuse other samples than a run was trained on; features may be others, as another machine makes them."""
    from sparc.storage.store import read_manifest

    trained_on = run.provenance().get("features", {})
    for name, job in jobs.items():
        if name in trained_on and job.done and read_manifest(job.directory).samples_file_sha256 != trained_on[name][0]:
            raise MisalignedStreams(
                f"the samples there are not those that {run.path} was trained on",
                hint="--data-root, --store and --features say where the same data are now; on other data, train anew",
            )


def space_of(run: Run, device: str) -> SharedLatentSpace:
    """The trained space of a run. Raises MissingData where the training is not finished."""
    from sparc.storage.checkpoint import load

    if not run.finished:
        raise MissingData(f"the run {run.path} is not finished", hint=f"sparc train --resume {run.path}")
    return load(run.path, device=device)


def print_report(report: Report, dataset: str, split: str, random_weights: Sequence[str], *, everything: bool) -> None:
    """Print the tables of an evaluation."""
    caption = dry_warning(random_weights) if random_weights else ""
    console.print()
    for table in evaluation_tables(report, title=f"{dataset} {split}", caption=caption, everything=everything):
        console.print(table)


def dry_warning(random_weights: Sequence[str]) -> str:
    """What to think of numbers of streams whose weights are random."""
    return f"{', '.join(random_weights)}: random weights (dry run), so this says nothing about the models."
