"""`sparc ablate`: every combination of some settings, with several seeds, side by side, and one table of all."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparc.cli import INTERRUPTED
from sparc.cli.extract import extract_missing
from sparc.cli.options import (
    AdamState,
    BatchSize,
    Compile,
    Config,
    DataRoot,
    Dataset,
    Device,
    EncoderProduct,
    Epochs,
    Features,
    K,
    Lambda,
    Lr,
    NLatents,
    Normalization,
    Precision,
    Seed,
    Selection,
    SkipBad,
    Store,
    StoreDtype,
    Streams,
    said_of,
)
from sparc.cli.progress import Bar, console
from sparc.cli.train import say_missing, stop_on_signal
from sparc.errors import BadFeatures, InvalidConfig, SparcError
from sparc.session_options import merged, resolve_device, store_root

if TYPE_CHECKING:
    from sparc.ablation.folder import Ablation
    from sparc.ablation.grid import Cell, Grid
    from sparc.ablation.pool import Work
    from sparc.config import RunConfig
    from sparc.extraction import Job
    from sparc.plugins.registry import Registry
    from sparc.storage.store import FeatureStore

DEFAULT_SEEDS = 3

Axes = Annotated[
    list[str] | None,
    typer.Option("--grid", metavar="KEY=VALUE,...", help="Values of an option of training; repeat for more options."),
]
Seeds = Annotated[
    int | None,
    typer.Option("--seeds", min=1, help=f"Seeds for each combination, from --seed on. Without it: {DEFAULT_SEEDS}."),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", help="Directory of all runs; the same one goes on. Without it: a new runs/ablation-DATASET."),
]


def ablate(
    grid: Axes = None,
    seeds: Seeds = None,
    stream: Streams = None,
    dataset: Dataset = None,
    data_root: DataRoot = None,
    features: Features = None,
    out: Out = None,
    n_latents: NLatents = None,
    k: K = None,
    selection: Selection = None,
    normalization: Normalization = None,
    lambda_: Lambda = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    lr: Lr = None,
    seed: Seed = None,
    encoder_product: EncoderProduct = None,
    adam_state: AdamState = None,
    device: Device = None,
    store: Store = None,
    precision: Precision = None,
    store_dtype: StoreDtype = None,
    compile_: Compile = None,
    skip_bad: SkipBad = None,
    config: Config = None,
) -> None:
    """Compare settings: train and evaluate every combination of a grid with several seeds, and print one table.

    Features are extracted once; as many runs are trained side by side as the machine holds. Each run is one that
    `sparc info` and `sparc evaluate` know. A --config file may hold `seeds` and a table `[grid]` of lists.

    Examples:

        sparc ablate --grid selection=global,local --grid lambda=0,1

        sparc ablate --features imported --grid k=16,32,64 --seeds 5 --out runs/k

        sparc ablate --config ablation.toml
    """
    said = said_of(locals())
    from sparc.config import read_options
    from sparc.plugins.registry import discover

    file = read_options(config, ablation=True) if config is not None else {}
    registry = discover()
    _do(_planned(grid or [], seeds, said, file, registry), registry)


@dataclass(frozen=True)
class _Plan:
    ablation: Ablation
    options: RunConfig
    grid: Grid
    cells: list[Cell]
    seeds: list[int]
    asked: dict[str, Any]


def _planned(
    words: Sequence[str], seeds: int | None, said: dict[str, Any], file: dict[str, Any], registry: Registry
) -> _Plan:
    """What there is to train, all of it checked before anything is extracted."""
    from sparc.ablation.folder import Ablation, asked
    from sparc.ablation.grid import cells, checked_grid, checked_seeds, parse_axes
    from sparc.config import ABLATION_KEYS
    from sparc.storage.run import Run

    axes, table = parse_axes(words), file.get("grid", {})
    if twice := [key for key in axes if said.get(key) is not None]:
        raise InvalidConfig(f"--grid varies {twice[0]}, found --{twice[0]} too", hint="leave one of them out")
    grid = checked_grid({**table, **axes} if isinstance(table, dict) else table)
    rest = {key: value for key, value in file.items() if key not in ABLATION_KEYS}
    options = merged(said, rest, registry)
    options = options.model_copy(update={"store": store_root(options)})
    numbers = checked_seeds(seeds if seeds is not None else file.get("seeds", DEFAULT_SEEDS), options.seed)
    every = cells(options, grid)
    default = Run.next_free(Path("runs"), f"ablation-{options.dataset.name}")
    ablation = Ablation(options.out if options.out is not None else default)
    what = asked(options, grid, numbers)
    ablation.check(what)
    return _Plan(ablation, options, grid, every, numbers, what)


def _do(plan: _Plan, registry: Registry) -> None:
    """Extract, make all runs, compare them. Ends the process where the user stopped it."""
    from sparc.ablation.plots import draw
    from sparc.ablation.results import collect
    from sparc.cli.ablation_tables import ablation_tables

    device = resolve_device(plan.options.device)
    train_split, test_split = extract_missing(plan.options, registry, device).values()
    diverged: dict[int, SparcError] = {}
    if not _make_all(plan, train_split, test_split, device, diverged):
        console.print(f"stopped. Go on with: {_again(plan)}", markup=False, soft_wrap=True)
        sys.exit(INTERRUPTED)
    if len(diverged) == len(plan.cells) * len(plan.seeds):
        raise diverged[min(diverged)]
    results = collect(plan.cells, plan.seeds, plan.ablation.run)
    results.write(plan.ablation.path)
    draw(results, plan.grid, plan.ablation.path)
    for part in ablation_tables(results):
        console.print(part)
    console.print(f"\nsaved in {plan.ablation.path}: results.csv, plots, and every run", markup=False, soft_wrap=True)
    if diverged:
        raise diverged[min(diverged)]


def _make_all(
    plan: _Plan, train_split: dict[str, Job], test_split: dict[str, Job], device: str, diverged: dict[int, SparcError]
) -> bool:
    """Train and measure what is not there; returns False where the user stopped it.

    An error for each run that has no result is added to `diverged`, by its place in the plan: runs end in any order.
    """
    from sparc.ablation.pool import Work, make_all, room
    from sparc.ablation.worker import Task
    from sparc.extraction import directories

    features, held_out = _opened(plan, train_split, test_split)
    works = [
        Work(cell, plan.ablation.run(cell, seed), plan.ablation.options(cell, seed))
        for cell in plan.cells
        for seed in plan.seeds
    ]
    waiting = [work for work in works if not work.run.evaluation.is_file()]
    done = len(works) - len(waiting)
    said = f"{_count(works, 'run')}: {_count(plan.cells, 'cell')}, {_count(plan.seeds, 'seed')}"
    if not waiting:
        console.print(f"[dim]{said}; all are there[/dim]")
        return True
    share = room(waiting, features.widths, held_out, device)
    console.print(
        f"[dim]{said}; {f'{done} are there; ' if done else ''}{share.workers} at a time, threads of each: "
        f"{share.threads}[/dim]"
    )
    task = Task(directories(train_split), test_split, plan.options, device, ["sparc", *sys.argv[1:]])
    with Bar("ablate", "runs") as bar, stop_on_signal() as stopped:
        bar.update(done, len(works))

        def show(work: Work) -> None:
            nonlocal done
            done += 1
            bar.update(done, len(works), work.cell.name)

        def note(work: Work, error: BadFeatures) -> None:
            where = f"{work.cell.name} with seed {work.options.seed}"
            hint = "leave that out of the grid, with the same --out: the other runs are kept"
            diverged[works.index(work)] = BadFeatures(f"{where}: {error.message}", hint=hint)

        return make_all(waiting, task, share, on_done=show, on_diverged=note, should_stop=lambda: bool(stopped))


def _count(things: Sequence[object], name: str) -> str:
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"


def _opened(plan: _Plan, train_split: dict[str, Job], test_split: dict[str, Job]) -> tuple[FeatureStore, int]:
    """The training features, and how many samples are held out; both are written down as what the runs are made on."""
    from sparc.extraction import directories
    from sparc.storage.manifest import feature_digests, read_manifest
    from sparc.storage.store import open_streams

    features = open_streams(directories(train_split))
    say_missing(features)
    held_out = {name: read_manifest(job.directory) for name, job in test_split.items()}
    plan.ablation.describe(
        plan.asked, {"train": feature_digests(features.manifests), "test": feature_digests(held_out)}
    )
    return features, next(iter(held_out.values())).samples


def _again(plan: _Plan) -> str:
    """The command that goes on with this ablation."""
    words = ["sparc", *sys.argv[1:]]
    there = any(word == "--out" or word.startswith("--out=") for word in words)
    return shlex.join(words if there else [*words, "--out", str(plan.ablation.path)])
