"""One run: plan or open it, prepare its features, train, evaluate, interrupt and resume it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparc.config import PlaceOptions, PluginRef, RunConfig, names, validated
from sparc.config.fitting import described, fitted
from sparc.errors import InUse, InvalidConfig, MisalignedStreams, MissingData, OutOfMemory, UnknownName
from sparc.extraction import Share
from sparc.models.streams import checked_streams
from sparc.plugins.images import ImageLimits, limit_images
from sparc.plugins.registry import discover
from sparc.session import on_the_fly
from sparc.session.data import Data, jobs_of
from sparc.session.listener import SILENT, Listener
from sparc.session.options import resolved, store_place, with_absolute_paths
from sparc.session.together import on_this_machine
from sparc.session.tracking import Tracker, check_tracker, tracking
from sparc.session.watching import Watch
from sparc.storage.belonging import weights_in
from sparc.storage.latent_names import LATENTS
from sparc.storage.manifest import feature_digests, read_manifest
from sparc.storage.provenance import Change, Provenance, provenance_of
from sparc.storage.run import OTHER_DATA, Run
from sparc.system.files import check_no_folder, check_writable, sha256
from sparc.system.locks import owned
from sparc.system.memory import available_bytes

if TYPE_CHECKING:
    from sparc.evaluation import Evaluation
    from sparc.evaluation.report import EvaluationFile
    from sparc.storage.checkpoint import SharedLatentSpace
    from sparc.storage.store import FeatureStore
    from sparc.training.distributed import Ranks
    from sparc.training.trainer import Step


@dataclass
class Session:
    """One run: its configuration, its data, its directory and its listener."""

    config: RunConfig
    data: Data
    run: Run
    listener: Listener = SILENT
    command: Sequence[str] = field(default_factory=lambda: program())
    """Words of the command that started the run, for its provenance."""
    base: Run | None = None
    """Run to attach a stream of; None for a run that is begun or trained from the start."""
    other: str | None = None
    """Name of the folder for what is written about data that are not the run's own; None for its own data."""
    unnamed: bool = False
    """True if the run's directory may become the next free one, because nobody has named it."""
    ranks: Ranks | None = None
    """Processes that train the run together; None for this one alone."""

    @property
    def leads(self) -> bool:
        """True in the one process that writes the run."""
        return self.ranks is None or self.ranks.leads

    @classmethod
    def begin(cls, given: Mapping[str, Any], listener: Listener, file: Mapping[str, Any] | None = None) -> Session:
        """Plan a new run. Raises the SparcError of every mistake that can be found before any work."""
        registry = discover()
        config = resolved(given, registry, file).checked()
        if config.on_the_fly:
            on_the_fly.check(config)
        check_tracker(config)
        run = Run(free_path(config))
        return cls(config, Data(config, registry, listener=listener), run, listener, unnamed=config.out is None)

    @classmethod
    def open(cls, path: str | Path, places: PlaceOptions, listener: Listener) -> Session:
        """Open a run whose data may have moved to `places`.

        Raises MissingData, or MisalignedStreams if the run was trained on other samples.
        """
        run = Run.open(Path(path))
        moved = {name: place for name, place in places.given().items() if name in names(PlaceOptions)}
        provenance = run.provenance()
        options = provenance.options.model_dump(mode="json", by_alias=True)
        # The limit holds for this command, not for the one that began the run.
        limit = {"max-time": getattr(places, "max_time", None), "shard-latents": getattr(places, "shard_latents", 1)}
        config = with_absolute_paths(validated(RunConfig, {**options, **moved, **limit}, what=str(run.path)))
        with missing_plugins(provenance):
            registry = discover()
            listener.doing("identifying the data and the weights")  # reads whole files: captions, local weights
            recorded = {name: origin.weights for name, origin in provenance.streams.items()}
            jobs = jobs_of(config, registry, recorded=recorded)
            data = Data(config, registry, jobs=jobs, listener=listener)
        limit_images(ImageLimits.of(config))
        session = cls(config, data, run, listener)
        check_samples(data, run)
        return session

    @contextlib.contextmanager
    def owned(self) -> Iterator[None]:
        """Own the run's directory inside the block, and remove what killed processes left there.

        Raises InUse if another process works in it, and InvalidConfig if another process has just finished it.
        """
        if self.ranks is not None:
            self.ranks.wait("begun")  # so that no process takes the directory of another for that of a stranger
            if not self.ranks.leads:
                self.run = Run(Path(self.ranks.same("")))
                yield
                return
        is_new = not (self.run.begun or self.run.finished)
        with contextlib.ExitStack() as stack:
            while True:
                try:
                    stack.enter_context(owned(self.run.path, "wait until it ends; or train into another --out"))
                    if is_new:
                        Run.check_free(self.run.path)
                    break
                except (InUse, InvalidConfig):
                    stack.close()
                    if not self.unnamed:
                        raise
                    self.run = Run(free_path(self.config))
            self.run.sweep()
            if self.ranks is not None:
                self.ranks.same(str(self.run.path))
            yield

    @property
    def results(self) -> Run:
        """Directory of what is measured: the run itself, or for other data a folder in it that is laid out alike."""
        return self.run if self.other is None else Run(self.run.path / OTHER_DATA / self.other)

    def backbones(self) -> dict[str, PluginRef]:
        """Return the backbones by stream. Raises MissingData if the features were imported."""
        if self.other is None:
            return checked_streams(self.run)
        if self.config.features is not None:
            raise MissingData(
                f"the features in {self.config.features} were imported, so their backbones are not known",
                hint="give --dataset, --data-root and --stream NAME=BACKBONE instead of --features",
            )
        return {ref.alias: ref for ref in self.config.streams}

    @cached_property
    def space(self) -> SharedLatentSpace:
        """Trained space, on the device. Raises MissingData if the training is not finished."""
        self.check_finished()
        device = self.data.device
        self.listener.loading(str(self.run.path))
        from sparc.storage.checkpoint import load

        return load(self.run.path, device=device)

    def check_finished(self) -> None:
        """Raise MissingData unless the training is finished."""
        if not self.run.finished:
            raise MissingData(f"the run {self.run.path} is not finished", hint=f"sparc train --resume {self.run.path}")

    def prepare(self) -> None:
        """Extract the features that the store lacks, check all features, and create the directory of a new run.

        Raises MisalignedStreams if the run to resume was started on other features.
        """
        self.extract()
        self.listener.doing("checking the features")
        if self.config.on_the_fly:
            self._prepare_on_the_fly()
            return
        features = self.data.train
        begun = self.run.begun if self.ranks is None else self.ranks.same(self.run.begun)
        if begun and self.run.provenance().features != feature_digests(features.manifests):
            raise MisalignedStreams(
                f"the features in the store are not the ones that {self.run.path} was started on",
                hint="train a new run",
            )
        self.data.check()
        if self.base is not None:
            check_shared(features, self.base)
        if not self.run.finished:
            config = self.config if begun else fitted(self.config, len(features))
            check_memory(config, features.widths, self.data.device, on_this_machine() / config.shard_latents)
        if not begun:
            self.create()
        if self.ranks is not None:
            self.ranks.wait("created")

    def extract(self) -> None:
        """Extract the features that the store lacks, together with the other processes."""
        if self.ranks is None:
            self.data.extract()
            return
        self.data.extract(Share(self.ranks.rank, self.ranks.size, helps=True))
        self.ranks.wait("extracted")
        if self.ranks.leads and not self.data.extracted:
            self.data.extract()
        self.ranks.wait("checked")

    def _prepare_on_the_fly(self) -> None:
        if self.run.begun:
            on_the_fly.check_same(self.data, self.run)
            return
        self.config = on_the_fly.fit(self.data, self.config, self.listener)
        check_memory(self.config, self.data.test.widths, self.data.device)
        Run.create(self.run.path)
        self.run.write_provenance(on_the_fly.origin(self.data, self._placed(), self.command))

    def create(self) -> None:
        """Create the run's directory with its provenance, and fit the options that nobody set to the features.

        Raises InvalidConfig, StorageError.
        """
        samples = len(self.data.train)
        chosen = fitted(self.config, samples)
        self.listener.note(described(self.config, chosen, samples))
        self.config = chosen
        if not self.leads:
            return
        Run.create(self.run.path)
        changes: tuple[Change, ...] = ()
        if self.base is not None:
            self.run.copy_base(self.base.path)
            last = Change(change="attached", stream=self.config.streams[-1].alias, run=str(self.base.path.resolve()))
            changes = (*self.base.provenance().changes, last)
        owners = self.data.registry.owners
        origin = provenance_of(
            self._placed(), self.data.train, owners=owners, device=self.data.device, command=self.command
        )
        self.run.write_provenance(origin.model_copy(update={"changes": changes}))

    def _placed(self) -> RunConfig:
        """Return the configuration with the place of the store, and the commits of weights from the hub."""
        placed = self.config.model_copy(update={"store": store_place(self.config)})
        if self.config.features is None:  # the jobs name the commits
            streams = tuple(job.stream for job in self.data.held_out_jobs.values())
            placed = placed.model_copy(update={"stream": streams})
        return placed

    def train(self, should_stop: Callable[[], bool] = lambda: False) -> SharedLatentSpace | None:
        """Train the run, or resume its training; load the space of a finished run.

        Returns None if `should_stop` ended the training; its state is then saved. Of several processes that split the
        latents, the first returns the whole space, and the others their parts.
        """
        if self.run.finished:
            return self.space
        self.listener.doing("preparing the training")
        from sparc.storage.checkpoint import SharedLatentSpace, load
        from sparc.training.attaching import AttachedTraining, attached
        from sparc.training.sharding import SpaceShard
        from sparc.training.trainer import Hooks, run_to_end, train

        tracker = tracking(self.config, self.run) if self.leads else Tracker()
        if self.config.on_the_fly:
            hooks = Hooks(partial(self._on_step, tracker), should_stop, held_out=self.data.test)
            with tracker:
                space, complete = on_the_fly.train(self.data, self.config, self.run, self.listener, hooks)
            return space if complete else None
        ranks = self.ranks and self.ranks.arranged(self.config.shard_latents, self.data.device)
        watch = Watch(self.data.jobs)
        hooks = Hooks(partial(self._on_step, tracker), should_stop, watch, self.data.test)
        features, config, changes = self.data.train, self.config.training(), self.run.provenance().changes
        with watch.bus_errors(), tracker:
            if changes:
                space = attached(load(self.run.base, device=self.data.device), changes[-1].stream, features)
                complete = run_to_end(AttachedTraining(space, config), features, self.run, hooks)
            else:
                shape, seed = self.config.space(features.widths), self.config.seed
                if ranks is None or self.config.shard_latents == 1:
                    space = SharedLatentSpace(shape, seed=seed)
                else:
                    space = SpaceShard(shape, ranks, seed=seed)
                complete = train(space.to(self.data.device), config, features, self.run, hooks, ranks)
        if complete and self.leads:
            from sparc.training.plots import draw_curves

            draw_curves(self.run)
            if self.config.shard_latents > 1:
                return load(self.run.path, device=self.data.device)
        return space if complete else None

    def _on_step(self, tracker: Tracker, step: Step) -> None:
        self.listener.step(step)
        if step.record:
            tracker.log(step)
        if step.number == step.total:
            self.listener.doing(f"saving {self.run.path}")

    def evaluate(
        self, space: SharedLatentSpace, *, concepts: str = "enrichment", classifiers: bool = False
    ) -> EvaluationFile:
        """Measure the space on held-out samples, and write `evaluation.json` and the table of latents into the run.

        Several processes share the work, unless each holds only a part of the latents. Raises StorageError, before the
        work, if the run's directory is not writable.
        """
        self.listener.doing("reading the held-out samples")
        from sparc.evaluation import Work, alone
        from sparc.evaluation import evaluate as measure
        from sparc.evaluation.report import EvaluationFile

        shared = self.ranks is not None and self.config.shard_latents == 1
        if self.leads:
            for folder in (self.results.path, self.results.pictures):
                check_writable(folder)
            check_no_folder(self.results.evaluation, self.results.pictures / LATENTS)
        if self.leads or shared:
            work = Work(
                self.ranks.spread if self.ranks is not None and shared else alone,
                lambda done, total, part: self.listener.progress("evaluate", "parts", done, total, part),
            )
            found = measure(
                space,
                self.data.held_out,
                rule=concepts,
                classifiers=classifiers,
                seed=self.config.seed,
                work=work,
            )
        if self.leads:
            file = self._write(found)
        if self.ranks is None:
            return file
        self.ranks.wait("evaluated")
        return file if self.leads else EvaluationFile.read(self.results.evaluation)

    def _write(self, found: Evaluation) -> EvaluationFile:
        from sparc.evaluation.report import EvaluationFile

        found.latents.write(self.results.pictures / LATENTS)
        where = next(iter(self.data.test.manifests.values()))
        file = EvaluationFile(
            dataset=where.dataset,
            split=where.split,
            random_weights=tuple(self.data.test.random_weights),
            report=found.report,
            weights=weights_in(self.run.path),
            latents=sha256(self.results.pictures / LATENTS),
        )
        file.write(self.results.evaluation)
        return file


def check_memory(config: RunConfig, widths: Mapping[str, int], device: str, copies: float = 1) -> None:
    """Raise OutOfMemory if the parameters and moments of a space take more memory than there is on the CPU.

    `copies` is the number of processes on this machine, each of which may hold a part of the latents only. Without this
    check, a space that fits nowhere would be found only when its run has been created.
    """
    space = config.space(widths)
    width, streams = sum(space.streams.values()), len(space.streams)
    moment = 2 if config.adam_state == "bfloat16" else 4
    needed = (2 * space.n_latents * width + streams * space.n_latents + width) * (4 + 2 * moment) * copies
    if device == "cpu" and needed > (there := available_bytes()):
        fits = max(1, int(space.n_latents * there / needed))
        raise OutOfMemory(
            f"a space of {space.n_latents:,} latents and streams of width {width:,} takes {needed / 2**30:,.1f} GiB to "
            f"train, and {there / 2**30:,.1f} GiB are free",
            hint=f"lower --n-latents to {fits:,} or less; or free some memory; --adam-state bfloat16 takes a third "
            "less",
        )


def check_samples(data: Data, run: Run) -> None:
    """Raise MisalignedStreams unless the samples are those that a run was trained on.

    Features are not compared: other hardware rounds differently.
    """
    provenance = run.provenance()
    trained_on = {} if provenance.options.on_the_fly else provenance.features
    for name, job in next(iter(data.jobs.values())).items():
        known = name in trained_on and job.done
        if known and read_manifest(job.directory).samples_file_sha256 != trained_on[name][0]:
            raise MisalignedStreams(
                f"these samples are not the ones that {run.path} was trained on",
                hint="--data-root, --store and --features give the new place of the same data; to measure on other "
                "data, sparc evaluate --dataset NAME; to train on them, a new run",
            )


def check_shared(features: FeatureStore, base: Run) -> None:
    """Raise MissingData if no sample has both the last stream and a stream of the run that it is attached to."""
    *others, new = features.presence().items()
    if not any((there & new[1]).any() for _, there in others):
        raise MissingData(
            f"no sample has both the stream {new[0]} and one of {', '.join(name for name, _ in others)}, "
            f"the streams of {base.path}",
            hint="attach on data that has some samples in both",
        )


@contextlib.contextmanager
def missing_plugins(provenance: Provenance) -> Iterator[None]:
    """Add to the hint of an unknown stream the package that offered it when the run was made."""
    try:
        yield
    except UnknownName as error:
        plugins = {one.backbone: one.plugin for one in provenance.streams.values() if one.plugin}
        lost = next((plugin for name, plugin in plugins.items() if f"'{name}'" in error.message), None)
        if lost is None:
            raise
        raise UnknownName(error.message, hint=f"it came from {lost}: install that; {error.hint}") from error


def free_path(config: RunConfig) -> Path:
    """Return the directory of a new run: `out`, else `runs/DATASET`, or -2, -3, ... Raises InvalidConfig if taken."""
    path = Path(config.out) if config.out is not None else Run.next_free(Path("runs"), config.source.name)
    Run.check_free(path)
    return path


def program() -> list[str]:
    """Return the words of the command line, with `sparc` for its own command."""
    name = Path(sys.argv[0]).name if sys.argv else ""
    return ["sparc" if name in ("sparc", "__main__.py") else name, *sys.argv[1:]]
