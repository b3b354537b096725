"""Features become the shards of their streams, for one modality and split. Complete shards are never computed again."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparc.errors import BadSample, CorruptFile, MissingData
from sparc.extraction.features import BatchFeatures, FeatureExtractor, dtype_of, stored
from sparc.extraction.items import Items
from sparc.extraction.parts import Wanted, joined, read_parts, remove_parts
from sparc.extraction.preprocessing import ItemBatch
from sparc.storage.manifest import (
    MANIFEST,
    Manifest,
    PatchTokens,
    Shard,
    digest_ids,
    is_complete,
    read_manifest,
    revoke_manifest,
    write_manifest,
)
from sparc.storage.store import (
    FEATURES,
    TOKENS,
    ShardContent,
    check_folder,
    part_path,
    part_paths,
    read_shard,
    shard_path,
    tokens_path,
    write_samples,
    write_shard,
)
from sparc.system.files import sha256
from sparc.system.refusals import reading

LEFTOVER_SECONDS = 3600


@dataclass(frozen=True)
class Destination:
    """Directory of a stream's features, and what its manifest records about their origin."""

    directory: Path
    backbone: str
    params: dict[str, Any]
    weights: str
    dataset: str
    split: str
    dtype: str = "float32"
    """Dtype of the stored features."""
    precision: str = "float32"
    mark: str | None = None
    """End of the directory's path that the shards repeat: split and stream; None if it depends on a path of weights."""
    exif: str | None = None
    preprocessing: Mapping[str, Any] | None = None
    versions: Mapping[str, str] | None = None


class StreamShards:
    """The shards of several streams with the same rows."""

    def __init__(
        self, items: Items, shard_rows: int, destinations: Mapping[str, Destination], extractor: FeatureExtractor
    ) -> None:
        self._items = items
        self._shard_rows = shard_rows
        self._destinations = destinations
        self._backbones = extractor.backbones
        self._skip_bad = extractor.options.skip_bad
        self._tokens = extractor.options.tokens is not None
        self._token_like: dict[str, Tensor] = {}
        """Empty tensor by stream, with the shape and dtype of its features of patches."""
        self._checked: set[tuple[Path, int, int]] = set()
        """Shards whose content fits their digest, with their size and time."""
        self._signed = {
            name: {shard.file: shard.sha256 for shard in read_manifest(one.directory).shards}
            for name, one in destinations.items()
            if is_complete(one.directory)
        }
        """Checksum of each shard of a manifest that is about to be revoked."""
        self._first = {name: file_state(one.directory / MANIFEST) for name, one in destinations.items()}
        """State of the manifests before this extraction."""
        self._headed: set[int] = set()
        """Shards whose headers fit."""
        self.count = -(-len(items) // shard_rows)
        for destination in destinations.values():
            _remove_leftovers(destination.directory)

    def rows(self, number: int) -> range:
        """Return the rows of a shard."""
        start = number * self._shard_rows
        return range(start, min(start + self._shard_rows, len(self._items)))

    def _ids(self, number: int) -> list[str]:
        return [self._items.ids[owner] for owner in self._owners(number)]

    def _owners(self, number: int) -> list[int]:
        rows = self.rows(number)
        owners: list[int] = self._items.owners[rows.start : rows.stop].tolist()
        return owners

    def folder(self, name: str) -> Path:
        """Return the folder of a stream's features."""
        return self._destinations[name].directory

    def lacking(self, number: int, *, checked: bool = True) -> tuple[str, ...]:
        """Return the streams for which a shard is missing or incomplete.

        Without `checked` only headers are read: a shard that another process writes has the right content.
        """
        if not checked and number in self._headed:
            return ()
        found = tuple(name for name in self._destinations if not self._complete(name, number, checked))
        if not found:
            self._headed.add(number)
        return found

    def _complete(self, name: str, number: int, checked: bool = True) -> bool:
        skipped = self._skipped(name, number, checked)
        return skipped is not None and (not self._tokens or self._has_tokens(name, number, skipped, checked))

    def _has_tokens(self, name: str, number: int, skipped: list[str], checked: bool) -> bool:
        try:
            tokens = self._content(name, tokens_path(self._destinations[name].directory, number), TOKENS, checked)
            # If other samples were skipped, these tokens belong to an earlier version of the features.
            return tokens.ids == self._ids(number) and tokens.skipped == skipped
        except (MissingData, CorruptFile):
            return False

    def _skipped(self, name: str, number: int, checked: bool = True) -> list[str] | None:
        """Return the samples skipped in a complete shard, or None if the shard must be computed."""
        path = shard_path(self._destinations[name].directory, number)
        try:
            found = self._content(name, path, checked=checked)
        except (MissingData, CorruptFile):
            return None
        if (found.features.shape[1], found.features.dtype) != (
            self._backbones[name].width,
            dtype_of(self._destinations[name].dtype),
        ):
            return None
        skipped = list(found.skipped)
        return skipped if found.ids == self._ids(number) and (self._skip_bad or not skipped) else None

    def _content(self, name: str, path: Path, key: str = FEATURES, checked: bool = True) -> ShardContent:
        """Return the content of a shard, whose digest is checked once as long as the file does not change.

        Raises MissingData; CorruptFile also for a shard of another stream.
        """
        state = file_state(path)
        checked = checked and (state is None or state not in self._checked)
        content = read_shard(path, key=key, checked=checked, sha=self._signed.get(name, {}).get(path.name))
        check_folder(path, content)
        if state is not None and checked:
            self._checked.add(state)
        return content

    def read_before(self, complete: Iterable[int]) -> int | None:
        """Return a sample that could be read when these shards were computed; None if there is none."""
        for number in complete:
            skipped = set(self._skipped(next(iter(self._destinations)), number) or ())
            for owner, name in zip(self._owners(number), self._ids(number), strict=True):
                if name not in skipped:
                    return owner
        return None

    def batches(self, number: int, streams: tuple[str, ...], size: int, start: int = 0) -> list[ItemBatch]:
        """Return the batches of a shard from its row `start` on.

        No batch spans two shards, so a shard's bytes don't depend on the process.
        """
        owners = self._owners(number)
        return [ItemBatch(owners[low : low + size], streams) for low in range(start, len(owners), size)]

    def kept(self, number: int, streams: Sequence[str]) -> list[BatchFeatures]:
        """Return the first rows of a shard that an interrupted extraction kept: one batch, or none."""
        ids = self._ids(number)
        found = {}
        for name in streams:
            destination = self._destinations[name]
            width, dtype = self._backbones[name].width, dtype_of(destination.dtype)
            wanted = Wanted(width, dtype, self._tokens, self._skip_bad)
            found[name] = read_parts(destination.directory, number, ids, wanted)
        batch = joined(found)
        return [] if batch is None else [batch]

    def keep(self, number: int, streams: Sequence[str], start: int, computed: Sequence[BatchFeatures]) -> bool:
        """Write rows of an incomplete shard, from `start` on. False: they cannot be kept yet."""
        if self._tokens and not all(self._has_token_rows(name, computed) for name in streams):
            return False
        readable = [read for one in computed for read in one.readable]
        ids = self._ids(number)[start : start + len(readable)]
        skipped = [sample for sample, read in zip(ids, readable, strict=True) if not read]
        for name in streams:
            directory = self._destinations[name].directory
            folder = "/".join(directory.absolute().parts[-3:])
            for key, rows in self._contents(name, computed):
                content = ShardContent(rows, ids, skipped, folder)
                write_shard(part_path(directory, number, start, key), content, stream=name, key=key)
        return True

    def _contents(self, name: str, computed: Sequence[BatchFeatures]) -> Iterator[tuple[str, Tensor]]:
        """Yield the tensors of rows as they are stored; features last, since they say that the rows are there."""
        if self._tokens:
            yield TOKENS, self._token_rows(name, computed)
        features = torch.cat([one.features[name] for one in computed])
        yield FEATURES, stored(features, dtype_of(self._destinations[name].dtype))

    def remove_parts(self, numbers: Iterable[int]) -> None:
        """Remove what was kept of shards that are complete now."""
        for destination in self._destinations.values():
            for number in numbers if part_paths(destination.directory) else ():
                remove_parts(destination.directory, number)

    def write(self, number: int, streams: Sequence[str], computed: Sequence[BatchFeatures]) -> None:
        """Write one shard for each of these streams."""
        ids = self._ids(number)
        readable = [read for one in computed for read in one.readable]
        skipped = [sample for sample, read in zip(ids, readable, strict=True) if not read]
        for name in streams:
            if self._complete(name, number):  # another process has written it meanwhile
                continue
            destination = self._destinations[name]
            revoke_manifest(destination.directory)  # a rewritten shard may have another checksum
            for key, rows in self._contents(name, computed):
                path = (tokens_path if key == TOKENS else shard_path)(destination.directory, number)
                content = ShardContent(rows, ids, skipped, destination.mark)
                write_shard(path, content, stream=name, key=key)
        self.remove_parts([number])

    def _has_token_rows(self, name: str, computed: Sequence[BatchFeatures]) -> bool:
        return name in self._token_like or any(name in one.tokens for one in computed)

    def _token_rows(self, name: str, computed: Sequence[BatchFeatures]) -> Tensor:
        """Return the features of patches of a shard, with zeros for samples that cannot be read."""
        for one in computed:
            if name in one.tokens:
                self._token_like[name] = one.tokens[name][:0]
        if name not in self._token_like:
            raise BadSample(
                "none of the samples so far can be read, so the width of patches is not known",
                hint="check the folder of the dataset",
            )
        like = self._token_like[name]
        blank = [like.new_zeros(len(one.readable), *like.shape[1:]) for one in computed]
        return torch.cat([one.tokens.get(name, zeros) for one, zeros in zip(computed, blank, strict=True)])

    def finish(self, name: str) -> Manifest | None:
        """Write a stream's manifest if all shards are complete, unless another process has done so meanwhile.

        Raises BadSample if no sample could be read.
        """
        destination = self._destinations[name]
        if file_state(destination.directory / MANIFEST) not in (None, self._first[name]):
            return read_manifest(destination.directory)
        if not all(self._complete(name, number) for number in range(self.count)):
            return None
        owners = {one for number in range(self.count) for one in self._skipped(name, number) or ()}
        bad = np.array([self._items.ids[owner] in owners for owner in self._items.owners], bool)
        if bad.all():
            raise BadSample(
                f"none of the {len(self._items.ids)} samples of the split '{destination.split}' can be read",
                hint="check the dataset's files and folders",
            )
        skipped = [self._items.ids[sample] for sample in np.flatnonzero(bad[self._items.rows])]
        tokens = None
        if self._tokens:
            rows, columns = self._backbones[name].grid  # type: ignore[attr-defined]
            tokens = PatchTokens(grid=(rows, columns), shards=self._shards(destination.directory, tokens_path))
        manifest = Manifest(
            backbone=destination.backbone,
            params=destination.params,
            weights=destination.weights,
            preprocessing=dict(destination.preprocessing or {}),
            precision=destination.precision,
            exif=destination.exif,
            dataset=destination.dataset,
            split=destination.split,
            width=self._backbones[name].width,
            dtype=destination.dtype,
            samples=len(self._items.ids),
            samples_sha256=digest_ids(self._items.ids),
            samples_file_sha256=write_samples(destination.directory, self._items.ids, self._items.rows),
            skipped=tuple(skipped),
            shards=self._shards(destination.directory, shard_path),
            tokens=tokens,
            versions=dict(destination.versions or {}),
        )
        write_manifest(destination.directory, manifest)
        return manifest

    def _shards(self, directory: Path, path_of: Callable[[Path, int], Path]) -> tuple[Shard, ...]:
        paths = [path_of(directory, number) for number in range(self.count)]
        return tuple(
            Shard(file=path.name, rows=len(self.rows(number)), sha256=sha256(path)) for number, path in enumerate(paths)
        )


def file_state(path: Path) -> tuple[Path, int, int] | None:
    """Return a path with the size and the time of its file, by which a changed file is noticed; None without a file."""
    with reading(path), contextlib.suppress(FileNotFoundError):
        found = path.stat()
        return path, found.st_size, found.st_mtime_ns
    return None


def _remove_leftovers(directory: Path) -> None:
    """Remove temporary files of killed extractions. Recent ones are kept: a running process may be writing them."""
    for leftover in directory.glob(".*.tmp"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - leftover.stat().st_mtime > LEFTOVER_SECONDS:
                leftover.unlink()
