"""`sparc train`: extract what the store lacks, train, evaluate, and say what to do next."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from sparc.cli import INTERRUPTED
from sparc.cli.evaluate import evaluate_run
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
    Out,
    Precision,
    Resume,
    Seed,
    Selection,
    SkipBad,
    Store,
    StoreDtype,
    Streams,
    resolve,
    said_of,
)
from sparc.cli.progress import Bar, console
from sparc.errors import InvalidConfig, MisalignedStreams
from sparc.session_options import PLACES, options_of, resolve_device
from sparc.system.memory import keep_freed_memory

if TYPE_CHECKING:
    from sparc.config import RunConfig
    from sparc.extraction import Job
    from sparc.plugins.registry import Registry
    from sparc.storage.checkpoint import SharedLatentSpace
    from sparc.storage.run import Run
    from sparc.storage.store import FeatureStore
    from sparc.training.trainer import Step


WAITING = 0.05
"""Share of the time that training may wait for data before it is said."""
ALIKE = 0.9
"""What a stream's samples may have in common before it is said; of the demo's streams it is 0.1 to 0.4."""


def train(
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
    resume: Resume = None,
) -> None:
    """Train a shared latent space: extract what is missing, train, evaluate.

    Without options it trains the embedded demo, real backbones on real pictures and captions, in a few minutes without
    a GPU. What is not said comes from --config, else from the dataset's defaults, else from the paper.

    Examples:

        sparc train

        sparc train --stream dinov2 --stream clip-img --stream clip-txt --dataset image-folder --data-root photos

        sparc train --features imported --n-latents 8192

        sparc train --config run.toml --seed 1

        sparc train --resume runs/openmoji
    """
    said = said_of(locals())
    from sparc.plugins.registry import discover

    registry = discover()
    plan = _resumed(resume, said, config) if resume is not None else _new(resolve(said, config, registry))
    if plan.run is not None and plan.run.finished and plan.run.evaluation.is_file():
        # Measured anew it would lose what only `sparc evaluate` measures.
        console.print(f"{plan.path} is trained and evaluated already", markup=False, soft_wrap=True)
        _say_next(plan.run, plan.options)
        return
    _do(plan, registry)


def _do(plan: _Plan, registry: Registry) -> None:
    """Extract, train, evaluate. Ends the process where the user stopped it."""
    keep_freed_memory()
    if plan.run is not None:
        registry.remember(plan.run.provenance().get("streams", {}))
    device = resolve_device(plan.options.device)
    jobs = extract_missing(plan.options, registry, device)
    train_split, test_split = jobs
    features = _features(plan, jobs[train_split])
    run = plan.run or _create(plan, features, device)
    try:
        space = _fit(run, plan.options, features, device)
        evaluate_run(run, space, plan.options, registry, jobs[test_split], device)
    except KeyboardInterrupt:
        console.print(f"stopped. Go on with: sparc train --resume {run.path}", markup=False, soft_wrap=True)
        sys.exit(INTERRUPTED)
    _say_next(run, plan.options)


@dataclass(frozen=True)
class _Plan:
    options: RunConfig
    path: Path
    run: Run | None
    """The run to go on with, if there is one."""


def _new(options: RunConfig) -> _Plan:
    from sparc.session import free_path

    return _Plan(options, free_path(options), None)


def _resumed(path: Path, said: dict[str, Any], config: Path | None) -> _Plan:
    from sparc.storage.run import Run

    others = [name for name, value in said.items() if value not in (None, []) and name not in PLACES]
    if others or config is not None:
        raise InvalidConfig(
            f"--resume goes on with a run as it was started, found --{(others or ['config'])[0]} too",
            hint="leave it out; or start a new run",
        )
    run = Run.open(path)
    return _Plan(options_of(run, {name: said[name] for name in PLACES}), path, run)


def _features(plan: _Plan, jobs: dict[str, Job]) -> FeatureStore:
    """The training features. Raises MisalignedStreams where a run to go on with was started on others."""
    from sparc.extraction import directories
    from sparc.storage.provenance import digests
    from sparc.storage.store import open_streams

    features = open_streams(directories(jobs))
    if plan.run is not None and plan.run.provenance().get("features") != digests(features.manifests):
        raise MisalignedStreams(
            f"the features in the store are not those that {plan.path} was started on", hint="train anew"
        )
    say_missing(features)
    if plan.options.normalization == "unit":
        _say_common(features)
    return features


def _create(plan: _Plan, features: FeatureStore, device: str) -> Run:
    from sparc.session import create_run

    return create_run(plan.path, plan.options, features, device, command=["sparc", *sys.argv[1:]])


def _fit(run: Run, options: RunConfig, features: FeatureStore, device: str) -> SharedLatentSpace:
    """Train on the extracted features, unless the run did. Raises KeyboardInterrupt where the user stopped it."""
    from sparc.storage.checkpoint import SharedLatentSpace, load
    from sparc.training.trainer import train as fit

    if run.finished:
        console.print(f"{run.path} is trained already", markup=False)
        return load(run.path, device=device)
    space = SharedLatentSpace(options.space(features.widths), seed=options.seed).to(device)
    with Bar("train", "steps") as bar, stop_on_signal() as stopped:
        finished = fit(
            space, options.training(), features, run, on_step=_Losses(bar), should_stop=lambda: bool(stopped)
        )
    if not finished:
        raise KeyboardInterrupt
    return space


class _Losses:
    """Shows steps, with the losses last logged, and the share of the time that waits for data where it is not small."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._note = ""

    def __call__(self, step: Step) -> None:
        if step.losses is not None:
            means = step.losses.means
            self._note = f"loss {step.losses.loss:.3f}  self {means['self']:.3f}  cross {means['cross']:.3f}"
        waiting = f"waiting for data {step.waiting:.0%}" if step.waiting >= WAITING else ""
        self._bar.update(step.number, step.total, "  ".join(filter(None, (self._note, waiting))))


@contextlib.contextmanager
def stop_on_signal() -> Iterator[list[int]]:
    """Collect the first SIGINT or SIGTERM, so that the step under way is finished; a second one interrupts at once."""
    received: list[int] = []

    def note(number: int, frame: object) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def say_missing(features: FeatureStore) -> None:
    """Say how many samples lack a stream. Raises MissingData where all do."""
    from sparc.session import missing

    for name, count in missing(features).items():
        if count:
            console.print(f"[yellow]{count} of {len(features)} samples lack the stream {escape(name)}[/yellow]")


def _say_common(features: FeatureStore) -> None:
    """Say which streams normalisation to unit norm leaves little to tell samples apart by."""
    from sparc.session import common

    for name, share in common(features).items():
        if share > ALIKE:
            console.print(
                f"[yellow]{escape(name)}: {share:.0%} of its features is the same for all samples; "
                "--normalization standard takes that off[/yellow]",
                soft_wrap=True,
            )


def _say_next(run: Run, options: RunConfig) -> None:
    pictures = f"  sparc explore {run.path}        pictures of what the latents mean\n"
    console.print(
        f"\nsaved in {run.path}. Next:\n"
        f"{pictures if options.features is None else ''}"
        f"  sparc evaluate {run.path}       probes, names of latents, plots\n"
        f"  sparc info {run.path}           this table again\n"
        f'  python -c "import sparc; print(sparc.load({str(run.path)!r}).streams)"',
        markup=False,
        soft_wrap=True,
    )
