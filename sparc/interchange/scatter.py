"""Write the features of a source into shards of another order, and read the source once.

Compressed files, and files on slow disks, are fast only in storage order. So rows are read in that order, and each goes
to its shard. A shard is written as soon as its last row has arrived. If too many shards would be open at a time, rows
first go to buckets on disk, each with the rows of consecutive shards; then each bucket is read alone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparc.interchange.arrays import TEMPORARY
from sparc.system.refusals import reading, writing

OPEN_BYTES = 1 << 30
"""Size of the shards that are open at a time."""
MOST_BUCKETS = 256

Rows = NDArray[np.int64]
Block = tuple[Rows, NDArray[Any]]
"""Places of some rows in the order of the shards, and their features."""
WriteShard = Callable[[int, NDArray[np.float32]], None]


class Layout(NamedTuple):
    """Shards of all splits, one after the other: shard i holds the places from `lows[i]` to before `lows[i + 1]`."""

    lows: Rows
    """(shards + 1,)."""
    width: int

    def shard_of(self, places: Rows) -> Rows:
        """Return the number of the shard of each place."""
        found: Rows = np.searchsorted(self.lows, places, side="right") - 1
        return found


def scatter(blocks: Iterable[NDArray[Any]], places: Rows, layout: Layout, write: WriteShard, room: Path) -> None:
    """Call `write(number, features)` for each shard; places without a row are zero.

    `places` are those of all rows of the source, in storage order. Temporary files go into `room`.
    """
    shards = layout.shard_of(places)
    counts = np.bincount(shards, minlength=len(layout.lows) - 1)
    placed = _placed(blocks, places)
    if _fits(shards, layout):
        _fill(placed, counts, layout, write)
    else:
        _through_buckets(placed, shards, counts, layout, _Disk(room, write))
    for number in np.flatnonzero(counts == 0).tolist():
        write(number, _empty(layout, number))


def disk_bytes(places: Rows, layout: Layout, item_bytes: int, room: int) -> int:
    """Return how many bytes of disk `scatter` needs at a time, for shards and temporary files.

    `room` is the size of the temporary files of the source, which last until its last row is read.
    """
    shards = int(layout.lows[-1]) * layout.width * 4
    if _fits(layout.shard_of(places), layout):
        return shards + room
    buckets = len(places) * layout.width * item_bytes
    bucket = _bucket_bytes(layout) + _shard_bytes(layout)  # at most: the shard that begins in a bucket ends in it
    share = min(1.0, bucket / max(1, shards))  # a bucket is removed as soon as its shards are written
    return max(room + buckets, buckets + int(share * shards), shards + int(share * buckets))


def _fits(shards: Rows, layout: Layout) -> bool:
    """Return whether the shards that are open at a time fit into memory."""
    return _most_open(shards, len(layout.lows) - 1) * _shard_bytes(layout) <= OPEN_BYTES


def _shard_bytes(layout: Layout) -> int:
    """Return the size of the largest shard."""
    return int(np.diff(layout.lows).max()) * layout.width * 4


def _bucket_bytes(layout: Layout) -> int:
    total = int(layout.lows[-1]) * layout.width * 4
    return max(OPEN_BYTES, -(-total // MOST_BUCKETS))


def _placed(blocks: Iterable[NDArray[Any]], places: Rows) -> Iterator[Block]:
    low = 0
    for block in blocks:
        yield places[low : low + len(block)], block
        low += len(block)


def _most_open(shards: Rows, count: int) -> int:
    """Return how many shards are open at a time at most: from their first row in storage order to their last."""
    order = np.argsort(shards, kind="stable")
    numbers, first = np.unique(shards[order], return_index=True)
    last = np.append(first[1:], len(shards)) - 1
    opened = np.zeros(len(shards) + 1, np.int64)
    np.add.at(opened, order[first], 1)
    np.add.at(opened, order[last] + 1, -1)
    return int(opened.cumsum().max()) if len(numbers) else 0


def _fill(blocks: Iterable[Block], counts: Rows, layout: Layout, write: WriteShard) -> None:
    """Copy rows to their shards; write and forget each shard when its last row has arrived."""
    lacking = counts.copy()
    opened: dict[int, NDArray[np.float32]] = {}
    for places, features in blocks:
        for number, rows in _groups(layout.shard_of(places)):
            shard = opened.get(number)
            if shard is None:
                shard = opened[number] = _empty(layout, number)
            with np.errstate(over="ignore"):  # such a row is not finite, which an error says
                shard[places[rows] - layout.lows[number]] = features[rows]
            lacking[number] -= len(rows)
            if not lacking[number]:
                write(number, opened.pop(number))


def _groups(keys: Rows) -> Iterator[tuple[int, Rows]]:
    """Iterate over the distinct keys, with the rows of each."""
    order = np.argsort(keys, kind="stable")
    found, first = np.unique(keys[order], return_index=True)
    yield from zip(found.tolist(), np.split(order, first[1:]), strict=True)


def _empty(layout: Layout, number: int) -> NDArray[np.float32]:
    return np.zeros((int(layout.lows[number + 1] - layout.lows[number]), layout.width), np.float32)


class _Disk(NamedTuple):
    room: Path
    write: WriteShard


def _through_buckets(blocks: Iterable[Block], shards: Rows, counts: Rows, layout: Layout, disk: _Disk) -> None:
    """Divide rows among files, each for consecutive shards that fit into memory, then fill the shards of each."""
    bucket_of_shard = layout.lows[1:] * layout.width * 4 // (_bucket_bytes(layout) + 1)
    with tempfile.TemporaryDirectory(dir=disk.room, prefix=TEMPORARY) as folder:
        paths = {number: Path(folder) / str(number) for number in np.unique(bucket_of_shard).tolist()}
        pieces: dict[int, list[_Piece]] = {number: [] for number in paths}
        for places, features in blocks:
            for number, rows in _groups(bucket_of_shard[layout.shard_of(places)]):
                pieces[number].append(_Piece(places[rows], features.dtype))
                with writing(paths[number]), paths[number].open("ab") as file:
                    features[rows].tofile(file)
        for number, path in paths.items():
            if pieces[number]:
                mine = np.where(bucket_of_shard == number, counts, 0)
                _fill(_read_bucket(path, pieces.pop(number), layout.width), mine, layout, disk.write)
                path.unlink()


class _Piece(NamedTuple):
    """Consecutive rows of a bucket. Parts of a source may differ in their dtype."""

    places: Rows
    dtype: np.dtype[Any]


def _read_bucket(path: Path, pieces: list[_Piece], width: int) -> Iterator[Block]:
    with reading(path), path.open("rb") as file:
        for places, dtype in pieces:
            yield places, np.fromfile(file, dtype, len(places) * width).reshape(len(places), width)
