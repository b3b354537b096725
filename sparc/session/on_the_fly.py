"""Train without a store: training features are computed while training, and only held-out ones are stored.

The buffer of samples, before the first step, also serves to fit what is not trained: normalisation, pre-bias and
completion.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from sparc.config import RunConfig
from sparc.config.fitting import described, fitted
from sparc.errors import InvalidConfig, MisalignedStreams, MissingData
from sparc.extraction import Progress
from sparc.extraction.plan import Feed, Job
from sparc.storage.provenance import Provenance, provenance_of
from sparc.storage.run import Run
from sparc.storage.space_config import COMPLETION

if TYPE_CHECKING:
    from torch import Tensor

    from sparc.session.data import Data
    from sparc.session.listener import Listener
    from sparc.storage.checkpoint import SharedLatentSpace
    from sparc.training.mixing import MixedBatches
    from sparc.training.trainer import Hooks


def check(config: RunConfig) -> None:
    """Raise InvalidConfig if other options exclude a training on the fly."""
    if config.features is not None:
        raise InvalidConfig(
            "--on-the-fly: imported features are there already", hint="leave out --on-the-fly; or --features"
        )
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InvalidConfig(
            "--on-the-fly: expected one process, found several of torchrun",
            hint="leave out --on-the-fly: torchrun extracts into the store by shares",
        )


def check_stored(config: RunConfig, why: str, instead: str) -> None:
    """Raise InvalidConfig for a command that needs training features in the store, and would find none."""
    if config.on_the_fly:
        raise InvalidConfig(f"--on-the-fly: {why}", hint=instead)


def origin(data: Data, config: RunConfig, command: Sequence[str]) -> Provenance:
    """Return the provenance of a run that starts now."""
    found = provenance_of(config, data.test, owners=data.registry.owners, device=data.device, command=command)
    return found.model_copy(update={"samples": len(data.training_samples), "features": identities(data)})


def identities(data: Data) -> dict[str, list[str]]:
    """Return per stream the place that the store would give to the training features: it names data and weights."""
    return {name: ["/".join(job.directory.parts[-3:])] for name, job in next(iter(data.jobs.values())).items()}


def check_same(data: Data, run: Run) -> None:
    """Raise MisalignedStreams unless data and weights are those that a run was started on."""
    if run.provenance().features != identities(data):
        raise MisalignedStreams(
            f"the samples or the weights are not the ones that {run.path} was started on", hint="train a new run"
        )


def fit(data: Data, config: RunConfig, listener: Listener) -> RunConfig:
    """Return the configuration with the options that nobody set fitted to the number of training samples."""
    samples = len(data.training_samples)
    chosen = fitted(config, samples)
    listener.note(described(config, chosen, samples))
    return chosen


def train(data: Data, config: RunConfig, run: Run, listener: Listener, hooks: Hooks) -> tuple[SharedLatentSpace, bool]:
    """Train the run, or resume its training; return the space, and True if the training is complete.

    Raises as `training.train`, the SparcError of an extraction, and MissingData for a completion that was removed.
    """
    from sparc.storage.checkpoint import SharedLatentSpace
    from sparc.storage.completion_file import read_completion, write_completion
    from sparc.training.mixing import MixedBatches
    from sparc.training.trainer import Training, completes, prepare, run_to_end

    options, jobs = config.training(), list(next(iter(data.jobs.values())).values())
    shape = config.space(data.test.widths)
    space = SharedLatentSpace(shape, seed=config.seed).to(data.device)
    arriving = partial(_arriving, data, jobs, config.seed, listener)
    opened = partial(
        MixedBatches, arriving, len(data.training_samples), options, buffer=config.buffer, device=data.device
    )

    def on_sample(done: int, total: int) -> None:
        listener.progress("fill the buffer", "samples", done, total, "")

    def resumed(start: int) -> MixedBatches:
        loader = opened(start=start)
        loader.fill(on_sample)
        return loader

    if run.states():
        completion = read_completion(run.path, shape)
        if completion is None and completes(space, options):
            raise MissingData(
                f"{run.path / COMPLETION} is missing, which this training wrote at its start",
                hint="restore that file; or train a new run",
            )
        space.completion = None if completion is None else completion.to(space.decoder)
        return space, run_to_end(Training(space, options), None, run, hooks, resumed)
    loader = opened()
    first = loader.fill(on_sample)
    prepare(space, first, options)
    if space.completion is not None:
        write_completion(run.path, space.completion)
    return space, run_to_end(Training(space, options), None, run, hooks, lambda start: loader)


def _arriving(
    data: Data, jobs: Sequence[Job], seed: int, listener: Listener, first: Sequence[int], following: range
) -> Iterator[dict[str, Tensor]]:
    from sparc.extraction.feeding import feed

    order = Feed(seed=seed, first=list(first), start=following.start, end=following.stop)

    def on_progress(progress: Progress) -> None:
        if progress.loading and progress.streams:
            listener.loading(", ".join(progress.streams))

    yield from feed(data.on_device(jobs), order, on_progress)
