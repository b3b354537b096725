"""The verb `train`: features in, a shared latent space out. Knows no plugin and no backbone."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from sparc.config import SpaceConfig, TrainingConfig
from sparc.core.dead import ActivityCounters
from sparc.core.losses import LossWeights, Term, total
from sparc.core.space import Batch
from sparc.errors import BadFeatures, CorruptFile
from sparc.storage.checkpoint import SharedLatentSpace
from sparc.storage.run import Run
from sparc.system.files import write_atomically
from sparc.training import bf16_selection
from sparc.training.adam import Adam
from sparc.training.gradients import gradients
from sparc.training.loader import Loader, Rows, Shards

LOG_EVERY = 50
SAVE_SECONDS = 30.0
_DIVERGED = "lower --lr, with another --out; the features are kept"


@dataclass(frozen=True)
class Step:
    """What the caller hears after each step."""

    number: int
    """Steps done."""
    total: int
    losses: dict[str, float] | None
    """Terms of this step's batch, unweighted, and `loss`, their weighted sum; only at logged steps."""
    waiting: float
    """Share of the time so far that was spent waiting for data."""


def loss_weights(config: TrainingConfig) -> LossWeights:
    """Return the weights of the loss that a configuration asks for."""
    return LossWeights(config.lambda_, config.aux_weight, config.k_aux)


class Training:
    """A training under way: space, optimiser, counters and the number of steps done; what is saved to resume it."""

    def __init__(self, space: SharedLatentSpace, config: TrainingConfig) -> None:
        """Start from the space as it is."""
        self.space = space
        self.config = config
        self.adam = Adam(space, config.lr, torch.bfloat16 if config.adam_state == "bfloat16" else None)
        self.counters = ActivityCounters(space.streams, space.n_latents, space.decoder.device)
        self.step = 0
        self._weights = loss_weights(config)
        self._select = bf16_selection.selector(config.encoder_product, space.decoder.device)

    def advance(self, batch: Batch) -> list[Term]:
        """Take one step on normalised features: loss, gradients, Adam with the decoder on unit norm, counters."""
        dead = self.counters.dead(self.config.dead_after)
        found = gradients(self.space, batch, self._weights, dead, self._select)
        self.adam.step(found)
        self.counters.update(found.codes, batch)
        self.step += 1
        return found.terms

    def check(self) -> None:
        """Raise BadFeatures where a step has left a parameter that is not finite: its loss is known a step later."""
        for name, parameter in self.space.named_parameters():
            least, most = parameter.detach().aminmax()  # of something that is not a number neither is one
            if not (least.isfinite() and most.isfinite()):
                raise BadFeatures(f"the parameter '{name}' is not finite after step {self.step}", hint=_DIVERGED)

    def save(self, run: Run) -> None:
        """Write all of this into one file of the run, replaced whole. Raises StorageError, or as `check`."""
        self.check()
        tensors = {f"space.{name}": tensor for name, tensor in self.space.state_dict().items()}
        tensors["samples_since_active"] = self.counters.samples_since_active
        for name, (mean, square) in self.adam.moments.items():
            tensors |= {f"adam.exp_avg.{name}": mean, f"adam.exp_avg_sq.{name}": square}
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        metadata = {"step": str(self.step)}
        write_atomically(run.state, lambda path: save_file(tensors, path, metadata=metadata))

    def restore(self, run: Run) -> None:
        """Read what `save` wrote. Raises CorruptFile."""
        try:
            with safe_open(run.state, framework="pt", device=str(self.space.decoder.device)) as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                self.step = int(file.metadata()["step"])
            self.space.load_state_dict(_below("space.", tensors))
            self.counters.samples_since_active.copy_(tensors["samples_since_active"])
            self.adam.steps = self.step
            for name, (mean, square) in self.adam.moments.items():
                mean.copy_(tensors[f"adam.exp_avg.{name}"])
                square.copy_(tensors[f"adam.exp_avg_sq.{name}"])
        except (SafetensorError, OSError, KeyError, ValueError, RuntimeError) as error:
            raise CorruptFile(
                f"the saved state {run.state} is truncated or does not fit the run: {error}",
                hint=f"remove {run.path} and train anew; the extracted features are kept",
            ) from error


def train(
    space_config: SpaceConfig,
    config: TrainingConfig,
    features: Shards,
    run: Run,
    *,
    rows: Rows | None = None,
    device: str = "cpu",
    on_step: Callable[[Step], None] = lambda step: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> SharedLatentSpace | None:
    """Fit a shared latent space to raw features by stream, each in pieces (rows, width), and save it into the run.

    `rows` says which row is each sample's, where samples share rows; 'standard' normalisation counts a row once.
    Where the run holds the state of an interrupted training it goes on from there, to the same weights, bit for bit on
    the CPU, as if it had never stopped. Returns the space, or None where `should_stop` said so and the state was saved.

    Raises:
        BadFeatures: a loss or a parameter is not finite; names it and the step.
        StorageError: the disk is full; the last saved state stays.
    """
    space = SharedLatentSpace(space_config, seed=config.seed)
    if space_config.normalization == "standard":
        space.fit_normalization(features)
    training = Training(space.to(device), config)
    if run.state.is_file():
        training.restore(run)
    run.forget_metrics_after(training.step)
    loader = Loader(features, config, rows=rows, device=device, start=training.step)
    n_steps = loader.per_epoch * config.epochs
    began = saved = time.monotonic()
    for batch in map(space.normalize, loader):
        if should_stop():
            training.save(run)
            return None
        terms = training.advance(batch)
        losses = None
        if training.step % LOG_EVERY == 0 or training.step == n_steps:
            losses = _read(terms, training.step)
            run.log({"step": training.step, "epoch": training.step / loader.per_epoch, **losses})
        on_step(Step(training.step, n_steps, losses, loader.waited / max(1e-9, time.monotonic() - began)))
        if time.monotonic() - saved > SAVE_SECONDS:
            _read(terms, training.step)
            training.save(run)
            saved = time.monotonic()
    training.check()
    space.eval().save_pretrained(run.path, training=config)
    run.drop_state()
    return space


def _read(terms: list[Term], step: int) -> dict[str, float]:
    """The terms as numbers. Raises BadFeatures where one is not finite."""
    values = {"loss": total(terms).item(), **{term.name: term.value.item() for term in terms}}
    for name, value in values.items():
        if not np.isfinite(value) and name != "loss":
            raise BadFeatures(
                f"the loss term '{name}' is {value} at step {step}",
                hint=_DIVERGED,
            )
    return values


def _below(prefix: str, tensors: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
