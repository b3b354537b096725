"""Choice of the files of a local folder that make each split, and of the reader for them.

The library takes the one format of most files, and leaves the others out without a word: three photos beside
`data.csv` make it a folder of photos without captions. Here tables come first.
"""

from __future__ import annotations

import contextlib
import glob
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from sparc.plugins import InvalidConfig, reading
from sparc_plugins.hf_dataset.folders import PARQUET, check_parquet, check_pointers, some, suffix_of, visible
from sparc_plugins.hf_dataset.texts import TextFiles, is_metadata

KINDS = {".csv": "csv", ".tsv": "csv", ".jsonl": "lines", ".ndjson": "lines", ".json": "json"} | dict.fromkeys(
    PARQUET, "parquet"
)
PREFERRED = ("parquet", "lines", "csv")
"""Kinds of tables, those first that are taken if there are as many files of several."""
DATA = {*KINDS, ".arrow", ".tar", ".xlsx", ".xls", ".zip"}
PACKED = {".bz2", ".xz", ".zst", ".lz4", ".zip"}
UNREAD = ("names", "column_names", "skiprows", "field", "usecols")
CARD = re.compile(rb"^(configs|dataset_info):", re.MULTILINE)


class Choice(NamedTuple):
    """Files of each split: those that are read as texts, and Parquet files. Without any, the library chooses."""

    texts: dict[str, TextFiles]
    parquet: dict[str, list[Path]]

    @property
    def is_left(self) -> bool:
        """True if the library chooses and reads the files."""
        return not self.texts and not self.parquet


class Card(NamedTuple):
    """The choices that a `README.md` makes about the files of a folder."""

    splits: dict[str, list[Path]]
    separator: str | None = None
    classes: Mapping[str, Sequence[str]] = MappingProxyType({})
    options: Sequence[str] = ()
    """Options for the library's readers that are not understood here."""


def choose_files(files: Sequence[Path], root: Path, name: str | None) -> Choice:
    """Choose the files of each split, warn about tables that none uses, and check those that are read.

    Raises InvalidConfig, CorruptFile, MissingData, StorageError; the library's own errors pass.
    """
    seen = visible(files, root)
    check_pointers(path for path in seen if suffix_of(path) in DATA)
    _check_formats(seen, root)
    if not any(suffix_of(path) in KINDS for path in seen):
        return Choice({}, {})
    configured = name is not None or _has_card(root)
    card = _as_configured(root, name) if configured else Card(_splits(root, seen))
    splits = card.splits
    kinds = {split: _kind(paths) for split, paths in splits.items()}
    tables = {split: kind for split, kind in kinds.items() if kind is not None}
    if not tables and not configured:
        _refuse_outside(seen, splits, root)
    if configured and any(kind != "parquet" for kind in tables.values()) and card.options:
        raise InvalidConfig(
            f"hf: the card of {root} says how to read its tables: {', '.join(card.options)}",
            hint="write UTF-8 files with a header, records in lines, a separator of one character; or Parquet files",
        )
    if not tables or (configured and len(tables) < len(kinds)):
        check_parquet(path for paths in splits.values() for path in paths)
        return Choice({}, {})
    taken = {split: [path for path in splits[split] if _kind_of(path) == kind] for split, kind in tables.items()}
    _say_unused(seen, [path for paths in taken.values() for path in paths], root)
    if configured and set(tables.values()) == {"parquet"}:  # the card may name classes
        return Choice({}, {})
    if left := [split for split in splits if split not in tables]:
        warnings.warn(f"hf: no table in the files of the splits {', '.join(left)}: they are not read", stacklevel=4)
    parquet = {split: paths for split, paths in taken.items() if tables[split] == "parquet"}
    check_parquet(path for paths in parquet.values() for path in paths)
    texts = {
        split: TextFiles(root, paths, card.separator, card.classes)
        for split, paths in taken.items()
        if split not in parquet
    }
    return Choice(texts, parquet)


def _check_formats(seen: Sequence[Path], root: Path) -> None:
    """Raise InvalidConfig for tables that the library would read with other values, or for texts without a table."""
    for path in seen:
        if path.suffix.lower() in PACKED and Path(path.stem).suffix.lower() in KINDS:
            raise InvalidConfig(f"hf: {path} is a packed table", hint="unpack it, or pack it with gzip")
    suffixes = Counter(suffix_of(path) for path in seen)
    if suffixes[".txt"] and not any(suffix in DATA for suffix in suffixes):
        raise InvalidConfig(
            f"hf: expected a table of images and captions in {root}, found {suffixes['.txt']} .txt files",
            hint="write metadata.csv with the columns file_name and caption",
        )


def _refuse_outside(seen: Iterable[Path], splits: Iterable[str], root: Path) -> None:
    """Raise InvalidConfig for tables beside folders of images that make the splits: the library does not read them."""
    outside = [path.relative_to(root).as_posix() for path in seen if _kind_of(path) in (*PREFERRED, "metadata")]
    if outside:
        raise InvalidConfig(
            f"hf: expected a table among the files of each split ({', '.join(splits)}), found it outside of them: "
            f"{some(outside)}",
            hint="call it by the name of the split, such as train/train.csv; or move the images to images/",
        )


def _has_card(root: Path) -> bool:
    """Return True if a file of the folder says which files make the splits, or of which types the columns are."""
    card = root / "README.md"
    with reading(card):
        if card.is_file() and CARD.search(card.read_bytes()):
            return True
    return any((root / name).is_file() for name in (".huggingface.yaml", "dataset_infos.json"))


def _as_configured(root: Path, name: str | None) -> Card:
    """Return what the folder's card says; no splits if their files lie elsewhere."""
    import datasets

    builder = datasets.load_dataset_builder(str(root), name)
    config: Any = builder.config
    base = root.resolve()
    files: dict[str, list[Path]] = {}
    for split, paths in (config.data_files or {}).items():
        if not all(Path(path).is_relative_to(base) for path in paths):
            return Card({})
        files[str(split)] = [root / Path(path).relative_to(base) for path in paths]
    return card_of(builder, files)


def card_of(builder: Any, files: dict[str, list[Path]]) -> Card:
    """Return what the card of a dataset says, with these files of its splits; `builder` is the library's."""
    import datasets

    config = builder.config
    separator = getattr(config, "delimiter", None) or getattr(config, "sep", None)
    options = [option for option in UNREAD if getattr(config, option, None)]
    options += ["sep"] if separator is not None and len(separator) != 1 else []
    options += ["encoding"] if (getattr(config, "encoding", None) or "utf-8").lower() not in ("utf-8", "utf8") else []
    classes = {}
    for column, feature in (builder.info.features or {}).items():
        inner = getattr(feature, "feature", feature)
        if isinstance(inner, datasets.ClassLabel):
            classes[column] = inner.names
    return Card(files, None if separator == "," else separator, classes, options)


def _splits(root: Path, seen: Sequence[Path]) -> dict[str, list[Path]]:
    """Return the files of each split as the library assigns them, by their names or folders, in any format.

    The library would list the folder anew for each of its 65 patterns.
    """
    from datasets.data_files import ALL_DEFAULT_PATTERNS, ALL_SPLIT_PATTERNS

    try:
        from fsspec.utils import glob_translate
    except ImportError:  # before 2023.12, when the patterns were of another kind
        return _listed_splits(root)

    def matched(patterns: Iterable[str]) -> list[str]:
        expressions = [re.compile(glob_translate(pattern)) for pattern in patterns]
        return list(dict.fromkeys(name for one in expressions for name in filter(one.match, names)))

    names = sorted(path.relative_to(root).as_posix() for path in seen)
    if matched(pattern.replace("{split}", "*") for pattern in ALL_SPLIT_PATTERNS):
        return _listed_splits(root)
    for patterns in ALL_DEFAULT_PATTERNS:
        found = {str(split): [root / name for name in matched(one)] for split, one in patterns.items()}
        if any(found.values()):
            return {split: paths for split, paths in found.items() if paths}
    return _listed_splits(root)


def _listed_splits(root: Path) -> dict[str, list[Path]]:
    """Return what `_splits` does, by the library's own functions."""
    from datasets.data_files import get_data_patterns, resolve_pattern

    base = root.resolve()
    found: dict[str, list[Path]] = {}
    escaped = glob.escape(base.as_posix())
    for split, patterns in get_data_patterns(escaped).items():
        paths: dict[Path, None] = {}
        for pattern in patterns:
            with contextlib.suppress(FileNotFoundError):
                matched = resolve_pattern(pattern, escaped)
                paths.update(dict.fromkeys(root / Path(path).relative_to(base) for path in matched))
        found[str(split)] = list(paths)
    return found


def _kind_of(path: Path) -> str | None:
    suffix = suffix_of(path)
    if is_metadata(path):
        return "metadata" if suffix not in PARQUET else None
    return KINDS.get(suffix)


def _kind(paths: Iterable[Path]) -> str | None:
    """Return the kind of the files to read, None if the library knows better."""
    paths = list(paths)
    if any(is_metadata(path) and suffix_of(path) in PARQUET for path in paths):
        return None
    count = Counter(_kind_of(path) for path in paths)
    if count["metadata"]:
        return "metadata"
    most = max(PREFERRED, key=lambda kind: count[kind])
    if count[most]:
        return most
    others = {suffix_of(path) for path in paths} & {".zip", ".tar", ".arrow"}
    return "json" if count["json"] and not others else None


def _say_unused(seen: Iterable[Path], used: Iterable[Path], root: Path) -> None:
    there = {path.resolve() for path in used}
    left = [
        path.relative_to(root).as_posix()
        for path in seen
        if suffix_of(path) in DATA and path.name != "taxonomy.json" and path.resolve() not in there
    ]
    if left:
        warnings.warn(
            f"hf: {len(left)} files of {root} are in no split and are not read: {some(left)}; a split is one format, "
            "named by file or folder",
            stacklevel=5,
        )
