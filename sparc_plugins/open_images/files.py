"""Find the official files by name, and open them."""

from __future__ import annotations

import contextlib
import csv
import gzip
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

from sparc.plugins import CorruptFile, InvalidConfig, MissingData, no_folder
from sparc.plugins import reading as refusals

SPLITS = {"train": "train", "validation": "(validation|val)", "test": "test"}
CAPTIONS = r"open_images_{split}_(v\d+_)?captions\.jsonl"
NARRATIVES = r"open_images_{split}_(v\d+_)?localized_narratives(-\d+-of-\d+)?\.jsonl"
LABELS = r"(oidv\d+-)?{split}-annotations-human-imagelabels(-boxable)?\.csv"
NAMES = r"(oidv\d+-)?class-descriptions(-boxable)?\.csv"
HIERARCHY = r"bbox_labels_600_hierarchy\.json"
AGAIN = "download it again"
BUFFER = 1 << 20
"""Read buffer in bytes. Lines of narratives exceed Python's default buffer, which made reading three times slower."""


@dataclass(frozen=True)
class Files:
    """Official files of one split."""

    root: Path
    split: str
    narratives: list[Path]
    images: Path
    hierarchy: Path | None
    """None if the dataset has no labels."""
    names: list[Path]
    labels: list[Path]

    def check_labels(self) -> None:
        """Raise MissingData if the dataset has labels, but this split has none."""
        if self.hierarchy is not None and not self.labels:
            name = f"{self.split}-annotations-human-imagelabels-boxable.csv"
            raise _lacking(self.root, f"{name} or oidv7-{name.replace('-boxable', '')}", "Open Images")


def find_files(folder: str, split: str) -> Files:
    """Find the official files of a split by their names.

    Raises:
        MissingData: the folder, the narratives or the images do not exist, or only some of the files for labels do.
        InvalidConfig: there is no such split.
    """
    root = Path(folder).expanduser()
    if split not in SPLITS:
        raise InvalidConfig(f"open-images: no split '{split}'", hint=f"splits: {', '.join(SPLITS)}")
    if not root.is_dir():
        raise no_folder("open-images", root)
    narratives = _matching(root, CAPTIONS, split) or _matching(root, NARRATIVES, split)
    if not narratives:
        name = f"open_images_{split}_v6" if split == "train" else f"open_images_{split}"
        raise _lacking(root, f"{name}_localized_narratives*.jsonl or {name}_captions.jsonl", "Localized Narratives")
    images = next((root / name for name in (split, "images") if (root / name).is_dir()), None)
    if images is None:
        raise _lacking(root, f"folder {split} or images, with {split}/<image id>.jpg", "Open Images")
    hierarchy, names = _matching(root, HIERARCHY), _matching(root, NAMES)
    labelled = bool(hierarchy or names or any(_matching(root, LABELS, split) for split in SPLITS))
    if labelled and not hierarchy:
        raise _lacking(root, "bbox_labels_600_hierarchy.json", "Open Images, for the labels")
    if labelled and not names:
        raise _lacking(root, "class-descriptions-boxable.csv or oidv7-class-descriptions.csv", "Open Images")
    return Files(
        root, split, narratives, images, hierarchy[0] if hierarchy else None, names, _matching(root, LABELS, split)
    )


def _matching(root: Path, pattern: str, split: str = "") -> list[Path]:
    """Return the files of a folder that match a pattern, sorted by name. A plain file hides its .gz copy."""
    expression = re.compile(pattern.replace("{split}", SPLITS.get(split, "")), re.IGNORECASE)
    found: dict[str, Path] = {}
    with refusals(root):
        listed = sorted(root.iterdir())
    for path in listed:
        name = path.name.lower().removesuffix(".gz")
        if expression.fullmatch(name) and path.is_file():
            found.setdefault(name, path)
    return list(found.values())


def _lacking(root: Path, names: str, site: str) -> MissingData:
    return MissingData(f"open-images: {root} has no {names}", hint=f"download it from the site of {site}")


@contextlib.contextmanager
def reading(path: Path) -> Iterator[IO[bytes]]:
    """Open a file, decompressing .gz.

    Raises:
        CorruptFile: its content cannot be decoded.
        StorageError: the machine refuses to read it.
    """
    opener: Any = gzip.open if path.suffix.lower() == ".gz" else partial(open, buffering=BUFFER)
    try:
        with refusals(path), opener(path, mode="rb") as file:
            yield file
    except (EOFError, zlib.error, gzip.BadGzipFile, UnicodeDecodeError, csv.Error) as error:
        raise CorruptFile(f"{path} is truncated or altered: {error}", hint=AGAIN) from error


def wrong(path: Path, line: int, expected: str, found: object) -> CorruptFile:
    """Return the error for a malformed line, which names file and line."""
    return CorruptFile(f"{path}, line {line}: expected {expected}, found {found!r}", hint=AGAIN)
