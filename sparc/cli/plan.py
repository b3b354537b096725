"""`sparc plan`: what extraction, training and evaluation will take, from a short probe."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from sparc.cli.options import ConfigFile, with_options
from sparc.cli.progress import Screen, console
from sparc.cli.tables.costs import print_costs
from sparc.config import RunConfig
from sparc.session import SILENT, read_options
from sparc.session.planning import plan_for

Json = Annotated[bool, typer.Option("--json", help="Print the plan as JSON: seconds and bytes.")]


@with_options(RunConfig)
def plan(given: dict[str, Any], config: ConfigFile = None, json: Json = False) -> None:
    """Estimate time, disk and memory of `sparc extract`, `train` and `evaluate`, from a minute or two of each.

    Takes the options of `sparc train`. It computes the features of a few samples, takes some steps of the training, and
    evaluates some held-out samples. Nothing is left in the store, and no run is made.

    Examples:

        sparc plan

        sparc plan --config run.toml

        sparc plan --features imported --n-latents 8192 --json
    """
    file = read_options(config) if config is not None else None
    if json:
        console.file.write(plan_for(given, SILENT, file).model_dump_json(indent=2) + "\n")
        return
    with Screen(extracting="measure") as screen:
        found = plan_for(given, screen, file)
    print_costs(found)
