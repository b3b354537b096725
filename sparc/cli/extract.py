"""`sparc extract`: the extraction with which `sparc train` begins, on its own."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from sparc.cli.options import ConfigFile, with_options
from sparc.cli.progress import Screen, console
from sparc.cli.tables.extraction import print_plan
from sparc.config import ExtractOptions, ParallelOptions, SpaceOptions, TrainingConfig
from sparc.errors import MissingData
from sparc.session import read_options
from sparc.session.stopping import time_limit
from sparc.session.verbs import plan_extraction

Plan = Annotated[
    bool, typer.Option("--plan", help="Only estimate time, disk and memory, from a few samples; write nothing.")
]


NOT_HERE = (
    *(field for model in (SpaceOptions, TrainingConfig, ParallelOptions) for field in model.model_fields),
    "features",
    "out",
)


@with_options(ExtractOptions, without=NOT_HERE)
def extract(given: dict[str, Any], config: ConfigFile = None, plan: Plan = False) -> None:
    """Extract the features of a dataset into the store, as `sparc train` does first.

    Features that are in the store are not computed again, and an interrupted extraction continues where it stopped.
    Each image is read once for all image streams. An image or caption that several samples share is encoded once.

    Examples:

        sparc extract

        sparc extract --stream dinov2 --stream clip-img --stream clip-txt --dataset image-folder --data-root photos

        sparc extract --plan --stream dinov2 --dataset coco --data-root coco

        torchrun --nproc-per-node 2 --no-python sparc extract --config run.toml
    """
    file = read_options(config) if config is not None else None
    with Screen(extracting="measure" if plan else "extract") as screen:
        data, share = plan_extraction(given, screen, file)
        if plan:
            problems = data.problems()
            try:
                found = data.probe()
            except MissingData as error:
                raise (problems.joined() if problems else error) from error
            print_plan(found, problems)
            return
        with time_limit(data.config):
            data.extract(share)
    for streams in data.jobs.values():
        for job in streams.values():
            state = "" if job.done else "  (other processes are still at work)"
            console.print(f"{job.directory}{state}", soft_wrap=True, markup=False)
