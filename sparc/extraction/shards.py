"""Backbones of one modality over one split, into the shards of their streams. What is complete is never made again."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparc.errors import BadSample, CorruptFile, MissingData
from sparc.extraction.forward import Batch, Computed, Forward, Spent, dtype_of, stored
from sparc.extraction.items import Items, distinct
from sparc.plugins.contracts import Dataset
from sparc.storage.manifest import Manifest, PatchTokens, Shard, digest_ids, revoke_manifest, write_manifest
from sparc.storage.store import SHARD_ROWS, TOKENS, read_shard, shard_path, tokens_path, write_samples, write_shard
from sparc.system.files import sha256

LEFTOVER_SECONDS = 3600
Report = Callable[[int, int], None]
"""Called with the number of rows done so far, and of all that this process has to do."""


@dataclass(frozen=True)
class Target:
    """Where a stream's features go, and what its manifest says about where they came from."""

    directory: Path
    backbone: str
    params: dict[str, Any]
    weights: str
    dataset: str
    split: str
    dtype: str = "float32"
    """Of the features in the store."""
    precision: str = "float32"
    preprocessing: Mapping[str, Any] | None = None
    versions: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Part:
    """Which shards a process makes: those whose number leaves `number` when divided by `of`."""

    number: int = 0
    of: int = 1

    def has(self, shard: int) -> bool:
        """Whether a shard is this process's."""
        return shard % self.of == self.number


WHOLE = Part()


def extract_streams(
    dataset: Dataset,
    forward: Forward,
    targets: Mapping[str, Target],
    *,
    part: Part = WHOLE,
    shard_rows: int = SHARD_ROWS,
    spent: Spent | None = None,
    report: Report = lambda done, total: None,
) -> dict[str, Manifest | None]:
    """Write the features of all samples for each stream, going on where earlier calls stopped.

    Returns the manifests; None while shards of other processes are missing: whoever makes the last one writes it.

    Raises:
        BadSample: a sample cannot be read. Where skipping is asked for its row is zero: it lacks the stream.
        BadFeatures: a feature is not finite.
        PluginError: a backbone does not give what it promises.
        StorageError: the disk is full; complete shards stay.
    """
    spent = spent or Spent()
    items = distinct(dataset, forward.modality)
    work = _Work(items, shard_rows, targets, forward)
    mine = [number for number in range(work.n_shards) if part.has(number)]
    wanted = {number: lacking for number in mine if (lacking := work.lacking(number))}
    total = sum(len(work.rows(number)) for number in mine)
    done = total - sum(len(work.rows(number)) for number in wanted)
    report(done, total)
    size = forward.batch_size(dataset, items.owners.tolist()) if wanted else 1
    batches = {number: work.batches(number, lacking, size) for number, lacking in wanted.items()}
    computed = forward(dataset, list(chain.from_iterable(batches.values())), spent)
    with contextlib.closing(computed):
        for number, lacking in wanted.items():
            content = []
            for one in islice(computed, len(batches[number])):
                content.append(one)
                done += len(one.readable)
                report(done, total)
            began = time.perf_counter()
            work.write(number, lacking, content)
            spent.disk += time.perf_counter() - began
    return {name: work.finish(name) for name in targets}


class _Work:
    """The shards of some streams with the same rows."""

    def __init__(self, items: Items, shard_rows: int, targets: Mapping[str, Target], forward: Forward) -> None:
        self._items = items
        self._shard_rows = shard_rows
        self._targets = targets
        self._backbones = forward.backbones
        self._skip_bad = forward.how.skip_bad
        self._tokens = forward.how.tokens is not None
        self._token_like: dict[str, Tensor] = {}
        """By stream no rows of its patches' features, of the right shape and dtype."""
        self.n_shards = -(-len(items) // shard_rows)
        for target in targets.values():
            _remove_leftovers(target.directory)

    def rows(self, number: int) -> range:
        """The rows of a shard."""
        start = number * self._shard_rows
        return range(start, min(start + self._shard_rows, len(self._items)))

    def _ids(self, number: int) -> list[str]:
        return [self._items.ids[owner] for owner in self._owners(number)]

    def _owners(self, number: int) -> list[int]:
        rows = self.rows(number)
        owners: list[int] = self._items.owners[rows.start : rows.stop].tolist()
        return owners

    def lacking(self, number: int) -> tuple[str, ...]:
        """The streams for which a shard is still to be made."""
        return tuple(name for name in self._targets if not self._complete(name, number))

    def _complete(self, name: str, number: int) -> bool:
        return self._skipped(name, number) is not None and (not self._tokens or self._has_tokens(name, number))

    def _has_tokens(self, name: str, number: int) -> bool:
        try:
            tokens = read_shard(tokens_path(self._targets[name].directory, number), key=TOKENS)
            # Those of an extraction with other samples skipped were made beside other features.
            return tokens.ids == self._ids(number) and tokens.skipped == self._skipped(name, number)
        except (MissingData, CorruptFile):
            return False

    def _skipped(self, name: str, number: int) -> list[str] | None:
        """What was skipped in a shard that is complete; None where it must be made."""
        try:
            _, ids, skipped = read_shard(shard_path(self._targets[name].directory, number))
        except (MissingData, CorruptFile):
            return None
        return skipped if ids == self._ids(number) and (self._skip_bad or not skipped) else None

    def batches(self, number: int, streams: tuple[str, ...], size: int) -> list[Batch]:
        """The batches of a shard. None reaches into the next: the same shard is the same bytes, whoever makes it."""
        owners = self._owners(number)
        return [Batch(owners[low : low + size], streams) for low in range(0, len(owners), size)]

    def write(self, number: int, streams: Sequence[str], computed: Sequence[Computed]) -> None:
        """Write a shard of each of these streams."""
        ids = self._ids(number)
        readable = [read for one in computed for read in one.readable]
        skipped = [sample for sample, read in zip(ids, readable, strict=True) if not read]
        for name in streams:
            if self._complete(name, number):  # another process has made it meanwhile
                continue
            target = self._targets[name]
            revoke_manifest(target.directory)  # a shard may be made anew, and then its checksum is another
            if self._tokens:
                tokens, path = self._token_rows(name, computed), tokens_path(target.directory, number)
                write_shard(path, tokens, ids, stream=name, skipped=skipped, key=TOKENS)
            features = torch.cat([one.features[name] for one in computed])
            path = shard_path(target.directory, number)
            write_shard(path, stored(features, dtype_of(target.dtype)), ids, stream=name, skipped=skipped)

    def _token_rows(self, name: str, computed: Sequence[Computed]) -> Tensor:
        """Features of the patches of a shard; zeros for samples that cannot be read."""
        for one in computed:
            if name in one.tokens:
                self._token_like[name] = one.tokens[name][:0]
        if name not in self._token_like:
            raise BadSample(
                "none of the samples so far can be read, so the width of patches is not known",
                hint="look at the folder of the dataset",
            )
        like = self._token_like[name]
        blank = [like.new_zeros(len(one.readable), *like.shape[1:]) for one in computed]
        return torch.cat([one.tokens.get(name, zeros) for one, zeros in zip(computed, blank, strict=True)])

    def finish(self, name: str) -> Manifest | None:
        """Declare a stream complete; None where it is not. Raises BadSample where no sample could be read."""
        target = self._targets[name]
        if not all(self._complete(name, number) for number in range(self.n_shards)):
            return None
        owners = {one for number in range(self.n_shards) for one in self._skipped(name, number) or ()}
        bad = np.array([self._items.ids[owner] in owners for owner in self._items.owners], bool)
        if bad.all():
            raise BadSample(
                f"none of the {len(self._items.ids)} samples of the split '{target.split}' can be read",
                hint="look at the dataset's files and folders",
            )
        skipped = [self._items.ids[sample] for sample in np.flatnonzero(bad[self._items.rows])]
        tokens = None
        if self._tokens:
            rows, columns = self._backbones[name].grid  # type: ignore[attr-defined]
            tokens = PatchTokens(grid=(rows, columns), shards=self._shards(target.directory, tokens_path))
        manifest = Manifest(
            backbone=target.backbone,
            params=target.params,
            weights=target.weights,
            preprocessing=dict(target.preprocessing or {}),
            precision=target.precision,
            dataset=target.dataset,
            split=target.split,
            width=self._backbones[name].width,
            dtype=target.dtype,
            samples=len(self._items.ids),
            samples_sha256=digest_ids(self._items.ids),
            samples_file_sha256=write_samples(target.directory, self._items.ids, self._items.rows),
            skipped=tuple(skipped),
            shards=self._shards(target.directory, shard_path),
            tokens=tokens,
            versions=dict(target.versions or {}),
        )
        write_manifest(target.directory, manifest)
        return manifest

    def _shards(self, directory: Path, path_of: Callable[[Path, int], Path]) -> tuple[Shard, ...]:
        paths = [path_of(directory, number) for number in range(self.n_shards)]
        return tuple(
            Shard(file=path.name, rows=len(self.rows(number)), sha256=sha256(path)) for number, path in enumerate(paths)
        )


def _remove_leftovers(directory: Path) -> None:
    """Remove half-written files of killed extractions; a young one may belong to another process at work here."""
    for leftover in directory.glob(".*.tmp"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - leftover.stat().st_mtime > LEFTOVER_SECONDS:
                leftover.unlink()
