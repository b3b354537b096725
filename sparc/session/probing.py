"""The process in which `sparc plan` takes some steps of a training, or evaluates some held-out samples.

It reads a `Probe` as JSON from standard input and writes what it measured, or its error, to standard output. A process
of its own has the peak memory of the command that it stands for. Its files lie in a folder that the parent removes.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict

from sparc.config import RunConfig, validated
from sparc.errors import SparcError
from sparc.extraction import Job
from sparc.plugins.registry import Registry, checked_params, discover
from sparc.session.data import Captions, Data
from sparc.session.device_memory import evaluation_bytes, training_bytes
from sparc.session.samples import few_held_out, random_features, some_features, some_held_out
from sparc.storage.run import Run
from sparc.system.memory import keep_freed_memory, peak_bytes, resident_bytes
from sparc.system.refusals import refusal

if TYPE_CHECKING:
    from sparc.config import TrainingConfig
    from sparc.evaluation import HeldOut
    from sparc.storage.checkpoint import SharedLatentSpace
    from sparc.training.loader import TrainingFeatures

STEPS_SECONDS = 15.0
FEWEST_STEPS = 6
"""Steps to take even if they last longer than STEPS_SECONDS."""
EVALUATION_SECONDS = 70.0
SMALLEST, SHARE = 64, 8
"""The first evaluation is of an eighth of the held-out samples, but not of fewer than 64; each further one of twice as
many."""
IMPORTED = (
    *("cli.app", "evaluation.alignment", "evaluation.concepts", "evaluation.latents", "evaluation.probes"),
    *("evaluation.retrieval", "evaluation.sharing", "session.session", "training.attaching"),
)
"""Modules of sparc that the commands import too: their time and memory count."""
MANY = 10**6
FEATURE_BYTES = 1 << 29
"""Most bytes of random features."""


class Probe(BaseModel):
    """Order for this process."""

    model_config = ConfigDict(frozen=True)

    part: Literal["training", "evaluation"]
    config: dict[str, Any]
    """Options, with those that fit the number of samples."""
    jobs: dict[str, dict[str, Job]]
    widths: dict[str, int]
    samples: int
    held_out: int
    has_features: bool
    """True if the store has all features, and False to draw random ones."""
    device: str
    folder: Path
    """Folder of the run, which the training writes and the evaluation reads."""
    began: float
    """Time at which the parent started this process."""


class TrainingFound(BaseModel):
    """Measurements of some steps of a training."""

    command: float
    """Seconds from the start of the process until it has imported what every command does."""
    start: float
    """Seconds from the start of the process until its modules are imported."""
    prepare: float
    """Seconds before the first step, for all samples, of what only the first steps take, and to draw the losses."""
    step: float
    steps_taken: int
    checkpoint: float
    """Seconds to save a checkpoint."""
    checkpoint_bytes: int
    run_bytes: int
    memory: int | None
    """Peak memory of a training on all samples."""
    resident: int
    """Memory at its end."""
    device_memory: int


class EvaluationFound(BaseModel):
    """Measurements of evaluations of some held-out samples, extrapolated to all of them."""

    start: float
    after_training: float
    """Seconds of the evaluation after a training."""
    whole: float
    """Seconds of the evaluation with classifiers."""
    plots: float
    evaluated: int
    report_bytes: int
    plot_bytes: int
    memory: int | None
    resident: int
    """Memory before the first evaluation."""
    device_memory: int


def main() -> None:
    """Read an order, carry it out, and write what was measured."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    said_to = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # prints of libraries
    try:
        order = Probe.model_validate_json(sys.stdin.buffer.read())
        measure = probe_training if order.part == "training" else probe_evaluation
        said: dict[str, Any] = {"found": measure(order).model_dump(mode="json")}
    except Exception as error:
        known = error if isinstance(error, SparcError) else refusal(error, "take some steps of the training")
        if known is not None:
            said = {"kind": type(known).__name__, "message": known.message, "hint": known.hint}
            said["details"] = known.details
        else:
            said = {"crash": f"{type(error).__name__}: {error}".splitlines()[0]}
        said["traceback"] = traceback.format_exc()
    said_to.write(json.dumps(said))
    said_to.close()


def probe_training(order: Probe) -> TrainingFound:
    """Prepare a space, take steps for a while, and save a checkpoint and the space."""
    keep_freed_memory()  # as `sparc train` does
    for name in ("torch", "sparc.cli.app", "sparc.session"):
        importlib.import_module(name)
    command = time.time() - order.began
    _import_all()
    from sparc.storage.checkpoint import SharedLatentSpace
    from sparc.training.loader import steps_per_epoch
    from sparc.training.plots import draw_curves
    from sparc.training.trainer import Hooks, Training, run_to_end

    config, registry = validated(RunConfig, order.config), discover()
    training_config, shape = config.training(), config.space(order.widths)
    data = Data(config, registry, jobs=order.jobs)
    space = SharedLatentSpace(shape, seed=config.seed).to(order.device)
    start = time.time() - order.began
    row_bytes = 4 * sum(order.widths.values())
    # The completion of fewer samples than features would have a smaller rank, and take less time.
    count = min(
        order.samples, max(int(1.5 * sum(order.widths.values())), 8 * config.batch_size), FEATURE_BYTES // row_bytes
    )
    some: TrainingFeatures = random_features(order.widths, count)
    if order.has_features:
        some = data.train if count == order.samples else some_features(data.train, count)
    lacking, prepared = _prepared(space, some, training_config, (order.samples - count) / count)
    run = Run(order.folder)
    training = Training(space, training_config, lacking=lacking)
    steps = steps_per_epoch(order.samples, training_config) * training_config.epochs
    times: list[float] = []
    hooks = Hooks(
        lambda step: times.append(time.perf_counter()), lambda: _enough(times, steps), held_out=some
    )  # a checkpoint measures a loss
    training.config = training_config.model_copy(update={"epochs": MANY})  # fewer samples have fewer steps
    began = time.perf_counter()
    run_to_end(training, some, run, hooks)
    checkpoint = time.perf_counter() - times[-1]
    step, first = _pace([began, *times])
    states = run.states()
    size = states[0].stat().st_size
    run.drop_state()
    space.eval().save_pretrained(run.path, training=training_config)
    began = time.perf_counter()
    draw_curves(run)
    drawing = time.perf_counter() - began
    peak, held = peak_bytes(), resident_bytes()
    mapped = row_bytes * (order.samples - count)
    return TrainingFound(
        command=command,
        start=start,
        prepare=prepared + first + drawing,
        step=step,
        steps_taken=len(times),
        checkpoint=checkpoint,
        checkpoint_bytes=size,
        run_bytes=_bytes_below(run.path),
        memory=None if peak is None else peak + mapped,
        resident=held + mapped,
        device_memory=_device_memory(order.device, training_bytes(config, order.widths)),
    )


def _prepared(
    space: SharedLatentSpace, some: TrainingFeatures, config: TrainingConfig, more: float
) -> tuple[bool, float]:
    """Prepare a space; return what `prepare` does, and the seconds that it takes with `more` times the samples more."""
    from sparc.training.trainer import moments, prepare

    began = time.perf_counter()
    lacking = prepare(space, some, config)
    seconds = time.perf_counter() - began
    if space.completion is not None or config.pre_bias == "mean":
        began = time.perf_counter()
        moments(space, some)
        seconds += more * (time.perf_counter() - began)
    return lacking, seconds


def _import_all() -> None:
    for name in IMPORTED:
        importlib.import_module(f"sparc.{name}")
    importlib.import_module("scipy.stats")  # `evaluation` imports them when it needs them
    importlib.import_module("sklearn.metrics")


def _enough(times: list[float], steps: int) -> bool:
    """Return True when all steps of the training are taken, or have taken long enough."""
    return len(times) >= min(steps, FEWEST_STEPS) and (len(times) >= steps or times[-1] - times[0] > STEPS_SECONDS)


def _pace(times: list[float]) -> tuple[float, float]:
    """Return the seconds of a step, from the later two thirds of them, and what the first third took beyond that."""
    early = (len(times) - 1) // 3
    step = (times[-1] - times[early]) / (len(times) - 1 - early)
    return step, max(0.0, times[early] - times[0] - early * step)


def probe_evaluation(order: Probe) -> EvaluationFound:
    """Evaluate more and more held-out samples, until all are or the time is up, and extrapolate each part."""
    _import_all()
    from sparc.evaluation import Work, evaluate
    from sparc.evaluation.plots import draw
    from sparc.evaluation.report import EvaluationFile
    from sparc.session.extrapolation import Sizes
    from sparc.storage.checkpoint import load
    from sparc.storage.latent_names import LATENTS

    config, registry = validated(RunConfig, order.config), discover()
    data = Data(config, registry, jobs=order.jobs)
    space = load(order.folder, device=order.device)
    held_out = data.held_out if order.has_features else _random_samples(order, data, registry)
    start = time.time() - order.began
    resident, began = resident_bytes(), time.perf_counter()
    least = min(SMALLEST, few_held_out(space.k, len(space.streams)))
    most = max(least, order.held_out // SHARE if least == SMALLEST else 0)
    sizes, count = Sizes(held_out, space.n_latents, space.k * len(space.streams)), min(most, order.held_out)
    last = 0.0
    while True:
        clock = _Clock()
        some, work = some_held_out(held_out, count), Work(on_part=clock)
        found = evaluate(space, some, classifiers=True, seed=config.seed, work=work)
        sizes.add(count, clock.parts, peak_bytes())
        spent = time.perf_counter() - began
        following = min(2 * count, order.held_out)
        grown = min(2.0, max(1.2, clock.total / last)) if last else 1.5
        if count == order.held_out or spent + grown * clock.total > EVALUATION_SECONDS:
            break
        count, last = following, clock.total
    run, report = Run(order.folder), found.report
    found.latents.write(run.pictures / LATENTS)
    EvaluationFile(dataset="", split="", random_weights=(), report=report).write(run.evaluation)
    report_bytes = _bytes_below(run.pictures) + run.evaluation.stat().st_size
    began = time.perf_counter()
    draw(report, run.pictures)
    plots = time.perf_counter() - began
    return EvaluationFound(
        start=start,
        after_training=sizes.seconds(classifiers=False),
        whole=sizes.seconds(classifiers=True),
        plots=plots,
        evaluated=count,
        report_bytes=report_bytes,
        plot_bytes=_bytes_below(run.pictures) + run.evaluation.stat().st_size - report_bytes,
        memory=sizes.memory(),
        resident=resident,
        device_memory=_device_memory(order.device, evaluation_bytes(config, order.widths, order.held_out)),
    )


class _Clock:
    """Callback of an evaluation that measures the seconds of each of its parts."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = {}
        self._last, self._part = time.perf_counter(), "codes"

    def __call__(self, done: int, total: int, part: str) -> None:
        now = time.perf_counter()
        self.parts[self._part] = self.parts.get(self._part, 0.0) + now - self._last
        self._last, self._part = now, part

    @property
    def total(self) -> float:
        return sum(self.parts.values())


def _random_samples(order: Probe, data: Data, registry: Registry) -> HeldOut:
    """Return the held-out samples with their labels and captions, and with random features."""
    from sparc.evaluation import HeldOut
    from sparc.extraction.items import distinct

    jobs = data.held_out_jobs
    job = next(iter(jobs.values()))
    spec = registry.dataset(job.dataset.name)
    dataset = spec.open(checked_params(spec, job.dataset), job.split)
    import torch

    modalities = {name: registry.backbone(one.stream.name).modality for name, one in jobs.items()}
    items = {modality: distinct(dataset, modality) for modality in set(modalities.values())}
    rows = {name: torch.from_numpy(items[modality].rows) for name, modality in modalities.items()}
    random = random_features(order.widths, max(len(one) for one in items.values())).shards
    return HeldOut(
        features={name: random[name][0][row_N].to(order.device) for name, row_N in rows.items()},
        groups=dataset.groups,
        labels=dataset.labels(),
        captions=Captions(dataset),
        taxonomy=dataset.taxonomy,
        rows=rows if any(len(one) < len(dataset) for one in items.values()) else None,
    )


def _bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _device_memory(device: str, formula: int) -> int:
    """Return the peak memory of tensors on a GPU, or what a formula gives where there is none."""
    import torch

    return torch.cuda.max_memory_allocated(device) if device.startswith("cuda") else formula


if __name__ == "__main__":
    main()
