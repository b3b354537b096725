"""Read a file of features: .npy, .npz, safetensors, Parquet or HDF5.

torch and the libraries of the formats are imported only after the file was found.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sparc.errors import CorruptFile, InvalidConfig, MissingData, SparcError

if TYPE_CHECKING:
    from torch import Tensor

READ_ROWS = 1024
"""Rows of a Parquet file that are converted at a time."""
FEATURES = "features"
IDS = ("ids", "indices")
"""Names under which a file may hold its ids."""
_LINE = "np.savez(file, features=x, ids=ids)"
_FORMATS = ".npy, .npz, .safetensors, .parquet, .h5, .hdf5"


@dataclass(frozen=True)
class Source:
    """An open file of features, with the ids of its N samples."""

    path: Path
    ids: list[str]
    width: int
    read: Callable[[NDArray[np.int64]], Tensor]
    """`read(rows)` returns the features (rows, d) of row numbers in ascending order, as float32."""


@contextlib.contextmanager
def open_source(path: Path, ids: Path | None = None) -> Iterator[Source]:
    """Open a file with `features` (N, d) and `ids` or `indices` (N). The text file `ids` supplies ids that it lacks.

    A Parquet file has a row for each sample, with a list `features` and an id. The text file has an id in each line.
    npz and Parquet files are read into memory.

    Raises:
        MissingData: the file does not exist, or the library that reads it is not installed.
        CorruptFile: the file cannot be read.
        InvalidConfig: the file has no features or no ids, their numbers differ, or an id occurs twice.
    """
    if not path.is_file():
        raise MissingData(f"features not found: {path}", hint="check the path")
    opener = _OPENERS.get(path.suffix)
    if opener is None:
        raise InvalidConfig(f"{path}: expected one of {_FORMATS}, found '{path.suffix}'", hint="convert the file")
    with contextlib.ExitStack() as stack:
        try:
            arrays = stack.enter_context(opener(path))
            features, names = _features(path, arrays.get(FEATURES)), _ids(path, arrays, ids)
        except SparcError:
            raise
        except Exception as error:  # each of five libraries raises a dozen unrelated types for broken files
            raise CorruptFile(f"{path} cannot be read: {error}", hint="download or write it again") from error
        if len(names) != len(features):
            raise InvalidConfig(
                f"{path}: expected as many ids as features, found {len(names)} and {len(features)}",
                hint="give the ids of these rows, one per line, with --ids",
            )
        if len(set(names)) < len(names):
            twice = Counter(names).most_common(1)[0][0]
            raise InvalidConfig(f"{path}: expected unique ids, found '{twice}' twice", hint="remove one of the two")
        yield Source(path, names, int(features.shape[1]), lambda rows: _rows(features, rows))


def _features(path: Path, features: Any) -> Any:
    """Return features (N, d) unchanged. Raises InvalidConfig for another shape or type."""
    shape = None if features is None else getattr(features, "shape", ())
    if shape is None or len(shape) != 2:
        found = "none" if shape is None else str(tuple(shape))
        raise InvalidConfig(
            f"{path}: expected 'features' of shape (samples, width), found {found}",
            hint=f"save them under that name: {_LINE}" if path.suffix == ".npz" else "save them under that name",
        )
    kind = getattr(features.dtype, "kind", None)  # a torch dtype has none
    if not (features.is_floating_point() if kind is None else kind in "fiu"):
        raise InvalidConfig(f"{path}: expected real numbers as 'features', found {features.dtype}", hint="convert them")
    return features


def _ids(path: Path, arrays: Mapping[str, Any], file: Path | None) -> list[str]:
    """Return the ids in the file, or else those in the text file. A file with ids is never joined by row number."""
    for key in IDS:
        if key in arrays:
            found = np.asarray(arrays[key][:])
            if found.ndim != 1 or found.dtype.kind not in "iuSUO":
                raise InvalidConfig(
                    f"{path}: expected '{key}' as texts or whole numbers, one per row, found {found.dtype} of shape "
                    f"{found.shape}",
                    hint="convert them",
                )
            return [one.decode() if isinstance(one, bytes) else str(one) for one in found.tolist()]
    if file is None:
        line = f", or write them too: {_LINE}" if path.suffix == ".npz" else ""
        raise InvalidConfig(
            f"{path} has no ids: expected 'ids' or 'indices' in it", hint=f"give them with --ids FILE{line}"
        )
    try:
        return file.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError as error:
        raise MissingData(f"ids not found: {file}", hint="a text file with one id per line") from error
    except UnicodeDecodeError as error:
        raise InvalidConfig(f"{file} is not UTF-8 text: {error}", hint="save it as UTF-8") from error


def _rows(features: Any, rows: NDArray[np.int64]) -> Tensor:
    import torch

    if isinstance(features, torch.Tensor):
        return features[torch.from_numpy(rows)].float()
    return torch.from_numpy(np.ascontiguousarray(features[rows], dtype=np.float32))


@contextlib.contextmanager
def _npy(path: Path) -> Iterator[Mapping[str, Any]]:
    yield {FEATURES: np.load(path, mmap_mode="r", allow_pickle=False)}


@contextlib.contextmanager
def _npz(path: Path) -> Iterator[Mapping[str, Any]]:
    # numpy does not close a broken file that it opened itself.
    with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
        yield {key: _plain(path, file, key) for key in (FEATURES, *IDS) if key in file}


def _plain(path: Path, file: Mapping[str, Any], key: str) -> Any:
    """Return an array of an npz file. Raises InvalidConfig for Python objects, which would need pickle."""
    try:
        return file[key]
    except ValueError as error:
        if "Object arrays" not in str(error):
            raise
        kind = "'float32'" if key == FEATURES else "str"
        raise InvalidConfig(
            f"{path}: '{key}' are Python objects, and pickle is never read", hint=f"save {key}.astype({kind})"
        ) from error


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
    with pyarrow.parquet.ParquetFile(path) as file:
        names = file.schema_arrow.names
        arrays: dict[str, Any] = {}
        for key in IDS:
            if key in names:
                arrays[key] = np.array(file.read([key])[key].to_pylist())
        if FEATURES in names:
            arrays[FEATURES] = _stacked(file)
        yield arrays


def _stacked(file: Any) -> NDArray[np.float32]:
    """Return the lists of a Parquet column as one array, converted in batches to save memory."""
    stacked: NDArray[np.float32] | None = None
    done = 0
    for batch in file.iter_batches(columns=[FEATURES], batch_size=READ_ROWS):
        column = batch.column(0)
        if column.null_count:
            raise ValueError("a row has no features")
        rows = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)
        if stacked is None:
            stacked = np.empty((file.metadata.num_rows, rows.shape[1]), np.float32)
        stacked[done : done + len(rows)] = rows
        done += len(rows)
    return np.zeros((0, 0), np.float32) if stacked is None else stacked


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
