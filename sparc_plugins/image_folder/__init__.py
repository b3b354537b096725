"""Dataset `image-folder`: a folder of images, with a CSV or JSONL file of captions and labels.

index.py    the rows of the file, checked against each other
places.py   where the file is, and files that look like it
records.py  the file itself: separators, quotes, cells checked against the header
columns.py  the names of its columns
images.py   the images that the rows name
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sparc.plugins import (
    BadSample,
    DatasetSpec,
    MissingData,
    Problems,
    Sample,
    Taxonomy,
    find_taxonomy,
    hookimpl,
    identify_files,
    read_taxonomy,
    reading,
    same_name,
)
from sparc_plugins.image_folder.columns import FORM
from sparc_plugins.image_folder.images import Survey, as_text, open_image, survey
from sparc_plugins.image_folder.index import SPLITS, ImageFolderParams, Row, index_path, read_index
from sparc_plugins.image_folder.places import INDEX_NAMES
from sparc_plugins.image_folder.records import some

if TYPE_CHECKING:
    from scipy.sparse import csr_array

CORRECT = "correct these lines or files; or pass --skip-bad to continue without these samples"

__all__ = ["ImageFolder", "ImageFolderParams", "Row", "read_index", "sparc_datasets"]


def _taxonomy_of(params: ImageFolderParams, rows: Sequence[Row]) -> Taxonomy | None:
    """Return the taxonomy in `taxonomy.json`; without that file all labels are roots. None without labels.

    Raises InvalidConfig if the file is not a taxonomy, or lacks a label of a sample.
    """
    used = [label for row in rows for label in row.labels]
    path = find_taxonomy(Path(params.root).expanduser())
    return read_taxonomy(path, used) if path is not None or used else None


class ImageFolder:
    """One split of the dataset."""

    def __init__(self, params: ImageFolderParams, split: str) -> None:
        found = read_index(params)
        everything = [row for row in found if row.split in SPLITS]
        self.root = Path(params.root).expanduser()
        self.taxonomy = _taxonomy_of(params, everything)
        self.rows = [row for row in everything if row.split == split]
        if not self.rows:
            hint = "add samples; or a column 'split'; or change 'holdout'"
            if third := sorted({row.split for row in found} - set(SPLITS)):
                hint = f"write {split} in place of {third[0]} in the column 'split'"
            message = f"image-folder: none of {len(everything)} samples is in the split '{split}'"
            raise MissingData(message, hint=hint)
        self.ids = [row.id for row in self.rows]
        self.groups = [as_text(row.image) for row in self.rows]

    def __len__(self) -> int:
        """Return the number of samples, N."""
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        """Return one sample, without opening its image."""
        row = self.rows[index]
        return Sample(row.id, partial(open_image, self.root, row.image), row.caption, image_id=self.groups[index])

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


def _identify(params: ImageFolderParams) -> str:
    """Return the digest of index, taxonomy and images, so that edits invalidate features and a copy keeps them.

    This runs before any other work, so it reports all that is wrong: a taxonomy that lacks labels is an error; captions
    that are empty, images that are missing, and images that no line lists are warnings with their number.
    """
    root = Path(params.root).expanduser()
    path = index_path(params)
    with reading(path):
        digest = hashlib.sha256(path.read_bytes())
        if (taxonomy := find_taxonomy(root)) is not None:
            digest.update(taxonomy.read_bytes())
    everything = read_index(params)
    rows = [row for row in everything if row.split in SPLITS]
    _taxonomy_of(params, rows)
    found = survey(root, (row.image for row in rows))
    digest.update(identify_files(root, found.sizes, params.digest).encode())
    _problems[params] = _problems_of(path, rows, found)
    if empty := [row.id for row in rows if not row.caption.strip()]:
        message = f"{len(empty)} of {len(rows)} captions in {path.name} are empty, such as that of {some(empty)}"
        warnings.warn(f"image-folder: {message}; text streams stop at the first, or pass --skip-bad", stacklevel=1)
    if found.missing:
        warnings.warn(_on_missing(root, path, len(found.sizes), found.missing), stacklevel=1)
    if found.unreadable:
        message = f"{len(found.unreadable)} of {len(found.sizes)} images in {root} are empty, or HEIC or SVG, such as "
        advice = "convert them to JPEG or PNG; image streams stop at the first, or pass --skip-bad"
        warnings.warn(f"image-folder: {message}{some(list(map(as_text, found.unreadable)))}; {advice}", stacklevel=1)
    left_out = {row.image for row in everything if row.split not in SPLITS}
    if unlisted := sorted(as_text(name) for name in found.unlisted if same_name(name) not in left_out):
        total = len(found.sizes) + len(unlisted)
        message = f"{len(unlisted)} of {total} images in {root} are not listed in {path.name}, such as "
        warnings.warn(f"image-folder: {message}{some(unlisted)}", stacklevel=1)
    return f"sha256:{digest.hexdigest()}"


_problems: dict[ImageFolderParams, dict[frozenset[str], Problems]] = {}
"""Faults of samples that `_identify` found, by the modalities that are extracted."""


def _check(params: ImageFolderParams, modalities: Collection[str]) -> Problems:
    """Return images that are missing or that no reader knows, and empty captions, in the order of the lines."""
    if params not in _problems:
        _identify(params)
    return _problems[params][frozenset(modalities)]


def _problems_of(path: Path, rows: Sequence[Row], found: Survey) -> dict[frozenset[str], Problems]:
    """Return what is wrong with the samples of rows, for image streams, for text streams, and for both."""
    kinds = {kinds: Problems(f"{path}, ") for kinds in map(frozenset, (("image",), ("text",), ("image", "text")))}
    missing, unreadable = set(found.missing), set(found.unreadable)
    for row in rows:
        if row.image in missing:
            _add(kinds, "image", path, row, f"no image '{as_text(row.image)}' in the folder")
        elif row.image in unreadable:
            _add(kinds, "image", path, row, f"the image '{as_text(row.image)}' is empty, or HEIC or SVG")
        if not row.caption.strip():
            _add(kinds, "text", path, row, f"the caption of '{row.id}' is empty")
    return kinds


def _add(kinds: Mapping[frozenset[str], Problems], modality: str, path: Path, row: Row, message: str) -> None:
    for modalities, problems in kinds.items():
        if modality in modalities:
            problems.add(BadSample(f"{path}, line {row.line}: {message}", hint=CORRECT))


def _recognizes(folder: Path) -> bool:
    """Return True if a folder has an index of a usual name."""
    return any((folder / name).is_file() for name in INDEX_NAMES)


def _on_missing(root: Path, path: Path, there: int, missing: Sequence[str]) -> str:
    how = "check --data-root and the column 'image'"
    if any("://" in name for name in missing):
        how = "images must be files in the folder: download them"
    return (
        f"image-folder: {len(missing)} of {there + len(missing)} images that {path.name} lists do not exist in {root}, "
        f"such as {some(list(map(as_text, missing)))}; {how}; image streams stop at the first, or pass --skip-bad"
    )


@hookimpl
def sparc_datasets() -> list[DatasetSpec]:
    """Return the dataset."""
    return [
        DatasetSpec(
            name="image-folder",
            open=ImageFolder,
            params=ImageFolderParams,
            summary=f"a folder with samples.csv, samples.jsonl or samples.tsv: {FORM}",
            identify=_identify,
            check=_check,
            recognizes=_recognizes,
        )
    ]
