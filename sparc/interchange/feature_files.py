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
from sparc.interchange.arrays import NAMELESS, Array, Arrays, listing, readable
from sparc.interchange.feature_parts import find_metadata, find_parts
from sparc.interchange.hdf5_files import open_hdf5
from sparc.interchange.numpy_files import open_npy, open_npz
from sparc.interchange.parquet_files import open_parquet
from sparc.interchange.sample_ids import check_unique, lines, texts
from sparc.interchange.torch_files import open_pt, open_safetensors
from sparc.system.files import sha256
from sparc.system.refusals import reading

FEATURES = "features"
IDS, INDICES = "ids", "indices"
"""Names under which a file may hold its ids, or the positions of its rows in a split."""
PICKLING = (".npy", ".npz")
"""Formats that pickle arrays of Python objects."""
IMAGE_PATH = "image_path"
"""Column of the metadata of clip-retrieval that identifies a sample."""
_LINE = "np.savez(file, features=x, ids=ids)"

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
    """A file of features, all of it or one part of several."""

    path: Path
    key: str
    rows: int
    width: int


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
                for block in arrays[part.key].blocks(room):
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


def open_source(path: Path, ids: Path | None = None, keys: Keys | None = None) -> Source:
    """Find the features (N, d) and ids (N) in a file, or in the parts in a folder, without reading the features.

    A Parquet file has a row for each sample, with a list of numbers and an id. The text file `ids` has an id in each
    line, for files without ids. If a file has positions, under `indices`, they number the lines of the text file.

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
        raise MissingData(f"features not found: {path}", hint="check the path")
    files = find_parts(path, tuple(OPENERS)) if in_parts else [path]
    headers = [_read_header(file, keys) for file in files]
    if in_parts and all(header.ids is None for header in headers):
        headers = _with_metadata(headers, find_metadata(files), keys)
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
            hint="give the ids of these rows, one per line, with --ids",
        )
    check_unique(source.ids, path)
    return source


class _Ids(NamedTuple):
    """Ids that a file holds."""

    texts: list[str]
    positions: list[int] | None
    """The ids as numbers, if they are positions."""


class _Header(NamedTuple):
    """Description of a file of features."""

    part: Part
    ids: _Ids | None
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
        raise _no_ids(path, headers[0].listing)
    ids = lines(file)
    if found:
        ids = _numbered(path, [one for some in found for one in some.positions or ()], ids, file)
    return Source(path, ids, False, True, parts)


def _opener(path: Path) -> Callable[[Path], AbstractContextManager[Arrays]]:
    opener = OPENERS.get(path.suffix.lower())
    if opener is None:
        raise InvalidConfig(
            f"{path}: expected one of {', '.join(OPENERS)}, found '{path.suffix}'", hint="convert the file"
        )
    return opener


def _read_header(path: Path, keys: Keys) -> _Header:
    opener = _opener(path)
    with readable(path), opener(path) as arrays:
        key, array = _features(path, arrays, keys.features)
        width = _width(path, key, array)
        part = Part(path, key, array.shape[0], width)
        ids = _ids(path, arrays, key, keys.ids, (IDS, INDICES))
        named = "" if NAMELESS in arrays else listing(arrays)
    return _Header(_checked(part, ids, path), ids, named)


def _with_metadata(headers: list[_Header], metadata: list[Path] | None, keys: Keys) -> list[_Header]:
    """Return the headers with the ids in the metadata beside the parts, if there are any."""
    if metadata is None:
        return headers
    found = []
    for header, path in zip(headers, metadata, strict=True):
        with readable(path), open_parquet(path) as arrays:
            ids = _ids(path, arrays, "", keys.ids, (IDS, INDICES, IMAGE_PATH))
            if ids is None:
                raise _no_ids(path, listing(arrays))
        found.append(header._replace(part=_checked(header.part, ids, path), ids=ids))
    return found


def _checked(part: Part, ids: _Ids | None, path: Path) -> Part:
    """Return the part. Raises InvalidConfig if the ids in `path` are more or fewer than its rows."""
    if ids is not None and len(ids.texts) != part.rows:
        raise InvalidConfig(
            f"{path}: expected as many ids as features, found {len(ids.texts)} and {part.rows}",
            hint="write an id for each row",
        )
    return part


def _features(path: Path, arrays: Arrays, key: str | None) -> tuple[str, Array]:
    """Return the name and the description of the features."""
    if NAMELESS in arrays:
        return NAMELESS, arrays[NAMELESS]
    if (name := key or FEATURES) in arrays:
        return name, arrays[name]
    wide = [name for name, array in arrays.items() if len(array.shape) > 1 and array.kind == "real"]
    line = f": {_LINE}" if path.suffix == ".npz" else ""
    raise InvalidConfig(
        f"{path}: expected '{name}' of shape (samples, width), found none; it has {listing(arrays)}",
        hint=f"{f'--features-key {wide[0]}, or ' if wide else ''}save them under that name{line}",
    )


def _width(path: Path, key: str, array: Array) -> int:
    """Return the width of features (N, d), or of (N, 1, d) and the like. Raises InvalidConfig for other arrays."""
    name = key or FEATURES
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


def _ids(path: Path, arrays: Arrays, features: str, key: str | None, known: tuple[str, ...]) -> _Ids | None:
    """Return the ids in a file; in the group of the features, if they are in one."""
    group = features[: features.rfind("/") + 1]
    candidates = [key] if key else [name for one in known for name in dict.fromkeys((group + one, one))]
    for name in candidates:
        if name in arrays and name != NAMELESS:
            return _read_ids(path, name, arrays[name])
    if key and NAMELESS not in arrays:
        raise InvalidConfig(f"{path}: no ids named '{key}'; it has {listing(arrays)}", hint="--ids-key NAME")
    return None


def _read_ids(path: Path, name: str, array: Array) -> _Ids:
    real = array.kind == "real" and array.dtype.lstrip("<>=|").lower().startswith(("f", "bf"))
    if array.kind == "object" and path.suffix.lower() in PICKLING:
        raise InvalidConfig(
            f"{path}: '{name}' are Python objects, and pickle is never read", hint=f"save {name}.astype(str)"
        )
    if len(array.shape) != 1 or real:
        raise InvalidConfig(
            f"{path}: expected '{name}' as texts or whole numbers, one per row, found {array.dtype} of shape "
            f"{array.shape}",
            hint="convert them, such as x.astype(int) or x.astype(str)",
        )
    values = array.values()
    found = texts(values, path)
    numbers = name.rpartition("/")[2] == INDICES and not any(isinstance(one, str | bytes) for one in values)
    return _Ids(found, [int(one) for one in values] if numbers else None)


def _no_ids(path: Path, named: str) -> InvalidConfig:
    line = f", or write them too: {_LINE}" if path.suffix == ".npz" else ""
    return InvalidConfig(
        f"{path} has no ids: expected 'ids' or 'indices' in it{f'; it has {named}' if named else ''}",
        hint=f"give them with --ids FILE{' or --ids-key NAME' if named else ''}{line}",
    )


def _numbered(path: Path, positions: list[int], ids: list[str], file: Path) -> list[str]:
    """Return the ids of positions, which number the lines of the text file from 0."""
    for row, position in enumerate(positions):
        if not 0 <= position < len(ids):
            raise InvalidConfig(
                f"{path}, row {row}: expected a position below {len(ids)}, the number of lines in {file}, found "
                f"{position}",
                hint="--ids needs the ids of all samples of this split, in the order that 'indices' numbers",
            )
    return [ids[position] for position in positions]
