"""`sparc ablate`: train every combination of a grid with several seeds, and compare them in one table."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from sparc.ablation.grid import parse_axes
from sparc.ablation.study import DEFAULT_SEEDS, Study, plan_study, run_study
from sparc.cli import INTERRUPTED
from sparc.cli.options import ConfigFile, with_options
from sparc.cli.progress import Screen, console
from sparc.config import RunConfig
from sparc.errors import Interrupted
from sparc.session import read_options

Axes = Annotated[
    list[str] | None,
    typer.Option("--grid", metavar="KEY=VALUE,...", help="Values of one option; repeat for more options."),
]
Seeds = Annotated[
    int | None,
    typer.Option("--seeds", min=1, help=f"Number of seeds per combination, from --seed on. Default: {DEFAULT_SEEDS}."),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", help="Directory of all runs; give it again to resume. Default: runs/ablation-DATASET."),
]


@with_options(RunConfig, without=("out", "shard_latents"))
def ablate(
    given: dict[str, Any], grid: Axes = None, seeds: Seeds = None, out: Out = None, config: ConfigFile = None
) -> None:
    """Compare settings: train and evaluate every combination of a grid with several seeds, and print one table.

    Features are extracted once, and as many runs as memory and cores allow are trained in parallel. Each run works with
    `sparc info` and `sparc evaluate`. A --config file may hold `seeds` and a table `[grid]` of lists.

    Examples:

        sparc ablate --grid selection=global,local --grid lambda=0,1

        sparc ablate --features imported --grid k=16,32,64 --seeds 5 --out runs/k

        sparc ablate --config ablation.toml
    """
    from sparc.cli.tables.ablation import ablation_tables

    file = read_options(config, ablation=True) if config is not None else None
    options = given if out is None else {**given, "out": out}
    with Screen() as screen:
        study = plan_study(options, parse_axes(grid or []), seeds, screen, file)
        try:
            outcome = run_study(study, screen)
        except Interrupted as stopped:
            screen.note(f"{stopped.why or 'stopped'}. Resume it with: {_again(study)}")
            sys.exit(INTERRUPTED)
    for part in ablation_tables(outcome.results):
        console.print(part)
    console.print(f"\nsaved in {study.folder.path}: results.csv, plots and all runs", markup=False, soft_wrap=True)
    if outcome.diverged:
        raise outcome.diverged[0]


def _again(study: Study) -> str:
    """Return the command that resumes this ablation."""
    words = ["sparc", *sys.argv[1:]]
    there = any(word == "--out" or word.startswith("--out=") for word in words)
    return shlex.join(words if there else [*words, "--out", str(study.folder.path)])
