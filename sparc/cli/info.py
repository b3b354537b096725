"""`sparc info`: describe a run."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from sparc.cli.following import follow as follow_log
from sparc.cli.following import wait_for_start
from sparc.cli.options import RunPath
from sparc.cli.output import say
from sparc.cli.progress import console
from sparc.cli.tables.evaluation import print_evaluation
from sparc.cli.tables.summary import summary
from sparc.config import ExtractionOptions, TrainingConfig, names
from sparc.errors import MissingData
from sparc.evaluation.report import EvaluationFile
from sparc.storage.run import Run
from sparc.storage.space_config import COMPLETION, read_config


def info(
    run: RunPath,
    follow: Annotated[
        bool, typer.Option("--follow", help="Print the log of the training instead, until the training ends.")
    ] = False,
) -> None:
    """Show the streams, settings and data of a run, and the tables of its evaluation.

    Examples:

        sparc info runs/openmoji

        sparc info runs/openmoji --follow
    """
    if follow:
        wait_for_start(Run(run))
    opened = Run.open_space(run)
    if not opened.begun:
        if follow:
            raise MissingData(f"{run} is an imported space, which has no log of a training", hint=f"sparc info {run}")
        _print_space(opened)
        return
    provenance = opened.provenance()
    if follow:
        follow_log(opened, provenance)
        return
    for line in summary(opened, provenance):
        say(console, line)
    console.print()
    for name, stream in provenance.streams.items():
        if provenance.options.features is not None:
            say(console, f"stream {name}: imported features")
            continue
        params = ", ".join(f"{key}={value}" for key, value in stream.params.items() if value is not None)
        params = f"[{params}]" if params else ""
        weights = f"  weights {stream.weights}" if stream.weights else ""
        say(console, f"stream {name}: {stream.backbone}{params}{weights}")
    for one in provenance.changes:
        way = "to" if one.change == "attached" else "from"
        say(console, f"{one.change}: {one.stream}, {way} the space of {one.run}")
    if not opened.finished:
        _print_checkpoints(opened)
        return
    guesses = _print_shape(opened)
    options = provenance.options.model_dump(by_alias=True)
    console.print(f"recipe: {options['recipe']}", markup=False)
    for title, model in (("training", TrainingConfig), ("features", ExtractionOptions)):
        settings = ", ".join(f"{name} {options[name]}" for name in names(model))
        say(console, f"{title}: {settings}")
    say(console, f"started {provenance.started} by: {' '.join(provenance.command)}")
    if opened.evaluation.is_file():
        print_evaluation(opened)
        if guesses and not EvaluationFile.read(opened.evaluation).report.uncompleted:
            again = f"sparc evaluate {escape(str(run))}"
            say(console, f"measured before the space had a completion; measure it again: {again}", style="yellow")
    _print_others(opened)


def _print_space(run: Run) -> None:
    """Print what is known of an imported space, and the tables of its evaluations."""
    for name, width in read_config(run.path).streams.items():
        say(console, f"stream {name}: width {width}, backbone not known")
    _print_shape(run)
    _print_others(run)


def _print_shape(run: Run) -> bool:
    """Print the shape of a space; return True if it guesses missing streams."""
    space = read_config(run.path)
    shape = (
        f"{space.n_latents} latents, {space.k} kept, {space.selection} selection, {space.normalization} normalization"
    )
    completes = (run.path / COMPLETION).is_file()
    guesses = "guesses missing streams" if completes else "guesses no missing streams"
    say(console, f"space: {shape}, {guesses}")
    return completes


def _print_others(run: Run) -> None:
    """Print the tables of what was measured on other data than the run's own."""
    for file in run.others():
        console.print(f"\nmeasured on other data, {file.path}:", markup=False, soft_wrap=True)
        print_evaluation(file)


def _print_checkpoints(run: Run) -> None:
    """Print the checkpoints of an unfinished run, the newest first, and mark the best."""
    states = run.states()
    if not states:
        return
    from sparc.training.state import best_state, described

    best = best_state(states)
    for path, progress in described(states):
        if progress is None:
            console.print(f"checkpoint {path.name}: damaged", markup=False)
            continue
        loss = "" if progress.held_out_loss is None else f", held-out loss {progress.held_out_loss:.4f}"
        mark = " (best)" if best is not None and best[0] == path else ""
        console.print(f"checkpoint at step {progress.step}{loss}{mark}", markup=False)
