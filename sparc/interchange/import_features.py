"""Import features: join files of features by sample id, and write them into a folder that training reads."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sparc.errors import BadFeatures, InvalidConfig, StorageError
from sparc.interchange import SPLITS
from sparc.interchange.feature_files import Source
from sparc.interchange.journal import importing, journal
from sparc.interchange.sample_labels import Labelling, check_matched, write_labels
from sparc.interchange.scatter import Layout, disk_bytes, scatter
from sparc.plugins.datasets import held_out
from sparc.storage.manifest import MANIFEST, Manifest, Shard, digest_ids, read_manifest, write_manifest
from sparc.storage.store import SHARD_ROWS, ShardContent, read_ids, shard_path, write_samples, write_shard
from sparc.system.files import sha256
from sparc.system.refusals import writing

Ids = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class ImportedSplit:
    """Summary of one imported split."""

    split: str
    samples: int
    lacking: dict[str, list[str]]
    """Ids of the samples that each stream lacks."""
    labelled: int | None = None
    """Number of samples that have a label; None if no labels were given."""


def import_features(
    sources: Mapping[str, Source],
    out: Path,
    *,
    split: str | Mapping[str, str] | None = None,
    holdout: float = 0.2,
    labels: Labelling | None = None,
) -> list[ImportedSplit]:
    """Write the features of several streams, aligned by sample id, into `out`, for `sparc train --features`.

    A sample that a stream lacks gets a row of zeros there. `split` is that of all samples, or of each by its id.
    Without it, a fraction `holdout` of the samples, drawn by their ids, goes into the split `test`. `labels` are kept
    beside the features of each split; samples that they do not name have none. If all sources have positions as ids,
    those of a given split get its name as a prefix, `train/0`: position 0 of another split is another sample. Each
    source is read once, in storage order. An import that is killed leaves a journal, by which the next starts again.

    Raises:
        BadFeatures: a value is not finite, or all features of a sample are zero. The error names stream and sample.
        CorruptFile, InvalidConfig: a file is damaged or has rows of other widths.
        InvalidConfig: a split has no samples or none with two streams, a stream shares no sample with another, no
            sample has a label, or `out` holds other features.
        InUse: another process imports into `out`.
        StorageError: the disk is full.
    """
    with writing(out):
        if out.exists() and not out.is_dir():
            raise InvalidConfig(f"--out: expected a folder, found the file {out}", hint="choose another --out")
    with importing(out):
        return _import_owned(sources, out, split, holdout, labels)


def _import_owned(
    sources: Mapping[str, Source],
    out: Path,
    split: str | Mapping[str, str] | None,
    holdout: float,
    labels: Labelling | None,
) -> list[ImportedSplit]:
    prefix = _prefix(sources, split)
    ids = {name: [prefix + one for one in source.ids] if prefix else source.ids for name, source in sources.items()}
    if labels is not None:
        labels = labels._replace(labels={prefix + one: some for one, some in labels.labels.items()})
        check_matched(
            labels.labels, (one for some in ids.values() for one in some), all_samples=not isinstance(split, str)
        )
    _check_shared(ids)
    everything = list(dict.fromkeys(one for some in ids.values() for one in some))
    if isinstance(split, str):
        chosen = {split: everything}
    elif split is not None:
        chosen = {name: [one for one in everything if split[one] == name] for name in SPLITS}
    else:
        chosen = _drawn(everything, holdout)
    empty = [name for name, members in chosen.items() if not members]
    if empty:
        raise InvalidConfig(
            f"no sample is left for the split '{empty[0]}'", hint="change --holdout, or give --split; in Python, split="
        )
    _check_paired(ids, chosen)
    for name in SPLITS:
        _check_beside(out / name, name, sources, chosen)
    place = {one: number for number, one in enumerate(one for members in chosen.values() for one in members)}
    placed = {name: np.fromiter((place[one] for one in ids[name]), np.int64, len(ids[name])) for name in sources}
    targets = [_Target(name, source, out, chosen) for name, source in sources.items()]
    _check_space(out, targets, placed)
    lacking: dict[str, dict[str, list[str]]] = {name: {} for name in chosen}
    manifests: dict[Path, Manifest] = {}
    with journal(out, [out / name / stream for name in chosen for stream in sources]):
        for target in targets:
            for written, some in target.write(placed[target.stream]).items():
                lacking[written][target.stream] = some
            manifests |= target.manifests()
        labelled = {name: write_labels(out / name, ids, labels) for name, ids in chosen.items()} if labels else {}
        for directory, manifest in manifests.items():
            write_manifest(directory, manifest)
    return [ImportedSplit(name, len(members), lacking[name], labelled.get(name)) for name, members in chosen.items()]


def _prefix(sources: Mapping[str, Source], split: str | Mapping[str, str] | None) -> str:
    """Return what ids begin with: the split, if all ids are positions in it."""
    return f"{split}/" if isinstance(split, str) and all(source.positions for source in sources.values()) else ""


def _check_shared(ids: Ids) -> None:
    """Raise InvalidConfig if a stream has no sample in common with any other."""
    counts = Counter(one for some in ids.values() for one in some)
    for name, mine in ids.items():
        if len(ids) > 1 and all(counts[one] == 1 for one in mine):
            shown = "; ".join(f"{other}: {', '.join(some[:2])}, ..." for other, some in ids.items())
            raise InvalidConfig(
                f"stream '{name}' has no sample in common with another: {shown}", hint="write their ids in the same way"
            )


def _check_paired(ids: Ids, chosen: Mapping[str, Sequence[str]]) -> None:
    """Raise InvalidConfig if no sample of a split has two streams."""
    counts = Counter(one for some in ids.values() for one in some)
    for name, members in chosen.items():
        if len(ids) > 1 and all(counts[one] == 1 for one in members):
            raise InvalidConfig(
                f"none of the {len(members)} samples of the split '{name}' has two streams",
                hint="change --holdout, or give --split and files that share samples",
            )


def _check_beside(
    directory: Path, split: str, sources: Mapping[str, Source], chosen: Mapping[str, Sequence[str]]
) -> None:
    """Raise InvalidConfig if the split exists already, or does not fit: other streams, or samples in both splits."""
    there = {path.parent.name: read_manifest(path.parent) for path in directory.glob(f"*/{MANIFEST}")}
    if not there:
        return
    if split in chosen:
        raise InvalidConfig(f"{directory} already holds imported features", hint="remove it, or choose another --out")
    widths = {name: source.width for name, source in sources.items()}
    if (found := {name: manifest.width for name, manifest in there.items()}) != widths:
        raise InvalidConfig(
            f"expected the streams and widths of {directory}, {found}, found {widths}", hint="choose another --out"
        )
    name, manifest = next(iter(there.items()))
    others = set(read_ids(directory / name, manifest))
    if shared := next((one for members in chosen.values() for one in members if one in others), None):
        counted = shared.isdecimal() and not all(source.positions for source in sources.values())
        positions = "; save numbers that count the rows of each split as 'indices', or give --ids" if counted else ""
        raise InvalidConfig(
            f"the sample '{shared}' is in {directory} too", hint=f"a sample belongs to one split{positions}"
        )


def _check_space(out: Path, targets: Sequence[_Target], placed: Mapping[str, NDArray[np.int64]]) -> None:
    """Raise StorageError if features and temporary files are known to need more space than the disk has."""
    needed = before = 0
    for target in targets:
        source, layout = target.source, target.layout
        item_bytes = max(part.item_bytes for part in source.parts)
        room = max(part.room for part in source.parts)
        needed = max(needed, before + disk_bytes(placed[target.stream], layout, item_bytes, room))
        before += int(layout.lows[-1]) * layout.width * 4
    place = out.absolute()
    with writing(out):
        while not place.exists():
            place = place.parent
        free = shutil.disk_usage(place).free
    if needed > free:
        raise StorageError(
            f"expected {needed / 2**20:,.1f} MiB of free space for {out}, found {free / 2**20:,.1f} MiB",
            hint="free some space, or choose another disk with --out",
        )


def _drawn(ids: Sequence[str], holdout: float) -> dict[str, list[str]]:
    """Divide the ids into train and test. The draw depends on each id alone."""
    chosen: dict[str, list[str]] = {name: [] for name in SPLITS}
    for name in ids:
        chosen["test" if held_out(name, holdout) else "train"].append(name)
    return chosen


class _Place(NamedTuple):
    """Shard `number` of a split, with the samples from `low` to `high` of the split."""

    split: str
    number: int
    low: int
    high: int


class _Target:
    """Shards of one stream, in all splits."""

    def __init__(self, stream: str, source: Source, out: Path, chosen: Ids) -> None:
        self.stream, self.source, self.out, self.chosen = stream, source, out, chosen
        self.places = [
            _Place(split, number, low, min(low + SHARD_ROWS, len(ids)))
            for split, ids in chosen.items()
            for number, low in enumerate(range(0, len(ids), SHARD_ROWS))
        ]
        self.layout = Layout(
            np.cumsum([0, *(place.high - place.low for place in self.places)], dtype=np.int64), source.width
        )
        self.there = np.zeros(int(self.layout.lows[-1]), bool)
        self.row_places = np.zeros(0, np.int64)
        """Places of the source's rows."""
        self.zeros: list[int] = []
        """Places of rows that are all zero in the source."""
        self.shards: dict[int, Shard] = {}

    def write(self, places: NDArray[np.int64]) -> dict[str, list[str]]:
        """Write all shards. `places` are those of the source's rows. Return the ids by split that the stream lacks.

        Raises BadFeatures if a row of the source is not finite or all zero.
        """
        self.there[places] = True
        self.row_places = places
        room = self.out / next(iter(self.chosen)) / self.stream
        with writing(room):
            room.mkdir(parents=True, exist_ok=True)
        scatter(self.source.blocks(room), places, self.layout, self._write_shard, room)
        if self.zeros:
            rows = np.flatnonzero(np.isin(places, self.zeros))
            raise BadFeatures(
                f"stream '{self.stream}': expected features other than zero, found rows of zeros, {len(rows)} in all, "
                f"the first in {self.source.where(int(rows[0]))} (sample '{self.source.ids[rows[0]]}')",
                hint=f"zeros mean that a sample lacks the stream: {self.source.advice}",
            )
        absent = iter(np.split(self.there, np.cumsum([len(ids) for ids in self.chosen.values()])[:-1]))
        return {
            split: [ids[number] for number in np.flatnonzero(~next(absent)).tolist()]
            for split, ids in self.chosen.items()
        }

    def _write_shard(self, number: int, features: NDArray[np.float32]) -> None:
        split, in_split, low, high = self.places[number]
        ids = self.chosen[split][low:high]
        first = int(self.layout.lows[number])
        there = self.there[first : first + len(ids)]
        self.zeros += (first + np.flatnonzero(there & ~features.any(axis=1))).tolist()
        path = shard_path(self.out / split / self.stream, in_split)
        try:
            write_shard(path, ShardContent(torch.from_numpy(features), ids), stream=self.stream)
        except BadFeatures:
            raise self._not_finite(first, features) from None
        self.shards[number] = Shard(file=path.name, rows=high - low, sha256=sha256(path))

    def _not_finite(self, first: int, features: NDArray[np.float32]) -> BadFeatures:
        wrong = first + int(np.argmin(np.isfinite(features).all(axis=1)))
        row = int(np.flatnonzero(self.row_places == wrong)[0])
        return BadFeatures(
            f"stream '{self.stream}' has a feature that is not finite at sample '{self.source.ids[row]}', "
            f"{self.source.where(row)}: NaN, infinite, or larger than float32 holds, 3.4e38",
            hint=f"{self.source.advice}; or replace them by finite numbers",
        )

    def manifests(self) -> dict[Path, Manifest]:
        """Write the list of samples of each split, and return the manifests by directory."""
        weights = f"imported:sha256:{self.source.digest()}"
        found = {}
        for split, ids in self.chosen.items():
            directory = self.out / split / self.stream
            found[directory] = Manifest(
                backbone=self.stream,
                params={},
                weights=weights,
                dataset="imported",
                split=split,
                width=self.source.width,
                dtype="float32",
                samples=len(ids),
                samples_sha256=digest_ids(ids),
                samples_file_sha256=write_samples(directory, ids, np.arange(len(ids))),
                shards=tuple(self.shards[number] for number, place in enumerate(self.places) if place.split == split),
            )
        return found
