"""Read COCO's annotation files, and those of other data in its format: captions, categories, objects and outlines.

Ids are whole numbers or texts. They are compared as texts, so that the image 9 of one file is the image "9" of another.
"""

from __future__ import annotations

import json
import warnings
import zlib
from array import array
from collections import Counter
from collections.abc import Collection
from gzip import BadGzipFile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from sparc.plugins import CorruptFile, Problems, Taxonomy, open_text, same_name

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

KINDS = {int: "a whole number", str: "a text"}
NO_SUPERCATEGORY = ("", "none")
"""Supercategories that mean that there is none; `none` is what Roboflow writes."""
Kind = TypeVar("Kind", int, str)
Record = dict[str, Any]


class _Number(float):
    """A number that remembers how it is written: 1.50 stays 1.50 where it is a caption."""

    written: str

    def __new__(cls, written: str) -> _Number:
        """Return the number that a text says."""
        number = super().__new__(cls, written)
        number.written = written
        return number


def read_annotations(path: Path, keys: Collection[str]) -> Any:
    """Read an annotation file, keeping only `keys` of each object. Raises CorruptFile, InvalidConfig, StorageError."""

    wanted = set(keys)

    def keep(record: Record) -> Record:
        if not (outlined := "segmentation" in record) and record.keys() <= wanted:
            return record
        # Filter while parsing: a file of 450 MB would take several GB as Python objects.
        kept = {key: record[key] for key in keys if key in record}
        if outlined and isinstance(outlines := kept.get("segmentation"), list):
            kept["segmentation"] = [array("d", polygon) for polygon in outlines]
        return kept

    with open_text(path) as file:
        try:
            number = _Number if "caption" in keys else None
            return json.load(file, object_hook=keep, parse_float=number, parse_constant=number)
        except UnicodeDecodeError:
            raise
        except (ValueError, TypeError, OverflowError, EOFError, RecursionError, zlib.error, BadGzipFile) as error:
            raise corrupt(path, f"expected COCO's JSON, found {error}") from error


def corrupt(path: Path, message: str) -> CorruptFile:
    """Return the error for a file that is not as expected."""
    return CorruptFile(f"{path}: {message}", hint="download and unzip it again, or repair it")


def records(content: Any, key: str, path: Path) -> list[Record]:
    """Return a list of objects of the file. Raises CorruptFile."""
    found = content.get(key) if isinstance(content, dict) else None
    if not isinstance(found, list) or not all(isinstance(record, dict) for record in found):
        raise corrupt(path, f"expected an object with a list of objects '{key}', found {type(found).__name__}")
    return found


def _field(record: Record, key: str, kind: type[Kind], path: Path) -> Kind:
    value = record.get(key)
    if not isinstance(value, kind):
        raise corrupt(path, f"expected {KINDS[kind]} '{key}', found {record!s:.100}")
    return value


def _id(record: Record, key: str, path: Path) -> str:
    """Return an id as a text. Raises CorruptFile."""
    value = record.get(key)
    if type(value) is int:
        return str(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # pandas writes whole numbers as floats if one of them was missing
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise corrupt(path, f"expected a whole number or a text '{key}', found {record!s:.100}")
    return same_name(as_text(str(value)))


def as_text(text: str) -> str:
    """Return a text that a file can hold: half of a character (a lone surrogate) is escaped."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _label(record: Record, key: str, path: Path) -> str:
    """Return a name in one spelling, so that names that look the same are one. Raises CorruptFile."""
    return same_name(as_text(_field(record, key, str, path))).strip()


def _by_id(content: Any, key: str, path: Path) -> dict[str, Record]:
    """Return images or categories by id, sorted by id, since another copy of the file may have another order."""
    found: dict[str, Record] = {}
    wrong = Problems(f"{path}: ")
    for record in records(content, key, path):
        try:
            name = _id(record, "id", path)
            if name in found:
                raise corrupt(path, f"expected unique ids in '{key}', found {name} twice")
        except CorruptFile as error:
            wrong.add(error)
            continue
        found[name] = record
    if wrong:
        raise wrong.joined()
    return dict(sorted(found.items(), key=_in_order))


def _in_order(item: tuple[str, Record]) -> tuple[bool, int, str]:
    """Return what sorts numbers by their size, and before texts."""
    name, record = item
    if type(record["id"]) is int:
        return False, record["id"], name
    number = name.removeprefix("-").isdecimal() and name.isascii()
    return not number, int(name) if number else 0, name


class Pictured(NamedTuple):
    """An image and its captions."""

    name: str
    """Id that users see: a number with 12 digits, as in COCO's file names, or the text in the file."""
    file: str
    captions: list[str]
    """One line each, in the order of the file; some may be blank."""


def read_captions(path: Path) -> dict[str, Pictured]:
    """Return the images by id, in order of their ids. Raises CorruptFile, InvalidConfig, StorageError."""
    content = read_annotations(path, ("images", "annotations", "id", "file_name", "image_id", "caption"))
    images = {}
    numbered = {}
    wrong = Problems(f"{path}: ")
    for image, record in _by_id(content, "images", path).items():
        name = image if isinstance(record["id"], str) else image.zfill(12)
        try:
            images[image] = Pictured(name, _field(record, "file_name", str, path), [])
        except CorruptFile as error:
            wrong.add(error)
            continue
        numbered[record["id"]] = images[image]
    if wrong:
        raise wrong.joined()
    if len({picture.name for picture in images.values()}) < len(images):
        raise corrupt(path, "expected ids of images that are all numbers, or texts of other forms than 000000000009")
    for record in records(content, "annotations", path):
        value, caption = record.get("image_id"), record.get("caption")
        try:
            picture = numbered.get(value) if type(value) is int else images.get(_id(record, "image_id", path))
            if picture is None and (picture := images.get(_id(record, "image_id", path))) is None:
                raise corrupt(path, f"expected captions of its own images, found {record!s:.100}")
            written = caption if type(caption) is str else _caption(record, path)
        except CorruptFile as error:
            wrong.add(error)
            continue
        picture.captions.append(" ".join(written.split()))
    if wrong:
        raise wrong.joined()
    return images


def _caption(record: Record, path: Path) -> str:
    """Return a caption; a number is the text that is written, and null and NaN are no text. Raises CorruptFile."""
    value = record.get("caption", False)
    if value is None or value != value:
        return ""
    if isinstance(value, _Number):
        return value.written
    return str(value) if type(value) is int else _field(record, "caption", str, path)


def _spelled_twice(categories: dict[str, Record], names: dict[str, str], aboves: dict[str, str]) -> dict[str, str]:
    """Return, for each category, the first one whose name is the same in another spelling, or itself."""
    groups: dict[tuple[str, str], list[str]] = {}
    for number, name in names.items():
        groups.setdefault((name, aboves[number]), []).append(number)
    first = {number: number for number in names}
    for numbers in groups.values():
        if len({categories[number]["name"] for number in numbers}) == len(numbers):  # else the author means several
            first.update(dict.fromkeys(numbers, numbers[0]))
    return first


def read_categories(content: Any, path: Path) -> tuple[Taxonomy, dict[str, int]]:
    """Return the taxonomy supercategory > category, and the column of each category. Raises CorruptFile.

    `person` is the only category of the supercategory `person`, so both are one label. A category without a
    supercategory is a root. A name that several categories have gets their ids appended, unless it is one name in
    several spellings below one supercategory: these are one category, and counted in a warning.
    """
    categories = _by_id(content, "categories", path)
    names = {number: _label(record, "name", path) for number, record in categories.items()}
    aboves = {
        number: "" if record.get("supercategory") is None else _label(record, "supercategory", path)
        for number, record in categories.items()
    }
    first = _spelled_twice(categories, names, aboves)
    if again := [names[number] for number in first if first[number] != number]:
        message = f"categories whose names look like another's are taken for that one: {len(again)}, such as {again[0]}"
        warnings.warn(f"coco: {path}: {message}", stacklevel=2)
    count = Counter(names[number] for number in set(first.values()))
    labels = {number: name if count[name] == 1 else f"{name} ({first[number]})" for number, name in names.items()}
    parents: dict[str, tuple[str, ...]] = {}
    for number, above in aboves.items():
        if above.casefold() in NO_SUPERCATEGORY:
            parents.setdefault(labels[number], ())
            continue
        parents.setdefault(above, ())
        if labels[number] != above:
            parents[labels[number]] = (above,)
    try:
        taxonomy = Taxonomy(parents)
    except ValueError as error:
        raise corrupt(path, f"expected categories below supercategories, found that {error}") from error
    column = {label: place for place, label in enumerate(taxonomy.labels)}
    return taxonomy, {number: column[label] for number, label in labels.items()}


def read_instances(path: Path) -> tuple[Taxonomy, list[str], NDArray[np.int64]]:
    """Return the taxonomy, and the image's id and the label's column of each object. Raises as `read_captions`."""
    import numpy as np

    keys = ("categories", "annotations", "id", "name", "supercategory", "image_id", "category_id")
    content = read_annotations(path, keys)
    taxonomy, column_of = read_categories(content, path)
    images: list[str] = []
    columns = array("q")
    for record in records(content, "annotations", path):
        category = _id(record, "category_id", path)
        if category not in column_of:
            raise corrupt(path, f"expected one of its {len(column_of)} categories, found {record!s:.100}")
        images.append(_id(record, "image_id", path))
        columns.append(column_of[category])
    return taxonomy, images, np.array(columns, dtype=np.int64)


def read_outlines(path: Path) -> tuple[dict[str, list[int]], list[Any]]:
    """Return height and width of each image, and the outline of each object. Raises as `read_captions`."""
    keys = ("images", "annotations", "id", "height", "width", "segmentation", "counts", "size")
    content = read_annotations(path, keys)
    sizes = {
        image: [_field(record, key, int, path) for key in ("height", "width")]
        for image, record in _by_id(content, "images", path).items()
    }
    return sizes, [record.get("segmentation") for record in records(content, "annotations", path)]
