"""`sparc train --dry-run`: two steps of everything that a training will do, in a folder that is removed."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparc.config.fitting import fitted
from sparc.extraction import Progress
from sparc.session.session import Session, check_memory
from sparc.storage.manifest import read_manifest
from sparc.storage.run import Run
from sparc.system.brief import Brief

if TYPE_CHECKING:
    from torch import Tensor

    from sparc.evaluation import HeldOut
    from sparc.training.loader import FeaturesInMemory

STEPS = 2
HELD_OUT = 256
"""Held-out samples that are evaluated."""


@dataclass(frozen=True, repr=False)
class Rehearsal(Brief):
    """Costs of a training, measured on two steps."""

    extraction: list[tuple[Progress, dict[str, Any]]]
    """Estimates by `Data.probe`, one per group of streams; empty if the store has all features."""
    samples: int
    steps: int
    """Steps of the whole training."""
    seconds_per_step: float
    """Time of the second step."""
    checkpoint_bytes: int
    evaluated: int
    """Held-out samples that were evaluated."""


def rehearse(session: Session) -> Rehearsal:
    """Extract, train, save, resume and evaluate, two steps of each. Nothing is left in the store, and no run is made.

    Features that the store lacks are computed for a few samples, and the training then takes random ones of the same
    widths. Raises every SparcError that the training would raise in these steps.
    """
    data, listener = session.data, session.listener
    data.check_samples()
    probed = data.probe()
    listener.doing("taking two steps of the training")
    from sparc.storage.checkpoint import SharedLatentSpace, load
    from sparc.training.loader import Loader, steps_per_epoch
    from sparc.training.trainer import Training, prepare

    if probed:
        samples = max(one["samples"] for progress, one in probed if progress.split == next(iter(data.jobs)))
        widths = {name: width for _, one in probed for name, width in one["widths"].items()}
        widths |= {
            name: read_manifest(job.directory).width for name, job in data.held_out_jobs.items() if name not in widths
        }
        widths = {name: widths[name] for name in data.held_out_jobs}
    else:
        samples, widths = len(data.train), data.train.widths
        data.check()
    config = fitted(session.config, samples)
    check_memory(config, widths, data.device)
    training_config, shape = config.training(), config.space(widths)
    count = min(samples, STEPS * config.batch_size)
    some = _random(widths, count) if probed else _first(data.train.shards, data.train.rows, count)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder))
        training, again = (
            Training(space, training_config, lacking=prepare(space, some, training_config))
            for space in (SharedLatentSpace(shape, seed=config.seed).to(data.device) for _ in range(STEPS))
        )
        seconds = 0.0
        for raw in Loader(some, training_config.model_copy(update={"epochs": STEPS}), device=data.device):
            if training.step == STEPS:
                break
            began = time.perf_counter()
            training.advance(training.space.normalize(raw))
            training.check()  # waits for a GPU
            seconds = time.perf_counter() - began
        training.save(run, some)
        size = run.states()[0].stat().st_size
        again.restore(run)
        again.space.save_pretrained(folder, training=training_config)
        space = load(folder, device=data.device)
        listener.doing("evaluating a few held-out samples")
        from sparc.evaluation import HeldOut, evaluate

        if probed:
            features = _random(widths, HELD_OUT).shards
            on_device = {name: rows.to(data.device) for name, (rows,) in features.items()}
            held_out = HeldOut(on_device, [str(number) for number in range(HELD_OUT)])
        else:
            held_out = _few(data.held_out)
        evaluate(space, held_out, seed=config.seed)
    steps = steps_per_epoch(samples, training_config) * config.epochs
    return Rehearsal(probed, samples, steps, seconds, size, len(held_out.groups))


def _random(widths: Mapping[str, int], count: int) -> FeaturesInMemory:
    import torch

    from sparc.training.loader import FeaturesInMemory

    draw = torch.Generator().manual_seed(0)
    return FeaturesInMemory({name: [torch.randn(count, width, generator=draw)] for name, width in widths.items()})


def _first(shards: Mapping[str, list[Tensor]], rows: Mapping[str, Tensor], count: int) -> FeaturesInMemory:
    """Copy the features of samples from all over the store."""
    import torch

    from sparc.training.loader import FeaturesInMemory

    found = {}
    for name, pieces in shards.items():
        chosen = rows[name][torch.linspace(0, len(rows[name]) - 1, count).long()]
        ends = torch.tensor([len(piece) for piece in pieces]).cumsum(0)
        places = torch.searchsorted(ends, chosen, right=True).tolist()
        starts = [0, *ends.tolist()]
        picked = [pieces[place][row - starts[place]] for place, row in zip(places, chosen.tolist(), strict=True)]
        found[name] = [torch.stack(picked)]
    return FeaturesInMemory(found)


def _few(held_out: HeldOut) -> HeldOut:
    """Return the first held-out samples."""
    some = slice(0, HELD_OUT)
    rows = held_out.rows
    return replace(
        held_out,
        features={name: x_ND[some] for name, x_ND in held_out.features.items()},
        groups=held_out.groups[some],
        labels=None if held_out.labels is None else held_out.labels[some],
        rows=None if rows is None else {name: row_N[some] for name, row_N in rows.items()},
    )
