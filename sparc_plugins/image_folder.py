"""Dataset `image-folder`: a folder of images, with a CSV or JSONL file of captions and labels."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparc.plugins import (
    BadSample,
    DatasetSpec,
    InvalidConfig,
    MissingData,
    Params,
    Sample,
    Taxonomy,
    held_out,
    hookimpl,
    read_taxonomy,
)

if TYPE_CHECKING:
    from PIL.Image import Image
    from scipy.sparse import csr_array

INDEX_NAMES = ("samples.csv", "samples.jsonl")
TAXONOMY = "taxonomy.json"
SPLITS = ("train", "test")
FORM = "columns image, caption; optional id, labels, split"


class ImageFolderParams(Params):
    """Parameters of the dataset."""

    root: str
    """The folder, also set by `--data-root`."""
    index: str | None = None
    """File in the folder that lists the samples; default: samples.csv or samples.jsonl."""
    holdout: float = 0.2
    """Fraction of the images that is held out if the file has no column `split`."""
    split_seed: int = 0
    """Random seed of the held-out images."""


@dataclass(frozen=True)
class Row:
    """One line of the index."""

    id: str
    image: str
    caption: str
    labels: tuple[str, ...]
    split: str


def read_index(params: ImageFolderParams) -> list[Row]:
    """Read and check the index of a folder.

    Raises:
        MissingData: the folder or the index does not exist, or the index is empty.
        InvalidConfig: a line lacks a column, has an unknown split, or repeats an id. The error names file and line.
    """
    path = _index_path(params)
    rows: list[Row] = []
    seen: dict[str, int] = {}
    captions: dict[str, int] = {}
    split_of: dict[str, str] = {}
    for line, record in _records(path):
        image = os.path.normpath(_text(record, "image", path, line))
        number = captions[image] = captions.get(image, -1) + 1
        row = Row(
            id=str(record.get("id") or f"{image}#{number}"),
            image=image,
            caption=_text(record, "caption", path, line, blank=True),
            labels=_labels(record.get("labels"), path, line),
            split=str(
                record.get("split") or ("test" if held_out(image, params.holdout, params.split_seed) else "train")
            ),
        )
        if row.split not in SPLITS:
            raise _wrong(path, line, f"expected split train or test, found '{row.split}'")
        if split_of.setdefault(image, row.split) != row.split:
            raise _wrong(path, line, f"expected one split per image, found '{image}' in train and in test")
        if row.id in seen:
            raise _wrong(path, line, f"expected unique ids, found '{row.id}' in line {seen[row.id]} too")
        seen[row.id] = line
        rows.append(row)
    if not rows:
        raise MissingData(f"{path} lists no samples", hint=f"one line per sample: {FORM}")
    return rows


def _index_path(params: ImageFolderParams) -> Path:
    root = Path(params.root).expanduser()
    if not root.is_dir():
        raise MissingData(f"image-folder: no folder at {root}", hint="check --data-root")
    names = (params.index,) if params.index else INDEX_NAMES
    for name in names:
        if (root / name).is_file():
            return root / name
    raise MissingData(f"image-folder: {root} has no {' or '.join(names)}", hint=f"write one: {FORM}")


def _records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield line numbers and fields."""
    try:
        if path.suffix == ".csv":
            with path.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.DictReader(file)
                for record in reader:
                    yield reader.line_num, record
            return
        with path.open(encoding="utf-8-sig") as file:
            for number, text in enumerate(file, start=1):
                if text.strip():
                    yield number, _parsed(path, number, text)
    except UnicodeDecodeError as error:
        raise InvalidConfig(f"{path} is not UTF-8 text: {error}", hint="save it as UTF-8") from error


def _parsed(path: Path, line: int, text: str) -> dict[str, Any]:
    try:
        record = json.loads(text)
    except ValueError as error:
        raise _wrong(path, line, f"expected a JSON object, found {text[:40]!r}") from error
    if not isinstance(record, dict):
        raise _wrong(path, line, f"expected a JSON object, found {text[:40]!r}")
    return record


def _text(record: dict[str, Any], key: str, path: Path, line: int, *, blank: bool = False) -> str:
    value = record.get(key)
    if not isinstance(value, str) or not (blank or value.strip()):
        found = ", ".join(str(name) for name in record) or "nothing"
        raise _wrong(path, line, f"expected a text '{key}', found columns {found}")
    return value


def _labels(value: Any, path: Path, line: int) -> tuple[str, ...]:
    if not value:
        return ()
    parts = value.split(";") if isinstance(value, str) else value
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise _wrong(path, line, f"expected labels as a list of texts, or in a CSV file 'a;b', found {value!r}")
    return tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))


def _wrong(path: Path, line: int, message: str) -> InvalidConfig:
    return InvalidConfig(f"{path}, line {line}: {message}", hint=f"correct that line; {FORM}")


def _taxonomy_of(params: ImageFolderParams, rows: Sequence[Row]) -> Taxonomy | None:
    """Return the taxonomy in `taxonomy.json`; without that file all labels are roots. None without labels.

    Raises InvalidConfig if the file is not a taxonomy, or lacks a label of a sample.
    """
    used = [label for row in rows for label in row.labels]
    path = Path(params.root).expanduser() / TAXONOMY
    if not path.is_file():
        return read_taxonomy(None, used) if used else None
    return read_taxonomy(path, used)


class ImageFolder:
    """One split of the dataset."""

    def __init__(self, params: ImageFolderParams, split: str) -> None:
        everything = read_index(params)
        self.root = Path(params.root).expanduser()
        self.taxonomy = _taxonomy_of(params, everything)
        self.rows = [row for row in everything if row.split == split]
        if not self.rows:
            raise MissingData(
                f"image-folder: none of {len(everything)} samples is in the split '{split}'",
                hint="add samples; or a column 'split'; or change 'holdout'",
            )
        self.ids = [row.id for row in self.rows]
        self.groups = [row.image for row in self.rows]

    def __len__(self) -> int:
        """Return the number of samples, N."""
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        """Return one sample, without opening its image."""
        row = self.rows[index]
        return Sample(row.id, partial(open_image, self.root / row.image), row.caption, image_id=row.image)

    def labels(self) -> csr_array | None:
        """Return multi-hot labels (N, labels), columns as in the taxonomy; None without labels."""
        import numpy as np
        from scipy.sparse import csr_array

        if self.taxonomy is None:
            return None
        column = {label: number for number, label in enumerate(self.taxonomy.labels)}
        entries = [(number, column[label]) for number, row in enumerate(self.rows) for label in row.labels]
        rows, columns = zip(*entries, strict=True) if entries else ((), ())
        return csr_array((np.ones(len(entries)), (rows, columns)), shape=(len(self), len(column)))


def open_image(path: Path) -> Image:
    """Open an image file. Raises BadSample if it does not exist."""
    from PIL import Image

    try:
        with Image.open(path) as image:  # without `with`, a broken file would stay open
            image.load()
            return image
    except FileNotFoundError as error:
        raise BadSample(
            f"image not found: {path}", hint="check the column 'image'; or pass --skip-bad to continue without it"
        ) from error


def _identify(params: ImageFolderParams) -> str:
    """Return the digest of index, taxonomy, and each image's size and time, so that edits invalidate features."""
    root = Path(params.root).expanduser()
    digest = hashlib.sha256(_index_path(params).read_bytes())
    if (root / TAXONOMY).is_file():
        digest.update((root / TAXONOMY).read_bytes())
    for image in sorted({row.image for row in read_index(params)}):
        with contextlib.suppress(OSError):  # a missing image is reported when it is read
            status = (root / image).stat()
            digest.update(f"\n{image} {status.st_size} {status.st_mtime_ns}".encode())
    return f"sha256:{digest.hexdigest()}"


@hookimpl
def sparc_datasets() -> list[DatasetSpec]:
    """Return the dataset."""
    return [
        DatasetSpec(
            name="image-folder",
            open=ImageFolder,
            params=ImageFolderParams,
            summary=f"a folder with samples.csv or samples.jsonl: {FORM}",
            identify=_identify,
        )
    ]
