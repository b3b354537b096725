"""Train a shared latent space on features: steps, metrics, and the state to resume from. Knows no plugin or backbone.

`Training.advance` takes one step. It computes what `core/step.py` defines, by `views`, `gradients` and `adam`.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from sparc.config import CompletionKind, TrainingConfig
from sparc.core.completion import Completion
from sparc.core.completion_fit import completion_like, fit_completion
from sparc.core.dead import ActivityCounters
from sparc.core.kernel_fit import Sampled, fit_kernels
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
from sparc.training.distributed import Group, Ranks, Rows
from sparc.training.gradients import gradients
from sparc.training.health import LOWER, Diverged, Norms, check_terms, diverged
from sparc.training.loader import EVERY, Batches, Loader, TrainingFeatures, batch_length, in_order
from sparc.training.measuring import HELD_OUT_BATCHES, Speed, held_out_steps
from sparc.training.reduction import SharedCounters, merged_norms
from sparc.training.sharded_state import read_shards, write_shards
from sparc.training.sharding import SpaceShard, gathered, own_part
from sparc.training.state import Progress, below, drop_old, load_state, save_state
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

    def __init__(
        self,
        space: SharedLatentSpace,
        config: TrainingConfig,
        *,
        lacking: bool = True,
        ranks: Ranks | None = None,
        rows: Rows | None = None,
    ) -> None:
        """Start at step 0 from the weights that the space has; `lacking` is that of `Views`.

        With `ranks`, the space holds this process's latents, and each batch its `rows` of a whole batch.
        """
        self.space = space
        self.config = config
        self.ranks = ranks
        self.rows = rows
        self.adam = Adam(space, config.lr, torch.bfloat16 if config.adam_state == "bfloat16" else None, ranks)
        if ranks is None:
            self.counters = ActivityCounters(space.streams, space.n_latents, space.decoder.device)
        else:
            self.counters = SharedCounters(space, ranks.samples)
        self.step = 0
        self.norms = Norms([*(f"feature_norm/{name}" for name in space.streams), "gradient_norm"], space.decoder.device)
        self.waits = config.on_nan == "skip" or space.decoder.device.type == "cpu"
        """True to look at each loss before the weights are updated by it, for which a GPU would wait."""
        self._held_out: tuple[TrainingFeatures, dict[str, Tensor]] | None = None
        self._weights = loss_weights(config)
        self._views = Views(space, config, lacking=lacking, rows=rows)
        self._select = bf16_selection.selector(config.encoder_product, space.decoder.device)

    def advance(self, batch: Batch) -> list[Term]:
        """Take one step on normalised features and return the terms of its loss.

        Raises Diverged if a term is not finite; the weights are then as before. On a GPU the weights are updated first,
        unless such steps are to be skipped.
        """
        dead = self.counters.dead(self.config.dead_after)
        found = gradients(self.space, self._views.of(batch, self.step), self._weights, dead, self._select, self.ranks)
        self.step += 1
        if self.waits:
            check_terms(found.terms, self.step)
        norm = self.adam.step(found)
        if self.ranks is None or self.ranks.samples.number == 0:
            self.norms.add({"gradient_norm": norm.unsqueeze(0)})
        self.counters.update(found.codes, batch)
        return found.terms

    def check(self) -> None:
        """Raise BadFeatures if the last step made a parameter infinite or NaN, which its loss does not show yet."""
        for name, parameter in self.space.named_parameters():
            least, most = parameter.detach().aminmax()  # both are NaN if any value is
            if not (least.isfinite() and most.isfinite()):
                raise BadFeatures(f"the parameter '{name}' is not finite after step {self.step}", hint=LOWER)

    def outliers(self) -> dict[str, float]:
        """Return `Norms.outliers` of all ranks."""
        if self.ranks is not None:
            self.norms.sums.copy_(merged_norms(self.norms.sums, self.ranks.samples))
        return self.norms.outliers()

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
            found.append(Losses.of(self._terms_of(batch)).record())
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
        dead_S = (self.counters.samples_since_active > self.config.dead_after).sum(dim=1)
        if self.ranks is not None:
            self.ranks.latents.sum_(dead_S)
        dead = {f"dead/{name}": count for name, count in zip(self.space.streams, dead_S.tolist(), strict=True)}
        return {**dead, "lr": self.adam.lr}

    def _terms_of(self, batch: Batch) -> list[Term]:
        if self.ranks is None or self.ranks.latents.size == 1:
            return loss_terms(self.space, batch, self.space.encode_batch(batch), self._weights)
        alone = replace(self.ranks, samples=Group())  # each row of the mesh measures all samples
        return gradients(self.space, batch, self._weights, selector=self._select, ranks=alone).terms

    def save(self, run: Run, held_out: TrainingFeatures | None = None) -> None:
        """Save a checkpoint into the run. Raises StorageError, and BadFeatures as `check`."""
        self.check()
        state = self._state()
        if not self.measures:
            return
        progress = Progress(self.step, self.adam.steps, self.loss_on(held_out) if held_out is not None else None)
        if not isinstance(self.space, SpaceShard):
            save_state(run, state, progress, keep=self.config.keep_checkpoints)
            return
        if self.leads:
            run.sync_metrics()
        write_shards(run.shards(self.step), state, progress, self.space)
        if self.leads:
            drop_old(run, self.config.keep_checkpoints)

    @property
    def measures(self) -> bool:
        """True in the processes that measure held-out samples and write: one holds each latent."""
        return self.ranks is None or self.ranks.samples.number == 0

    @property
    def leads(self) -> bool:
        """True in the one process that writes what is not split."""
        return self.ranks is None or self.ranks.leads

    def wait(self, what: str) -> None:
        """Wait until the leading process has written its files."""
        if self.ranks is not None:
            self.ranks.wait(what)

    def _whole(self, name: str, tensor: Tensor) -> Tensor:
        """Return a tensor of a checkpoint with the latents of all ranks, in the leading process."""
        return gathered(name, tensor, self.space) if isinstance(self.space, SpaceShard) else tensor

    def finish(self, run: Run) -> None:
        """Write the trained space into the run, which makes it finished. Raises StorageError, BadFeatures."""
        self.check()
        if isinstance(self.space, SpaceShard):
            if self.ranks is not None and self.ranks.samples.number:
                return
            state = {name: self._whole(name, tensor) for name, tensor in self.space.state_dict().items()}
            space = self.space.joined(state) if self.leads else self.space
        else:
            space = self.space
        if self.leads:
            run.sync_metrics()
            space.eval().save_pretrained(run.path, training=self.config)
            run.drop_state()

    def _state(self) -> dict[str, Tensor]:
        """Return the tensors of a checkpoint, with those latents that this process holds."""
        tensors = {f"space.{name}": tensor for name, tensor in self.space.state_dict().items()}
        tensors["samples_since_active"] = self.counters.samples_since_active
        tensors["norms"] = self.norms.sums
        if self.ranks is not None:
            tensors["norms"] = merged_norms(self.norms.sums, self.ranks.samples)
        for name, (moment1, moment2) in self.adam.moments.items():
            tensors |= {f"adam.exp_avg.{name}": moment1, f"adam.exp_avg_sq.{name}": moment2}
        return tensors

    def restore(self, run: Run) -> None:
        """Continue from the newest checkpoint that is whole, if there is one.

        Raises CorruptFile if all are damaged, StorageError and OutOfMemory.
        """
        load_state(run, self._take, self._take_folder)

    def _take_folder(self, path: Path, progress: Progress) -> None:
        state = self._state()  # most are the training's own tensors
        read_shards(path, state, self.space if isinstance(self.space, SpaceShard) else None, self.ranks)
        self._begin_at(progress, state["norms"])

    def _take(self, tensors: Mapping[str, Tensor], progress: Progress) -> None:
        if isinstance(self.space, SpaceShard):
            tensors = {name: own_part(name, tensor, self.space.latents) for name, tensor in tensors.items()}
        self.space.load_state_dict(below("space.", tensors))
        self.counters.samples_since_active.copy_(tensors["samples_since_active"])
        for name, (moment1, moment2) in self.adam.moments.items():
            moment1.copy_(tensors[f"adam.exp_avg.{name}"])
            moment2.copy_(tensors[f"adam.exp_avg_sq.{name}"])
        self._begin_at(progress, tensors["norms"])

    def _begin_at(self, progress: Progress, norms: Tensor) -> None:
        """Continue after a step; of several processes with other samples, one goes on with the norms of all."""
        self.norms.sums.copy_(norms)
        if self.ranks is not None and self.ranks.samples.number:
            self.norms.sums.zero_()
        self.step, self.adam.steps = progress.step, progress.updates


def train(
    space: SharedLatentSpace,
    config: TrainingConfig,
    features: TrainingFeatures,
    run: Run,
    hooks: Hooks | None = None,
    ranks: Ranks | None = None,
) -> bool:
    """Train a space in place, on its device, on raw features, and save it into the run.

    If the run holds checkpoints of an interrupted training, resume from the newest. On the CPU the final weights are
    the same bits as without the interruption. Before the first step, `prepare` fits what is not trained.

    With `ranks`, several processes train it, each on its part of every batch; `space` may be this one's `SpaceShard`.
    One of them writes the run.

    Returns True if the training is complete, and False if `hooks.should_stop` ended it and a checkpoint was saved.

    Raises:
        InvalidConfig: a batch has fewer samples than there are processes to share it.
        ProcessLost: another process has ended.
        BadFeatures: a loss or a parameter is not finite; names it, the step, and the feature that caused it, if one
            did.
        MisalignedStreams: the streams have different numbers of samples.
        CorruptFile: no checkpoint of the run is whole.
        StorageError: the disk is full; the last saved state stays.
    """
    if ranks is None:
        training = Training(space, config, lacking=prepare(space, features, config))
    else:
        rows = Rows.of(batch_length(features, config), ranks.samples)
        lacking = _prepare_together(space, features, config, ranks)
        training = Training(space, config, lacking=lacking, ranks=ranks, rows=rows)
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
    if training.leads:
        run.forget_metrics_after(training.step)
    loader = batches(training.step) if batches is not None else _loader(training, features)
    n_steps = loader.per_epoch * config.epochs
    skips = _Skips(features, config, back=1 if training.waits else LOG_EVERY)
    began = time.monotonic()
    measured = held_out_steps(loader.per_epoch, config, hooks.held_out)
    held_out = hooks.held_out if training.measures else None
    speed = Speed(began)
    saves = _Saves(training, run, hooks.held_out)
    for raw in loader:
        if saves.stops(hooks.should_stop()):
            saves.now()
            return False
        hooks.watch()
        training.norms.add({f"feature_norm/{name}": x_BD.float().norm(dim=1) for name, x_BD in raw.items()})
        speed.samples += len(next(iter(raw.values()))) if training.rows is None else training.rows.total
        losses = None
        record: dict[str, float] = {}
        try:
            terms = training.advance(space.normalize(raw))
            skips.row = 0
            if training.step % LOG_EVERY == 0 or training.step == n_steps:
                check_terms(terms, training.step)
                losses = Losses.of(terms)
                record = {**losses.record(), **training.numbers(), **training.outliers()}
            elif saves.due:
                check_terms(terms, training.step)
        except Diverged as error:
            skips.count(error)  # raises unless steps are to be skipped
            record = {f"skipped/{error.term}": 1}
        if held_out is not None and (training.step % measured == 0 or training.step == n_steps):
            found = training.losses_on(held_out)
            record |= {f"{HELD_OUT}{name}": value for name, value in found.items() if math.isfinite(value)}
        if record:
            record = {"step": training.step, "epoch": training.step / loader.per_epoch, **record}
        rate = speed.since_last() if losses is not None else None
        if training.leads:
            _log(run, record, training.step, rate)
        waiting = loader.waited / max(1e-9, time.monotonic() - began)
        hooks.on_step(Step(training.step, n_steps, losses, waiting, record, rate))
        if saves.due:
            saves.now()
    skips.finish(n_steps)
    training.finish(run)
    training.wait("trained")
    return True


def _log(run: Run, record: Mapping[str, float], step: int, rate: float | None) -> None:
    """Write the losses of a step, and its samples per second, if it has them. Raises StorageError."""
    if record:
        run.log(record)
    if rate is not None:
        run.log_speed({"step": step, RATE: rate})


def _loader(training: Training, features: TrainingFeatures | None) -> Loader:
    """Return the batches of stored features from the training's step on: this process's rows of each."""
    assert features is not None
    rows = EVERY if training.rows is None else training.rows.some
    device = training.space.decoder.device
    return Loader(features, training.config, device=device, start=training.step, rows=rows)


class _Saves:
    """Decides when to save a checkpoint."""

    def __init__(self, training: Training, run: Run, held_out: TrainingFeatures | None) -> None:
        self._training, self._run, self._held_out = training, run, held_out
        self._next = time.monotonic() + SAVE_SECONDS
        self._agreed = False

    def stops(self, stop: bool) -> bool:
        """Return True if any process is to stop; and agree with the others whether to save after this step."""
        if self._training.ranks is None:
            return stop
        stop, self._agreed = self._training.ranks.any(stop, self._training.leads and time.monotonic() > self._next)
        return stop

    @property
    def due(self) -> bool:
        return time.monotonic() > self._next if self._training.ranks is None else self._agreed

    def now(self) -> None:
        began = time.monotonic()
        self._training.save(self._run, self._held_out)
        self._training.wait(f"saved {self._training.step}")  # a collective would lose its patience with a slow disk
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
    if config.pre_bias == "zeros" and not completes(space, config):
        return True
    sampled = None
    if completes(space, config) and config.completion == "kernel":
        sampled = Sampled(held_out(features), space.streams)
    fitted, chosen_on = moments(space, features, sampled)
    if config.pre_bias == "mean":
        with torch.no_grad():
            space.pre_bias.copy_((fitted + chosen_on).mean)
    if completes(space, config):
        space.completion = _completion(fitted, chosen_on, sampled).to(space.decoder)
    return (fitted + chosen_on).lacking


def _completion(fitted: Moments, held_out: Moments, sampled: Sampled | None) -> Completion:
    """Fit a completion to the moments of founding streams, with kernels if samples were collected for them."""
    completion = fit_completion(fitted, held_out)
    if sampled is None:
        return completion
    return fit_kernels(completion, completion_like(completion, fitted), sampled)


def completes(space: LatentSpace, config: TrainingConfig) -> bool:
    """Return True if a training fits a completion: several streams can be selected together, and the options ask so."""
    return config.completion != "none" and len(space.streams) > 1 and space.selection == "global"


def _prepare_together(space: LatentSpace, features: TrainingFeatures, config: TrainingConfig, ranks: Ranks) -> bool:
    """As `prepare`, in the leading process, from which the others take what was fitted: they have the same bits."""
    found = prepare(space, features, config) if ranks.leads else True
    ranks.wait("prepared")
    fitted = space.completion
    lacking, shape = ranks.same((found, None if fitted is None else fitted.shape))
    if shape is not None:
        if fitted is None:
            space.completion = fitted = Completion.empty(space.streams, shape).to(space.decoder)
        ranks.copy_(fitted.mean, fitted.factor)
        for kernel in fitted.kernels.values():
            ranks.copy_(kernel.landmarks, kernel.weights)
    ranks.copy_(space.pre_bias.detach(), space.center, space.scale)
    return lacking


def completion_of(space: SharedLatentSpace, features: TrainingFeatures, kind: CompletionKind) -> Completion:
    """Fit the completion of a space to raw training features. Raises MisalignedStreams."""
    founding = space.config.founding
    sampled = Sampled(held_out(features), founding) if kind == "kernel" else None
    fitted, chosen_on = moments(space, features, sampled)
    completion = _completion(fitted.first(len(founding)), chosen_on.first(len(founding)), sampled)
    newcomers = {stream: fit_newcomer(completion, fitted, chosen_on, stream) for stream in space.config.attached}
    return completion.with_newcomers(newcomers)


def moments(space: LatentSpace, features: TrainingFeatures, sampled: Sampled | None = None) -> tuple[Moments, Moments]:
    """Return the moments of raw training features: of those to fit on, and of the held-out ones.

    `sampled` collects its samples on the way.
    """
    device = space.decoder.device
    batches: Iterable[Batch] = map(space.normalize, in_order(features, device))
    if sampled is not None:
        batches = sampled.passing(batches)
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
