"""`sparc plan`: time, disk and memory of `sparc extract`, `sparc train` and `sparc evaluate`, from a short probe.

Nothing is extracted, and no run is made. A few samples go through the backbones, and `probing` takes steps and
evaluates in a process of its own; this module turns what they measured into the costs of the commands.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Unpack

from pydantic import BaseModel, ConfigDict

from sparc import errors
from sparc.config import RunConfig
from sparc.config.fitting import fitted
from sparc.config.signatures import RunArguments
from sparc.errors import OutOfMemory, PluginError
from sparc.extraction import Progress
from sparc.plugins.images import ImageLimits, limit_images
from sparc.plugins.registry import discover
from sparc.session.data import Data
from sparc.session.listener import SILENT, Listener
from sparc.session.on_the_fly import check_stored
from sparc.session.options import as_options, resolved, store_root
from sparc.session.probing import EvaluationFound, Probe, TrainingFound
from sparc.session.samples import samples_of, widths_of
from sparc.session.session import check_memory, free_path
from sparc.system.files import free_bytes
from sparc.system.memory import available_bytes
from sparc.system.processes import started

OTHER_BYTES = 5_000
"""Size of the provenance of a run."""
PATIENCE = 10.0
"""Seconds in which the probing process ends after SIGTERM."""


class Cost(BaseModel):
    """Cost of a command."""

    model_config = ConfigDict(frozen=True)

    seconds: float
    """Time from start to end."""
    disk: int
    """Bytes that it leaves on the disk."""
    disk_at_most: int
    """Bytes that it takes on the disk while it works: checkpoints are removed at the end."""
    memory: int | None
    """Peak resident memory of its largest process in bytes, with features that are mapped from files; None if the
    system does not record it."""
    device_memory: int
    """Peak memory of tensors on a GPU in bytes: measured if the device is one, else what a GPU would take."""


class Plan(BaseModel):
    """Costs of the commands of a configuration."""

    model_config = ConfigDict(frozen=True)

    samples: int
    """Training samples."""
    held_out: int
    """Held-out samples."""
    steps: int
    """Steps of the training."""
    n_latents: int
    device: str
    extract: Cost | None
    """`sparc extract`, with which `sparc train` begins; None if the store has all features."""
    train: Cost
    """`sparc train` on these features: training, and the evaluation after it."""
    evaluate: Cost
    """`sparc evaluate`, with classifiers and plots."""
    measured: tuple[str, ...]
    """Measurements that the costs follow from, a line each."""
    lacking: tuple[str, ...]
    """Resources of which the machine has too little, a line each."""


def plan(config: RunConfig | None = None, *, listener: Listener = SILENT, **arguments: Unpack[RunArguments]) -> Plan:
    """Measure for a minute or two what `sparc extract`, `train` and `evaluate` will cost, as `sparc plan` does.

    Takes the options of `train`. Nothing is left in the store, and no run is made. Raises the SparcError that
    `sparc train` would raise before its first step.
    """
    return plan_for(as_options(config, arguments, RunConfig), listener)


def plan_for(given: Mapping[str, Any], listener: Listener, file: Mapping[str, Any] | None = None) -> Plan:
    """Return the costs of a configuration, from options by name and those of a file."""
    watch = _Stopwatch()
    registry = discover()
    config = resolved(given, registry, file).checked()
    check_stored(
        config,
        "a plan measures trainings on stored features, and cannot tell what one without a store takes",
        "leave it out: the plan then gives the time to compute all features once, which each epoch takes on the fly",
    )
    limit_images(ImageLimits.of(config))
    path = free_path(config)
    data = Data(config, registry, listener=listener)
    data.check_samples()
    watch.planned()
    probed = data.probe(watch)
    samples, held_out = (samples_of(jobs, probed) for jobs in (next(iter(data.jobs.values())), data.held_out_jobs))
    widths = widths_of(data.held_out_jobs, probed)
    chosen = fitted(config, samples)
    check_memory(chosen, widths, data.device)
    with tempfile.TemporaryDirectory() as folder:
        order = Probe(
            part="training",
            config=chosen.model_dump(mode="json", by_alias=True, exclude={"max_time"}),
            jobs=data.jobs,
            widths=widths,
            samples=samples,
            held_out=held_out,
            has_features=not probed,
            device=data.device,
            folder=Path(folder),
            began=time.time(),
        )
        listener.doing("taking some steps of the training")
        trained = TrainingFound.model_validate(_measured(order))
        listener.doing("evaluating some held-out samples")
        order = order.model_copy(update={"part": "evaluation", "began": time.time()})
        evaluated = EvaluationFound.model_validate(_measured(order))
    training = chosen.training()
    steps = max(1, samples // training.batch_size) * training.epochs
    found = Plan(
        samples=samples,
        held_out=held_out,
        steps=steps,
        n_latents=chosen.n_latents,
        device=data.device,
        extract=_extraction(probed, trained.command + watch.planning + watch.loading) if probed else None,
        train=_training(trained, evaluated, steps, training.keep_checkpoints, watch.planning),
        evaluate=_evaluation(evaluated, watch.planning),
        measured=(
            *(
                f"{', '.join(progress.streams)} of {progress.split}: {one['tried']:,} of {one['rows']:,} rows"
                for progress, one in probed
            ),
            f"training{' on random features' if probed else ''}: {trained.steps_taken:,} of {steps:,} steps, "
            f"{1000 * trained.step:.0f} ms each",
            f"evaluation: {evaluated.evaluated:,} of {held_out:,} held-out samples",
        ),
        lacking=(),
    )
    return found.model_copy(update={"lacking": _lacking(found, store_root(config), path)})


class _Stopwatch:
    """Measures what a command takes before it computes."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self.planning = 0.0
        """Seconds in which the data and the weights are identified, and the index of the data is read."""
        self.loading = 0.0
        """Seconds in which the process of an extraction starts, and backbones load."""

    def planned(self) -> None:
        """End the time of planning."""
        self.planning = time.monotonic() - self._began

    def __call__(self, progress: Progress) -> None:
        if progress.split and not self.loading:
            self.loading = time.monotonic() - self._began - self.planning


def _measured(order: Probe) -> dict[str, Any]:
    """Start the probing process, and return what it measured. Raises the SparcError that it raised."""
    worker = started("sparc.session.probing")
    assert worker.stdin is not None
    assert worker.stdout is not None
    try:
        worker.stdin.write(order.model_dump_json())
        worker.stdin.close()
        said = json.loads(worker.stdout.read() or "{}")
        code = worker.wait()
    finally:
        worker.terminate()
        try:
            worker.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()
        worker.stdout.close()
    if "found" in said:
        return dict(said["found"])
    if "kind" in said:
        raise errors.remade(getattr(errors, said["kind"]), said["message"], said["hint"], tuple(said["details"]))
    if "crash" in said:
        raise PluginError(said["crash"], hint="--debug shows where") from RuntimeError(said["traceback"])
    if code == -9:
        raise OutOfMemory(
            "the probing process was killed", hint="the system kills processes when memory is short: free some"
        )
    raise PluginError(f"the probing process ended with code {code}", hint="a library crashed; run it again")


def _extraction(probed: list[tuple[Progress, dict[str, Any]]], start: float) -> Cost:
    found = [one for _, one in probed]
    disk = sum(one["bytes"] + one["ids_bytes"] for one in found)
    from sparc.storage.store import SHARD_ROWS

    shard = max(one["bytes"] / one["rows"] * min(one["rows"], SHARD_ROWS) for one in found)
    peaks = [one["memory"] for one in found if one["memory"] is not None]
    return Cost(
        seconds=start + sum(one["begin"] + one["seconds"] for one in found),
        disk=disk,
        disk_at_most=disk,
        memory=int(max(peaks) + 2 * shard) if peaks else None,
        device_memory=max(one["device_memory"] or 0 for one in found),
    )


def _training(trained: TrainingFound, evaluated: EvaluationFound, steps: int, keep: int, planning: float) -> Cost:
    from sparc.training.trainer import SAVE_SECONDS, SAVE_SHARE

    alone = steps * trained.step
    saves = int(alone / max(SAVE_SECONDS, trained.checkpoint / SAVE_SHARE))
    disk = trained.run_bytes + evaluated.report_bytes + OTHER_BYTES
    memory = None
    if trained.memory is not None and evaluated.memory is not None:
        memory = max(trained.memory, trained.resident + evaluated.memory - evaluated.resident)
    return Cost(
        seconds=trained.start
        + planning
        + trained.prepare
        + alone
        + saves * trained.checkpoint
        + evaluated.after_training,
        disk=disk,
        disk_at_most=max(disk, min(saves, keep + 2) * trained.checkpoint_bytes),
        memory=memory,
        device_memory=max(trained.device_memory, evaluated.device_memory),
    )


def _evaluation(found: EvaluationFound, planning: float) -> Cost:
    return Cost(
        seconds=found.start + planning + found.whole + found.plots,
        disk=found.plot_bytes,
        disk_at_most=found.plot_bytes,
        memory=found.memory,
        device_memory=found.device_memory,
    )


def _lacking(plan: Plan, store: Path, run: Path) -> tuple[str, ...]:
    """Return what the machine has too little of, a line each."""
    lines = []
    for name, cost, folder in (
        ("extract", plan.extract, store),
        ("train", plan.train, run),
        ("evaluate", plan.evaluate, run),
    ):
        if cost is None:
            continue
        if (disk := free_bytes(folder)) is not None and cost.disk_at_most > disk:
            lines.append(f"{name}: the disk of {folder} has {disk / 1e9:,.1f} GB free")
        if cost.memory is not None and cost.memory > (memory := available_bytes()):
            lines.append(f"{name}: {memory / 1e9:,.1f} GB of memory are free")
    return tuple(lines)
