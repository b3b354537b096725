"""Read the index of a folder: the file that lists its images, captions, labels and splits."""

from __future__ import annotations

import contextlib
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field

from sparc.plugins import InvalidConfig, MissingData, Params, Problems, held_out, same_name
from sparc.plugins.label_lists import is_nothing, listed
from sparc_plugins.image_folder.columns import FORM, REQUIRED
from sparc_plugins.image_folder.images import are_two_files, as_text, image_name
from sparc_plugins.image_folder.places import INDEX_NAMES
from sparc_plugins.image_folder.places import index_path as find_index
from sparc_plugins.image_folder.records import Fault, Notes, Record, read_records, some, wrong

SPLITS = ("train", "test")
LEFT_OUT = ("val", "valid", "validation", "dev")
"""Splits that other programs read, and this one leaves out."""


class ImageFolderParams(Params):
    """Parameters of the dataset."""

    root: str
    """The folder, also set by `--data-root`."""
    index: str | None = None
    """File in the folder that lists the samples; default: samples.csv, samples.jsonl or samples.tsv."""
    label_separator: str = Field(default=";", min_length=1)
    """Text between two labels in one cell."""
    holdout: float = Field(default=0.2, ge=0, le=1)
    """Fraction of the images that is held out if the file has no column `split`."""
    split_seed: int = 0
    """Random seed of the held-out images."""
    digest: Literal["sample", "all"] = "sample"
    """Part of the images that identifies them: a `sample` of their content, or `all` of it."""


class Row(NamedTuple):
    """One line of the index."""

    id: str
    image: str
    """Path of the image in the folder, in one spelling: `/` between folders, and Unicode's composed form."""
    caption: str
    labels: tuple[str, ...]
    split: str
    line: int = 0
    """Line of the index, from 1."""


class Index(NamedTuple):
    """Content of an index: the rows that make sense, and what is wrong with the others."""

    rows: list[Row]
    faults: list[Fault]
    parts: list[Row]
    """Rows at fault, with as much of image and caption as can be read, so that these are checked too."""


def read_index(params: ImageFolderParams) -> list[Row]:
    """Read and check the index of a folder. Rows that are left out, and labels that look wrong, are a warning.

    Raises:
        MissingData: the folder or the index does not exist, or the index is empty.
        InvalidConfig: a line does not fit the header, lacks a cell, has an unknown split, or repeats an id. The error
            names file, line and cell, and lists the first twenty of such lines.
        CorruptFile, StorageError: the file is truncated, or the machine refuses to read it.
    """
    found = examine_index(params)
    if found.faults:
        problems = Problems(f"{index_path(params)}, ")
        for fault in found.faults:
            problems.add(fault.error)
        raise problems.joined()
    return found.rows


def examine_index(params: ImageFolderParams) -> Index:
    """Read the index of a folder, and collect what is wrong with its lines.

    Raises:
        MissingData: the folder or the index does not exist, or the index is empty.
        InvalidConfig: the header lacks a column.
        CorruptFile, StorageError: the file is truncated, or the machine refuses to read it.
    """
    path = index_path(params)
    reader = _Reader(path, params)
    if params.index is None and (others := [name for name in INDEX_NAMES if _is_another(path, name)]):
        reader.notes.rows.append(
            f"the samples are those of {path}; {some(others)} beside it is not read (index= chooses)"
        )
    rows: list[Row] = []
    faults: list[Fault] = []
    parts: list[Row] = []
    for line, record in read_records(path, reader.notes, faults):
        try:
            rows.append(reader.row(line, record))
        except InvalidConfig:
            errors, part = reader.faults(line, record)
            faults += [Fault(line, error) for error in errors]
            parts.append(part)
    if not rows and not faults:
        raise MissingData(f"{path} lists no samples", hint=f"one line per sample: {FORM}")
    if not faults:
        reader.finish()
    for note in reader.notes.columns + ([] if faults else reader.notes.rows):
        # One place in this module, so that Python shows each warning once.
        warnings.warn(f"image-folder: {note}", stacklevel=1)
    return Index(rows, faults, parts)


def index_path(params: ImageFolderParams) -> Path:
    """Return the path of the index. Raises MissingData, InvalidConfig."""
    return find_index(params.root, params.index)


def _is_another(path: Path, name: str) -> bool:
    return path.name.lower() != name and path.with_name(name).is_file()


class _Reader:
    """Turns records into rows, and remembers what must be equal or different between them."""

    def __init__(self, path: Path, params: ImageFolderParams) -> None:
        self.path = path
        self.notes = Notes([], [])
        self._params = params
        self._root = os.path.abspath(Path(params.root).expanduser())
        self._lines: dict[str, int] = {}
        """Line of each id, by the form in which ids that look the same are equal."""
        self._images: dict[str, str] = {}
        """Path of each image by the text that names it."""
        self._label_sets: dict[str | tuple[str, ...], tuple[str, ...]] = {}
        """Labels by the cell that holds them."""
        self._captions: dict[str, int] = {}
        """Number of the last caption of each image."""
        self._splits: dict[str, str] = {}
        self._given: dict[str, bool] = {}
        """By optional column, whether the first record has a value."""
        self._left_out: dict[str, list[int]] = {}
        """Lines of each split that is neither train nor test."""
        self._no_labels: list[int] = []
        self._commas: list[str] = []
        self._with_comma: set[str] = set()
        self._halves: list[int] = []

    def row(self, line: int, record: Record) -> Row:
        """Return the row of a record. Raises InvalidConfig for the first of its faults."""
        image = self._image(line, record)
        split = self._split(line, record, image)
        caption = self._caption(line, record)
        name = self._name(line, record, image)
        labels = self._labels(line, record["labels"]) if "labels" in record else ()
        return Row(name, image, caption, labels, split, line)

    def faults(self, line: int, record: Record) -> tuple[list[InvalidConfig], Row]:
        """Return all faults of a record that has some, and a row of what can be read of it."""
        errors: list[InvalidConfig] = []

        def tried(read: Callable[[], str], otherwise: str) -> str:
            try:
                return read()
            except InvalidConfig as error:
                errors.append(error)
                return otherwise

        image = tried(lambda: self._image(line, record), "")
        tried(lambda: self._split(line, record, image), "")
        caption = tried(lambda: self._caption(line, record), "?")  # an empty one would be another fault
        name = tried(lambda: self._name(line, record, image), "")
        tried(lambda: str(self._labels(line, record.get("labels"))), "")
        return errors, Row(name or f"line {line}", image, caption, (), "", line)

    def _image(self, line: int, record: Record) -> str:
        """Return the path of the image in one spelling. Raises InvalidConfig."""
        written = self._text(line, record, "image")
        if (image := self._images.get(written)) is None:
            if not written.strip():
                raise self._wrong(line, "the cell 'image' is empty", "name the image, or remove the line")
            image = image_name(written, self._root)
            if image != written and are_two_files(self._root, written, image):
                message = f"the folder has {written!r} and another file '{as_text(image)}', whose names look the same"
                raise self._wrong(line, message, "rename one of them, in the folder and here")
            self._images[written] = image
        return image

    def _split(self, line: int, record: Record, image: str) -> str:
        """Return the split of an image. Raises InvalidConfig."""
        key = as_text(image)
        split = self._optional(line, record, "split").casefold() if "split" in record else ""
        if not split:
            split = "test" if held_out(key, self._params.holdout, self._params.split_seed) else "train"
        elif split in LEFT_OUT:
            self._left_out.setdefault(split, []).append(line)
        elif split not in SPLITS:
            raise self._wrong(line, f"expected split train or test, found '{split}'")
        if image and self._splits.setdefault(image, split) != split:
            raise self._wrong(
                line, f"expected one split per image, found '{key}' in {self._splits[image]} and in {split}"
            )
        return split

    def _caption(self, line: int, record: Record) -> str:
        """Return the caption. Raises InvalidConfig."""
        caption = self._text(line, record, "caption")
        if not caption.isascii() and (valid := as_text(caption, "replace")) != caption:
            self._halves.append(line)
            caption = valid
        return caption

    def _name(self, line: int, record: Record, image: str) -> str:
        """Return the id, by default the image with the number of the caption. Raises InvalidConfig."""
        number = self._captions[image] = self._captions.get(image, -1) + 1
        name = (self._optional(line, record, "id") if "id" in record else "") or f"{as_text(image)}#{number}"
        if (first := self._lines.setdefault(same_name(name), line)) != line:
            raise self._wrong(line, f"expected unique ids, found '{name}' in line {first} too")
        return name

    def finish(self) -> None:
        """Write the notes on all rows."""
        for split, lines in self._left_out.items():
            self.notes.rows.append(
                f"left out rows of {self.path} with split '{split}': {len(lines)} (lines {some(lines)}); only train "
                "and test are read"
            )
        if self._no_labels:
            self.notes.rows.append(
                f"cells of labels in {self.path} that say that there is no value, such as nan, and are no label: "
                f"{len(self._no_labels)} (lines {some(self._no_labels)})"
            )
        if self._commas:
            separator = self._params.label_separator
            self.notes.rows.append(
                f"cells of labels in {self.path} with a comma and no '{separator}', each of which is one label: "
                f"{len(self._commas)}, such as '{self._commas[0]:.60}'; to split them: "
                """--dataset 'image-folder[label_separator=","]'"""
            )
        if self._halves:
            self.notes.rows.append(
                f"captions in {self.path} with half of a character (a lone surrogate), which becomes '?': "
                f"{len(self._halves)} (lines {some(self._halves)})"
            )

    def _text(self, line: int, record: Record, name: str) -> str:
        """Return a cell; nothing is an empty text."""
        value = record.get(name)
        if value is None:
            if name in REQUIRED and name not in record:
                raise self._wrong(line, f"expected a text '{name}', found columns {', '.join(record) or 'none'}")
            return ""
        if not isinstance(value, str):
            found = "an object" if isinstance(value, tuple) else json.dumps(value, ensure_ascii=False)
            raise self._wrong(line, f"expected a text in '{name}', found {found:.60}")
        if "\0" in value:
            raise self._wrong(line, f"the cell '{name}' holds a zero byte", "the file is damaged: write it again")
        return value

    def _optional(self, line: int, record: Record, name: str) -> str:
        """Return a cell that all lines have or none, since a default for some of them would be a guess."""
        value = as_text(self._text(line, record, name).strip())
        if self._given.setdefault(name, bool(value)) != bool(value):
            rest = "earlier lines have one" if not value else "earlier lines have none"
            raise self._wrong(line, f"the cell '{name}' {'is empty' if not value else f'is {value:.40}'}, and {rest}")
        return value

    def _labels(self, line: int, value: Any) -> tuple[str, ...]:
        if value is None or value == "":
            return ()
        separator = self._params.label_separator
        if isinstance(value, str):
            if value not in self._label_sets:
                if is_nothing(value):
                    self._no_labels.append(line)
                    return ()
                try:
                    parts_of = listed(value)
                except ValueError as error:
                    hint = 'write the labels with the separator between them, or as JSON\'s ["a", "b"]'
                    raise self._wrong(
                        line, f"expected labels, found a list that cannot be read: {error}", hint
                    ) from error
                if parts_of is None and "," in value and separator not in value:
                    self._with_comma.add(value)
                self._label_sets[value] = _spelled(value.split(separator) if parts_of is None else parts_of)
            if value in self._with_comma:
                self._commas.append(value)
            return self._label_sets[value]
        if isinstance(value, list):
            with contextlib.suppress(KeyError, TypeError):  # TypeError: it holds another list
                return self._label_sets[tuple(value)]
        parts: Any = [part for part in value if part is not None] if isinstance(value, list) else value
        if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
            found = "an object" if isinstance(value, tuple) else json.dumps(value, ensure_ascii=False)
            raise self._wrong(
                line, f"expected labels as a list of texts, or in a CSV file 'a{separator}b', found {found:.60}"
            )
        labels = self._label_sets[tuple(parts)] = _spelled(parts)
        return labels

    def _wrong(self, line: int, message: str, hint: str = f"correct that line; {FORM}") -> InvalidConfig:
        return wrong(self.path, line, message, hint)


def _spelled(parts: list[str]) -> tuple[str, ...]:
    """Return labels without spaces around them, each once, in Unicode's composed form."""
    labels = [part.strip() for part in parts]
    if not all(map(str.isascii, labels)):
        labels = [same_name(as_text(label)) for label in labels]
    return tuple(dict.fromkeys(filter(None, labels)))
