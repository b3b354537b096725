"""Rows of a shard that is not complete yet: an extraction keeps them while it works, and a later one goes on from them.

A part holds whole batches, so the shard gets the bytes that it would have without an interruption. The parts of a shard
are removed when the shard is written.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from sparc.errors import CorruptFile, MissingData, SparcError
from sparc.extraction.features import BatchFeatures, WaitingTime
from sparc.storage.store import FEATURES, TOKENS, check_folder, part_path, part_paths, read_shard

if TYPE_CHECKING:
    from sparc.extraction.shards import StreamShards


KEEP_SECONDS = 15.0
"""Time after which the rows of a shard in work are kept, so that little is lost if the process is killed."""


class Rows(NamedTuple):
    """The first rows of a shard of one stream, as far as parts hold them."""

    features: Tensor
    """(rows, width) in the dtype of the store."""
    tokens: Tensor | None
    """(rows, patches, width); None if features of patches are not computed."""
    readable: list[bool]


class Wanted(NamedTuple):
    """Width, dtype and content that the parts of a stream must have."""

    width: int
    dtype: torch.dtype
    tokens: bool
    """True asks for features of patches too."""
    skipped: bool
    """True takes rows of samples that could not be read."""


def read_parts(directory: Path, number: int, ids: Sequence[str], wanted: Wanted) -> Rows | None:
    """Return the rows of a shard that parts hold, without a gap from its start; None if there are none."""
    features: list[Tensor] = []
    tokens: list[Tensor] = []
    readable: list[bool] = []
    there = set(part_paths(directory, number))
    while (path := part_path(directory, number, len(readable))) in there:
        try:
            found, skipped = _read(path, FEATURES, ids[len(readable) :])
            if wanted.tokens:
                patches = part_path(directory, number, len(readable), TOKENS)
                more, also = _read(patches, TOKENS, ids[len(readable) :])
                if also != skipped or len(more) != len(found):
                    break
                tokens.append(more)
        except (MissingData, CorruptFile, ValueError):
            break
        if (found.shape[1], found.dtype) != (wanted.width, wanted.dtype) or (skipped and not wanted.skipped):
            del tokens[len(features) :]
            break
        features.append(found)
        part = ids[len(readable) : len(readable) + len(found)]
        readable += [one not in skipped for one in part]
    if not features:
        return None
    return Rows(torch.cat(features), torch.cat(tokens) if wanted.tokens else None, readable)


def _read(path: Path, key: str, ids: Sequence[str]) -> tuple[Tensor, set[str]]:
    """Return the rows of a part and the samples that could not be read. Raises ValueError if `ids` are others."""
    found = read_shard(path, key=key, checked=True)
    if not found.ids or found.ids != list(ids[: len(found.ids)]):
        raise ValueError("a part holds other samples")
    check_folder(path, found)
    return found.features, set(found.skipped)


def joined(parts: dict[str, Rows | None]) -> BatchFeatures | None:
    """Return the rows that all streams have as one batch; None if a stream has none, or the streams disagree."""
    if not parts or any(one is None for one in parts.values()):
        return None
    every = {name: one for name, one in parts.items() if one is not None}
    count = min(len(one.readable) for one in every.values())
    readable = [one.readable[:count] for one in every.values()]
    if any(one != readable[0] for one in readable):
        return None
    return BatchFeatures(
        {name: one.features[:count].float() for name, one in every.items()},
        {name: one.tokens[:count] for name, one in every.items() if one.tokens is not None},
        readable[0],
    )


def remove_parts(directory: Path, number: int) -> None:
    """Remove the parts of a shard that is complete."""
    for path in part_paths(directory, number):
        path.unlink(missing_ok=True)


class Keeper:
    """Keeps the rows of a shard in work: every `KEEP_SECONDS`, and when the work is interrupted.

    A context manager around the work on one shard.
    """

    def __init__(
        self, shards: StreamShards, number: int, streams: Sequence[str], start: int, spent: WaitingTime
    ) -> None:
        self._shards, self._number, self._streams, self._spent = shards, number, streams, spent
        self._start = start
        """Row of the shard with which `_waiting` begins."""
        self._waiting: list[BatchFeatures] = []
        self._last = time.monotonic()

    def add(self, batch: BatchFeatures) -> None:
        """Take in a batch. Raises as `write_shard`."""
        self._waiting.append(batch)
        if time.monotonic() - self._last > KEEP_SECONDS:
            began = time.perf_counter()
            self._keep()
            self._spent.disk += time.perf_counter() - began

    def _keep(self) -> None:
        if self._waiting and self._shards.keep(self._number, self._streams, self._start, self._waiting):
            self._start += sum(len(one.readable) for one in self._waiting)
            self._waiting = []
        self._last = time.monotonic()

    def __enter__(self) -> None:
        """Begin the work on a shard."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Keep what an interruption or an error leaves undone."""
        if error is not None:
            with contextlib.suppress(SparcError):  # the first error says more
                self._keep()
