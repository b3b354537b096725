"""`complete`: fit the completion of a space that has none, such as a run of the paper's recipe or an imported one."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

from sparc.config import CompleteOptions, DataOptions, PlaceOptions, SpaceConfig, names, validated
from sparc.config.signatures import CompleteArguments
from sparc.errors import InUse, InvalidConfig, MisalignedStreams, MissingData, StorageError
from sparc.plugins.registry import discover
from sparc.session.data import Data
from sparc.session.listener import SILENT, Listener
from sparc.session.options import as_options, checked_path, resolved
from sparc.session.session import Session
from sparc.storage.nearby import check_there
from sparc.storage.run import Run
from sparc.storage.space_config import COMPLETION, read_config
from sparc.system.files import check_writable, remove_temporaries
from sparc.system.locks import owned


@dataclass(frozen=True)
class Completed:
    """A completion that was fitted and written beside its space."""

    path: Path
    """The file."""
    samples: int
    """Training samples that it was fitted on."""
    rank: int
    """Directions that guesses are made of; 0 if nothing can be guessed."""


def complete(space: str | Path, *, listener: Listener = SILENT, **arguments: Unpack[CompleteArguments]) -> Completed:
    """Fit the completion of a space in a directory to training features, as `sparc complete` does.

    A run knows its features. For another space, `features`, or `stream` and `dataset`, name them.

    Raises the SparcError that `sparc complete` ends with: InvalidConfig if the space has a completion or needs none,
    MissingData if there is none in the directory, MisalignedStreams if the features are not those of its streams.
    """
    directory, given = checked_path(space), as_options(None, arguments, CompleteOptions)
    kind = validated(CompleteOptions, dict(given)).completion
    given.pop("completion", None)
    run = Run(directory)
    if run.begun and not run.finished:
        raise MissingData(f"the run {directory} is not finished", hint=f"sparc train --resume {directory}")
    check_there(directory)
    config = read_config(directory)
    with contextlib.suppress(InUse, StorageError), owned(directory, ""):  # a kill after the last write leaves files
        remove_temporaries(directory)
    _check(directory, config)
    data = _data(directory, given, listener)
    if set(data.held_out_jobs) != set(config.streams):
        raise _misaligned(config, dict.fromkeys(data.held_out_jobs))
    check_writable(directory)
    data.extract()
    features = data.train
    if features.widths != config.streams and dict(sorted(features.widths.items())) != dict(
        sorted(config.streams.items())
    ):
        raise _misaligned(config, features.widths)
    listener.loading(str(directory))
    from sparc.storage.checkpoint import load
    from sparc.storage.completion_file import write_completion
    from sparc.training.trainer import completion_of

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", rf".*{re.escape(COMPLETION)} is missing")  # it is made now
        loaded = load(directory, device=data.device)
    listener.doing("summing means and covariances of the training features")
    completion = completion_of(loaded, features, kind)
    with owned(directory, "wait until it ends, then complete the space"):
        remove_temporaries(directory)
        write_completion(directory, completion)
    return Completed(directory / COMPLETION, len(features), completion.rank)


def _check(directory: Path, config: SpaceConfig) -> None:
    """Raise InvalidConfig if the space has a completion, or could not use one."""
    if (directory / COMPLETION).is_file():
        raise InvalidConfig(
            f"{directory} has a completion already", hint=f"to fit it again, remove {directory / COMPLETION} first"
        )
    if len(config.streams) == 1:
        raise InvalidConfig(
            f"{directory} has one stream, {next(iter(config.streams))}, so none can be missing",
            hint="encode as it is",
        )
    if len(config.founding) == 1:
        raise InvalidConfig(
            f"{next(iter(config.founding))} is the only stream of {directory} that was not attached, and attached "
            "streams are never guessed",
            hint="encode as it is",
        )
    if config.selection == "local":
        raise InvalidConfig(f"{directory} selects locally, so no stream selects for another", hint="encode as it is")


def _data(directory: Path, given: Mapping[str, Any], listener: Listener) -> Data:
    """Return the data of a run, or for another space the data that the options name."""
    run = Run(directory)
    if run.begun:
        own = [name for name in given if name in names(DataOptions)]
        if own:
            raise InvalidConfig(f"{directory} is a run, which has its own data, found --{own[0]}", hint="leave it out")
        session = Session.open(directory, validated(PlaceOptions, dict(given)), listener)
        session.check_finished()
        session.data.config = session.data.config.model_copy(update={"on_the_fly": False})  # it needs all features
        return session.data
    if not ("features" in given or "stream" in given):
        raise InvalidConfig(
            f"{directory} is no run, so its training features are not known",
            hint="give them: --features FOLDER, or --stream and --dataset",
        )
    registry = discover()
    return Data(resolved(given, registry).checked(), registry, listener=listener)


def _misaligned(config: SpaceConfig, found: Mapping[str, Any]) -> MisalignedStreams:
    def listed(widths: Mapping[str, Any]) -> str:
        return ", ".join(f"{name} {width}" if width else name for name, width in widths.items())

    return MisalignedStreams(
        f"expected the features of the space's streams, {listed(config.streams)}, found {listed(found)}",
        hint="give the features that the space was trained on; rename a stream by other=NAME",
    )
