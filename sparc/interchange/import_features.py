"""Import features: join files of features by sample id, and write them into a folder that training reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from sparc.errors import InvalidConfig
from sparc.interchange import SPLITS
from sparc.interchange.feature_files import Source
from sparc.plugins.contracts import Sample
from sparc.plugins.datasets import held_out
from sparc.storage.manifest import MANIFEST, Manifest, Shard, digest_ids, read_manifest, write_manifest
from sparc.storage.store import SHARD_ROWS, open_streams, shard_path, write_samples, write_shard
from sparc.system.files import sha256


@dataclass(frozen=True)
class ImportedSplit:
    """Summary of one imported split."""

    split: str
    samples: int
    lacking: dict[str, list[str]]
    """Ids of the samples that each stream lacks."""


def import_features(
    sources: Mapping[str, Source], out: Path, *, split: str | None = None, holdout: float = 0.2
) -> list[ImportedSplit]:
    """Write the features of several streams, aligned by sample id, into `out`, for `sparc train --features`.

    A sample that a stream lacks gets a row of zeros there. Without `split`, a fraction `holdout` of the samples, drawn
    by their ids, goes into the split `test`. Manifests are written last, so an interrupted import leaves none.

    Raises:
        BadFeatures: a value is not finite. The error names stream and sample.
        InvalidConfig: a split has no samples or none with two streams, a stream shares no sample with another, or `out`
            holds other features.
        StorageError: the disk is full.
    """
    ids = list(dict.fromkeys(name for source in sources.values() for name in source.ids))
    _check_shared(sources)
    chosen = {split: ids} if split is not None else _drawn(ids, holdout)
    empty = [name for name, members in chosen.items() if not members]
    if empty:
        raise InvalidConfig(f"no sample is left for the split '{empty[0]}'", hint="change --holdout, or give --split")
    _check_paired(sources, chosen)
    for name in SPLITS:
        _check_beside(out / name, name, sources, chosen)
    written = [_write_split(sources, out, name, members) for name, members in chosen.items()]
    for _, manifests in written:
        for directory, manifest in manifests.items():
            write_manifest(directory, manifest)
    return [imported for imported, _ in written]


def _check_shared(sources: Mapping[str, Source]) -> None:
    """Raise InvalidConfig if a stream has no sample in common with any other."""
    counts = Counter(one for source in sources.values() for one in source.ids)
    for name, source in sources.items():
        if len(sources) > 1 and all(counts[one] == 1 for one in source.ids):
            shown = "; ".join(f"{other}: {', '.join(some.ids[:2])}, ..." for other, some in sources.items())
            raise InvalidConfig(
                f"stream '{name}' has no sample in common with another: {shown}", hint="write their ids in the same way"
            )


def _check_paired(sources: Mapping[str, Source], chosen: Mapping[str, Sequence[str]]) -> None:
    """Raise InvalidConfig if no sample of a split has two streams."""
    counts = Counter(one for source in sources.values() for one in source.ids)
    for name, members in chosen.items():
        if len(sources) > 1 and all(counts[one] == 1 for one in members):
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
    others = set(open_streams({name: directory / name for name in there}).ids)
    if shared := next((one for members in chosen.values() for one in members if one in others), None):
        raise InvalidConfig(f"the sample '{shared}' is in {directory} too", hint="a sample belongs to one split")


@dataclass(frozen=True)
class ImportedSamples:
    """A dataset of imported samples, which have an id but no image, caption or label."""

    ids: tuple[str, ...]
    taxonomy: None = None

    @property
    def groups(self) -> tuple[str, ...]:
        """Ids of the samples: no two of them are known to belong together."""
        return self.ids

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        """Return one sample, which has an id only."""
        return Sample(self.ids[index])

    def labels(self) -> None:
        """Return None, since there are no labels."""
        return


def _drawn(ids: Sequence[str], holdout: float) -> dict[str, list[str]]:
    """Divide the ids into train and test. The draw depends on each id alone."""
    chosen: dict[str, list[str]] = {name: [] for name in SPLITS}
    for name in ids:
        chosen["test" if held_out(name, holdout) else "train"].append(name)
    return chosen


def _write_split(
    sources: Mapping[str, Source], out: Path, split: str, ids: list[str]
) -> tuple[ImportedSplit, dict[Path, Manifest]]:
    """Write the shards of a split, and return the manifests, which are written after all shards."""
    lacking: dict[str, list[str]] = {}
    manifests: dict[Path, Manifest] = {}
    for name, source in sources.items():
        place = {one: row for row, one in enumerate(source.ids)}
        rows = np.array([place.get(one, -1) for one in ids])
        lacking[name] = [ids[missing] for missing in np.flatnonzero(rows < 0)]
        directory = out / split / name
        manifests[directory] = _write_stream(name, source, directory, split, ids, rows)
    return ImportedSplit(split, len(ids), lacking), manifests


def _write_stream(
    name: str, source: Source, directory: Path, split: str, ids: list[str], rows: NDArray[np.int64]
) -> Manifest:
    """Write the shards of one stream, and return its manifest. `rows` are the ids' rows in the file, -1 if missing."""
    shards = []
    for number, low in enumerate(range(0, len(ids), SHARD_ROWS)):
        some = rows[low : low + SHARD_ROWS]
        features = torch.zeros(len(some), source.width)
        there = np.flatnonzero(some >= 0)
        order = there[np.argsort(some[there])]
        if len(order):
            features[torch.from_numpy(order)] = source.read(some[order])
        path = shard_path(directory, number)
        write_shard(path, features, ids[low : low + SHARD_ROWS], stream=name)
        shards.append(Shard(file=path.name, rows=len(some), sha256=sha256(path)))
    return Manifest(
        backbone=name,
        params={},
        weights=f"imported:sha256:{sha256(source.path)}",
        dataset="imported",
        split=split,
        width=source.width,
        dtype="float32",
        samples=len(ids),
        samples_sha256=digest_ids(ids),
        samples_file_sha256=write_samples(directory, ids, np.arange(len(ids))),
        shards=tuple(shards),
    )
