"""Index of the samples in webdataset shards: built once from the headers of the tar files, then cached."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tarfile
import zipfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, NoReturn, overload

from sparc.plugins import CorruptFile, InvalidConfig, MissingData, Params, cache_dir, write_atomically

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

EXTRA = "pip install 'sparc-sae[webdataset]'"
INDEX_VERSION = 1
"""Part of the cached index's file name. Raise it when the content of the index changes."""
META = re.compile(r"__[^/]*__($|/)")
"""Names of metadata files, which the webdataset library skips."""
NOWHERE = (-1, -1)
"""Offset and size of a missing file."""


class WebDatasetParams(Params):
    """Parameters of the dataset."""

    root: str
    """Folder of the shards, also set by `--data-root`."""
    train: str | None = None
    """Shards to train on, such as `train-{000..099}.tar` or `*.tar`; separate patterns by `::`. Default: train-*.tar,
    or without those all shards that are not in the split `test`."""
    test: str | None = None
    """Shards to evaluate on; default: test-*.tar, or without those a fraction `holdout` of the samples."""
    image: str = "jpg;jpeg;png;webp"
    """Extensions of images, in order of preference."""
    caption: str = "txt"
    """Extension of captions, or `json.FIELD` for a field of a JSON file."""
    labels: str | None = None
    """Extension of labels, such as `cls`, or `json.FIELD`: a text, a number, or in JSON a list of these."""
    holdout: float = 0.2
    """Fraction of the samples that is held out if there are no shards to evaluate on."""
    split_seed: int = 0
    """Seed of the draw of held-out samples."""


def find_shards(params: WebDatasetParams) -> dict[str, list[Path]]:
    """Return the shards of `train`, and of `test` if there are any, in the order of their patterns and names.

    Raises:
        MissingData: the library is not installed, or the folder or the shards of a pattern do not exist.
        InvalidConfig: a pattern is malformed, or a shard is in both splits.
    """
    if find_spec("webdataset") is None:  # the library imports torch, which this check does not need
        raise MissingData("the package 'webdataset' is not installed", hint=EXTRA)
    root = Path(params.root).expanduser()
    if not root.is_dir():
        raise MissingData(f"webdataset: no folder at {root}", hint="check --data-root")
    test = _matching(root, params.test) if params.test else sorted(root.glob("test-*.tar"))
    others = sorted(set(root.glob("*.tar")) - set(test))
    named = [path for path in others if path.name.startswith("train-")]
    train = _matching(root, params.train) if params.train else named or others
    if not train:
        raise MissingData(f"webdataset: {root} has no shards to train on", hint="expected *.tar; or set 'train'")
    if both := set(train) & set(test):
        raise InvalidConfig(f"webdataset: {min(both)} is in train and in test", hint="change 'train' or 'test'")
    return {"train": train, "test": test} if test else {"train": train}


def _matching(root: Path, patterns: str) -> list[Path]:
    from webdataset.shardlists import expand_urls

    found: dict[Path, None] = {}
    hint = "expected patterns as 'train-{000..099}.tar', relative to the folder"
    try:
        for pattern in expand_urls(patterns):
            if not (paths := sorted(root.glob(pattern))):
                raise MissingData(f"webdataset: {root} has no {pattern}", hint=hint)
            found.update(dict.fromkeys(paths))
    except (ValueError, NotImplementedError) as error:  # unclosed braces, an absolute path
        raise InvalidConfig(f"webdataset: '{patterns}' is not a pattern: {error}", hint=hint) from error
    return list(found)


def read_headers(shard: IO[bytes]) -> Iterator[dict[str, Any]]:
    """Yield the files of a shard in order, with offset and size in place of the content.

    Raises CorruptFile if it is not a tar file or is truncated. The files before the cut are not used either, so that a
    dataset always has the same samples.
    """
    try:
        # A name that is not UTF-8 must still become distinct, writable text.
        with tarfile.open(fileobj=shard, mode="r:", errors="backslashreplace") as tar:
            for member in tar:
                if member.isreg() and not META.match(member.name):
                    yield {"fname": member.name, "data": (member.offset_data, member.size), "__url__": shard.name}
            shard.seek(tar.offset)
            if shard.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # tar files end with a block of zeros
                raise tarfile.ReadError(f"expected a file or the end mark at byte {tar.offset}")
    except tarfile.TarError as error:
        raise CorruptFile(
            f"{shard.name} is truncated, or not a tar file: {error}",
            hint="download it again; or leave it out, train=PATTERN; decompress a compressed one to .tar",
        ) from error


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
    """(M, 5): number of the shard, offset and size of the image, then of the caption; -1 for a missing file."""
    ends: NDArray[np.int64]
    """(M,): end of each sample's labels in `labels`."""
    labels: NDArray[np.int64]
    """Numbers of the labels of all samples."""
    names: NDArray[np.bytes_]
    """Name of each label number."""


def build_index(shards: Sequence[Path], params: WebDatasetParams) -> Index:
    """Read the headers of all shards, and the labels. A sample has an image or a caption; other files are ignored.

    Raises:
        CorruptFile: a shard is truncated, repeats a file, or has malformed labels. The error names the shard.
        InvalidConfig: no sample has an image, a caption or a label, or two samples share a key.
    """
    import numpy as np
    from webdataset.tariterators import group_by_keys

    images, caption = params.image.lower().split(";"), column(params.caption)[0]
    keys: list[bytes] = []
    places, ends, labels = array("q"), array("q"), array("q")
    names: dict[str, int] = {}
    extensions: set[str] = set()
    for number, path in enumerate(shards):
        with path.open("rb") as shard:
            for sample in group_by_keys(read_headers(shard), handler=partial(_refuse, shard)):
                extensions.update(sample)
                image = next((sample[extension] for extension in images if extension in sample), NOWHERE)
                text = sample.get(caption, NOWHERE)
                if image == text == NOWHERE:
                    continue
                keys.append(sample["__key__"].encode())
                places.extend((number, *image, *text))
                found = _read_labels(shard, sample, params.labels) if params.labels else ()
                labels.extend(names.setdefault(label, len(names)) for label in found)
                ends.append(len(labels))
    _refuse_unknown(params, extensions, shards)
    if params.labels and not names:
        message = f"webdataset: no sample has labels in '{params.labels}'"
        raise InvalidConfig(message, hint="change 'labels', or leave it out")
    numbers = (np.array(places, np.int64).reshape(-1, 5), np.array(ends, np.int64), np.array(labels, np.int64))
    index = Index(np.array(keys, np.bytes_), *numbers, np.array([name.encode() for name in names], np.bytes_))
    _refuse_duplicates(index, shards)
    return index


def _refuse(shard: IO[bytes], error: Exception) -> NoReturn:
    """Raise CorruptFile for an error of the library, or for a malformed label, with the name of the shard."""
    raise CorruptFile(f"{shard.name}: {error.args[0]}", hint="write that shard again") from error


def _read_labels(shard: IO[bytes], sample: dict[str, Any], spec: str) -> list[str]:
    extension, field = column(spec)
    offset, size = sample.get(extension, NOWHERE)
    shard.seek(max(offset, 0))
    try:
        value = content(shard.read(size), field) if offset >= 0 else None
        values = value if isinstance(value, list) else [] if value is None else [value]
        if not all(isinstance(one, str | int) for one in values):
            raise ValueError(f"found {str(value)[:40]}")
    except ValueError as error:
        message = f"expected texts or whole numbers as labels of sample '{sample['__key__']}': {error}"
        _refuse(shard, ValueError(message))
    return list(dict.fromkeys(text for one in values if (text := str(one).strip())))


def _refuse_unknown(params: WebDatasetParams, extensions: set[str], shards: Sequence[Path]) -> None:
    wanted = {"image": params.image.lower().split(";"), "caption": [column(params.caption)[0]]}
    if params.labels:
        wanted["labels"] = [column(params.labels)[0]]
    for name, any_of in wanted.items():
        if extensions.isdisjoint(any_of):
            missing = " or ".join(f".{extension}" for extension in any_of)
            found = ", ".join(sorted(one for one in extensions if not META.match(one))) or "no samples"
            raise InvalidConfig(
                f"webdataset: no file {missing} in any of the {len(shards)} shards starting with {shards[0]}",
                hint=f"set '{name}'; found: {found}",
            )


def _refuse_duplicates(index: Index, shards: Sequence[Path]) -> None:
    import numpy as np

    order = np.argsort(index.keys, kind="stable")
    again = np.flatnonzero(index.keys[order][1:] == index.keys[order][:-1])
    if len(again):
        rows = order[again[0] : again[0] + 2]
        first, second = (shards[index.places[row, 0]] for row in rows)
        raise InvalidConfig(
            f"webdataset: expected unique keys, found '{EncodedTexts(index.keys)[rows[0]]}' in {first} and in {second}",
            hint="a key is an id: rename one, or choose shards with 'train' and 'test'",
        )


def column(spec: str) -> tuple[str, str]:
    """Split a parameter into extension and JSON field: `json.text` into (`json`, `text`), `txt` into (`txt`, "")."""
    before, is_json, field = spec.partition("json.")
    return (f"{before}json".lower(), field) if is_json else (spec.lower(), "")


def content(data: bytes, field: str) -> Any:
    """Return the text of a file, or a field of a JSON file (None if absent). Raises ValueError if it is malformed."""
    if not field:
        return data.decode("utf-8-sig")
    record = json.loads(data)
    if not isinstance(record, dict):
        raise ValueError(f"expected a JSON object, found {str(record)[:40]}")
    return record.get(field)


def stamps(shards: Iterable[Path], root: str) -> list[list[Any]]:
    """Return relative name, size and time of each shard."""
    seen = ((os.path.relpath(path, Path(root).expanduser()), path.stat()) for path in shards)
    return [[name, status.st_size, status.st_mtime_ns] for name, status in seen]


def read_index(shards: Sequence[Path], params: WebDatasetParams) -> Index:
    """Return the index of shards from the cache, or build it if shards are new or have changed.

    Raises the errors of `build_index`.
    """
    import numpy as np

    key = [INDEX_VERSION, stamps(shards, params.root), params.image, params.caption, params.labels]
    name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
    path = cache_dir("webdataset", f"{name}.npz")
    # An unreadable index is rebuilt.
    unreadable = contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)
    with unreadable, path.open("rb") as file, np.load(file) as arrays:
        return Index(**{name: arrays[name] for name in Index._fields})
    index = build_index(shards, params)
    write_atomically(path, partial(_write_index, index))
    return index


def _write_index(index: Index, path: Path) -> None:
    import numpy as np

    with path.open("wb") as file:
        np.savez(file, **index._asdict())
