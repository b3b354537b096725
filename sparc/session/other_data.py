"""Open a run, or an imported space, to be measured on data that the caller names instead of the run's own.

What is written about other data lies in `RUN/on/DATASET-DIGEST`, laid out as a run: evaluation.json, evaluation/,
localization.json, explore/. So the run's own measurements stay.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from sparc.config import ExtractionOptions, PluginRef, RunConfig, SpaceConfig, SpaceOptions, is_url, names
from sparc.config.options import MeasureOptions
from sparc.errors import InvalidConfig, MisalignedStreams, MissingData
from sparc.extraction import IMPORTED, Job
from sparc.plugins.images import ImageLimits, limit_images
from sparc.plugins.registry import discover
from sparc.session.data import Data, jobs_of
from sparc.session.listener import Listener
from sparc.session.options import resolved, with_absolute_paths
from sparc.session.session import Session, missing_plugins
from sparc.storage.provenance import Provenance
from sparc.storage.run import Run
from sparc.storage.space_config import read_config
from sparc.system.remote import shown

_SAY = "name it: --features FOLDER; or --dataset NAME, --data-root FOLDER and --stream NAME=BACKBONE for each stream"


def open_measured(
    path: str | Path, options: MeasureOptions, listener: Listener, *, streams: Collection[str] | None = None
) -> Session:
    """Open a run or an imported space on the data that the options name, else on the run's own.

    streams: those of the space to open features of; None for all.

    Raises MissingData for an imported space without data, InvalidConfig for options that do not fit the run, and the
    SparcError of `Session.open`. Features of other data may have to be extracted: `extract_held_out`.
    """
    run = Run.open_space(Path(path))
    provenance = run.provenance() if run.begun else None
    if provenance is not None and options.dataset is None:
        if options.backbones:
            raise InvalidConfig(
                f"--stream: {run.path} knows its streams, found --stream too",
                hint="leave it out; or add --dataset to measure on other data",
            )
        return Session.open(path, options, listener)
    if options.features is None and options.dataset is None and options.data_root is None:
        raise MissingData(f"{run.path} is an imported space, which has no data of its own", hint=_SAY)
    if not run.finished:
        raise MissingData(f"the run {run.path} is not finished", hint=f"sparc train --resume {run.path}")
    space = read_config(run.path)
    wanted = [name for name in space.streams if streams is None or name in streams]
    registry = discover()
    given = _given(options, provenance, space, wanted)
    config = resolved(given, registry)
    if provenance is not None and _is_own(config, provenance.options):
        return Session.open(path, options, listener)
    listener.doing("identifying the data and the weights")
    recorded = {} if provenance is None else {name: one.weights for name, one in provenance.streams.items()}
    if provenance is not None:
        with missing_plugins(provenance):
            jobs = jobs_of(config, registry, recorded=recorded, held_out=True)
    else:
        jobs = jobs_of(config, registry, held_out=True)
    limit_images(ImageLimits.of(config))
    data = Data(config, registry, jobs=jobs, listener=listener)
    return Session(config, data, run, listener, other=_name(config, next(iter(data.held_out_jobs.values()))))


def extract_held_out(session: Session) -> None:
    """Extract the held-out features of other data that the store lacks. Does nothing for the run's own data.

    Raises MisalignedStreams if their widths are not those of the space.
    """
    if session.other is None:
        return
    session.extract()
    widths = read_config(session.run.path).streams
    for name, width in session.data.test.widths.items():
        if width != widths[name]:
            raise MisalignedStreams(
                f"the stream '{name}' has width {widths[name]} in {session.run.path} and {width} in these data",
                hint="give the backbone that the space was trained with",
            )


def _given(
    options: MeasureOptions, provenance: Provenance | None, space: SpaceConfig, wanted: list[str]
) -> dict[str, Any]:
    """Return the options of the data: those given, and of the run what makes its features."""
    given = {name: value for name, value in options.given().items() if name in names(MeasureOptions)}
    given |= {name: getattr(space, name.replace("-", "_")) for name in names(SpaceOptions)}
    own: tuple[PluginRef, ...] = ()
    if provenance is not None:
        given = {"store": provenance.options.store, "seed": provenance.options.seed, **given}
        own = provenance.options.streams if provenance.options.features is None else ()
    if options.features is not None:
        if options.dataset is not None and options.dataset_name != IMPORTED:
            raise InvalidConfig(
                f"--dataset: expected {IMPORTED} with --features, found {options.dataset_name}",
                hint="remove one of them",
            )
        given.pop("dataset", None)
        renamed = {ref.alias: ref for ref in options.backbones}
        given["stream"] = [renamed.get(name, PluginRef(name=name, alias=name)) for name in wanted]
        return given
    if options.dataset_name == IMPORTED:
        raise InvalidConfig(f"--dataset {IMPORTED}: expected --features too, found none", hint="add --features FOLDER")
    if own and provenance is not None:
        extraction = provenance.options.model_dump(by_alias=True, include=set(ExtractionOptions.model_fields))
        given = {**extraction, **given}
    given["stream"] = _backbones({ref.alias: ref for ref in options.backbones or own}, space, wanted)
    return given


def _backbones(known: Mapping[str, PluginRef], space: SpaceConfig, wanted: list[str]) -> list[PluginRef]:
    """Return the backbones of streams, in the order of the space. Raises InvalidConfig unless each has one."""
    if unknown := [name for name in known if name not in space.streams]:
        raise InvalidConfig(
            f"--stream: the space has no stream '{unknown[0]}', it has {', '.join(space.streams)}",
            hint=f"name a stream and its backbone: --stream {next(iter(space.streams))}=BACKBONE",
        )
    if lacking := [name for name in wanted if name not in known]:
        raise InvalidConfig(
            f"--stream: the backbone of {', '.join(lacking)} is not known",
            hint=f"name it: {' '.join(f'--stream {name}=BACKBONE' for name in lacking)}; or give --features FOLDER",
        )
    return [known[name] for name in wanted]


def _is_own(config: RunConfig, own: RunConfig) -> bool:
    """Return True if the data are those that the run has anyway."""
    own = with_absolute_paths(own)
    return (config.source, config.features) == (own.source, own.features)


def _name(config: RunConfig, job: Job) -> str:
    """Return the name of the folder for what is written about other data."""
    if config.features is None:
        return job.directory.parent.parent.name  # the dataset, and a digest of its parameters and content
    root = Path(config.features)
    place = shown(str(config.features)) if is_url(config.features) else str(root.resolve())
    return f"{root.name}-{hashlib.sha256(place.encode()).hexdigest()[:12]}"
