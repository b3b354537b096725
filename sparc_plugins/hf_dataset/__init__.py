"""Dataset `hf`: any dataset of images and captions that the library `datasets` reads, from the hub or a folder."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sparc.plugins import (
    BadSample,
    DatasetSpec,
    InvalidConfig,
    MissingData,
    Sample,
    Taxonomy,
    Texts,
    held_out,
    hookimpl,
    read_taxonomy,
)
from sparc_plugins.hf_dataset.tables import HFParams, identify, read_splits

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image
    from scipy.sparse import csr_array


def _column(table: Any, name: str) -> Any:
    """Return a column as a memory-mapped Arrow array."""
    return table.select_columns([name]).with_format("arrow")[:][name]


def _names(table: Any, parameter: str, column: str) -> Any:
    """Return a column of ids or groups as texts. Raises InvalidConfig for other types and empty cells."""
    import pyarrow as pa

    try:
        texts = _column(table, column).cast(pa.large_string())
    except (ValueError, NotImplementedError) as error:
        found = table.features[column]
        raise InvalidConfig(
            f"hf: expected texts or numbers in the column '{column}', found {found}", hint=f"change '{parameter}'"
        ) from error
    if texts.null_count:
        row = texts.is_null().index(True).as_py()
        raise InvalidConfig(f"hf: row {row} is empty in '{column}'", hint=f"change '{parameter}'")
    return texts.combine_chunks()


def _ids(table: Any, params: HFParams, role: str) -> Any:
    """Return a unique id for each row. Raises InvalidConfig if the column of ids repeats one."""
    import pyarrow as pa

    if params.id is None:
        return pa.array((f"{role}/{row}" for row in range(len(table))), pa.large_string())
    names = _names(table, "id", params.id)
    if len(names.unique()) < len(names):
        seen: dict[str, int] = {}
        for row, name in enumerate(names.to_pylist()):
            if seen.setdefault(name, row) != row:
                raise InvalidConfig(
                    f"hf: expected unique ids, found '{name}' in the rows {seen[name]} and {row}",
                    hint="change 'id', or leave it out; a column of images, which may repeat, is 'group'",
                )
    return names


class Labels(NamedTuple):
    """Pairs of a row and a label on it, in coordinate form."""

    rows: NDArray[np.int64]
    numbers: NDArray[np.int64]
    names: list[str]
    """Label of each number."""


def read_labels(table: Any, name: str) -> Labels:
    """Read a column of labels: classes, texts, whole numbers, or lists of these. Raises InvalidConfig for others."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    values, feature = _column(table, name).combine_chunks(), table.features[name]
    rows = np.arange(len(values))
    if hasattr(values, "flatten") and not pa.types.is_struct(values.type):
        rows, values = pc.list_parent_indices(values).to_numpy(), values.flatten()
        feature = feature[0] if isinstance(feature, list) else feature.feature
    if not (
        pa.types.is_integer(values.type) or pa.types.is_string(values.type) or pa.types.is_large_string(values.type)
    ):
        raise InvalidConfig(
            f"hf: expected classes, texts or whole numbers as labels, found {table.features[name]}",
            hint="change 'labels', or leave it out",
        )
    classes = getattr(feature, "names", None)
    # The library encodes an unknown class as -1.
    labelled = pc.greater_equal(values, 0) if classes else pc.not_equal(values.cast(pa.string()), "")
    labelled = labelled.fill_null(False)
    values, rows = values.filter(labelled), rows[labelled.to_numpy(zero_copy_only=False)]
    texts = pa.array(classes).take(values) if classes else values.cast(pa.string())
    encoded = texts.dictionary_encode()
    return Labels(rows, encoded.indices.to_numpy().astype(np.int64), encoded.dictionary.to_pylist())


class HFDataset:
    """One split of the dataset, in the order of its rows."""

    def __init__(self, params: HFParams, split: str) -> None:
        import numpy as np

        tables = read_splits(params)
        role = split if split in tables else "train"
        table = tables[role]
        names = _ids(table, params, role)
        groups = names if params.group is None else _names(table, "group", params.group)
        kept = np.arange(len(table))
        if "test" not in tables:
            drawn = [held_out(group.as_py(), params.holdout, params.split_seed) for group in groups]
            kept = np.flatnonzero(np.array(drawn) == (split == "test"))
        if not len(kept):
            raise MissingData(
                f"hf: none of {len(table)} rows is in the split '{split}'", hint="set 'test_split'; or change 'holdout'"
            )
        self._captions = _column(table, params.caption)
        counts = _count_captions(self._captions, params, table.features[params.caption])
        self._lists = counts is not None
        counts = np.ones(len(table), np.int64) if counts is None else counts
        self._rows = np.repeat(kept, counts[kept])
        self._numbers = np.arange(len(self._rows)) - np.repeat(np.cumsum(counts[kept]) - counts[kept], counts[kept])
        numbered = zip(self._rows.tolist(), self._numbers.tolist(), strict=True)
        self.ids = Texts(f"{names[row]}#{number}" if self._lists else names[row].as_py() for row, number in numbered)
        self.groups = Texts(groups[row].as_py() for row in self._rows.tolist())
        self._share = self._lists or params.group is not None
        self._images = table.select_columns([params.image])
        self._image = params.image
        self.taxonomy: Taxonomy | None = None
        if params.labels is not None:
            labels = {name: read_labels(one, params.labels) for name, one in tables.items()}
            self._labels = labels[role]
            file = None if params.taxonomy is None else Path(params.taxonomy).expanduser()
            self.taxonomy = read_taxonomy(file, [name for one in labels.values() for name in one.names])

    def __len__(self) -> int:
        """Return the number of samples, N."""
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:
        """Return one sample, without opening its image."""
        row, group = int(self._rows[index]), self.groups[index] if self._share else None
        caption = self._captions[row].as_py()
        if self._lists:
            caption = caption[self._numbers[index]] if caption else None
        opener = partial(open_image, self._images, row, self._image)
        return Sample(self.ids[index], opener, caption, image_id=group)

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


def _count_captions(captions: Any, params: HFParams, feature: Any) -> NDArray[np.int64] | None:
    """Return the number of samples of each row if captions are lists, else None. Raises InvalidConfig.

    A row with an empty list counts as one sample.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = (pa.string(), pa.large_string(), pa.null())
    if captions.type in texts:
        return None
    if getattr(captions.type, "value_type", None) not in texts:
        raise InvalidConfig(
            f"hf: expected texts in the column '{params.caption}', or lists of texts, found {feature}",
            hint="set 'caption' to a column of captions",
        )
    counts: NDArray[np.int64] = np.asarray(pc.list_value_length(captions).fill_null(0), np.int64)
    return np.maximum(counts, 1)


def open_image(images: Any, row: int, column: str) -> Image:
    """Open the image of a row. Raises BadSample if the row has no image."""
    from PIL import Image

    stored = images[row][column] or {"bytes": None, "path": None}
    if stored["bytes"] is not None:
        return Image.open(io.BytesIO(stored["bytes"]))
    hint = f"check the column '{column}'; or pass --skip-bad to continue without it"
    if stored["path"] is None:
        raise BadSample(f"hf: row {row} has no image", hint=hint)
    try:
        return Image.open(stored["path"])
    except FileNotFoundError as error:
        raise BadSample(f"image not found: {stored['path']}", hint=hint) from error


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
