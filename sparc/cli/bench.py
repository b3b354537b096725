"""`sparc bench`: time and memory of a training step, of the loader and of an evaluation on this machine.

`sparc bench planted` measures what a space recovers of planted data instead.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from sparc.cli import INTERRUPTED
from sparc.cli.options import ConfigFile, with_options
from sparc.cli.output import PlainConsole, say
from sparc.cli.progress import Screen, console
from sparc.config import (
    RECIPES,
    Options,
    PlaceOptions,
    Precision,
    RunConfig,
    SpaceConfig,
    TrainingConfig,
    names,
    option,
    option_name,
    validated,
)
from sparc.errors import InvalidConfig, counted
from sparc.session import Session, read_options
from sparc.session.data import resolve_device
from sparc.session.stopping import stop_on_signal, time_limit
from sparc.system.memory import keep_freed_memory

app = typer.Typer(help="Measure speed and memory on this machine, and recovery of planted data.", no_args_is_help=True)

PAPER_WIDTHS = "1024,768,768"

_WIDTHS = option(PAPER_WIDTHS, "Width of each stream.", metavar="D,D,...")
_N_LATENTS = option(8192, "Latents (L).", gt=0)
_K = option(64, "Latents kept per sample.", gt=0)
_BATCH = option(256, "Samples per step.", gt=0)
_JSON = option(False, "Print the numbers as one JSON object.")


class StepOptions(Options):
    """Options of `sparc bench step`."""

    widths: str = _WIDTHS
    n_latents: int = _N_LATENTS
    k: int = _K
    batch: int = _BATCH
    encoder_product: Precision = option("float32", "float32, or bfloat16, which selects the same latents.")
    adam_state: Precision = option("float32", "float32, or bfloat16, which halves the optimiser's memory.")
    steps: int = option(10, "Timed steps; the median is shown.", gt=0)
    autograd: bool = option(False, "Also time the step through autograd.")
    oracle: bool = option(False, "Also time the naive dense step, in its own process.")
    device: str = option("auto", "auto (CUDA if available), cpu, cuda, cuda:1, ...")
    json_: bool = _JSON


class LoaderOptions(Options):
    """Options of `sparc bench loader`."""

    widths: str = _WIDTHS
    samples: int = option(100_000, "Samples, written to a temporary folder.", gt=0)
    batch: int = _BATCH
    json_: bool = _JSON


class EvaluationOptions(Options):
    """Options of `sparc bench evaluate`."""

    widths: str = _WIDTHS
    n_latents: int = _N_LATENTS
    k: int = _K
    samples: int = option(20_000, "Held-out samples.", ge=64)
    n_labels: int = option(600, "Labels in the taxonomy.", ge=16)
    json_: bool = _JSON


@app.callback()
def _group() -> None:
    """Measure speed and memory on this machine, and recovery of planted data."""


@app.command("step")
@with_options(StepOptions)
def step(given: dict[str, Any]) -> None:
    """Time a training step, and its encoder product alone, which is a lower bound for any exact TopK.

    Examples:

        sparc bench step --batch 1024 --autograd --oracle

        sparc bench step --widths 1024,768,768 --n-latents 65536 --json
    """
    options = validated(StepOptions, given)
    given_names = [name for name in ("encoder_product", "adam_state") if option_name(name) in given]
    precision: dict[str, Any] = {name: getattr(options, name) for name in given_names}
    shape = _shape(options.widths, options.n_latents, options.k)
    keep_freed_memory()
    config = validated(TrainingConfig, {**RECIPES["paper"], "batch-size": options.batch, **precision})
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # silences the messages of PyTorch's profiler
    with _screen(options.json_) as screen:
        device = resolve_device(options.device, screen)
        screen.doing(f"timing {options.steps} steps")
        from sparc.benchmarks.step import measure_step

        cost = measure_step(
            shape, config, steps=options.steps, device=device, autograd=options.autograd, oracle=options.oracle
        )
    found = dataclasses.asdict(cost)
    ratios = {"of_encoder_product": cost.step_ms / cost.encoder_product_ms}
    if cost.autograd_step_ms is not None:
        ratios["autograd_to_step"] = cost.autograd_step_ms / cost.step_ms
    if cost.oracle_step_ms is not None:
        ratios["oracle_to_step"] = cost.oracle_step_ms / cost.step_ms
    found |= {name: round(ratio, 2) for name, ratio in ratios.items()}
    setting = options.model_dump(include={"widths", "n_latents", "k", "batch", "device"})
    _show(found, {**setting, **precision}, options.json_)


@app.command("loader")
@with_options(LoaderOptions)
def loader(given: dict[str, Any]) -> None:
    """Time the loader on float16 features of several streams, shuffled by sample, from files in the page cache.

    Example:

        sparc bench loader --widths 1024,768,768 --json
    """
    options = validated(LoaderOptions, given)
    shape = _shape(options.widths, 1, 1)
    keep_freed_memory()
    with _screen(options.json_) as screen:
        screen.loading("PyTorch")
        from sparc.benchmarks.loader import measure_loader

        screen.doing(f"writing {options.samples:,} samples and timing the loader on them")
        cost = measure_loader(list(shape.streams.values()), samples=options.samples, batch_size=options.batch)
    _show(dataclasses.asdict(cost), options.model_dump(include={"widths", "batch"}), options.json_)


@app.command("evaluate")
@with_options(EvaluationOptions)
def evaluate(given: dict[str, Any]) -> None:
    """Time alignment, patterns, concepts, and retrieval between one pair of streams, on random codes.

    Example:

        sparc bench evaluate --samples 126000 --json
    """
    options = validated(EvaluationOptions, given)
    shape = _shape(options.widths, options.n_latents, options.k)
    if len(shape.streams) < 2:
        raise InvalidConfig(
            f"--widths: expected at least two streams, found {options.widths!r}",
            hint=f"an evaluation compares streams, such as {PAPER_WIDTHS}",
        )
    with _screen(options.json_) as screen:
        screen.loading("PyTorch")
        from sparc.benchmarks.evaluate import measure_evaluation

        screen.doing(f"timing an evaluation on {options.samples:,} samples")
        cost = measure_evaluation(shape, samples=options.samples, n_labels=options.n_labels)
    setting = options.model_dump(include={"widths", "n_latents", "k", "samples", "n_labels"})
    _show(dataclasses.asdict(cost), setting, options.json_)


PlantedRun = Annotated[
    Path | None, typer.Argument(metavar="[RUN]", help="Directory of a run on planted data, instead of a new one.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the numbers as one JSON object.")]


@app.command("planted")
@with_options(RunConfig, without=("shard_latents",))
def planted(given: dict[str, Any], run: PlantedRun = None, config: ConfigFile = None, json_: AsJson = False) -> None:
    """Train on planted data, and measure which of its directions and supports the space recovers.

    Takes the options of `sparc train`; the dataset is `synthetic` by default, and its options are too. Beside each
    number stands that of an oracle. Without --out the run is removed at the end.

    Examples:

        sparc bench planted

        sparc bench planted --dataset 'synthetic[samples=100000]' --selection local --json

        sparc bench planted runs/synthetic
    """
    options = {**(read_options(config) if config is not None else {}), **given}
    with _screen(json_) as screen, tempfile.TemporaryDirectory() as folder:
        session = _planted_session(run, options, Path(folder) / "run", screen)
        screen.loading("PyTorch")
        from sparc.benchmarks.planted import measure_planted, planted_streams

        streams = planted_streams(session)
        keep_freed_memory()
        if run is None:
            with time_limit(session.config), session.owned():
                session.prepare()
                with stop_on_signal() as stopped:
                    trained = session.train(stopped)
            if trained is None:
                kept = f"; then measure it: sparc bench planted {session.run.path}"
                resume = f". Finish it: sparc train --resume {session.run.path}{kept}" if "out" in options else ""
                screen.note(f"{str(stopped.error) or 'stopped'}{resume}")
                sys.exit(INTERRUPTED)
        space = session.space
        screen.doing("measuring what the space recovers")
        found = measure_planted(session, space, streams)
    if json_:
        _show(dataclasses.asdict(found), session.config.model_dump(mode="json", by_alias=True), as_json=True)
        return
    from sparc.cli.tables.planted import recovery_tables

    for part in recovery_tables(found):
        console.print(part)


def _planted_session(run: Path | None, options: Mapping[str, Any], out: Path, screen: Screen) -> Session:
    """Open a finished run, or plan a new one in `out`, both by the options. Raises InvalidConfig, MissingData."""
    if run is None:
        default = {} if "features" in options else {"dataset": "synthetic"}
        return Session.begin({**default, "out": out, **options}, screen)
    if others := [name for name in options if name not in names(PlaceOptions)]:
        raise InvalidConfig(
            f"--{others[0]}: expected no options of training beside a run, found one",
            hint="remove that option; or leave the run out to train a new one",
        )
    session = Session.open(run, validated(PlaceOptions, dict(options)), screen)
    session.check_finished()
    return session


def _screen(as_json: bool) -> Screen:
    """Return the screen of a benchmark. With --json, standard output holds the numbers alone."""
    return Screen(PlainConsole(stderr=True, highlight=False)) if as_json else Screen()


def _shape(widths: str, n_latents: int, k: int) -> SpaceConfig:
    try:
        parsed = [int(width) for width in widths.split(",")]
    except ValueError:
        parsed = []
    if min(parsed, default=0) < 1:
        raise InvalidConfig(
            f"--widths: expected comma-separated numbers from 1, found {widths!r}", hint=f"such as {PAPER_WIDTHS}"
        )
    streams = {f"stream-{number}": width for number, width in enumerate(parsed)}
    return validated(SpaceConfig, {"streams": streams, "n_latents": n_latents, "k": k})


def _show(found: dict[str, Any], setting: dict[str, Any], as_json: bool) -> None:
    """Print measured numbers, as JSON together with the settings and the machine."""
    import torch

    machine = {"torch": torch.__version__, "threads": torch.get_num_threads(), "platform": platform.platform()}
    if torch.cuda.is_available():
        machine["gpu"] = torch.cuda.get_device_name()
    if as_json:
        print(json.dumps({**found, "setting": setting, "machine": machine}))
        return
    measured = ", ".join(f"{name.replace('_', ' ')} {_rounded(value)}" for name, value in setting.items())
    where = machine.get("gpu") or counted(torch.get_num_threads(), "thread")
    say(console, f"measured: {measured}; {where}, torch {torch.__version__}")
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    phases = found.pop("phases", {})
    for name, number in [*found.items(), *((f"  {phase}", share) for phase, share in phases.items())]:
        if number is not None:
            table.add_row(name.replace("_", " "), _rounded(number))
    console.print(table)


def _rounded(value: Any) -> str:
    """Return a number with three significant digits, and a whole one, or a text, as it is."""
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{digits}f}"
