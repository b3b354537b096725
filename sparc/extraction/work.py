"""The work of one process on the shards of some streams: alone, on a share of its own, or helping the others.

Processes that share a store claim each shard before they compute it: they own its lock, which the system frees when
they end in any way. A process that helps takes, once its own share is done, the last of the shards that are missing and
that nobody has claimed. So a slow process is helped, and the shards of a dead one are computed by the others.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from sparc.extraction.features import BatchFeatures, FeatureExtractor
from sparc.extraction.items import distinct
from sparc.extraction.parts import Keeper
from sparc.extraction.plan import WHOLE, Share
from sparc.extraction.preprocessing import ItemBatch
from sparc.extraction.shards import Destination, StreamShards
from sparc.plugins.contracts import Dataset
from sparc.storage.manifest import Manifest
from sparc.storage.store import SHARD_ROWS
from sparc.system.locks import HAS_LOCKS, LOCK, Owner, take

POLL = 1.0
"""Seconds between two looks at the shards that other processes compute."""
QUIET = 10.0
"""Seconds after which a process says for whom it waits."""
OnRows = Callable[[int, int], None]
"""Callback that receives the number of rows done so far, and the number of rows of this process's work."""


@dataclass
class Claim:
    """A shard that this process computes, for the streams that lack it."""

    number: int
    streams: tuple[str, ...]
    content: list[BatchFeatures]
    """Batches that are computed so far, after the rows that an interrupted extraction kept."""
    start: int
    """Number of rows that were kept."""
    locks: contextlib.ExitStack


class Claims:
    """Batches of the shards that this process computes. Each shard is claimed when its first batch is asked for."""

    def __init__(self, work: Work, first: Claim, numbers: Iterator[int], size: int, most: int) -> None:
        """Go on with `numbers` after the first shard; there are `most` batches at most."""
        self._work, self._numbers, self._size, self._most = work, numbers, size, most
        self.open = deque([first])
        """Shards that are claimed and not written yet, in the order of their batches."""

    def __len__(self) -> int:
        """Return the most batches that there can be."""
        return self._most

    def __iter__(self) -> Iterator[ItemBatch]:
        """Yield the batches. Call it once."""
        claim: Claim | None = self.open[0]
        while claim is not None:
            yield from self.batches(claim)
            if (claim := self._work.claim(self._numbers)) is not None:
                self.open.append(claim)

    def batches(self, claim: Claim) -> list[ItemBatch]:
        """Return the batches that a shard lacks."""
        return self._work.shards.batches(claim.number, claim.streams, self._size, claim.start)


class Work:
    """The work of one process on the shards of some streams of one modality and split."""

    def __init__(
        self,
        dataset: Dataset,
        extractor: FeatureExtractor,
        destinations: Mapping[str, Destination],
        *,
        share: Share = WHOLE,
        shard_rows: int = SHARD_ROWS,
        on_rows: OnRows = lambda done, total: None,
    ) -> None:
        """Find what this process's share lacks. Computes nothing."""
        self._dataset, self.extractor, self._share, self._on_rows = dataset, extractor, share, on_rows
        self._items = distinct(dataset, extractor.modality)
        self.shards = StreamShards(self._items, shard_rows, destinations, extractor)
        self._streams = tuple(destinations)
        mine = [number for number in range(self.shards.count) if share.has(number)]
        self._counted = {number for number in mine if self.shards.lacking(number)}
        """Shards of the share that are still to be claimed; `_total` counts them."""
        self._there = set(mine) - self._counted
        """Shards that this process has written or checked."""
        self.shards.remove_parts(sorted(self._there))  # of a process that was killed between two files
        self._total = sum(len(self.shards.rows(number)) for number in mine)
        self._done = self._total - sum(len(self.shards.rows(number)) for number in self._counted)
        self._told: tuple[int, int] | None = None
        self._size = 0
        self._distrusts = False
        """True to check the digests of shards that other processes wrote."""

    @property
    def helps(self) -> bool:
        """True if this process computes shards of others. Without locks two would compute the same ones."""
        return self._share.helps and self._share.of > 1 and HAS_LOCKS

    def run(self) -> dict[str, Manifest | None]:
        """Do the work, and if this process helps, until all shards are complete; return the manifests.

        Manifests and errors are those of `go_on`.
        """
        return self.wait() if self.helps else self.go_on()

    def go_on(self) -> dict[str, Manifest | None]:
        """Compute the shards of this process, and if it helps those that nobody has begun; return the manifests.

        A manifest is None while shards of other processes are missing.

        Raises:
            BadSample: a sample cannot be read. With `skip_bad` its row is zero instead, so the sample lacks the stream.
            BadFeatures: a feature is not finite.
            PluginError: a backbone breaks its contract.
            StorageError: the disk is full, or the dataset is gone; complete shards are kept.
        """
        while self._compute():
            pass
        self._tell()
        return {name: self._finish(name) for name in self._streams}

    def wait(self, say: Callable[[str], None] = lambda text: None) -> dict[str, Manifest | None]:
        """Help until all shards are complete; return the manifests. `say` hears for whom this process waits.

        Raises as `go_on`.
        """
        began, said = time.monotonic(), False
        while None in (found := self.go_on()).values():
            if not said and time.monotonic() - began > QUIET and (lock := self._taken()) is not None:
                said = True
                say(f"{lock.parent} lacks {lock.suffix[1:]}, which {Owner.read(lock)} computes; this process waits")
            time.sleep(POLL)
        return found

    def claim(self, numbers: Iterator[int]) -> Claim | None:
        """Claim the first of some shards that is missing and that no other process has claimed; None if there is none.

        Raises StorageError.
        """
        for number in numbers:
            checked = self._share.has(number) or self._distrusts
            streams = self.shards.lacking(number, checked=checked)
            locks = self._locked(number, streams) if streams else None
            # Another process may have written the shard before this one got its lock.
            streams = tuple(one for one in self.shards.lacking(number) if one in streams) if locks is not None else ()
            rows = len(self.shards.rows(number))
            if locks is None or not streams:
                if locks is not None:
                    locks.close()
                if number in self._counted:
                    self._counted.remove(number)
                    self._total -= rows
                continue
            self._total += rows * (number not in self._counted)
            self._counted.discard(number)
            content = self.shards.kept(number, streams)
            start = sum(len(one.readable) for one in content)
            self._done += start
            return Claim(number, streams, content, start, locks)
        return None

    def _locked(self, number: int, streams: tuple[str, ...]) -> contextlib.ExitStack | None:
        """Take the locks of a shard; None if another process has one. A process without others needs none."""
        with contextlib.ExitStack() as held:
            for name in streams if self._share.of > 1 else ():
                lock = take(self.shards.folder(name) / f"{LOCK}.shard-{number:05d}", patience=0)
                if lock is None:
                    return None
                held.callback(lock.release)
            return held.pop_all()

    def _candidates(self) -> list[int]:
        """Return the shards to try: those of this process in order; if it helps, then the others from the end."""
        numbers = [number for number in range(self.shards.count) if number not in self._there]
        others = [number for number in reversed(numbers) if not self._share.has(number)] if self.helps else []
        return [*(number for number in numbers if self._share.has(number)), *others]

    def _compute(self) -> bool:
        """Compute all shards that can be claimed. Returns False if there are none."""
        candidates = self._candidates()
        numbers = iter(candidates)
        first = self.claim(numbers)
        if first is None:
            return False
        self._tell()
        opened = deque([first])
        try:
            if not self._size:
                self._size = self.extractor.batch_size(self._dataset, self._items.owners.tolist())
            if self.extractor.witness is None:
                self.extractor.witness = self.shards.read_before(sorted(self._there))
            most = sum(-(-len(self.shards.rows(number)) // self._size) for number in candidates)
            claims = Claims(self, first, numbers, self._size, most)
            opened = claims.open
            computed = self.extractor(self._dataset, claims)
            with contextlib.closing(computed):
                while opened:
                    self._write(opened[0], islice(computed, len(claims.batches(opened[0]))))
                    opened.popleft().locks.close()
        finally:
            for claim in opened:
                claim.locks.close()
        return True

    def _write(self, claim: Claim, computed: Iterator[BatchFeatures]) -> None:
        """Write a shard with the batches that it lacks."""
        spent = self.extractor.spent
        keeper = Keeper(self.shards, claim.number, claim.streams, claim.start, spent)
        with keeper:
            for one in computed:
                claim.content.append(one)
                keeper.add(one)
                self._done += len(one.readable)
                self._tell()
        began = time.perf_counter()
        self.shards.write(claim.number, claim.streams, claim.content)
        spent.disk += time.perf_counter() - began
        self._there.add(claim.number)

    def _tell(self) -> None:
        if (now := (self._done, self._total)) != self._told:
            self._told = now
            self._on_rows(*now)

    def _finish(self, name: str) -> Manifest | None:
        """Write the manifest of a stream, or take that of the process that does; None while shards are missing."""
        if self._share.of == 1:
            return self.shards.finish(name)
        if any(name in self.shards.lacking(number, checked=False) for number in range(self.shards.count)):
            return None
        lock = take(self.shards.folder(name) / f"{LOCK}.manifest", patience=None)
        assert lock is not None
        try:
            found = self.shards.finish(name)
        finally:
            lock.release()
        self._distrusts |= found is None  # the headers fit, so a shard's content does not
        return found

    def _taken(self) -> Path | None:
        """Return the lock of a shard of another process."""
        found = (path for name in self._streams for path in self.shards.folder(name).glob(f"{LOCK}.shard-*"))
        return next(found, None)
