"""Dataset `image-folder`: a folder of images, with a CSV or JSONL file of captions and labels.

index.py    the rows of the file, checked against each other
places.py   where the file is, and files that look like it
records.py  the file itself: separators, quotes, cells checked against the header
columns.py  the names of its columns
faults.py   what is wrong with the folder, line by line
images.py   the images that the rows name
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Collection, Sequence
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
    counted,
    find_taxonomy,
    hookimpl,
    identify_files,
    read_taxonomy,
    reading,
    same_name,
)
from sparc_plugins.image_folder.columns import FORM
from sparc_plugins.image_folder.faults import faults_of_samples, problems_of
from sparc_plugins.image_folder.images import Survey, as_text, faults_of_heads, open_image, survey
from sparc_plugins.image_folder.index import (
    SPLITS,
    ImageFolderParams,
    Index,
    Row,
    examine_index,
    index_path,
    read_index,
)
from sparc_plugins.image_folder.places import INDEX_NAMES
from sparc_plugins.image_folder.records import some

if TYPE_CHECKING:
    from scipy.sparse import csr_array

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

    def __init__(self, params: ImageFolderParams, split: str, rows: Sequence[Row] | None = None) -> None:
        """Open a split. With `rows`, it has these, and no labels."""
        found = read_index(params) if rows is None else rows
        everything = [row for row in found if row.split in SPLITS]
        self.root = Path(params.root).expanduser()
        self.taxonomy = _taxonomy_of(params, everything) if rows is None else None
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

    This runs before any other work, and finds all that is wrong, which `_check` returns. Images that no line lists are
    a warning with their number.
    """
    root = Path(params.root).expanduser()
    path = index_path(params)
    with reading(path):
        digest = hashlib.sha256(path.read_bytes())
        if (taxonomy := find_taxonomy(root)) is not None:
            digest.update(taxonomy.read_bytes())
    everything = examine_index(params)
    rows = [row for row in everything.rows if row.split in SPLITS]
    found = survey(root, (row.image for row in (*rows, *everything.parts) if row.image))
    digest.update(identify_files(root, found.sizes, params.digest).encode())
    _problems[params] = problems_of(path, everything, found, taxonomy)
    listed = {row.image for row in everything.rows}
    unlisted = sorted(as_text(name) for name in found.unlisted if same_name(name) not in listed)
    if unlisted and not everything.faults:
        total = len(found.sizes) + len(unlisted)
        message = f"{len(unlisted)} of {counted(total, 'image')} in {root} are not listed in {path.name}, such as "
        warnings.warn(f"image-folder: {message}{some(unlisted)}", stacklevel=1)
    return f"sha256:{digest.hexdigest()}"


_problems: dict[ImageFolderParams, dict[frozenset[str], Problems]] = {}
"""Faults that `_identify` found, by the modalities that are extracted."""


def _check(params: ImageFolderParams, modalities: Collection[str]) -> Problems:
    """Return all that is wrong as far as the index and the headers of images tell, in the order of the lines."""
    if params not in _problems:
        _identify(params)
    kinds = frozenset(modalities)
    if "image" not in kinds:
        return _problems[params][kinds]
    index, found, heads = _looked_at(params)
    if not heads:
        return _problems[params][kinds]
    taxonomy = find_taxonomy(Path(params.root).expanduser())
    return problems_of(index_path(params), index, found, taxonomy, heads)[kinds]


def _looked_at(params: ImageFolderParams) -> tuple[Index, Survey, dict[str, BadSample]]:
    """Return the index, the images that it lists, and what their headers say against them."""
    root = Path(params.root).expanduser()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `_identify` has passed them on
        index = examine_index(params)
    images = {row.image: None for row in (*index.rows, *index.parts) if row.image and row.split in (*SPLITS, "")}
    heads = faults_of_heads(root, images)
    return index, survey(root, images) if heads else Survey(), heads


def _open_readable(params: ImageFolderParams, split: str) -> ImageFolder:
    """Open a split without the lines at fault."""
    root = Path(params.root).expanduser()
    index = examine_index(params)
    found = survey(root, (row.image for row in index.rows if row.split in SPLITS))
    heads = faults_of_heads(root, (row.image for row in index.rows if row.split in SPLITS))
    bad = {fault.line for fault in faults_of_samples(index_path(params), index, found, heads)}
    return ImageFolder(params, split, [row for row in index.rows if row.line not in bad])


def _recognizes(folder: Path) -> bool:
    """Return True if a folder has an index of a usual name."""
    return any((folder / name).is_file() for name in INDEX_NAMES)


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
            open_readable=_open_readable,
            recognizes=_recognizes,
        )
    ]
