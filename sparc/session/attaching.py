"""`attach` and `detach`: add a stream to the space of a run, or take one out, into a new run."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Unpack

from sparc.config import (
    AttachOptions,
    DetachOptions,
    PluginRef,
    ResumeOptions,
    RunConfig,
    SpaceConfig,
    names,
    validated,
)
from sparc.config.references import check_stream_names
from sparc.config.signatures import AttachArguments, DetachArguments
from sparc.errors import InvalidConfig, MissingData, UnknownName
from sparc.plugins.images import ImageLimits, limit_images
from sparc.plugins.registry import discover
from sparc.session.data import Data
from sparc.session.listener import SILENT, Listener
from sparc.session.options import as_options, checked_path, with_absolute_paths
from sparc.session.session import Session, check_samples, missing_plugins, program
from sparc.session.together import check_alone
from sparc.session.verbs import Trained, run_session
from sparc.storage.nearby import check_there
from sparc.storage.provenance import Change, Provenance
from sparc.storage.run import Run
from sparc.storage.space_config import read_config
from sparc.system.locks import owned


def attach(run: str | Path, *, listener: Listener = SILENT, **arguments: Unpack[AttachArguments]) -> Trained:
    """Attach the stream of a new backbone to the space of a run, as `sparc attach` does, into a new run.

    The old streams and their codes stay as they are. The new stream is trained with the options of the run, and the new
    run is evaluated. An interrupted one resumes with `sparc.train(resume=...)`. Raises the SparcError that
    `sparc attach` ends with, such as InvalidConfig for a stream that the space has already.
    """
    return run_session(begin_attached(checked_path(run), as_options(None, arguments, AttachOptions), listener))


def begin_attached(path: Path, given: dict[str, Any], listener: Listener) -> Session:
    """Plan the run that has a stream more. Raises the SparcError of every mistake that can be found before any work."""
    check_alone("sparc attach")
    options, base = validated(AttachOptions, given), Run.open(path)
    if not base.finished:
        raise MissingData(f"the run {path} is not finished", hint=f"sparc train --resume {path}")
    provenance, space = base.provenance(), read_config(path)
    new = _one_stream(options, space)
    default = f"{path.resolve().name}-{new.alias}"
    out = Path(options.out) if options.out is not None else Run.next_free(path.parent, default)
    Run.check_free(out)
    places = {name: place for name, place in options.given().items() if name in names(ResumeOptions)}
    # The streams of imported features may be all in the folder, without being named.
    known = {ref.alias: ref for ref in provenance.options.streams}
    streams = [known.get(name, PluginRef(name=name, alias=name)) for name in space.streams]
    kept = provenance.options.model_dump(mode="json", by_alias=True)
    # All streams are read again and again, so their features must be in the store, whatever the run did without one.
    changed = {**kept, "on-the-fly": False, "max-time": None, **places, "stream": [*streams, new], "out": None}
    config = with_absolute_paths(validated(RunConfig, changed, what=str(path)))
    with missing_plugins(provenance):
        data = Data(config, discover(), listener=listener)
    limit_images(ImageLimits.of(config))
    check_samples(data, base)
    return Session(config, data, Run(out), listener, base=base)


def _one_stream(options: AttachOptions, space: SpaceConfig) -> PluginRef:
    """Return the stream to attach. Raises InvalidConfig unless it is one, of a name that the space does not have."""
    if len(options.streams) != 1:
        found = ", ".join(ref.alias for ref in options.streams) or "none"
        raise InvalidConfig(
            f"--stream: expected one stream, found {found}",
            hint="attach one, then the next one to the run that has it" if options.streams else "add --stream NAME",
        )
    (new,) = options.streams
    if new.alias in space.streams:
        raise InvalidConfig(
            f"the space has a stream named '{new.alias}' already", hint=f"rename the new one: --stream other={new.name}"
        )
    try:
        check_stream_names([*space.streams, new.alias])
    except ValueError as error:
        raise InvalidConfig(str(error), hint=f"rename the new one: --stream other={new.name}") from error
    return new


def detach(
    space: str | Path, stream: str, *, listener: Listener = SILENT, **arguments: Unpack[DetachArguments]
) -> Path:
    """Write the space of a directory without one of its streams into a new directory, as `sparc detach` does.

    Without an attached stream the space is that to which it was attached, to the bit. A run without a stream is a run.
    Returns the new directory.

    Raises:
        UnknownName: the space has no such stream.
        MissingData: there is no space in the directory.
        InvalidConfig: no stream would be left that was not attached.
    """
    path = checked_path(space)
    options, run = validated(DetachOptions, as_options(None, arguments, DetachOptions)), Run(path)
    if run.begun and not run.finished:
        raise MissingData(f"the run {path} is not finished", hint=f"sparc train --resume {path}")
    check_there(path)
    config = read_config(path)
    if not isinstance(stream, str):
        raise InvalidConfig(f"stream: expected a name, found {stream!r}", hint=f"one of {', '.join(config.streams)}")
    if stream not in config.streams:
        raise UnknownName(f"the space has no stream named '{stream}'", hint=f"its streams: {', '.join(config.streams)}")
    if list(config.founding) == [stream]:
        others = f", and {', '.join(config.attached)} was attached to it" if config.attached else ""
        raise InvalidConfig(
            f"{stream} is the only stream of {path} that was not attached{others}, so nothing is left without it",
            hint="keep it; attached ones can be detached",
        )
    default = f"{path.resolve().name}-without-{stream}"
    out = Path(options.out) if options.out is not None else Run.next_free(path.parent, default)
    Run.check_free(out)
    provenance = _without(run.provenance(), config, run, stream) if run.begun else None
    listener.loading(str(path))
    from sparc.storage.checkpoint import load
    from sparc.storage.detached import without

    left = without(load(path), stream)
    with owned(out, "wait until it ends; or choose another --out"):
        made = Run.create(out)
        if provenance is not None:
            made.write_provenance(provenance)
        # The weights are written last: without them the directory counts for nothing.
        left.save_pretrained(out, training=provenance.options.training() if provenance is not None else None)
    return out


def _without(provenance: Provenance, space: SpaceConfig, run: Run, stream: str) -> Provenance:
    """Return the provenance of a run without a stream."""
    known = {ref.alias: ref for ref in provenance.options.streams}
    streams = tuple(known.get(name, PluginRef(name=name, alias=name)) for name in space.streams if name != stream)
    last = Change(change="detached", stream=stream, run=str(run.path.resolve()))
    return provenance.model_copy(
        update={
            "command": tuple(program()),
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "random_weights": tuple(name for name in provenance.random_weights if name != stream),
            "streams": {name: origin for name, origin in provenance.streams.items() if name != stream},
            "features": {name: found for name, found in provenance.features.items() if name != stream},
            "options": provenance.options.model_copy(update={"stream": streams}),
            "changes": (*provenance.changes, last),
        }
    )
