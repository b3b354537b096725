"""What `sparc train` does, for programs: features of a dataset, and a space trained on them and measured.

    train, test = sparc.features(dataset="image-folder", data_root="photos", stream=[...])
    fitted = sparc.fit(dataset="image-folder", data_root="photos", stream=[...], n_latents=8192, k=64)

Options are those of `sparc train`, with `_` where it has `-`, and `lambda_`. Nothing is printed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from sparc.config import OPTION_NAMES, RunConfig, suggestion
from sparc.core.space import present
from sparc.errors import InvalidConfig, MissingData
from sparc.evaluation import Report
from sparc.extraction import Job, directories, extract
from sparc.plugins.registry import Registry, discover
from sparc.session_measure import held_out, measure, samples_of
from sparc.session_options import jobs_of, merged, resolve_device, store_root
from sparc.storage.checkpoint import SharedLatentSpace
from sparc.storage.provenance import provenance
from sparc.storage.run import Run
from sparc.storage.store import FeatureStore, open_streams
from sparc.training.trainer import train

LOOKED_AT = 4096
"""Samples from which `common` is measured."""


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


def features(**options: Any) -> Features:
    """Open the features of a dataset's streams, raw; what the store lacks is extracted first.

    Raises the SparcError that `sparc extract` ends with.
    """
    registry = discover()
    train_split, test_split = _extracted(_resolved(options, registry), registry).values()
    return Features(open_streams(directories(train_split)), open_streams(directories(test_split)))


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
    space = SharedLatentSpace(resolved.space(found.widths), seed=resolved.seed).to(device)
    train(space, resolved.training(), found, run)
    tested, dataset = held_out(resolved, registry, test_split)
    samples = samples_of(tested, dataset, registry, test_split, device)
    return Fitted(path, space, measure(run, space, samples, tested, seed=resolved.seed).report)


def free_path(options: RunConfig) -> Path:
    """Where a new run goes: `out`, else `runs/DATASET`, or -2, -3, ... Raises InvalidConfig where something is."""
    path = options.out if options.out is not None else Run.next_free(Path("runs"), options.dataset.name)
    Run.check_free(path)
    return path


def create_run(path: Path, options: RunConfig, features: FeatureStore, device: str, *, command: Sequence[str]) -> Run:
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


def common(features: FeatureStore) -> dict[str, float]:
    """Measure per stream what its samples, on unit norm, have in common: the squared norm of their mean, 0 to 1.

    Near 1 they hardly differ to a space that normalises by `unit`. Looks at some thousand samples.
    """
    found = {}
    for name, shards in features.shards.items():
        step = max(1, sum(map(len, shards)) // LOOKED_AT)
        some_ND = torch.cat([rows[::step].float() for rows in shards])
        unit_ND = F.normalize(some_ND[present(some_ND)], dim=1)
        found[name] = float(unit_ND.mean(dim=0).square().sum())
    return found


def _resolved(said: dict[str, Any], registry: Registry) -> RunConfig:
    options = {}
    for given, value in said.items():
        name = given.rstrip("_").replace("_", "-")
        if name not in OPTION_NAMES:
            raise InvalidConfig(f"unknown parameter '{given}'", hint=suggestion(given, [*RunConfig.model_fields]))
        options[name] = value
    return merged(options, {}, registry).checked()


def _extracted(options: RunConfig, registry: Registry) -> dict[str, dict[str, Job]]:
    """The jobs of both splits, done."""
    jobs = jobs_of(options, registry, resolve_device(options.device))
    extract(job for streams in jobs.values() for job in streams.values())
    return jobs
