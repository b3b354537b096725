"""`sparc train --dry-run`: two steps of everything that a training will do, in a folder that is removed."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparc.config.fitting import fitted
from sparc.extraction import Progress
from sparc.session.samples import few_held_out, random_features, samples_of, some_features, some_held_out, widths_of
from sparc.session.session import Session, check_memory
from sparc.storage.run import Run
from sparc.system.brief import Brief

STEPS = 2


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
        samples = samples_of(next(iter(data.jobs.values())), probed)
        widths = widths_of(data.held_out_jobs, probed)
    else:
        samples, widths = len(data.train), data.train.widths
        data.check()
    config = fitted(session.config, samples)
    check_memory(config, widths, data.device)
    training_config, shape = config.training(), config.space(widths)
    count = min(samples, STEPS * config.batch_size)
    some = random_features(widths, count) if probed else some_features(data.train, count)
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

        few = few_held_out(config.k, len(widths))
        if probed:
            features = random_features(widths, few).shards
            on_device = {name: rows.to(data.device) for name, (rows,) in features.items()}
            held_out = HeldOut(on_device, [str(number) for number in range(few)])
        else:
            held_out = some_held_out(data.held_out, few)
        evaluate(space, held_out, seed=config.seed)
    steps = steps_per_epoch(samples, training_config) * config.epochs
    return Rehearsal(probed, samples, steps, seconds, size, len(held_out.groups))
