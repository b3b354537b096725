"""The verbs of `sparc` as functions, each with the effect and the options of the command of the same name."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from sparc.config import (
    EvaluateOptions,
    ExtractOptions,
    ResumeOptions,
    RunConfig,
    names,
    validated,
)
from sparc.config.signatures import (
    EvaluateArguments,
    ExtractArguments,
)
from sparc.errors import Interrupted, InvalidConfig, StorageError, TimeUp
from sparc.extraction import WHOLE, Share
from sparc.plugins.registry import discover
from sparc.session.data import Data, resolve_device
from sparc.session.in_memory import TrainArguments, options_of_train
from sparc.session.listener import SILENT, Listener
from sparc.session.options import as_options, resolved
from sparc.session.other_data import extract_held_out, open_measured
from sparc.session.session import Session
from sparc.session.stopping import Stop, stop_on_signal, time_limit
from sparc.session.together import check_alone, check_shares, heard, together
from sparc.storage.run import Run

if TYPE_CHECKING:
    from sparc.evaluation.report import EvaluationFile, Report
    from sparc.localization.benchmark import Cases, LocalizationFile
    from sparc.models import Models
    from sparc.storage.checkpoint import SharedLatentSpace
    from sparc.storage.store import FeatureStore
    from sparc.training.distributed import Ranks


@dataclass(frozen=True)
class Features:
    """Extracted features of the training samples and of the held-out samples."""

    data: Data

    @property
    def train(self) -> FeatureStore:
        """Raw training features."""
        return self.data.train

    @property
    def test(self) -> FeatureStore:
        """Raw held-out features."""
        return self.data.test


@dataclass(frozen=True)
class Trained:
    """A trained space and its evaluation on held-out samples."""

    path: Path
    """Directory of the run, for `sparc.load`, `sparc.explore` and the commands."""
    space: SharedLatentSpace
    report: Report


def extract(
    config: RunConfig | None = None, *, listener: Listener = SILENT, **arguments: Unpack[ExtractArguments]
) -> Features:
    """Extract the features of a dataset into the store, as `sparc extract` does.

    Features that are in the store are not computed again. Raises the SparcError that `sparc extract` ends with.
    """
    data, share = plan_extraction(as_options(config, arguments, ExtractOptions), listener)
    with time_limit(data.config):
        data.extract(share)
    return Features(data)


def plan_extraction(
    given: Mapping[str, Any], listener: Listener, file: Mapping[str, Any] | None = None
) -> tuple[Data, Share]:
    """Return the data that options of `sparc extract` describe, and this process's share of the work.

    Raises InvalidConfig, UnknownName and the SparcError of a plugin.
    """
    own = {name: value for name, value in given.items() if name not in names(RunConfig)}
    options = validated(ExtractOptions, own)
    registry = discover()
    config = resolved({name: given[name] for name in given if name not in own}, registry, file).checked()
    if config.features is not None:
        raise InvalidConfig("--features: imported features need no extraction", hint="sparc train --config FILE")
    modalities = {registry.backbone(stream.name).modality for stream in config.streams}
    if options.tokens and modalities and "image" not in modalities:
        raise InvalidConfig(
            "--tokens patch: none of the streams sees images", hint="add an image stream or remove --tokens"
        )
    share = _share(options.shard)
    return Data(config, registry, tokens=options.tokens is not None, listener=listener), share


def _share(shard: str | None) -> Share:
    """Read `--shard`, else the variables of torchrun, whose processes help each other. Raises InvalidConfig."""
    helps = shard is None
    if shard is None:
        if not {"RANK", "WORLD_SIZE"} <= os.environ.keys():
            return WHOLE
        shard = f"{os.environ['RANK']}/{os.environ['WORLD_SIZE']}"
    match = re.fullmatch(r"(\d+)/(\d+)", shard)
    if match is None or int(match[1]) >= int(match[2]):
        raise InvalidConfig(f"--shard: expected I/N with I below N, found '{shard}'", hint="--shard 0/4, ..., 3/4")
    return Share(int(match[1]), int(match[2]), helps)


def train(
    config: RunConfig | None = None,
    *,
    resume: str | Path | None = None,
    listener: Listener = SILENT,
    **arguments: Unpack[TrainArguments],
) -> Trained:
    """Extract missing features, train a shared space, and evaluate it on held-out samples, as `sparc train` does.

    Options are the fields of RunConfig, as keywords or as one configuration. `features` may also be arrays or tensors
    by stream, (samples, width), with `ids`, `labels`, `taxonomy` and `split`; they are kept in the store. `resume` is
    the directory of a run to finish; with it, only options for the place of its data are allowed. Ctrl-C or SIGTERM
    finishes the step, saves the state, and raises Interrupted, a KeyboardInterrupt. Raises the SparcError that
    `sparc train` ends with.
    """
    with together(listener) as ranks:
        listener = heard(listener, ranks)
        if ranks is not None and not ranks.leads:
            ranks.wait("stored")  # arrays are stored by the first process
        given = options_of_train(config, arguments, RunConfig, listener)
        if ranks is not None and ranks.leads:
            ranks.wait("stored")
        if (done := finished_run(resume)) is not None:
            check_resume(given)
            return _trained(done, given.get("device", "auto"), listener)
        session = begin_or_resume(given, listener, resume=resume)
        trained = run_session(session, ranks)
        if session.leads or session.config.shard_latents == 1:
            return trained
        from sparc.storage.checkpoint import load

        return replace(trained, space=load(trained.path, device=session.data.device))


def finished_run(resume: str | Path | None) -> Run | None:
    """Return the run to resume if it is trained and evaluated already, else None. Raises MissingData."""
    run = Run.open(Path(resume)) if resume is not None else None
    if run is None or not (run.finished and run.evaluation.is_file()):
        return None
    run.sweep_if_free()
    return run


def _trained(run: Run, device: str, listener: Listener) -> Trained:
    listener.note(f"{run.path} is already trained and evaluated")
    device = resolve_device(device, listener)
    listener.loading(str(run.path))
    from sparc.evaluation.report import EvaluationFile
    from sparc.storage.checkpoint import load

    return Trained(run.path, load(run.path, device=device), EvaluationFile.read(run.evaluation).report)


def begin_or_resume(
    given: Mapping[str, Any],
    listener: Listener,
    *,
    resume: str | Path | None = None,
    file: Mapping[str, Any] | None = None,
) -> Session:
    """Plan a new run, or open the run to resume. Raises InvalidConfig for training options together with `resume`."""
    if resume is None:
        return Session.begin(given, listener, file)
    check_resume(given, file)
    return Session.open(resume, validated(ResumeOptions, dict(given)), listener)


def check_resume(given: Mapping[str, Any], file: Mapping[str, Any] | None = None) -> None:
    """Raise InvalidConfig for options of training, or a file, together with `resume`."""
    others = [name for name in given if name not in names(ResumeOptions)]
    if others or file is not None:
        raise InvalidConfig(
            f"--resume continues a run with its own options, found --{(others or ['config'])[0]} too",
            hint="remove that option, or start a new run",
        )


def run_session(session: Session, ranks: Ranks | None = None) -> Trained:
    """Extract, train and evaluate, each only if not done yet. Raises Interrupted after saving the state.

    With `ranks`, these processes extract, train and evaluate together.
    """
    check_shares(session.config, ranks)
    if session.run.begun and session.run.provenance().changes:
        check_alone("to attach a stream")
    session.ranks = ranks
    with time_limit(session.config), session.owned():
        path = session.run.path
        try:
            session.prepare()
            if session.run.finished:
                session.listener.note(f"{path} is already trained")
            with stop_on_signal() as stopped:
                space = _train_until(stopped, session)
            if space is None:
                raise stopped.error
            report = session.evaluate(space).report
        except KeyboardInterrupt as error:
            if not session.run.begun:
                raise
            why = str(error) if isinstance(error, TimeUp) else ""
            raise Interrupted(path, f"sparc.train(resume={str(path)!r})", why) from error
        except StorageError as error:
            if not session.run.begun:
                raise
            raise StorageError(
                error.message, hint=f"free some space or permit it, then: sparc train --resume {path}"
            ) from error
        return Trained(path, space, report)


def _train_until(stopped: Stop, session: Session) -> SharedLatentSpace | None:
    """Train; return None if a signal stopped it, also one to the process that extracts on the fly, which ends it."""
    try:
        return session.train(stopped)
    except StorageError:
        if stopped():
            return None
        raise


@dataclass(frozen=True)
class Measured:
    """Measurements of a run and the folder with their plots."""

    evaluation: EvaluationFile
    pictures: Path
    localization: LocalizationFile | None = None
    """Localisation benchmark; None without the option `localization`."""


def evaluate(run: str | Path, *, listener: Listener = SILENT, **arguments: Unpack[EvaluateArguments]) -> Measured:
    """Evaluate a run on held-out samples, with classifiers and plots, as `sparc evaluate` does.

    Writes `evaluation.json`, plots and a table of all latents into the run, with `localization` also
    `localization.json`; for other data, named by `dataset`, into a folder below `on` in the run. Processes that
    torchrun started share the work, except for the localisation benchmark. Raises the SparcError that `sparc evaluate`
    ends with, such as InvalidConfig for `layers` without `localization`.
    """
    options = validated(EvaluateOptions, as_options(None, arguments, EvaluateOptions))
    if options.layers is not None and not options.localization:
        raise InvalidConfig(
            "--layers: expected --localization too, found none", hint="add --localization, or leave --layers out"
        )
    with together(listener) as ranks:
        session = open_measured(run, options, heard(listener, ranks))
        session.check_finished()
        session.ranks = ranks
        with time_limit(options), session.owned():
            extract_held_out(session)
            return _measured(session, options)


def _measured(session: Session, options: EvaluateOptions) -> Measured:
    """Measure and draw; of several processes, the leading one draws and points."""
    points = options.localization and session.leads
    pointing = _pointing(session, options.layers) if points else None  # raises before the work
    found = session.evaluate(session.space, concepts=options.concepts, classifiers=True)
    measured = None
    if session.leads:
        session.listener.doing(f"drawing plots into {session.results.pictures}")
        from sparc.evaluation.plots import draw

        draw(found.report, session.results.pictures)
        session.listener.evaluated(session.results)
        measured = _localization(session, *pointing) if pointing is not None else None
    if session.ranks is not None:
        session.ranks.wait("measured")
        if options.localization and not session.leads:
            from sparc.localization.benchmark import LocalizationFile

            measured = LocalizationFile.read(session.results.localization)
    return Measured(found, session.results.pictures, measured)


def _pointing(session: Session, layers: int | None) -> tuple[Models, Cases]:
    """Load the backbones and the cases of the localisation benchmark. Raises InvalidConfig, MissingData."""
    backbones = session.backbones()
    data, space = session.data, session.space
    from sparc.localization.benchmark import cases_of
    from sparc.models import load_models

    models = load_models(
        session.run,
        backbones,
        device=data.device,
        space=space,
        registry=data.registry,
        on_load=session.listener.loading,
    )
    models.with_grid()
    return replace(models, layers=layers), cases_of(data.dataset, seed=session.config.seed)


def _localization(session: Session, models: Models, cases: Cases) -> LocalizationFile:
    """Run the localisation benchmark, and write `localization.json`."""
    from sparc.localization.benchmark import measure_all
    from sparc.models.models import confirmed_names

    job = next(iter(session.data.held_out_jobs.values()))
    found = measure_all(
        replace(models, names=confirmed_names(session.results)),
        cases,
        dataset=job.dataset.name,
        split=job.split,
        seed=session.config.seed,
        on_case=lambda part, done, total: session.listener.progress(part, "images", done, total),
    )
    found.write(session.results.localization)
    return found


def dry_warning(random_weights: Sequence[str]) -> str:
    """Return the warning to show beside numbers of streams whose weights are random."""
    return f"{', '.join(random_weights)}: random weights (dry run), so this says nothing about the models."
