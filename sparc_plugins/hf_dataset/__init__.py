"""Dataset `hf`: any dataset of images and captions that the library `datasets` reads, from the hub or a folder."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import warnings
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparc.plugins import (
    BadSample,
    DatasetSpec,
    MissingData,
    Sample,
    Taxonomy,
    Texts,
    head_fault,
    held_out,
    hookimpl,
    read_taxonomy,
    sample_file,
)
from sparc.plugins import (
    InvalidConfig as InvalidConfig,
)
from sparc_plugins.hf_dataset.columns import (
    count_captions,
    empty_captions,
    empty_images,
    read_ids,
    read_labels,
    read_names,
)
from sparc_plugins.hf_dataset.folders import decoded, located, some
from sparc_plugins.hf_dataset.params import HFParams
from sparc_plugins.hf_dataset.tables import column_of, identify, read_splits

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image
    from scipy.sparse import csr_array


NO_FILE = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP}
LONG = 200
"""Characters of a path that an error shows whole."""


class HFDataset:
    """One split of the dataset, in the order of its rows."""

    def __init__(self, params: HFParams, split: str) -> None:
        import numpy as np

        tables = read_splits(params)
        role = split if split in tables else "train"
        table = tables[role]
        names = read_ids(table, params, role).to_pylist()
        groups = names if params.group is None else read_names(table, "group", params.group).to_pylist()
        kept = np.arange(len(table))
        if "test" not in tables:
            drawn = {group: held_out(group, params.holdout, params.split_seed) for group in dict.fromkeys(groups)}
            kept = np.flatnonzero(np.array([drawn[group] for group in groups]) == (split == "test"))
        if not len(kept):
            raise MissingData(
                f"hf: none of {len(table)} rows is in the split '{split}'", hint="set 'test_split'; or change 'holdout'"
            )
        self._captions = column_of(table, params.caption)
        counts = count_captions(self._captions, params, table.features[params.caption])
        self._lists = counts is not None
        counts = np.ones(len(table), np.int64) if counts is None else counts
        self._no_image = empty_images(table, params.image)
        self._count_empty(role, counts)
        self._rows = np.repeat(kept, counts[kept])
        self._numbers = np.arange(len(self._rows)) - np.repeat(np.cumsum(counts[kept]) - counts[kept], counts[kept])
        rows = self._rows.tolist()
        self.groups = Texts([groups[row] for row in rows])
        self.ids = self.groups if groups is names else Texts([names[row] for row in rows])
        if self._lists:
            numbered = zip(rows, self._numbers.tolist(), strict=True)
            self.ids = Texts(f"{names[row]}#{number}" for row, number in numbered)
        self._share = self._lists or params.group is not None
        self._images = table.select_columns([params.image])
        self._image = params.image
        self._root = params.root
        self.taxonomy: Taxonomy | None = None
        if params.labels is not None:
            labels = {name: read_labels(one, params.labels) for name, one in tables.items()}
            self._labels = labels[role]
            file = None if params.taxonomy is None else Path(params.taxonomy).expanduser()
            self.taxonomy = read_taxonomy(file, [name for one in labels.values() for name in one.names])

    def _count_empty(self, role: str, counts: NDArray[np.int64]) -> None:
        """Warn about rows without an image, and about captions that are missing or blank."""
        import numpy as np

        rows = np.flatnonzero(self._no_image).tolist()
        blank = np.repeat(np.arange(len(counts)), counts)[empty_captions(self._captions)]
        parts = []
        if rows:
            parts.append(f"{len(rows)} of {len(counts)} rows have no image (row {some(rows)})")
        if len(blank):
            parts.append(f"{len(blank)} of {counts.sum()} captions are empty (row {some(np.unique(blank).tolist())})")
        if parts:
            warnings.warn(f"hf: in the {role} split {'; '.join(parts)}", stacklevel=3)

    def __len__(self) -> int:
        """Return the number of samples, N."""
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:
        """Return one sample, without opening its image."""
        row, group = int(self._rows[index]), self.groups[index] if self._share else None
        caption = self._captions[row].as_py()
        if self._lists:
            caption = caption[self._numbers[index]] if caption else None
        opener = None if self._no_image[row] else partial(open_image, self._images, row, self._image, self._root)
        return Sample(self.ids[index], opener, caption, image_id=group)

    def image_fault(self, index: int) -> BadSample | None:
        """Return why the image of a sample cannot be read: its bytes or its file are empty, or there is no file."""
        row = int(self._rows[index])
        if self._no_image[row]:
            return None
        path, is_empty = self._kept
        cell = path[row].as_py() if path is not None else None
        hint = f"check the column '{self._image}'; or pass --skip-bad to continue without it"
        with contextlib.suppress(ValueError):  # base64 text that is damaged, which the extraction finds
            if cell and decoded(cell) is not None:
                return None
            if cell and (fault := _file_fault(cell, self._root)):
                return BadSample(f"the image of sample '{self.ids[index]}' {fault}: {_shown(cell)}", hint=hint)
            if cell:
                return head_fault(
                    located(cell, self._root), f"the image of sample '{self.ids[index]}', {_shown(cell)},"
                )
        if is_empty is not None and is_empty[row].as_py():
            return BadSample(f"the image of sample '{self.ids[index]}' is empty: it has no bytes", hint=hint)
        return None

    @cached_property
    def _kept(self) -> tuple[Any, Any]:
        """For each row, the path of its image, and True if its bytes are empty; None of a table in another order."""
        import pyarrow.compute as pc

        if getattr(self._images, "_indices", None) is not None:
            return None, None
        images = column_of(self._images, self._image)
        content = pc.struct_field(images, "bytes")
        path = pc.if_else(content.is_null(), pc.struct_field(images, "path"), None)
        return path, pc.equal(pc.binary_length(content), 0).fill_null(False)

    def labels(self) -> csr_array | None:
        """Return multi-hot labels (N, labels), columns as in the taxonomy; None without labels."""
        import numpy as np
        from scipy.sparse import csr_array

        if self.taxonomy is None:
            return None
        number_of = {label: number for number, label in enumerate(self.taxonomy.labels)}
        numbers = np.array([number_of[label] for label in self._labels.names], np.int64)[self._labels.numbers]
        ones, shape = np.ones(len(numbers)), (len(self._images), len(number_of))
        labels = csr_array((ones, (self._labels.rows, numbers)), shape=shape)[self._rows]
        labels.data[:] = 1  # a row may repeat a label
        return csr_array(labels)


def open_image(images: Any, row: int, column: str, root: str | None) -> Image:
    """Open the image of a row. Raises BadSample if the row has no image, ValueError if it is none."""
    from PIL import Image, UnidentifiedImageError

    stored = images[row][column] or {"bytes": None, "path": None}
    hint = f"check the column '{column}'; or pass --skip-bad to continue without it"
    if stored["bytes"] is None and not stored["path"]:
        raise BadSample(f"hf: row {row} has no image", hint=hint)
    if stored["bytes"] == b"":
        raise ValueError("its bytes are empty")
    content = stored["bytes"] if stored["bytes"] is not None else decoded(stored["path"])
    try:
        if content is not None:
            return Image.open(io.BytesIO(content))
        return Image.open(sample_file(located(stored["path"], root)))
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        if root is not None and not Path(root).expanduser().is_dir():  # a lost disk is no bad sample
            raise MissingData(
                f"hf: {root} is not there any more", hint="check the disk or the network folder"
            ) from error
        raise BadSample(f"image not found: {_shown(stored['path'])}", hint=hint) from error
    except OSError as error:
        if error.errno not in (errno.ENAMETOOLONG, errno.ELOOP):
            raise
        raise BadSample(f"expected the path of an image, found {_shown(stored['path'])}", hint=hint) from error
    except UnidentifiedImageError:
        raise ValueError("it is no image that Pillow knows") from None


def _file_fault(cell: str, root: str | None) -> str:
    """Return what is wrong with the file of an image: it is empty, or not found; nothing if it is there."""
    try:
        return "" if os.stat(located(cell, root)).st_size else "is empty"
    except OSError as error:
        return "is not found" if error.errno in NO_FILE or isinstance(error, FileNotFoundError) else ""


def _shown(text: str) -> str:
    return text if len(text) <= LONG else f"{text[:40]}... ({len(text)} characters)"


@hookimpl
def sparc_datasets() -> list[DatasetSpec]:
    """Return the dataset."""
    return [
        DatasetSpec(
            name="hf",
            open=HFDataset,
            params=HFParams,
            summary="a dataset of the Hugging Face library: hf[path=REPOSITORY], or --data-root FOLDER",
            identify=identify,
        )
    ]
