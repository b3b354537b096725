"""Labels of imported samples: read from a file, kept beside the features of a split, and read by an evaluation.

<out>/<split>/labels.json     labels, their parents, and the numbers of the labels of each sample
"""

from __future__ import annotations

import csv
import hashlib
import json
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from sparc.errors import CorruptFile, InvalidConfig, MissingData, Problems
from sparc.interchange.sample_ids import clean
from sparc.plugins.contracts import Sample, Taxonomy
from sparc.plugins.datasets import read_taxonomy, taxonomy_of
from sparc.plugins.label_lists import is_nothing, listed
from sparc.storage.manifest import digest_ids
from sparc.system.files import read_json, write_atomically
from sparc.system.names import same_name
from sparc.system.nearby import meant
from sparc.system.texts import open_text

if TYPE_CHECKING:
    from scipy.sparse import csr_array

LABELS = "labels.json"
"""File of the labels of a split."""
TABLES, LINES, OBJECTS = (".csv", ".tsv"), (".jsonl", ".ndjson"), (".json",)
FORM = 'columns id and labels (a;b) in .csv, .tsv or .jsonl, or {"id": ["a", "b"], ...} in .json'
_SEPARATORS = (",", ";", "\t")
_SHOWN = 3

LabelsById = Mapping[str, tuple[str, ...]]


class Labelling(NamedTuple):
    """Labels of samples by id, and their taxonomy."""

    labels: LabelsById
    taxonomy: Taxonomy


def labelling(labels: LabelsById, taxonomy: Path | Mapping[str, Any] | None) -> Labelling:
    """Return labels with their taxonomy: of a file, or given as parents by label; without one all labels are roots.

    Raises InvalidConfig if the taxonomy is none, or lacks a label; MissingData, StorageError.
    """
    used = [label for some in labels.values() for label in some]
    if isinstance(taxonomy, Mapping):
        parents = {name: list(above) if isinstance(above, tuple | set) else above for name, above in taxonomy.items()}
        return Labelling(labels, taxonomy_of(parents, used, "taxonomy"))
    return Labelling(labels, read_taxonomy(taxonomy, used))


def read_labels(path: Path) -> dict[str, tuple[str, ...]]:
    """Return the labels in a file, by the id of their sample.

    A table (.csv, .tsv) and lines of JSON (.jsonl) have columns `id` and `labels`, such as `a;b`; other columns are not
    read. A JSON file maps each id to its labels. All may be gzipped.

    Raises:
        MissingData: the file does not exist.
        InvalidConfig: the file is in another form, or an id is empty or there twice. The error lists the first twenty
            of such lines.
        CorruptFile, StorageError: the file is truncated, or the machine refuses to read it.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    suffix = suffixes[-1] if suffixes else ""
    if suffix not in (*TABLES, *LINES, *OBJECTS):
        raise InvalidConfig(f"{path}: expected a file of labels, found '{suffix}'", hint=FORM)
    reader = _Reader(path)
    try:
        with open_text(path, newline="" if suffix in TABLES else None) as file:
            read = reader.table if suffix in TABLES else reader.lines if suffix in LINES else reader.mapping
            for line, one, value in read(file):
                reader.add(line, one, value)
    except FileNotFoundError as error:
        raise MissingData(f"labels not found: {path}", hint=meant(path, FORM, folder=False)) from error
    return reader.finish()


def spelled(parts: Iterable[str]) -> tuple[str, ...]:
    """Return labels without spaces around them, each once, in Unicode's composed form."""
    return tuple(dict.fromkeys(filter(None, (same_name(part.strip()) for part in parts))))


class _Reader:
    """Labels of a file, and what is wrong with its lines."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: dict[str, tuple[str, ...]] = {}
        self._lines: dict[str, int] = {}
        self._problems = Problems(f"{path}, ")
        self._commas: list[str] = []
        self._blank = 0

    def table(self, file: TextIO) -> Iterator[tuple[int, Any, Any]]:
        """Yield line, id and labels of each row of a table. Raises InvalidConfig for a header without these columns."""
        lines = enumerate(file, start=1)
        number, header = next((one for one in lines if one[1].strip("\ufeff \t\r\n")), (1, ""))
        for separator in _SEPARATORS:
            cells = next(csv.reader([header], delimiter=separator), [])
            names = [cell.strip(" \ufeff").casefold() for cell in cells]
            if {"id", "labels"} <= set(names):
                break
        else:
            found = header.strip()
            raise self._wrong(number, f"expected a header with columns id and labels, found {found!r:.80}")
        if twice := next((name for name in ("id", "labels") if names.count(name) > 1), None):
            raise self._wrong(number, f"expected one column '{twice}', found {names.count(twice)}")
        rows = csv.reader(file, delimiter=separator, strict=True)
        while True:
            line = number + rows.line_num + 1
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error as error:  # behind a quote that is not closed, nothing more is known
                self._problems.add(self._wrong(line, f"a quote opens here and is not closed, or goes on: {error}"))
                return
            if not any(cell.strip() for cell in row):
                self._blank += 1
            elif len(row) != len(names):
                self._problems.add(
                    self._wrong(line, f"expected {len(names)} cells, found {len(row)}: {separator.join(row)!r:.60}")
                )
            else:
                yield line, row[names.index("id")], row[names.index("labels")]

    def lines(self, file: TextIO) -> Iterator[tuple[int, Any, Any]]:
        """Yield line, id and labels of each object of a file with an object per line."""
        for line, text in enumerate(file, start=1):
            if not text.strip("\ufeff \t\r\n"):
                continue
            try:
                record = _parsed(text.strip("\ufeff \t\r\n"))
                if not isinstance(record, dict) or not {"id", "labels"} <= record.keys():
                    raise ValueError("expected an object with 'id' and 'labels'")
            except (ValueError, RecursionError) as error:
                self._problems.add(self._wrong(line, f"{error}, found {text.strip()!r:.60}"))
                continue
            yield line, record["id"], record["labels"]

    def mapping(self, file: TextIO) -> Iterator[tuple[int, Any, Any]]:
        """Yield 0, id and labels of each entry of a JSON object. Raises InvalidConfig for anything else."""
        try:
            content = _parsed(file.read())
            if not isinstance(content, dict):
                raise ValueError(f"expected an object that maps ids to labels, found a {type(content).__name__}")
        except (ValueError, RecursionError) as error:
            raise InvalidConfig(f"{self._path} holds no labels: {error}", hint=FORM) from error
        for one, value in content.items():
            yield 0, one, value

    def add(self, line: int, written: Any, value: Any) -> None:
        """Add the labels of a sample, unless something is wrong with them."""
        one = clean(written) if isinstance(written, str) else ""
        if not one:
            self._problems.add(self._wrong(line, f"expected an id, found {written!r:.40}"))
            return
        if one in self._found:
            first = f" in line {self._lines[one]} too" if line else " twice"
            self._problems.add(
                self._wrong(line, f"found the id '{one}'{first}", "give each sample once, with all its labels: a;b")
            )
            return
        try:
            self._found[one] = self._labels(value)
        except ValueError as error:
            self._problems.add(self._wrong(line, f"the labels of '{one}': {error}"))
        self._lines[one] = line

    def _labels(self, value: Any) -> tuple[str, ...]:
        if value is None:
            return ()
        if isinstance(value, list):
            if not all(isinstance(part, str | None) for part in value):
                raise ValueError(f"expected a list of texts, found {value!r:.60}")
            return spelled(part for part in value if part is not None)
        if not isinstance(value, str):
            raise ValueError(f"expected a text or a list of texts, found {value!r:.60}")
        if is_nothing(value):
            return ()
        parts = listed(value)
        if parts is None and "," in value and ";" not in value:
            self._commas.append(value)
        return spelled(value.split(";") if parts is None else parts)

    def finish(self) -> dict[str, tuple[str, ...]]:
        """Return the labels. Warns of what may be meant otherwise; raises InvalidConfig for lines that are wrong."""
        if self._problems:
            raise self._problems.joined()
        if not any(self._found.values()):
            raise InvalidConfig(f"{self._path}: expected labels, found none", hint=FORM)
        if self._commas:
            warnings.warn(
                f"cells of labels in {self._path} with a comma and no ';', each of which is one label: "
                f"{len(self._commas)}, such as '{self._commas[0]:.60}'; write several as a;b",
                stacklevel=2,
            )
        if self._blank:
            warnings.warn(f"left out rows of {self._path} without any text: {self._blank}", stacklevel=2)
        return self._found

    def _wrong(self, line: int, message: str, hint: str = FORM) -> InvalidConfig:
        where = f"{self._path}, line {line}: " if line else f"{self._path}, "
        return InvalidConfig(f"{where}{message}", hint=hint)


def _parsed(text: str) -> Any:
    """Read JSON, numbers as they are written. Raises ValueError, also for a key that comes twice."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [clean(key) for key, _ in pairs]
        if twice := next((key for key in keys if len(keys) > len(set(keys)) and keys.count(key) > 1), None):
            raise ValueError(f"'{twice}' is there twice")
        return dict(pairs)

    return json.loads(
        text.lstrip("\ufeff"),
        object_pairs_hook=unique,
        parse_int=str,
        parse_float=str,
        parse_constant=lambda constant: None,
    )


def check_matched(labels: LabelsById, ids: Iterable[str], *, all_samples: bool) -> None:
    """Raise InvalidConfig if no sample has labels. Warn of labels of other ids, if these are all samples there are."""
    known = set(ids)
    unused = [one for one in labels if one not in known]
    if len(unused) == len(labels):
        raise InvalidConfig(
            f"labels: none of their {len(labels):,} ids is that of a sample: {_some(labels)}; samples: {_some(known)}",
            hint="write the ids of labels and of features in the same way",
        )
    if unused and all_samples:
        warnings.warn(
            f"labels of ids that no sample has are left out: {len(unused):,}, such as {_some(unused)}", stacklevel=2
        )


def _some(found: Iterable[str]) -> str:
    shown = [f"'{one:.40}'" for one, _ in zip(sorted(found), range(_SHOWN), strict=False)]
    return ", ".join(shown)


def write_labels(folder: Path, ids: Sequence[str], given: Labelling) -> int:
    """Write the labels of a split into its folder, and return how many of its samples have one. Raises StorageError."""
    number = {label: place for place, label in enumerate(given.taxonomy.labels)}
    rows = [[number[label] for label in given.labels.get(one, ())] for one in ids]
    parents = {label: list(above) for label, above in given.taxonomy.parents.items()}
    content = {"samples_sha256": digest_ids(ids), "parents": parents, "labels": rows, "sha256": _digest(parents, rows)}
    text = json.dumps(content, ensure_ascii=False)
    write_atomically(folder / LABELS, lambda path: path.write_text(text, encoding="utf-8"))
    return sum(1 for row in rows if row)


def _digest(parents: object, rows: object) -> str:
    return hashlib.sha256(json.dumps([parents, rows]).encode()).hexdigest()


@dataclass(frozen=True)
class ImportedSamples:
    """A dataset of imported samples, which have an id and perhaps labels, but no image or caption."""

    ids: tuple[str, ...]
    folder: Path | None = None
    """Folder of the split, which may hold labels."""

    @property
    def groups(self) -> tuple[str, ...]:
        """Ids of the samples: no two of them are known to belong together."""
        return self.ids

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        """Return one sample, which has an id only."""
        return Sample(self.ids[index])

    @property
    def taxonomy(self) -> Taxonomy | None:
        """Taxonomy of the labels; None without labels. Raises CorruptFile, StorageError."""
        return self._stored[0] if self._stored is not None else None

    def labels(self) -> csr_array | None:
        """Return multi-hot labels (N, labels), columns as in the taxonomy; None without labels."""
        import numpy as np
        from scipy.sparse import csr_array

        if self._stored is None:
            return None
        taxonomy, labels = self._stored
        pairs = np.array([(row, label) for row, some in enumerate(labels) for label in some], np.intp).reshape(-1, 2)
        return csr_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(self), len(taxonomy.labels)))

    @cached_property
    def _stored(self) -> tuple[Taxonomy, list[list[int]]] | None:
        path = None if self.folder is None else self.folder / LABELS
        if path is None:
            return None
        try:
            content = read_json(path, what="the labels of imported samples")
        except MissingData:
            return None
        again = f"remove {path}; or remove {path.parent.parent} and import the features and labels again"
        try:
            taxonomy, labels = Taxonomy(content["parents"]), content["labels"]
            most = len(taxonomy.labels)
            whole = all(isinstance(label, int) and 0 <= label < most for some in labels for label in some)
            if content["samples_sha256"] != digest_ids(self.ids) or len(labels) != len(self) or not whole:
                raise ValueError("its labels are not those of the samples beside it")
            found = _digest(content["parents"], labels)
            if content.get("sha256", found) != found:
                raise ValueError("its labels differ from their checksum")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CorruptFile(f"{path} is truncated or altered: {error}", hint=again) from error
        return taxonomy, labels
