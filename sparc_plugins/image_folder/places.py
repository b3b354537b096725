"""Find the file of a folder that lists its images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from sparc.plugins import InvalidConfig, MissingData, find_path, no_folder
from sparc_plugins.image_folder.columns import FORM
from sparc_plugins.image_folder.images import SUFFIXES
from sparc_plugins.image_folder.records import some

INDEX_NAMES = ("samples.csv", "samples.jsonl", "samples.tsv")
TABLES = (".csv", ".tsv", ".jsonl")
STEMS = ("samples", "captions", "metadata", "annotations", "labels", "data", "index", "dataset")
"""Names that people give such a file, before the suffix."""


def index_path(folder: str, index: str | None) -> Path:
    """Return the path of the index. Raises MissingData, or InvalidConfig if `index` is an image."""
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise no_folder("image-folder", root)
    names = (index,) if index else INDEX_NAMES
    if index and index.lower().endswith(SUFFIXES):
        raise InvalidConfig(f"image-folder: index={index} is an image, not a table", hint=f"choose a table: {FORM}")
    for name in names:
        if (path := find_path(root, name)).is_file():
            return path
    everything = sorted(os.listdir(root))
    listed = [name for name in everything if name.lower().endswith(TABLES)]
    for name in listed:
        if name.lower() in names:
            return root / name
    hint = f"it has {some(listed)}; choose one: index={listed[0]}" if listed else _other(everything)
    raise MissingData(f"image-folder: {root} has no {' or '.join(names)}", hint=hint)


def _other(names: Sequence[str]) -> str:
    """Return what to do about a file of another form that looks like an index; without one, to write one."""
    for name in names:
        lower = name.lower()
        stem, _, suffix = lower.partition(".")
        if stem not in STEMS and not any(f"{table}." in lower for table in TABLES):
            continue
        if suffix == "json":
            return f"it has {name}; if that is a list, write its objects as lines: jq -c '.[]' {name} > samples.jsonl"
        if suffix in ("xlsx", "xls", "ods", "numbers"):
            return f"it has {name}; save it as samples.csv, as 'CSV UTF-8'"
        if lower.endswith(".txt") and lower.removesuffix(".txt").endswith(TABLES):
            return f"it has {name}; rename it to {name[:-4]}"
        if suffix == "txt" or lower.endswith(".gz"):
            return f"it has {name}; if that is a table with {FORM}: index={name}"
    return f"write one: {FORM}"
