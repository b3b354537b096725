"""Time of a training step, and of the encoder product alone, which any exact TopK needs."""

from __future__ import annotations

import contextlib
import copy
import itertools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile, record_function

from sparc.benchmarks.dense_process import DenseProcess
from sparc.config import SpaceConfig, TrainingConfig
from sparc.core.kernels import kernels
from sparc.core.space import LatentSpace
from sparc.core.step import AutogradTraining
from sparc.storage.checkpoint import SharedLatentSpace
from sparc.system.memory import peak_bytes, resident_bytes
from sparc.training.loader import FeaturesInMemory, Loader
from sparc.training.trainer import Training, loss_weights

WARM_UP = 3
PAUSE = 0.03
"""Seconds before each measurement, in which threads of the previous one stop spinning."""
WHOLE_STEP = "sparc.whole"
ENDLESS = 2**31
"""Epochs: the loader must not run out of batches."""


@dataclass(frozen=True)
class StepCost:
    """Medians over the measured steps, in milliseconds, and memory in bytes; None if not measured."""

    step_ms: float
    """A whole step: load from memory, normalise, loss, gradients, Adam, norms, counters.

    The loader reads some thousand rows at a time, which the median does not show: see `measure_loader`."""
    encoder_product_ms: float
    """The product of the features with all encoders side by side, by `torch.mm` into memory allocated before."""
    autograd_step_ms: float | None
    """The step of `core.step`, by autograd and `torch.optim.Adam(fused=True)`."""
    oracle_step_ms: float | None
    """The naive dense step, in a process of its own."""
    peak_bytes: int | None
    """Peak memory of the process in its first steps (on CUDA: of its tensors), before anything else was measured."""
    working_bytes: int | None
    """The peak without parameters, moments, counters, features, and what the process held before."""
    phases: dict[str, float]
    """Milliseconds of a step by phase, `other` for the rest. Time of the host, which on CUDA only launches kernels."""


def measure_step(
    shape: SpaceConfig,
    config: TrainingConfig,
    *,
    steps: int,
    device: str = "cpu",
    autograd: bool = False,
    oracle: bool = False,
) -> StepCost:
    """Time whole training steps on random features, interleaved with the encoder product.

    With `autograd` and `oracle`, the step by autograd and the naive dense step are interleaved with them too.
    """
    # Load and compile the kernels first: that is not working memory.
    table = torch.empty(shape.n_latents, sum(shape.streams.values()))
    kernels(table).weighted_rows(torch.zeros(1, 4, dtype=torch.int64), torch.zeros(1, 1, 4), torch.zeros(8, 8))
    del table
    before = resident_bytes()
    config = config.model_copy(update={"epochs": ENDLESS})
    space = SharedLatentSpace(shape).to(device)
    training = Training(space, config)
    features = {name: torch.randn(4 * config.batch_size, width) for name, width in space.streams.items()}
    loader = Loader(FeaturesInMemory({name: [rows] for name, rows in features.items()}), config, device=device)
    source = iter(loader)
    _reset_peak(device)

    def step() -> None:
        training.advance(space.normalize(next(source)))

    for _ in range(WARM_UP):
        step()
    peak = _peak(device)
    working = None
    if peak is not None:
        held = [*space.state_dict().values(), *itertools.chain(*training.adam.moments.values())]
        held += [training.counters.samples_since_active, *(features.values() if device == "cpu" else ())]
        working = peak - sum(tensor.nbytes for tensor in held) - (before if device == "cpu" else 0)
    runs: dict[str, Callable[[], object]] = {"product": _product(space, config.batch_size), "step": step}
    if autograd:
        own = AutogradTraining(copy.deepcopy(space), loss_weights(config), lr=config.lr, dead_after=config.dead_after)
        batch = space.normalize(next(source))
        runs["autograd"] = lambda: own.advance(batch)
    with contextlib.ExitStack() as stack:
        if oracle:
            runs["oracle"] = stack.enter_context(DenseProcess(shape, config, device)).advance
        times = _interleaved(runs, steps, device)
    return StepCost(
        step_ms=times["step"],
        encoder_product_ms=times["product"],
        autograd_step_ms=times.get("autograd"),
        oracle_step_ms=times.get("oracle"),
        peak_bytes=peak,
        working_bytes=working,
        phases=_phases(step, times["step"]),
    )


def _product(space: LatentSpace, batch_size: int) -> Callable[[], Tensor]:
    weight = torch.cat([weight.detach() for weight in space.encoders], dim=1)
    inputs = torch.randn(batch_size, weight.shape[1], device=weight.device)
    out = weight.new_empty(batch_size, len(weight))
    return lambda: torch.mm(inputs, weight.T, out=out)


def _interleaved(runs: dict[str, Callable[[], object]], steps: int, device: str) -> dict[str, float]:
    """Return the median milliseconds of each run, measured in turns so that other load affects all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(-1, steps):
        for name, run in runs.items():
            _synchronize(device)
            time.sleep(PAUSE)
            began = time.perf_counter()
            run()
            _synchronize(device)
            if number >= 0:
                seconds[name].append(time.perf_counter() - began)
    return {name: round(1000 * statistics.median(measured), 3) for name, measured in seconds.items()}


def _phases(step: Callable[[], None], step_ms: float, steps: int = 3) -> dict[str, float]:
    """Return the milliseconds of each phase: its share in some profiled steps, times `step_ms` without a profiler."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(steps):
            with record_function(WHOLE_STEP):
                step()
    spent = {event.key: event.cpu_time_total for event in profiler.key_averages() if event.key.startswith("sparc.")}
    whole = spent.pop(WHOLE_STEP)
    parts = {name.removeprefix("sparc."): step_ms * time_us / whole for name, time_us in spent.items()}
    parts["other"] = step_ms - sum(parts.values())
    return {name: round(part, 3) for name, part in parts.items()}


def _synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def _reset_peak(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)


def _peak(device: str) -> int | None:
    return torch.cuda.max_memory_allocated(device) if device.startswith("cuda") else peak_bytes()
