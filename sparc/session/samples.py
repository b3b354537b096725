"""A few samples for a rehearsal or a probe: some of those in the store, or random ones of the same widths."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import TYPE_CHECKING, Any

from sparc.extraction import Job, Progress
from sparc.storage.manifest import read_manifest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

    from sparc.evaluation import HeldOut
    from sparc.storage.store import FeatureStore
    from sparc.training.loader import FeaturesInMemory


HELD_OUT, FEWEST = 256, 8
CAUSES, NOISE = 256, 0.3
"""Numbers that the random features of a sample follow from, at most, and the spread of what they do not explain.
Completions of real features have ranks from 128 to 512."""
ALIVE = 2**14
"""Latents that a few held-out samples may activate: the search for latents with like decoders takes time with the
square of the active ones."""


def few_held_out(k: int, streams: int) -> int:
    """Return how many held-out samples, from FEWEST to HELD_OUT, activate at most ALIVE latents."""
    return max(FEWEST, min(HELD_OUT, ALIVE // (k * streams)))


def samples_of(jobs: Mapping[str, Job], probed: Sequence[tuple[Progress, Mapping[str, Any]]]) -> int:
    """Return the number of samples of a split, from what `Data.probe` found, or from the store."""
    job = next(iter(jobs.values()))
    tried = [one["samples"] for progress, one in probed if progress.split == job.split]
    return int(tried[0]) if tried else read_manifest(job.directory).samples


def widths_of(jobs: Mapping[str, Job], probed: Sequence[tuple[Progress, Mapping[str, Any]]]) -> dict[str, int]:
    """Return the width of each stream of a split, from what `Data.probe` found, or from the store."""
    known = {name: width for _, one in probed for name, width in one["widths"].items()}
    return {name: known[name] if name in known else read_manifest(job.directory).width for name, job in jobs.items()}


def random_features(widths: Mapping[str, int], count: int) -> FeaturesInMemory:
    """Draw features of `count` samples, which streams share as those of real backbones do.

    Streams without anything in common would have no completion, which takes time and disk.
    """
    import torch

    from sparc.training.loader import FeaturesInMemory

    draw = torch.Generator().manual_seed(0)
    size = min(CAUSES, max(widths.values()))
    causes_NC = torch.randn(count, size, generator=draw)
    shards = {}
    for name, width in widths.items():
        noise_ND = NOISE * torch.randn(count, width, generator=draw)
        shards[name] = [causes_NC @ torch.randn(size, width, generator=draw) + noise_ND]
    return FeaturesInMemory(shards)


def some_features(features: FeatureStore, count: int) -> FeaturesInMemory:
    """Copy the features of `count` samples from all over the store."""
    from sparc.training.loader import FeaturesInMemory

    return FeaturesInMemory({name: [rows] for name, rows in features.some(_spread(len(features), count)).items()})


def some_held_out(held_out: HeldOut, count: int) -> HeldOut:
    """Return `count` of the held-out samples, evenly spread: neighbours often have the same labels."""
    every = len(held_out.groups)
    if count >= every:
        return held_out
    chosen = _spread(every, count)
    numbers = chosen.tolist()
    rows, captions, labels = held_out.rows, held_out.captions, held_out.labels
    return replace(
        held_out,
        features={name: x_ND[chosen.to(x_ND.device)] for name, x_ND in held_out.features.items()},
        groups=[held_out.groups[number] for number in numbers],
        labels=None if labels is None else labels[numbers],
        captions=None if captions is None else _Chosen(captions, frozenset(numbers), every),
        rows=None if rows is None else {name: row_N[chosen] for name, row_N in rows.items()},
    )


def _spread(every: int, count: int) -> Tensor:
    import torch

    return torch.linspace(0, every - 1, min(count, every), dtype=torch.float64).long()


@dataclass(frozen=True)
class _Chosen:
    """Some captions, read only when they are needed."""

    captions: Iterable[str | None]
    numbers: frozenset[int]
    every: int

    def __iter__(self) -> Iterator[str | None]:
        return compress(self.captions, (number in self.numbers for number in range(self.every)))
