"""The streams of a run: which there are, and what each of them reads. Imports no torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sparc.config import PluginRef
from sparc.errors import InvalidConfig, MissingData, UnknownName
from sparc.storage.run import Run


def checked_streams(run: Run, streams: Collection[str] = ()) -> dict[str, PluginRef]:
    """Return the backbones of a finished run by stream: those of `streams`, or all, in the run's order.

    Raises:
        MissingData: the run is not finished, or its features were imported, so its backbones are unknown.
        UnknownName: a stream that the run does not have.
    """
    options = run.provenance().options
    if options.features is not None:
        raise MissingData(
            f"the features of {run.path} were imported, so its backbones are not known",
            hint="train with --stream and --dataset; or give features of your own to sparc.load(...).encode",
        )
    if not run.finished:
        raise MissingData(f"the run {run.path} is not finished", hint=f"sparc train --resume {run.path}")
    known = {ref.alias: ref for ref in options.streams}
    for stream in streams:
        if stream not in known:
            raise UnknownName(f"the run has no stream named '{stream}'", hint=f"its streams: {', '.join(known)}")
    return {name: ref for name, ref in known.items() if name in streams or not streams}


def all_of(modalities: Mapping[str, str], modality: str) -> list[str]:
    """Return the streams of a modality. Raises InvalidConfig if there is none."""
    found = [stream for stream, reads in modalities.items() if reads == modality]
    if not found:
        raise InvalidConfig(
            f"expected a stream that reads {modality}, found {', '.join(modalities)}",
            hint=f"choose another stream of the run, or train with one that reads {modality}",
        )
    return found


def first_of(modalities: Mapping[str, str], modality: str) -> str:
    """Return the first stream of a modality. Raises InvalidConfig if there is none."""
    return all_of(modalities, modality)[0]
