"""`sparc train`: extract missing features, train, evaluate, and print the next commands."""

from __future__ import annotations

import contextlib
import shlex
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparc.cli import INTERRUPTED
from sparc.cli.options import ConfigFile, with_options
from sparc.cli.output import say
from sparc.cli.progress import Screen, console
from sparc.cli.tables.evaluation import print_evaluation
from sparc.cli.tables.extraction import print_rehearsal
from sparc.config import RunConfig
from sparc.errors import Interrupted, InvalidConfig
from sparc.session import Listener, Session, read_options
from sparc.session.rehearsal import rehearse
from sparc.session.stopping import time_limit
from sparc.session.together import Mute, check_alone, together
from sparc.session.verbs import begin_or_resume, check_resume, finished_run, run_session
from sparc.storage.run import Run
from sparc.system.memory import keep_freed_memory
from sparc.system.processes import leads

if TYPE_CHECKING:
    from sparc.training.distributed import Ranks

Resume = Annotated[
    Path | None,
    typer.Option("--resume", metavar="RUN", help="Finish an interrupted run with its own options."),
]


DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Only take two steps of everything, measure them, and leave no run."),
]


@with_options(RunConfig)
def train(given: dict[str, Any], config: ConfigFile = None, resume: Resume = None, dry_run: DryRun = False) -> None:
    """Train a shared latent space: extract missing features, train, evaluate.

    Without options it trains the built-in demo (real backbones on real pictures and captions) in a few minutes, without
    a GPU. The value of an option comes from the command line, else from --config, else from the dataset's defaults,
    else from the recipe.

    Examples:

        sparc train

        sparc train --stream dinov2 --stream clip-img --stream clip-txt --dataset image-folder --data-root photos

        sparc train --features imported --n-latents 8192

        sparc train --config run.toml --seed 1

        sparc train --resume runs/openmoji

        sparc train --config run.toml --dry-run
    """
    if dry_run and resume is not None:
        raise InvalidConfig("--dry-run: expected a new run, found --resume", hint="leave one of them out")
    if dry_run:
        check_alone("--dry-run")
    file = read_options(config) if config is not None else None
    with _screen() as screen, together(screen) as ranks:
        if (done := finished_run(resume)) is not None:  # a second evaluation would drop what `sparc evaluate` measures
            check_resume(given, file)
            screen.note(f"{done.path} is already trained and evaluated")
            if leads():
                print_next(done)
            return
        session = begin_or_resume(given, screen, resume=resume, file=file)
        if not dry_run:
            finish(session, screen, ranks)
        else:
            with time_limit(session.config):
                rehearsal = rehearse(session)
    if dry_run:
        print_rehearsal(rehearsal)
        return
    if leads():
        print_evaluation(session.run)
        print_next(session.run)


def _screen() -> AbstractContextManager[Listener]:
    """Return the listener of this process: of several, only the leading one prints."""
    return Screen() if leads() else contextlib.nullcontext(Mute())


def finish(session: Session, screen: Listener, ranks: Ranks | None = None) -> None:
    """Extract, train and evaluate a run; after Ctrl-C, print how to resume and exit."""
    keep_freed_memory()
    try:
        run_session(session, ranks)
    except Interrupted as stopped:
        screen.note(
            f"{stopped.why or 'stopped'}. Resume it with: sparc train --resume {shlex.quote(str(stopped.path))}"
        )
        sys.exit(INTERRUPTED)


def print_next(run: Run) -> None:
    """Print the commands that may follow a training."""
    for line in (
        "",
        f"saved in {run.path}. Next:",
        f"  sparc explore {run.path}        a page of what the latents mean",
        f"  sparc evaluate {run.path}       probes and plots",
        f"  sparc info {run.path}           this table again",
        f'  python -c "import sparc; print(sparc.load({str(run.path)!r}).streams)"',
    ):
        say(console, line)
