"""Train a shared latent space on features: steps, metrics, and the state to resume from. Knows no plugin or backbone.

`Training.advance` takes one step. It computes what `core/step.py` defines, by `views`, `gradients` and `adam`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sparc.config import TrainingConfig
from sparc.core.completion import Completion, fit_completion
from sparc.core.dead import ActivityCounters
from sparc.core.losses import KINDS, Kind, LossWeights, Term, total
from sparc.core.moments import Moments, moments_of
from sparc.core.newcomer import fit_newcomer
from sparc.core.space import Batch, LatentSpace
from sparc.errors import BadFeatures, CorruptFile
from sparc.storage.checkpoint import SharedLatentSpace
from sparc.storage.run import Run
from sparc.system.files import check_readable, write_atomically
from sparc.system.refusals import reading
from sparc.training import bf16_selection
from sparc.training.adam import Adam
from sparc.training.gradients import gradients
from sparc.training.loader import Loader, TrainingFeatures, in_order
from sparc.training.views import Views

LOG_EVERY = 50
SAVE_SECONDS = 30.0
_DIVERGED = "lower --lr, with another --out; the features are kept"


@dataclass(frozen=True)
class Losses:
    """The loss of one batch, as numbers."""

    loss: float
    """Weighted sum of the terms."""
    terms: dict[str, float]
    """Unweighted terms by `Term.name`."""
    means: dict[Kind, float]
    """Mean of the unweighted terms of each kind; 0 for a kind without terms."""

    @classmethod
    def of(cls, terms: list[Term]) -> Losses:
        """Read the terms' values from their device."""
        values = {term.name: term.value.item() for term in terms}
        by_kind = {kind: [values[term.name] for term in terms if term.kind == kind] for kind in KINDS}
        means = {kind: sum(found) / len(found) if found else 0.0 for kind, found in by_kind.items()}
        return cls(total(terms).item(), values, means)

    def record(self) -> dict[str, float]:
        """Return what a line of `metrics.jsonl` holds: `loss`, then the terms by name."""
        return {"loss": self.loss, **self.terms}


@dataclass(frozen=True)
class Step:
    """Progress of a training after one step."""

    number: int
    """Steps done."""
    total: int
    losses: Losses | None
    """Losses of this step's batch; None unless this step is logged."""
    waiting: float
    """Share of the time so far that was spent waiting for data."""


def loss_weights(config: TrainingConfig) -> LossWeights:
    """Return the weights of the loss from a configuration."""
    return LossWeights(config.lambda_, config.aux_weight, config.k_aux)


class Training:
    """A training in progress: space, optimiser, counters and number of steps, which together are saved to resume."""

    def __init__(self, space: SharedLatentSpace, config: TrainingConfig, *, lacking: bool = True) -> None:
        """Start at step 0 from the weights that the space has; `lacking` is that of `Views`."""
        self.space = space
        self.config = config
        self.adam = Adam(space, config.lr, torch.bfloat16 if config.adam_state == "bfloat16" else None)
        self.counters = ActivityCounters(space.streams, space.n_latents, space.decoder.device)
        self.step = 0
        self._weights = loss_weights(config)
        self._views = Views(space, config, lacking=lacking)
        self._select = bf16_selection.selector(config.encoder_product, space.decoder.device)

    def advance(self, batch: Batch) -> list[Term]:
        """Take one step on normalised features and return the terms of its loss."""
        dead = self.counters.dead(self.config.dead_after)
        found = gradients(self.space, self._views.of(batch, self.step), self._weights, dead, self._select)
        self.adam.step(found)
        self.counters.update(found.codes, batch)
        self.step += 1
        return found.terms

    def check(self) -> None:
        """Raise BadFeatures if the last step made a parameter infinite or NaN, which its loss does not show yet."""
        for name, parameter in self.space.named_parameters():
            least, most = parameter.detach().aminmax()  # both are NaN if any value is
            if not (least.isfinite() and most.isfinite()):
                raise BadFeatures(f"the parameter '{name}' is not finite after step {self.step}", hint=_DIVERGED)

    def save(self, run: Run) -> None:
        """Save the state into one file of the run, atomically. Raises StorageError, and BadFeatures as `check`."""
        self.check()
        tensors = {f"space.{name}": tensor for name, tensor in self.space.state_dict().items()}
        tensors["samples_since_active"] = self.counters.samples_since_active
        for name, (moment1, moment2) in self.adam.moments.items():
            tensors |= {f"adam.exp_avg.{name}": moment1, f"adam.exp_avg_sq.{name}": moment2}
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        metadata = {"step": str(self.step)}
        write_atomically(run.state, lambda path: save_file(tensors, path, metadata=metadata))

    def restore(self, run: Run) -> None:
        """Read the state that `save` wrote. Raises CorruptFile, StorageError and OutOfMemory."""
        try:
            check_readable(run.state)
            with (
                reading(run.state),
                safe_open(run.state, framework="pt", device=str(self.space.decoder.device)) as file,
            ):
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                self.step = int(file.metadata()["step"])
            self.space.load_state_dict(_below("space.", tensors))
            self.counters.samples_since_active.copy_(tensors["samples_since_active"])
            self.adam.steps = self.step
            for name, (moment1, moment2) in self.adam.moments.items():
                moment1.copy_(tensors[f"adam.exp_avg.{name}"])
                moment2.copy_(tensors[f"adam.exp_avg_sq.{name}"])
        except (SafetensorError, OSError, KeyError, ValueError, RuntimeError) as error:
            raise CorruptFile(
                f"the saved state {run.state} is truncated or does not fit the run: {error}",
                hint=f"remove {run.path} and train again; the extracted features are kept",
            ) from error


def train(
    space: SharedLatentSpace,
    config: TrainingConfig,
    features: TrainingFeatures,
    run: Run,
    *,
    on_step: Callable[[Step], None] = lambda step: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Train a space in place, on its device, on raw features, and save it into the run.

    If the run holds the state of an interrupted training, resume from it. On the CPU the final weights are the same
    bits as without the interruption. Before the first step, `prepare` fits what is not trained.

    Returns True if the training is complete, and False if `should_stop` ended it and the state was saved.

    Raises:
        BadFeatures: a loss or a parameter is not finite; names it and the step.
        MisalignedStreams: the streams have different numbers of samples.
        CorruptFile: the saved state cannot be read.
        StorageError: the disk is full; the last saved state stays.
    """
    training = Training(space, config, lacking=prepare(space, features, config))
    return run_to_end(training, features, run, on_step=on_step, should_stop=should_stop)


def run_to_end(
    training: Training,
    features: TrainingFeatures,
    run: Run,
    *,
    on_step: Callable[[Step], None] = lambda step: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Take all steps of a training that is prepared, as `train` does."""
    space, config = training.space, training.config
    if run.state.is_file():
        training.restore(run)
    run.forget_metrics_after(training.step)
    loader = Loader(features, config, device=space.decoder.device, start=training.step)
    n_steps = loader.per_epoch * config.epochs
    began = saved = time.monotonic()
    for batch in map(space.normalize, loader):
        if should_stop():
            training.save(run)
            return False
        terms = training.advance(batch)
        losses = None
        if training.step % LOG_EVERY == 0 or training.step == n_steps:
            losses = _finite_losses(terms, training.step)
            run.log({"step": training.step, "epoch": training.step / loader.per_epoch, **losses.record()})
        on_step(Step(training.step, n_steps, losses, loader.waited / max(1e-9, time.monotonic() - began)))
        if time.monotonic() - saved > SAVE_SECONDS:
            _finite_losses(terms, training.step)
            training.save(run)
            saved = time.monotonic()
    training.check()
    space.eval().save_pretrained(run.path, training=config)
    run.drop_state()
    return True


def prepare(space: LatentSpace, features: TrainingFeatures, config: TrainingConfig) -> bool:
    """Fit to raw training features what is not trained: normalisation, the start of the pre-bias, and the completion.

    A space of one stream, or with local selection, gets no completion. Returns False if it found that no sample lacks a
    stream. Raises MisalignedStreams, BadFeatures.
    """
    if space.normalization == "standard":
        space.fit_normalization(features.shards)
    space.completion = None
    completes = config.completion != "none" and len(space.streams) > 1 and space.selection == "global"
    if config.pre_bias == "zeros" and not completes:
        return True
    fitted, held_out = moments(space, features)
    if config.pre_bias == "mean":
        with torch.no_grad():
            space.pre_bias.copy_((fitted + held_out).mean)
    if completes:
        space.completion = fit_completion(fitted, held_out).to(space.decoder)
    return (fitted + held_out).lacking


def completion_of(space: SharedLatentSpace, features: TrainingFeatures) -> Completion:
    """Fit the completion of a space to raw training features. Raises MisalignedStreams."""
    fitted, held_out = moments(space, features)
    founding = len(space.config.founding)
    completion = fit_completion(fitted.first(founding), held_out.first(founding))
    newcomers = {stream: fit_newcomer(completion, fitted, held_out, stream) for stream in space.config.attached}
    return completion.with_newcomers(newcomers)


def moments(space: LatentSpace, features: TrainingFeatures) -> tuple[Moments, Moments]:
    """Return the moments of raw training features: of those to fit on, and of the held-out ones."""
    device = space.decoder.device
    batches = map(space.normalize, in_order(features, device))
    return moments_of(batches, space.streams, held_out(features), device)


def held_out(features: TrainingFeatures) -> Tensor:
    """Draw a fifth of the training samples, (samples,) bool, on which rank and ridge of the completion are chosen.

    All samples of an image or caption are on the same side: samples are drawn by their row in the stream that has the
    fewest rows.
    """
    if features.rows:
        group_N = min(features.rows.values(), key=lambda row_N: int(row_N.max()))
    else:
        group_N = torch.arange(sum(len(piece) for piece in next(iter(features.shards.values()))))
    order = torch.randperm(int(group_N.max()) + 1, generator=torch.Generator().manual_seed(0))
    return order[group_N] % 5 == 4


def _finite_losses(terms: list[Term], step: int) -> Losses:
    """Return the terms as numbers. Raises BadFeatures if one is not finite."""
    losses = Losses.of(terms)
    for name, value in losses.terms.items():
        if not math.isfinite(value):
            raise BadFeatures(f"the loss term '{name}' is {value} at step {step}", hint=_DIVERGED)
    return losses


def _below(prefix: str, tensors: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
