"""Train a shared latent space on features: steps, metrics, and the state to resume from. Knows no plugin or backbone.

`Training.advance` takes one step. It computes what `core/step.py` defines, by `views`, `gradients` and `adam`.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sparc.config import TrainingConfig
from sparc.core.completion import Completion
from sparc.core.completion_fit import fit_completion
from sparc.core.dead import ActivityCounters
from sparc.core.losses import KINDS, Kind, LossWeights, Term, loss_terms, total
from sparc.core.moments import Moments, moments_of
from sparc.core.newcomer import fit_newcomer
from sparc.core.space import Batch, LatentSpace
from sparc.errors import BadFeatures
from sparc.storage.checkpoint import SharedLatentSpace
from sparc.storage.run import Run
from sparc.storage.training_log import HELD_OUT, RATE
from sparc.training import bf16_selection
from sparc.training.adam import Adam
from sparc.training.gradients import gradients
from sparc.training.health import LOWER, Diverged, Norms, check_terms, diverged
from sparc.training.loader import Batches, Loader, TrainingFeatures, in_order
from sparc.training.measuring import HELD_OUT_BATCHES, Speed, held_out_steps
from sparc.training.state import Progress, below, load_state, save_state
from sparc.training.views import Views

LOG_EVERY = 50
SAVE_SECONDS = 30.0
SAVE_SHARE = 0.05
"""Most of the time that is spent on checkpoints: slow ones are saved less often."""
SKIPPED = 20
"""Steps in a row after which a training that skips steps stops, because no step is finite any more."""


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
    record: Mapping[str, float] = field(default_factory=dict)
    """Line of this step in `metrics.jsonl`; empty if it has none."""
    rate: float | None = None
    """Samples per second since the last logged step; None unless this step is logged."""


@dataclass(frozen=True)
class Hooks:
    """Functions that a training calls, and the held-out samples of its checkpoints."""

    on_step: Callable[[Step], None] = lambda step: None
    should_stop: Callable[[], bool] = lambda: False
    """Returns True to save a checkpoint and stop."""
    watch: Callable[[], None] = lambda: None
    """Called before each step; raises an error if the features have changed."""
    held_out: TrainingFeatures | None = None
    """Samples on which the losses of some epochs and of each checkpoint are measured."""


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
        self.norms = Norms([*(f"feature_norm/{name}" for name in space.streams), "gradient_norm"], space.decoder.device)
        self.waits = config.on_nan == "skip" or space.decoder.device.type == "cpu"
        """True to look at each loss before the weights are updated by it, for which a GPU would wait."""
        self._held_out: tuple[TrainingFeatures, dict[str, Tensor]] | None = None
        self._weights = loss_weights(config)
        self._views = Views(space, config, lacking=lacking)
        self._select = bf16_selection.selector(config.encoder_product, space.decoder.device)

    def advance(self, batch: Batch) -> list[Term]:
        """Take one step on normalised features and return the terms of its loss.

        Raises Diverged if a term is not finite; the weights are then as before. On a GPU the weights are updated first,
        unless such steps are to be skipped.
        """
        dead = self.counters.dead(self.config.dead_after)
        found = gradients(self.space, self._views.of(batch, self.step), self._weights, dead, self._select)
        self.step += 1
        if self.waits:
            check_terms(found.terms, self.step)
        self.norms.add({"gradient_norm": self.adam.step(found).unsqueeze(0)})
        self.counters.update(found.codes, batch)
        return found.terms

    def check(self) -> None:
        """Raise BadFeatures if the last step made a parameter infinite or NaN, which its loss does not show yet."""
        for name, parameter in self.space.named_parameters():
            least, most = parameter.detach().aminmax()  # both are NaN if any value is
            if not (least.isfinite() and most.isfinite()):
                raise BadFeatures(f"the parameter '{name}' is not finite after step {self.step}", hint=LOWER)

    def loss_on(self, features: TrainingFeatures) -> float | None:
        """Return the mean loss of the first samples, without dropout and AuxK; None if it is not finite."""
        mean = self.losses_on(features)["loss"]
        return mean if math.isfinite(mean) else None

    @torch.no_grad()
    def losses_on(self, features: TrainingFeatures) -> dict[str, float]:
        """Return the means of loss and terms, by name, of the first samples, without dropout and AuxK."""
        size, raw = self.config.batch_size, self._first(features)
        found = []
        for first in range(0, len(next(iter(raw.values()))), size):
            batch = self.space.normalize({name: rows[first : first + size] for name, rows in raw.items()})
            terms = loss_terms(self.space, batch, self.space.encode_batch(batch), self._weights)
            found.append(Losses.of(terms).record())
        return {name: sum(one[name] for one in found) / len(found) for name in found[0]}

    def _first(self, features: TrainingFeatures) -> dict[str, Tensor]:
        """Return the first batches of held-out samples, raw, on the device. They are read once."""
        if self._held_out is None or self._held_out[0] is not features:
            most = HELD_OUT_BATCHES * self.config.batch_size
            raw = next(in_order(features, self.space.decoder.device))
            self._held_out = features, {name: rows[:most].clone() for name, rows in raw.items()}
        return self._held_out[1]

    def numbers(self) -> dict[str, float]:
        """Return what a line of `metrics.jsonl` holds beside the losses: dead latents by stream, the learning rate."""
        dead_S = (self.counters.samples_since_active > self.config.dead_after).sum(dim=1).tolist()
        dead = {f"dead/{name}": count for name, count in zip(self.space.streams, dead_S, strict=True)}
        return {**dead, "lr": self.adam.lr}

    def save(self, run: Run, held_out: TrainingFeatures | None = None) -> None:
        """Save a checkpoint into the run. Raises StorageError, and BadFeatures as `check`."""
        self.check()
        tensors = {f"space.{name}": tensor for name, tensor in self.space.state_dict().items()}
        tensors["samples_since_active"] = self.counters.samples_since_active
        tensors["norms"] = self.norms.sums
        for name, (moment1, moment2) in self.adam.moments.items():
            tensors |= {f"adam.exp_avg.{name}": moment1, f"adam.exp_avg_sq.{name}": moment2}
        loss = self.loss_on(held_out) if held_out is not None else None
        save_state(run, tensors, Progress(self.step, self.adam.steps, loss), keep=self.config.keep_checkpoints)

    def restore(self, run: Run) -> None:
        """Continue from the newest checkpoint that is whole, if there is one.

        Raises CorruptFile if all are damaged, StorageError and OutOfMemory.
        """
        load_state(run, self._take)

    def _take(self, tensors: Mapping[str, Tensor], progress: Progress) -> None:
        self.space.load_state_dict(below("space.", tensors))
        self.counters.samples_since_active.copy_(tensors["samples_since_active"])
        self.norms.sums.copy_(tensors["norms"])
        for name, (moment1, moment2) in self.adam.moments.items():
            moment1.copy_(tensors[f"adam.exp_avg.{name}"])
            moment2.copy_(tensors[f"adam.exp_avg_sq.{name}"])
        self.step, self.adam.steps = progress.step, progress.updates


def train(
    space: SharedLatentSpace,
    config: TrainingConfig,
    features: TrainingFeatures,
    run: Run,
    hooks: Hooks | None = None,
) -> bool:
    """Train a space in place, on its device, on raw features, and save it into the run.

    If the run holds checkpoints of an interrupted training, resume from the newest. On the CPU the final weights are
    the same bits as without the interruption. Before the first step, `prepare` fits what is not trained.

    Returns True if the training is complete, and False if `hooks.should_stop` ended it and a checkpoint was saved.

    Raises:
        BadFeatures: a loss or a parameter is not finite; names it, the step, and the feature that caused it, if one
            did.
        MisalignedStreams: the streams have different numbers of samples.
        CorruptFile: no checkpoint of the run is whole.
        StorageError: the disk is full; the last saved state stays.
    """
    training = Training(space, config, lacking=prepare(space, features, config))
    return run_to_end(training, features, run, hooks)


def run_to_end(
    training: Training,
    features: TrainingFeatures | None,
    run: Run,
    hooks: Hooks | None = None,
    batches: Callable[[int], Batches] | None = None,
) -> bool:
    """Take all steps of a training that is prepared, as `train` does.

    `batches` opens the batches from a step on, by default those of `features`, which are None without a store.
    """
    space, config, hooks = training.space, training.config, hooks or Hooks()
    training.restore(run)
    run.forget_metrics_after(training.step)
    if batches is None:
        assert features is not None
        loader: Batches = Loader(features, config, device=space.decoder.device, start=training.step)
    else:
        loader = batches(training.step)
    n_steps = loader.per_epoch * config.epochs
    skips = _Skips(features, config, back=1 if training.waits else LOG_EVERY)
    began = time.monotonic()
    measured = held_out_steps(loader.per_epoch, config, hooks.held_out)
    speed = Speed(began)
    saves = _Saves(training, run, hooks.held_out)
    for raw in loader:
        if hooks.should_stop():
            saves.now()
            return False
        hooks.watch()
        training.norms.add({f"feature_norm/{name}": x_BD.float().norm(dim=1) for name, x_BD in raw.items()})
        speed.samples += len(next(iter(raw.values())))
        losses, rate = None, None
        record: dict[str, float] = {}
        try:
            terms = training.advance(space.normalize(raw))
            skips.row = 0
            if training.step % LOG_EVERY == 0 or training.step == n_steps:
                check_terms(terms, training.step)
                losses = Losses.of(terms)
                record = {**losses.record(), **training.numbers(), **training.norms.outliers()}
            elif saves.due:
                check_terms(terms, training.step)
        except Diverged as error:
            skips.count(error)  # raises unless steps are to be skipped
            record = {f"skipped/{error.term}": 1}
        if hooks.held_out is not None and (training.step % measured == 0 or training.step == n_steps):
            found = training.losses_on(hooks.held_out)
            record |= {f"{HELD_OUT}{name}": value for name, value in found.items() if math.isfinite(value)}
        if record:
            record = {"step": training.step, "epoch": training.step / loader.per_epoch, **record}
            run.log(record)
        if losses is not None:
            rate = speed.since_last()
            run.log_speed({"step": training.step, RATE: rate})
        waiting = loader.waited / max(1e-9, time.monotonic() - began)
        hooks.on_step(Step(training.step, n_steps, losses, waiting, record, rate))
        if saves.due:
            saves.now()
    skips.finish(n_steps)
    training.check()
    run.sync_metrics()
    space.eval().save_pretrained(run.path, training=config)
    run.drop_state()
    return True


class _Saves:
    """Decides when to save a checkpoint."""

    def __init__(self, training: Training, run: Run, held_out: TrainingFeatures | None) -> None:
        self._training, self._run, self._held_out = training, run, held_out
        self._next = time.monotonic() + SAVE_SECONDS

    @property
    def due(self) -> bool:
        return time.monotonic() > self._next

    def now(self) -> None:
        began = time.monotonic()
        self._training.save(self._run, self._held_out)
        ended = time.monotonic()
        self._next = ended + max(SAVE_SECONDS, (ended - began) / SAVE_SHARE)


class _Skips:
    """Counts the steps that are skipped, in which a term of the loss was not finite."""

    def __init__(self, features: TrainingFeatures | None, config: TrainingConfig, *, back: int) -> None:
        self._features, self._config, self._back = features, config, back
        self.row = self.all = 0
        """Skipped steps in a row, and in all."""

    def count(self, error: Diverged) -> None:
        """Warn of the first step to skip. Raises BadFeatures if none may be skipped, or too many in a row were."""
        self.row += 1
        self.all += 1
        found = diverged(error, self._features, self._config, back=self._back)
        if self._config.on_nan == "stop" or self.row >= SKIPPED:
            raise found from error
        if self.all == 1:
            warnings.warn(f"step {error.step} is skipped: {found.message}", stacklevel=2)
        self._last = found

    def finish(self, n_steps: int) -> None:
        """Say how many steps were skipped. Raises BadFeatures if it was most of them."""
        if self.all > n_steps / 2:
            raise BadFeatures(f"{self.all} of {n_steps} steps were skipped: {self._last.message}", hint=LOWER)
        if self.all > 1:
            warnings.warn(f"{self.all} of {n_steps} steps were skipped; metrics.jsonl names them", stacklevel=2)


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
