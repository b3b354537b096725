"""The verb `import`: features that were computed elsewhere, into a store. Rows are joined by id, never by position."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sparc.contracts import Sample
from sparc.datasets import held_out
from sparc.errors import BadFeatures, CorruptFile, InvalidConfig, MissingData
from sparc.files import sha256
from sparc.store import (
    SHARD_ROWS,
    Manifest,
    Shard,
    digest_ids,
    revoke_manifest,
    shard_path,
    write_manifest,
    write_samples,
    write_shard,
)

FEATURES = "features"
IDS = ("ids", "indices")
SPLITS = ("train", "test")
_FORMATS = ".npy, .npz, .safetensors, .parquet, .h5, .hdf5"


@dataclass(frozen=True)
class Source:
    """Features in a file."""

    path: Path
    ids: list[str]
    width: int
    read: Callable[[NDArray[np.int64]], Tensor]
    """Rows, in ascending order, as (rows, width)."""


@dataclass(frozen=True)
class Imported:
    """What an import wrote of one split."""

    split: str
    samples: int
    lacking: dict[str, list[str]]
    """By stream, the samples that it lacks."""


@contextlib.contextmanager
def open_source(path: Path, ids: Path | None = None) -> Iterator[Source]:
    """Open a file with `features` (N, d), and ids from a file of lines, else from its own `ids` or `indices` (N).

    Formats: .npy, .npz, .safetensors, .parquet (a row each: a list `features`, and an id), HDF5.

    Raises:
        MissingData: the file is not there, or a library to read it.
        CorruptFile: it cannot be read.
        InvalidConfig: it has no features, or no ids, or not as many, or one twice.
    """
    if not path.is_file():
        raise MissingData(f"features not found: {path}", hint="check the path")
    opener = _OPENERS.get(path.suffix)
    if opener is None:
        raise InvalidConfig(f"{path}: expected one of {_FORMATS}, found '{path.suffix}'", hint="convert the file")
    with contextlib.ExitStack() as stack:
        try:
            arrays = stack.enter_context(opener(path))
        except (OSError, ValueError, KeyError, BadZipFile) as error:
            raise CorruptFile(f"{path} cannot be read: {error}", hint="download or write it again") from error
        features = arrays.get(FEATURES)
        if features is None or len(features.shape) != 2:
            found = "none" if features is None else str(tuple(features.shape))
            raise InvalidConfig(
                f"{path}: expected 'features' of shape (samples, width), found {found}", hint="see docs"
            )
        names = _ids(path, arrays, ids)
        if len(names) != len(features):
            raise InvalidConfig(
                f"{path}: expected as many ids as features, found {len(names)} and {len(features)}",
                hint="give the ids of these rows, one per line, with --ids",
            )
        if len(set(names)) < len(names):
            twice = Counter(names).most_common(1)[0][0]
            raise InvalidConfig(
                f"{path}: expected ids that differ, found '{twice}' twice", hint="remove one of the two"
            )
        yield Source(path, names, int(features.shape[1]), lambda rows: _rows(features, rows))


def _ids(path: Path, arrays: Mapping[str, Any], file: Path | None) -> list[str]:
    if file is not None:
        if not file.is_file():
            raise MissingData(f"ids not found: {file}", hint="a text file with one id per line")
        return file.read_text(encoding="utf-8-sig").splitlines()
    for key in IDS:
        if key in arrays:
            return [one.decode() if isinstance(one, bytes) else str(one) for one in np.asarray(arrays[key][:]).tolist()]
    raise InvalidConfig(f"{path} has no ids: expected 'ids' or 'indices' in it", hint="give them with --ids FILE")


def _rows(features: Any, rows: NDArray[np.int64]) -> Tensor:
    if isinstance(features, Tensor):
        return features[torch.from_numpy(rows)]
    return torch.from_numpy(np.ascontiguousarray(features[rows]))


@contextlib.contextmanager
def _npy(path: Path) -> Iterator[Mapping[str, Any]]:
    yield {FEATURES: np.load(path, mmap_mode="r", allow_pickle=False)}


@contextlib.contextmanager
def _npz(path: Path) -> Iterator[Mapping[str, Any]]:
    # numpy leaves a file open that it has opened itself, and that is broken.
    with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
        yield {key: file[key] for key in (FEATURES, *IDS) if key in file}


@contextlib.contextmanager
def _safetensors(path: Path) -> Iterator[Mapping[str, Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            arrays: dict[str, Any] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise CorruptFile(f"{path} cannot be read: {error}", hint="download or write it again") from error
    if "ids" in metadata:
        arrays["ids"] = np.array(json.loads(metadata["ids"]))
    yield arrays


@contextlib.contextmanager
def _parquet(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise MissingData("reading Parquet needs pyarrow", hint="pip install pyarrow") from error
    table = pyarrow.parquet.read_table(path)
    arrays: dict[str, Any] = {key: np.array(table[key].to_pylist()) for key in IDS if key in table.column_names}
    if FEATURES in table.column_names:
        column = table[FEATURES].combine_chunks()
        arrays[FEATURES] = np.stack(column.to_numpy(zero_copy_only=False)) if len(column) else np.zeros((0, 0))
    yield arrays


@contextlib.contextmanager
def _hdf5(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise MissingData("reading HDF5 needs h5py", hint="pip install h5py") from error
    with h5py.File(path, "r") as file:
        yield {key: file[key] for key in (FEATURES, *IDS) if key in file}


_OPENERS = {
    ".npy": _npy,
    ".npz": _npz,
    ".safetensors": _safetensors,
    ".parquet": _parquet,
    ".h5": _hdf5,
    ".hdf5": _hdf5,
}


def import_features(
    sources: Mapping[str, Source], out: Path, *, split: str | None = None, holdout: float = 0.2
) -> list[Imported]:
    """Write the features of streams into `out`, which `sparc train --features` reads, aligned by their ids.

    A sample that some stream lacks gets a row of zeros there. Without `split`, a fraction `holdout` of the samples,
    drawn by their ids, is the split `test`. Rows are read some at a time.

    Raises:
        BadFeatures: a value is not finite; names stream and sample.
        InvalidConfig: no sample is left for a split, or no two streams have a sample in common.
        StorageError: the disk is full.
    """
    ids = list(dict.fromkeys(name for source in sources.values() for name in source.ids))
    if len(sources) > 1 and not set.intersection(*(set(source.ids) for source in sources.values())):
        shown = "; ".join(f"{name}: {', '.join(source.ids[:2])}, ..." for name, source in sources.items())
        raise InvalidConfig(f"no sample is in all streams: {shown}", hint="their ids must be written alike")
    chosen = {split: ids} if split is not None else _drawn(ids, holdout)
    empty = [name for name, members in chosen.items() if not members]
    if empty:
        raise InvalidConfig(f"no sample is left for the split '{empty[0]}'", hint="change --holdout, or give --split")
    return [_write_split(sources, out, name, members) for name, members in chosen.items()]


@dataclass(frozen=True)
class ImportedSamples:
    """Samples of which only ids and features are known: a dataset without images, captions and labels."""

    ids: tuple[str, ...]
    taxonomy: None = None

    @property
    def groups(self) -> tuple[str, ...]:
        """The ids: nothing is known to be shared."""
        return self.ids

    def __len__(self) -> int:
        """Count the samples."""
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        """Return a sample, which has nothing but its id."""
        return Sample(self.ids[index])

    def labels(self) -> None:
        """Nothing: no labels are known."""
        return


def _drawn(ids: Sequence[str], holdout: float) -> dict[str, list[str]]:
    """Held out or not, by the id alone."""
    chosen: dict[str, list[str]] = {name: [] for name in SPLITS}
    for name in ids:
        chosen["test" if held_out(name, holdout) else "train"].append(name)
    return chosen


def _write_split(sources: Mapping[str, Source], out: Path, split: str, ids: list[str]) -> Imported:
    lacking: dict[str, list[str]] = {}
    for name, source in sources.items():
        place = {one: row for row, one in enumerate(source.ids)}
        rows = np.array([place.get(one, -1) for one in ids])
        lacking[name] = [ids[missing] for missing in np.flatnonzero(rows < 0)]
        _write_stream(name, source, out / split / name, split, ids, rows)
    return Imported(split, len(ids), lacking)


def _write_stream(
    name: str, source: Source, directory: Path, split: str, ids: list[str], rows: NDArray[np.int64]
) -> None:
    revoke_manifest(directory)
    shards = []
    for number, low in enumerate(range(0, len(ids), SHARD_ROWS)):
        some = rows[low : low + SHARD_ROWS]
        features = torch.zeros(len(some), source.width)
        there = np.flatnonzero(some >= 0)
        order = there[np.argsort(some[there])]
        if len(order):
            features[torch.from_numpy(order)] = source.read(some[order]).float()
        path = shard_path(directory, number)
        write_shard(path, features, ids[low : low + SHARD_ROWS], stream=name)
        shards.append(Shard(file=path.name, rows=len(some), sha256=sha256(path)))
    if not shards:
        raise BadFeatures(f"stream '{name}' has no samples", hint="check the files")
    write_manifest(
        directory,
        Manifest(
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
        ),
    )
