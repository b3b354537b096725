"""Find the features and the ids in a file, or in a folder of parts.

torch and the libraries of the formats are imported only after the file was found.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from sparc.errors import InvalidConfig, MissingData
from sparc.interchange.arrays import NAMELESS, Array, Arrays, item_bytes, listing, readable
from sparc.interchange.feature_parts import check_parts, find_files, find_metadata, in_order
from sparc.interchange.file_ids import (
    ID,
    IDS,
    INDICES,
    PICKLING,
    SAVE,
    StoredIds,
    given_ids,
    no_ids,
    numbered,
    stored_ids,
)
from sparc.interchange.hdf5_files import open_hdf5
from sparc.interchange.numpy_files import open_npy, open_npz
from sparc.interchange.parquet_files import open_parquet
from sparc.interchange.sample_arrays import find_samples, joined, sample_ids, sample_names, suggestion
from sparc.interchange.sample_ids import check_unique, texts
from sparc.interchange.torch_files import open_pt, open_safetensors
from sparc.system.files import sha256
from sparc.system.nearby import meant
from sparc.system.refusals import reading

FEATURES = "features"
IMAGE_PATH = "image_path"
"""Column of the metadata of clip-retrieval that identifies a sample."""
MOST_WIDE = 8
"""Arrays of a file of which an error suggests one as the features."""
_COLUMNS = "df['features'] = df[columns].to_numpy().tolist(); columns f0, f1, f2 are read if no number is missing"

OPENERS: dict[str, Callable[[Path], AbstractContextManager[Arrays]]] = {
    ".npy": open_npy,
    ".npz": open_npz,
    ".safetensors": open_safetensors,
    ".parquet": open_parquet,
    ".h5": open_hdf5,
    ".hdf5": open_hdf5,
    ".pt": open_pt,
    ".pth": open_pt,
}


class Keys(NamedTuple):
    """Names of the features and of the ids in a file, where they are not `features` and `ids` or `indices`."""

    features: str | None = None
    ids: str | None = None


class Part(NamedTuple):
    """A file of features, all of it or one part of several. Temporary files hold `room` bytes while it is read."""

    path: Path
    key: str
    rows: int
    width: int
    item_bytes: int = 4
    room: int = 0


@dataclass(frozen=True)
class Source:
    """Features of N samples: a file, or a folder of parts."""

    path: Path
    ids: list[str]
    positions: bool
    """The ids are numbers under `indices`, which count the samples of one split."""
    from_lines: bool
    """The ids are those of the text file."""
    parts: list[Part]

    @property
    def width(self) -> int:
        """Width of the features."""
        return self.parts[0].width

    def blocks(self, room: Path) -> Iterator[NDArray[Any]]:
        """Iterate over the features (rows, d), each row once, in storage order. `room` is for temporary files.

        Raises:
            CorruptFile: a file cannot be read, or ends early.
            InvalidConfig: a row of a Parquet file has another width.
            StorageError, OutOfMemory: the machine refuses.
        """
        for part in self.parts:
            done = 0
            with readable(part.path), _opener(part.path)(part.path) as arrays:
                for block in _look_up(arrays, part.key).blocks(room):
                    yield block.reshape(len(block), part.width)
                    done += len(block)
                if done != part.rows:
                    raise ValueError(f"expected {part.rows} rows, found {done}")

    def where(self, row: int) -> str:
        """Return where a row is, for errors."""
        for part in self.parts:
            if row < part.rows:
                break
            row -= part.rows
        return f"row {row} of {part.path}"

    def digest(self) -> str:
        """Return the checksum of the file, or that of the checksums of the parts."""
        digests = []
        for part in self.parts:
            with reading(part.path):
                digests.append(sha256(part.path))
        return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()

    @property
    def advice(self) -> str:
        """Advice on rows that no sample should have."""
        return "leave the rows of such samples out of the file"


def open_source(path: Path, ids: Path | None = None, keys: Keys | None = None) -> Source:
    """Find the features (N, d) and ids (N) in a file, or in the parts in a folder, without reading the features.

    In a folder, files of one vector (d,) each are samples, and their names are the ids, unless `ids` is given. A
    Parquet file has a row for each sample, with a list of numbers and an id. The file `ids` has an id in each line or
    row, for files without ids. If a file has positions, under `indices`, they number the lines of that file.

    Raises:
        MissingData: the file does not exist, or the library that reads it is not installed.
        CorruptFile: the file cannot be read.
        InvalidConfig: features or ids are missing, empty or of a wrong shape, their numbers differ, an id occurs
            twice, or parts are missing or differ in width.
        StorageError, OutOfMemory: the machine refuses.
    """
    keys = keys or Keys()
    with readable(path):
        exists, in_parts = path.exists(), path.is_dir()
    if not exists:
        raise MissingData(f"features not found: {path}", hint=meant(path, "check the path"))
    files = find_files(path, tuple(OPENERS)) if in_parts else [path]
    vectors = len(files) > 1 and _is_vector(files[0])
    if vectors and ids is None:
        headers = [_named_by_file(_read_header(file, keys, vectors=True)) for file in files]
        return _checked_source(path, headers, None)
    files = in_order(files)
    headers = [_read_header(file, keys, vectors=vectors) for file in files]
    if in_parts:
        check_parts(files, [header.part.rows for header in headers], ordered=any(one.ids is None for one in headers))
    if in_parts and all(header.ids is None for header in headers):
        headers = _with_metadata(headers, find_metadata(files), keys)
    return _checked_source(path, headers, ids)


def _checked_source(path: Path, headers: list[_Header], ids: Path | None) -> Source:
    """Return the source with its ids. Raises InvalidConfig for parts of several widths, and for ids that do not fit."""
    parts = [header.part for header in headers]
    for part in parts:
        if part.width != parts[0].width:
            raise InvalidConfig(
                f"{path}: expected parts of one width, found {parts[0].width} in {parts[0].path.name} and {part.width} "
                f"in {part.path.name}",
                hint="put the features of each model into a folder of its own",
            )
    source = _identified(path, headers, ids)
    rows = sum(part.rows for part in parts)
    if len(source.ids) != rows:
        raise InvalidConfig(
            f"{path}: expected as many ids as features, found {len(source.ids)} and {rows}",
            hint=f"'{source.ids[0]}', the first id of {ids}, looks like a header: remove it, if it is one"
            if len(source.ids) == rows + 1
            else "give the ids of these rows, one per line, with --ids",
        )
    check_unique(source.ids, path)
    return source


def _is_vector(path: Path) -> bool:
    """Return True if a file holds one array (d,) without a name."""
    with readable(path), _opener(path)(path) as arrays:
        return NAMELESS in arrays and len(arrays[NAMELESS].shape) == 1


def _named_by_file(header: _Header) -> _Header:
    path = header.part.path
    return header._replace(ids=StoredIds(texts([path.stem], path)))


class _Header(NamedTuple):
    """Description of a file of features."""

    part: Part
    ids: StoredIds | None
    listing: str
    """Arrays of the file, if they have names."""


def _identified(path: Path, headers: list[_Header], file: Path | None) -> Source:
    """Return the source with the ids of its files, or with those of the text file."""
    parts = [header.part for header in headers]
    found = [header.ids for header in headers if header.ids is not None]
    if found and len(found) < len(parts):
        lacking = next(header.part.path for header in headers if header.ids is None)
        raise InvalidConfig(f"{lacking} has no ids, but other parts have", hint="write its ids, or remove the part")
    positions = bool(found) and all(some.positions is not None for some in found)
    if found and (file is None or not positions):
        return Source(path, [one for some in found for one in some.texts], positions, False, parts)
    if file is None:
        raise no_ids(path, headers[0].listing)
    ids = given_ids(file)
    if found:
        ids = numbered(path, [one for some in found for one in some.positions or ()], ids, file)
    return Source(path, ids, False, True, parts)


def _opener(path: Path) -> Callable[[Path], AbstractContextManager[Arrays]]:
    opener = OPENERS.get(path.suffix.lower())
    if opener is None:
        raise InvalidConfig(
            f"{path}: expected one of {', '.join(OPENERS)}, found '{path.suffix}'", hint="convert the file"
        )
    return opener


def _read_header(path: Path, keys: Keys, *, vectors: bool = False) -> _Header:
    """Read the header of a file; with `vectors`, of one that holds a sample (d,)."""
    opener = _opener(path)
    with readable(path), opener(path) as arrays:
        key, array = _features(path, arrays, keys.features)
        if vectors and len(array.shape) != 1:
            raise InvalidConfig(
                f"{path}: expected one vector, of shape (width,), as in the folder's first file, found {array.shape}",
                hint="keep the files of other samples, and arrays of another kind, in folders of their own",
            )
        if vectors:
            array = _look_up(arrays, key)
        width = _width(path, key, array)
        part = Part(path, key, array.shape[0], width, item_bytes(array.dtype), array.room)
        if key in arrays:
            ids = stored_ids(path, arrays, key, keys.ids, (IDS, INDICES, ID))
        else:
            ids = _ids_in_names(path, arrays, key, keys.ids)
        named = "" if NAMELESS in arrays else listing(arrays)
    return _Header(_checked(part, ids, path), ids, named)


def _ids_in_names(path: Path, arrays: Arrays, pattern: str, key: str | None) -> StoredIds:
    """Return the ids in the names of arrays. Raises InvalidConfig if the file holds other ids, of unknown order."""
    if beside := next((name for name in (key, IDS, INDICES, ID) if name in arrays), key):
        raise InvalidConfig(
            f"{path}: expected ids in the names of the arrays {pattern}, or in '{beside}' beside one array, found both",
            hint="save the features as one array, in the order of the ids, or leave these ids out",
        )
    return StoredIds(texts(sample_ids(sample_names(arrays, pattern), pattern), path))


def _with_metadata(headers: list[_Header], metadata: list[Path] | None, keys: Keys) -> list[_Header]:
    """Return the headers with the ids in the metadata beside the parts, if there are any."""
    if metadata is None:
        return headers
    found = []
    for header, path in zip(headers, metadata, strict=True):
        with readable(path), open_parquet(path) as arrays:
            ids = stored_ids(path, arrays, "", keys.ids, (IDS, INDICES, IMAGE_PATH, ID))
            if ids is None:
                raise no_ids(path, listing(arrays))
        found.append(header._replace(part=_checked(header.part, ids, path), ids=ids))
    return found


def _checked(part: Part, ids: StoredIds | None, path: Path) -> Part:
    """Return the part. Raises InvalidConfig if the ids in `path` are more or fewer than its rows."""
    if ids is not None and len(ids.texts) != part.rows:
        raise InvalidConfig(
            f"{path}: expected as many ids as features, found {len(ids.texts)} and {part.rows}",
            hint="the array is transposed: save x.T" if len(ids.texts) == part.width else "write an id for each row",
        )
    return part


def _features(path: Path, arrays: Arrays, key: str | None) -> tuple[str, Array]:
    """Return the name and the description of the features."""
    if NAMELESS in arrays:
        return NAMELESS, arrays[NAMELESS]
    if (name := key or FEATURES) in arrays:
        return name, arrays[name]
    wide = [name for name, array in arrays.items() if len(array.shape) > 1 and array.kind == "real"]
    columns = len(wide) == 1 and wide[0].endswith("*") and "int" not in arrays[wide[0]].dtype
    found = wide[0] if columns and key is None else find_samples(arrays, key, FEATURES)
    if found is not None:
        return found, _look_up(arrays, found)
    line = {".npz": f": {SAVE}", ".parquet": f": {_COLUMNS}"}.get(path.suffix.lower(), "")
    advice = f"--features-key {wide[0]}, or " if wide else ""
    if (samples := suggestion(arrays)) is not None:
        advice = f"--features-key {samples}, if each array is a sample, or "
    elif len(wide) > MOST_WIDE:  # the tokens of each sample, for example
        advice = "save one row (width) for each sample, or "
    fault = next((array.fault for array in arrays.values() if array.fault), None)
    if fault is not None and not wide:
        raise fault
    raise InvalidConfig(
        f"{path}: expected '{name}' of shape (samples, width), found none; it has {listing(arrays)}",
        hint=f"{advice}save them under that name{line}",
    )


def _look_up(arrays: Arrays, key: str) -> Array:
    """Return an array of a file, or the arrays of its samples as one. A vector is one sample."""
    if key not in arrays:
        return joined(arrays, sample_names(arrays, key))
    found = arrays[key]
    return joined(arrays, [key]) if len(found.shape) == 1 and found.kind == "real" else found


def _width(path: Path, key: str, array: Array) -> int:
    """Return the width of features (N, d), or of (N, 1, d) and the like. Raises InvalidConfig for other arrays."""
    name = key or FEATURES
    if array.fault is not None:
        raise array.fault
    if array.kind == "object" and path.suffix.lower() in PICKLING:
        raise InvalidConfig(
            f"{path}: '{name}' are Python objects, and pickle is never read", hint=f"save {name}.astype('float32')"
        )
    if array.kind != "real":
        raise InvalidConfig(f"{path}: expected real numbers as '{name}', found {array.dtype}", hint="convert them")
    inner = [size for size in array.shape[1:] if size != 1]
    if len(array.shape) < 2 or len(inner) > 1:
        raise InvalidConfig(
            f"{path}: expected '{name}' of shape (samples, width), found {array.shape}",
            hint="save one row per sample, such as the mean over its tokens or patches",
        )
    if 0 in array.shape:
        raise InvalidConfig(f"{path}: expected features in '{name}', found none, {array.shape}", hint="check the file")
    return inner[0] if inner else 1
