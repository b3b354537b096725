"""Index of the samples in webdataset shards: built once from the headers of the tar files, then cached."""

from __future__ import annotations

import contextlib
import json
import warnings
import zipfile
from array import array
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, overload

from sparc.plugins import (
    CorruptFile,
    InvalidConfig,
    MissingData,
    Problems,
    cache_dir,
    cache_key,
    reading,
    same_name,
    write_atomically,
)
from sparc_plugins.webdataset.archive import Member, read_members
from sparc_plugins.webdataset.grouping import Field, Sources, Tally, Wanted, common, grouped
from sparc_plugins.webdataset.shards import WebDatasetParams, check_shards, some

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

INDEX_VERSION = 3
"""Part of the cached index's file name. Raise it when the content of the index or the grouping changes."""
NOWHERE = (-1, -1)
"""Offset and size of a missing file."""
TEXT_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
"""Byte order marks, and the encoding that each announces."""


class EncodedTexts(Sequence[str]):
    """A read-only sequence of texts in one array of UTF-8, smaller than Python strings."""

    def __init__(self, utf8: NDArray[np.bytes_]) -> None:
        self._utf8 = utf8

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self._utf8)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        """Return one text, or a sequence of texts for a slice."""
        return EncodedTexts(self._utf8[index]) if isinstance(index, slice) else bytes(self._utf8[index]).decode()


class Index(NamedTuple):
    """Keys, file offsets and labels of M samples, in the order of the shards."""

    keys: NDArray[np.bytes_]
    places: NDArray[np.int64]
    """(M, 6): number of the shard, offset and size of the image, then of the caption, -1 for a missing file; number of
    the caption's field in `Wanted.caption`."""
    ends: NDArray[np.int64]
    """(M,): end of each sample's labels in `labels`."""
    labels: NDArray[np.int64]
    """Numbers of the labels of all samples."""
    names: NDArray[np.bytes_]
    """Name of each label number."""
    counts: NDArray[np.bytes_]
    """Lines that count what is not used, shown at each opening."""


class _Labels:
    """Labels of samples, numbered in the order in which they first appear."""

    def __init__(self) -> None:
        self.names: dict[str, int] = {}
        self.numbers = array("q")
        self.ends = array("q")
        self.with_comma: dict[str, None] = {}
        self.halves: dict[str, None] = {}

    def add(self, written: Sequence[str], in_json: bool) -> None:
        """Add the labels of one sample. A lone surrogate, which no file can hold, becomes `?`."""
        found = [label.encode("utf-8", "replace").decode() for label in written]
        self.halves.update(dict.fromkeys(new for new, old in zip(found, written, strict=True) if new != old))
        self.numbers.extend(self.names.setdefault(label, len(self.names)) for label in found)
        self.ends.append(len(self.numbers))
        if not in_json:
            self.with_comma.update(dict.fromkeys(label for label in found if "," in label))

    def lines(self) -> list[str]:
        """Return lines about labels that may be several, and about labels that had to change."""
        lines = []
        if self.with_comma:
            count, shown = len(self.with_comma), some([f"'{label}'" for label in self.with_comma])
            lines.append(f"{count} labels hold a comma and are one label each: {shown}; a line of its own makes two")
        if self.halves:
            count, shown = len(self.halves), some([f"'{label}'" for label in self.halves])
            lines.append(f"{count} labels hold half of a character (a lone surrogate), which becomes '?': {shown}")
        return lines


def build_index(shards: Sequence[Path], params: WebDatasetParams) -> Index:
    """Read the headers of all shards, and the labels. A sample has an image or a caption; other files are counted.

    Raises:
        CorruptFile: a shard is truncated, or has malformed labels. The error names the shard.
        InvalidConfig: no sample has an image, a caption or a label, a shard repeats a file, or two samples share a key.
        StorageError: the machine refuses to read a shard.
    """
    import numpy as np

    wanted, tally, labels = Wanted.by(params), Tally(), _Labels()
    keys: list[bytes] = []
    places = array("q")
    problems = Problems()
    for number, path in enumerate(shards):
        try:
            found = list(grouped(path, read_members(path), wanted, tally))
        except (CorruptFile, InvalidConfig, MissingData) as error:
            problems.add(error)
            continue
        for one in found:
            keys.append(one.key.encode())
            places.extend((number, *_place(one.image), *_place(one.caption), one.spec))
        if wanted.labels:
            with reading(path), path.open("rb") as shard:
                for one in found:
                    labels.add(_read_labels(shard, one, wanted.labels), in_json=bool(wanted.labels.json_field))
    if problems:
        raise problems.joined()
    _refuse_unknown(wanted, tally, shards)
    if wanted.labels and not labels.names:
        message = f"webdataset: no sample has labels in '{params.labels}'"
        raise InvalidConfig(message, hint="change 'labels', or leave it out")
    lines = [_unpaired(np.array(places, np.int64).reshape(-1, 6), keys, params), *labels.lines()]
    where = f"webdataset: {shards[0].name}{f' and {len(shards) - 1} more' if len(shards) > 1 else ''}: "
    if tally.harmless:
        if line := tally.line():  # once, because nothing of a sample is lost
            warnings.warn(where + line, stacklevel=3)
    else:
        lines.append(tally.line())
    index = Index(
        np.array(keys, np.bytes_),
        np.array(places, np.int64).reshape(-1, 6),
        np.array(labels.ends, np.int64),
        np.array(labels.numbers, np.int64),
        np.array([name.encode() for name in labels.names], np.bytes_),
        np.array([(where + line).encode() for line in lines if line], np.bytes_),
    )
    _refuse_duplicates(index, shards)
    return index


def _place(member: Member | None) -> tuple[int, int]:
    return NOWHERE if member is None else (member.offset, member.size)


def _unpaired(places: NDArray[np.int64], keys: Sequence[bytes], params: WebDatasetParams) -> str | None:
    """Return a line that counts the samples without an image or a caption, None if there are none."""
    import numpy as np

    without: dict[str, list[int]] = {
        part: np.flatnonzero(places[:, column] < 0).tolist()
        for part, column in (("image", 1), ("caption", 3))
        if getattr(params, part)
    }
    lines = [
        f"{len(rows)} of {len(keys)} samples have no {part} .{getattr(params, part).replace(';', ', .')} "
        f"({some([keys[row].decode() for row in rows[:4]])})"
        for part, rows in without.items()
        if rows
    ]
    lone = {part: {keys[row].decode().casefold() for row in rows} for part, rows in without.items()}
    if alike := sorted(set.intersection(*lone.values())) if len(lone) == 2 else []:
        lines.append(f"{len(alike)} of these names are equal but for upper and lower case ({some(alike)})")
    return "; ".join(lines) or None


def _read_labels(shard: IO[bytes], sample: Sources, place: Field) -> list[str]:
    if sample.labels is None:
        return []
    shard.seek(sample.labels.offset)
    try:
        value = content(shard.read(sample.labels.size), place)
        values = value if isinstance(value, list) else [value]
        if not place.json_field:
            values = value.splitlines()
        values = [one for one in values if not _is_nothing(one)]
        if not all(isinstance(one, str | int) for one in values):
            raise ValueError(f"found {str(value)[:40]}")
    except ValueError as error:
        raise CorruptFile(
            f"{shard.name}: expected texts or whole numbers as labels of sample '{sample.key}', "
            f"in {sample.labels.name}: {error}",
            hint="write that shard again",
        ) from error
    return list(dict.fromkeys(text for one in values if (text := same_name(str(one).strip()))))


def _is_nothing(value: Any) -> bool:
    """Return True for null and NaN, which programs write for a label that is missing."""
    return value is None or (isinstance(value, float) and value != value)


def _refuse_unknown(wanted: Wanted, tally: Tally, shards: Sequence[Path]) -> None:
    parts: dict[str, Sequence[str]] = {"image": wanted.image, "caption": [one.extension for one in wanted.caption]}
    if wanted.labels:
        parts["labels"] = [wanted.labels.extension]
    for name, any_of in parts.items():
        if any_of and not any(tally.wanted[one] for one in any_of):
            missing = " or ".join(f".{extension}" for extension in any_of)
            found = common(tally.wanted + tally.others + tally.cut) or "no samples"
            if not tally.harmless:
                found += f"; {tally.line()}"
            raise InvalidConfig(
                f"webdataset: no file {missing} in any of the {len(shards)} shards starting with {shards[0]}",
                hint=f"set '{name}', or leave it empty for a set without; found: {found}",
            )


def _refuse_duplicates(index: Index, shards: Sequence[Path]) -> None:
    import numpy as np

    order = np.argsort(index.keys, kind="stable")
    again = np.flatnonzero(index.keys[order][1:] == index.keys[order][:-1])
    if len(again):

        def twice(place: int) -> str:
            first, second = (shards[index.places[row, 0]] for row in order[place : place + 2])
            return f"'{EncodedTexts(index.keys)[order[place]]}' in {first} and in {second}"

        lines = [twice(place) for place in again[: Problems.MOST].tolist()]
        rest = len(again) - len(lines)
        raise InvalidConfig(
            f"webdataset: expected unique keys, found {len(again)} twice, such as {lines[0]}",
            hint="a key is an id, and one shard holds all files of a sample: rename one, or choose shards with 'train' "
            "and 'test'",
            details=lines[1:] + ([f"and {rest:,} more"] if rest else []),
        )


def content(data: bytes, place: Field) -> Any:
    """Return the text of a file, or a field of a JSON file (None if absent). Raises ValueError if it is malformed."""
    if place.json_field:
        try:
            record = json.loads(data)
        except RecursionError:
            raise ValueError("its JSON is nested too deeply") from None
        if not isinstance(record, dict):
            raise ValueError(f"expected a JSON object, found {str(record)[:40]}")
        return record.get(place.json_field)
    text = data.decode(TEXT_MARKS.get(data[:2], "utf-8-sig"))
    if "\0" in text:
        raise ValueError("zero bytes in it; save it as UTF-8")
    return text


def read_index(shards: Sequence[Path], params: WebDatasetParams) -> Index:
    """Return the index of shards from the cache, or build it if shards are new or have changed.

    Warns of what is not used. Raises the errors of `build_index`.
    """
    import numpy as np

    grouping = [params.key, params.image, params.caption, params.labels]
    check_shards(shards)
    key = cache_key(shards, params.digest, INDEX_VERSION, *grouping)
    path = cache_dir("webdataset", f"{key[:32]}.npz")
    index = None
    # An unreadable index is rebuilt.
    unreadable = contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)
    with unreadable, path.open("rb") as file, np.load(file) as arrays:
        index = Index(**{name: arrays[name] for name in Index._fields})
    if index is None:
        index = build_index(shards, params)
        write_atomically(path, partial(_write_index, index))
    for line in EncodedTexts(index.counts):
        warnings.warn(line, stacklevel=3)
    return index


def _write_index(index: Index, path: Path) -> None:
    import numpy as np

    with path.open("wb") as file:
        np.savez(file, **index._asdict())
