"""Columns of a table: ids, captions and labels as arrays, and the empty cells among them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, NamedTuple

from sparc.plugins import InvalidConfig, Problems
from sparc_plugins.hf_dataset.params import HFParams
from sparc_plugins.hf_dataset.tables import column_of
from sparc_plugins.hf_dataset.texts import EXACT

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def read_names(table: Any, parameter: str, column: str) -> Any:
    """Return a column of ids or groups as texts, in which names that look the same are equal.

    Raises InvalidConfig for other types and empty cells.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    values = column_of(table, column)
    if pa.types.is_floating(values.type):
        values = _whole(values, parameter, column)
    try:
        texts = values.cast(pa.large_string())
    except (ValueError, NotImplementedError) as error:
        found = table.features[column]
        raise InvalidConfig(
            f"hf: expected texts or numbers in the column '{column}', found {found}", hint=f"change '{parameter}'"
        ) from error
    empty = pc.equal(pc.utf8_trim_whitespace(texts), "").fill_null(True)
    if count := pc.sum(empty).as_py():
        row = empty.index(True).as_py()
        raise InvalidConfig(
            f"hf: expected a name in each row of '{column}', found {count} empty cells, the first in row {row}",
            hint=f"change '{parameter}'",
        )
    return pc.utf8_normalize(texts, "NFC").combine_chunks()


def _whole(values: Any, parameter: str, column: str) -> Any:
    """Return floats as whole numbers, NaN as an empty cell. Raises InvalidConfig if one may stand for several."""
    import pyarrow as pa
    import pyarrow.compute as pc

    values = values.cast(pa.float64())
    bad = pc.or_(pc.not_equal(values, pc.floor(values)), pc.greater_equal(pc.abs(values), float(EXACT)))
    bad = pc.and_(bad, pc.invert(pc.is_nan(values))).fill_null(False)
    if pc.any(bad).as_py():
        row = bad.index(True).as_py()
        raise InvalidConfig(
            f"hf: expected texts or whole numbers in '{column}', found the float {values[row]} in row {row}, in which "
            "digits may be lost",
            hint=f"write the column as texts, or change '{parameter}'",
        )
    return pc.if_else(pc.is_nan(values), None, values).cast(pa.int64())


def read_ids(table: Any, params: HFParams, role: str) -> Any:
    """Return a unique id for each row. Raises InvalidConfig if the column of ids repeats one."""
    import pyarrow as pa

    if params.id is None:
        return pa.array((f"{role}/{row}" for row in range(len(table))), pa.large_string())
    names = read_names(table, "id", params.id)
    if len(names.unique()) < len(names):
        seen: dict[str, int] = {}
        problems = Problems()
        for row, name in enumerate(names.to_pylist()):
            if seen.setdefault(name, row) != row:
                hint = "change 'id', or leave it out; a column of images, which may repeat, is 'group'"
                message = f"hf: expected unique ids, found '{name}' in the rows {seen[name]} and {row}"
                problems.add(InvalidConfig(message, hint=hint))
        raise problems.joined()
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

    values, feature = column_of(table, name).combine_chunks(), table.features[name]
    rows = np.arange(len(values))
    if hasattr(values, "flatten") and not pa.types.is_struct(values.type):
        rows, values = pc.list_parent_indices(values).to_numpy(), values.flatten()
        feature = feature[0] if isinstance(feature, list) else feature.feature
    if pa.types.is_floating(values.type):  # pandas turns whole numbers with empty cells into floats
        with contextlib.suppress(pa.ArrowInvalid):
            values = pc.if_else(pc.is_nan(values), None, values).cast(pa.int64())
    if pa.types.is_string_view(values.type):
        values = values.cast(pa.large_string())
    kinds = (pa.types.is_integer, pa.types.is_boolean, pa.types.is_string, pa.types.is_large_string, pa.types.is_null)
    if not any(is_kind(values.type) for is_kind in kinds):
        raise InvalidConfig(
            f"hf: expected classes, texts or whole numbers as labels, found {table.features[name]}",
            hint="change 'labels', or leave it out",
        )
    classes = getattr(feature, "names", None)
    # The library encodes an unknown class as -1.
    if classes:
        _check_classes(values, rows, len(classes), name)
    if not classes:
        values = _normal(values)
    labelled = pc.greater_equal(values, 0) if classes else pc.not_equal(values, "")
    labelled = labelled.fill_null(False)
    values, rows = values.filter(labelled), rows[labelled.to_numpy(zero_copy_only=False)]
    texts = _normal(pa.array(classes, pa.string())).take(values) if classes else values
    encoded = texts.dictionary_encode()
    return Labels(rows, encoded.indices.to_numpy().astype(np.int64), encoded.dictionary.to_pylist())


def _normal(values: Any) -> Any:
    """Return labels as texts in which those that look the same are equal, without spaces around them."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.utf8_normalize(pc.utf8_trim_whitespace(values.cast(pa.large_string())), "NFC")


def _check_classes(values: Any, rows: NDArray[np.int64], count: int, name: str) -> None:
    """Raise InvalidConfig for a number that is no class; the library encodes an unknown class as -1."""
    import pyarrow.compute as pc

    bad = pc.or_(pc.less(values, -1), pc.greater_equal(values, count)).fill_null(False)
    if pc.any(bad).as_py():
        place = bad.index(True).as_py()
        raise InvalidConfig(
            f"hf: expected classes from 0 to {count - 1} in '{name}', or -1 for none, found {values[place]} in row "
            f"{rows[place]}",
            hint="write the column again, or its names of classes",
        )


def count_captions(captions: Any, params: HFParams, feature: Any) -> NDArray[np.int64] | None:
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
            hint="set 'caption' to a column of texts",
        )
    counts: NDArray[np.int64] = np.asarray(pc.list_value_length(captions).fill_null(0), np.int64)
    return np.maximum(counts, 1)


def empty_images(table: Any, column: str) -> NDArray[np.bool_]:
    """Return True for each row without an image, neither bytes nor a path."""
    import numpy as np
    import pyarrow.compute as pc

    if getattr(table, "_indices", None) is not None:  # rows in another order would be copied with their images
        return np.zeros(len(table), bool)
    images = column_of(table, column)
    parts = [pc.struct_field(images, part).is_null() for part in ("bytes", "path")]
    return np.asarray(pc.and_(*parts).to_numpy(), bool)


def empty_captions(captions: Any) -> NDArray[np.bool_]:
    """Return True for each caption that is missing or blank, in the order of rows and of captions in a list."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if hasattr(captions.type, "value_type"):
        lengths = pc.list_value_length(captions).fill_null(0)
        blank = empty_captions(captions.combine_chunks().flatten())
        # An empty list counts as one sample without a caption.
        found = np.ones(int(np.maximum(lengths.to_numpy(), 1).sum()), bool)
        counts = np.asarray(lengths.to_numpy(), np.int64)
        found[np.repeat(counts > 0, np.maximum(counts, 1))] = blank
        return found
    texts = captions.cast(pa.large_string())
    return np.asarray(pc.equal(pc.utf8_trim_whitespace(texts), "").fill_null(True).to_numpy(zero_copy_only=False), bool)
