"""Read the labels: the hierarchy of 600 classes, their names, and the labels verified by humans."""

from __future__ import annotations

import csv
import io
import json
import operator
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from sparc.plugins import CorruptFile, Taxonomy, same_name
from sparc_plugins.open_images.files import AGAIN, reading, wrong

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from scipy.sparse import csr_array

NAME_COLUMNS = ["LabelName", "DisplayName"]
LABEL_COLUMNS = ["ImageID", "Source", "LabelName", "Confidence"]
VERIFIED = {"1", "1.0"}
ROOT_NAMES = {"/m/0bl9f": "Entity"}
"""Name of the hierarchy's root, which the class descriptions lack."""


def read_hierarchy(path: Path) -> Taxonomy:
    """Read `bbox_labels_600_hierarchy.json`: machine ids (`/m/...`) and their parents, in the file's order.

    A class below several others has several parents. A part is not a subclass of its whole, so a class that occurs only
    as a part is a root. Parents outside of parts come first, because `Taxonomy.lift` goes up through the first of
    equally deep parents, and a part is no place to sort a class into if the file has another.

    Raises:
        CorruptFile: the file is not a hierarchy.
    """
    with reading(path) as file:
        content = file.read().decode("utf-8-sig")
    try:
        labels: dict[str, None] = {}
        edges: dict[bool, list[tuple[str, str]]] = {False: [], True: []}
        _collect(json.loads(content), labels, edges)
        parents: dict[str, list[str]] = {label: [] for label in labels}
        for label, parent in edges[False] + edges[True]:
            if parent not in parents[label]:
                parents[label].append(parent)
        return Taxonomy(parents)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        message = f"{path} is not a hierarchy of LabelName, Subcategory and Part: {error}"
        raise CorruptFile(message, hint=AGAIN) from error


def _collect(
    node: Mapping[str, Any], labels: dict[str, None], edges: dict[bool, list[tuple[str, str]]], in_part: bool = False
) -> None:
    """Add a node's labels, and its pairs of label and parent to `edges[in_part]`, True for those within a part."""
    label = node["LabelName"]
    labels[label] = None
    for child in node.get("Subcategory", ()):
        edges[in_part].append((child["LabelName"], label))
        _collect(child, labels, edges, in_part)
    for part in node.get("Part", ()):
        _collect(part, labels, edges, in_part=True)


def read_names(paths: Sequence[Path]) -> dict[str, str]:
    """Return display names by machine id; the first name wins. Files of V4 and V5 have no header, later files have one.

    Raises CorruptFile if a line does not have two columns. The error names file and line.
    """
    names = dict(ROOT_NAMES)
    for path in paths:
        with reading(path) as file:
            reader = _rows(file)
            label, name = 0, 1
            for number, row in enumerate(filter(None, reader)):
                if len(row) != 2:
                    raise wrong(path, reader.line_num, ",".join(NAME_COLUMNS), ",".join(row))
                header = [cell.strip() for cell in row] if number == 0 else []
                if sorted(header) == sorted(NAME_COLUMNS):
                    label, name = map(header.index, NAME_COLUMNS)
                else:
                    names.setdefault(row[label], row[name])
    return names


def _rows(file: IO[bytes]) -> Any:
    """Return a reader of CSV rows, which refuses quotes that do not fit: they would swallow the rows that follow."""
    return csv.reader(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""), strict=True)


def display(hierarchy: Taxonomy, names: Mapping[str, str]) -> Taxonomy:
    """Return the taxonomy with display names. A shared name gets its id appended; a class without name keeps its id."""
    count = Counter(names.get(mid, mid) for mid in hierarchy.labels)

    def shown(mid: str) -> str:
        name = names.get(mid, mid)
        return name if count[name] == 1 else f"{name} ({mid})"

    return Taxonomy({shown(mid): [shown(above) for above in hierarchy.parents[mid]] for mid in hierarchy.labels})


def read_labels(paths: Sequence[Path], images: NDArray[np.bytes_], columns: Mapping[str, int]) -> tuple[csr_array, int]:
    """Return multi-hot labels (images, columns) of distinct images, and the number of labels without a column.

    Only labels that a human verified as present count (Confidence 1).

    Raises CorruptFile if a line is not a label. The error names file and line.
    """
    import numpy as np
    from scipy.sparse import csr_array

    row_of = {image.decode(): row for row, image in enumerate(images.tolist())}
    rows, found, outside = array("i"), array("i"), 0
    for path in paths:
        with reading(path) as file:
            reader = _rows(file)
            header = [cell.strip() for cell in next(reader, [])]
            if sorted(header) != sorted(LABEL_COLUMNS):
                raise wrong(path, 1, ",".join(LABEL_COLUMNS), ",".join(header))
            fields = operator.itemgetter(*(header.index(name) for name in ("ImageID", "LabelName", "Confidence")))
            for record in filter(None, reader):
                if len(record) != 4:
                    raise wrong(path, reader.line_num, ",".join(header), ",".join(record))
                image, label, confidence = fields(record)
                if confidence not in VERIFIED:
                    continue
                if (row := row_of.get(image if image.isascii() else same_name(image))) is None:
                    continue
                if (column := columns.get(label)) is None:
                    outside += 1
                    continue
                rows.append(row)
                found.append(column)
    matrix = csr_array((np.ones(len(rows)), (np.asarray(rows), np.asarray(found))), shape=(len(images), len(columns)))
    matrix.sum_duplicates()
    matrix.data[:] = 1  # two files, or two annotators, may repeat a label
    return matrix, outside
