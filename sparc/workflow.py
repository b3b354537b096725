"""What `sparc train` does, for programs: features of a dataset, and a space trained on them and measured.

    train, test = sparc.features(dataset="image-folder", data_root="photos", stream=[...])
    fitted = sparc.fit(dataset="image-folder", data_root="photos", stream=[...], n_latents=8192, k=64)

Options are those of `sparc train`, with `_` where it has `-`, and `lambda_`. Nothing is printed.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from sparc.checkpoint import SharedLatentSpace
from sparc.config import OPTION_NAMES, RunOptions, suggestion
from sparc.errors import InvalidConfig, MissingData, SparcError, remade
from sparc.evaluate import Report
from sparc.extract import Job, directories, extract
from sparc.measure import held_out, measure, samples_of
from sparc.options import jobs_of, merged, resolve_device, store_root
from sparc.plugins import Registry, discover
from sparc.provenance import provenance
from sparc.run import Run
from sparc.store import FeatureStore, open_streams
from sparc.train import train

_ARGUMENTS = dict(zip(OPTION_NAMES, RunOptions.model_fields, strict=True))
_NAMES = "|".join(OPTION_NAMES)
_FLAG = re.compile(rf"--({_NAMES})(?![\w-])(?: ('[^']*'|[A-Z]+))?")
# Quoted, or part of a path, it is what the user gave.
_BARE = re.compile(rf"(?<![\w/.'-])({'|'.join(name for name in OPTION_NAMES if '-' in name)})(?![\w/.'-])|^lambda(?=:)")


@contextlib.contextmanager
def _arguments_named() -> Iterator[None]:
    """Let errors name options as arguments, `n_latents` and `lambda_`; the commands in them stay as they are."""
    try:
        yield
    except SparcError as error:
        renamed = remade(type(error), _renamed(error.message), _renamed(error.hint))
        raise renamed.with_traceback(error.__traceback__) from error.__cause__


def _renamed(text: str) -> str:
    said, *command = re.split(r"(?=\bsparc [a-z])", text, maxsplit=1)
    said = _BARE.sub(lambda bare: _ARGUMENTS[bare[0]], _FLAG.sub(_argument, said))
    return "".join([said, *command])


def _argument(flag: re.Match[str]) -> str:
    name, value = _ARGUMENTS[flag[1]], flag[2]
    if value is None:
        return name
    return f"{name}=[{value}]" if name == "stream" else f"{name}={value}"


class Features(NamedTuple):
    """Features of the samples to train on and of those held out."""

    train: FeatureStore
    test: FeatureStore


@dataclass(frozen=True)
class Fitted:
    """A trained space, and what was measured of it on held-out samples."""

    path: Path
    """The run: `sparc.load`, `sparc explore` and the other commands take it."""
    space: SharedLatentSpace
    report: Report


@_arguments_named()
def features(**options: Any) -> Features:
    """Open the features of a dataset's streams, raw; what the store lacks is extracted first.

    Raises the SparcError that `sparc extract` ends with.
    """
    registry = discover()
    train_split, test_split = _extracted(_resolved(options, registry), registry).values()
    return Features(open_streams(directories(train_split)), open_streams(directories(test_split)))


@_arguments_named()
def fit(**options: Any) -> Fitted:
    """Train a space and measure it on held-out samples: all that `sparc train` does, into a new run (`out`).

    An interrupted training is gone on with by `sparc train --resume`. Raises the SparcError that `sparc train` ends
    with.
    """
    registry = discover()
    resolved = _resolved(options, registry)
    path, device = free_path(resolved), resolve_device(resolved.device)
    train_split, test_split = _extracted(resolved, registry).values()
    found = open_streams(directories(train_split))
    missing(found)
    run = create_run(path, resolved, found, device, command=sys.argv)
    widths, rows = found.widths, found.rows
    space = train(resolved.space(widths), resolved.training(), found.shards, run, rows=rows, device=device)
    assert space is not None  # nobody can stop it
    tested, dataset = held_out(resolved, registry, test_split)
    samples = samples_of(tested, dataset, registry, test_split, device)
    return Fitted(path, space, measure(run, space, samples, tested, seed=resolved.seed).report)


def free_path(options: RunOptions) -> Path:
    """Where a new run goes: `out`, else `runs/DATASET`, or -2, -3, ... Raises InvalidConfig where something is."""
    path = options.out if options.out is not None else Run.next_free(Path("runs"), options.dataset.name)
    Run.check_free(path)
    return path


def create_run(path: Path, options: RunOptions, features: FeatureStore, device: str, *, command: Sequence[str]) -> Run:
    """Make a run that knows where it comes from. Raises InvalidConfig, StorageError."""
    run = Run.create(path)
    placed = options.model_copy(update={"store": store_root(options)})
    run.write_provenance(provenance(placed, features, device=device, command=command))
    return run


def missing(features: FeatureStore) -> dict[str, int]:
    """Count per stream the samples that lack it. Raises MissingData where all do."""
    found = features.missing()
    for name, count in found.items():
        if count == len(features):
            raise MissingData(
                f"no sample has the stream '{name}': all its features are zero", hint="check its backbone"
            )
    return found


def _resolved(said: dict[str, Any], registry: Registry) -> RunOptions:
    options = {}
    for given, value in said.items():
        name = given.rstrip("_").replace("_", "-")
        if name not in OPTION_NAMES:
            raise InvalidConfig(f"unknown parameter '{given}'", hint=suggestion(given, [*RunOptions.model_fields]))
        options[name] = value
    return merged(options, {}, registry).checked()


def _extracted(options: RunOptions, registry: Registry) -> dict[str, dict[str, Job]]:
    """The jobs of both splits, done."""
    jobs = jobs_of(options, registry, resolve_device(options.device))
    extract(job for streams in jobs.values() for job in streams.values())
    return jobs
