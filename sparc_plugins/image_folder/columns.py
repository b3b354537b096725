"""Names of columns, and those that people write for them."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

REQUIRED = ("image", "caption")
COLUMNS = (*REQUIRED, "id", "labels", "split")
FORM = "columns image, caption; optional id, labels, split"
NEAR = {
    "image": ("file_name", "filename", "file", "filepath", "file_path", "path", "image_path", "image_name", "img"),
    "caption": ("text", "sentence", "description", "title", "comment", "prompt"),
    "id": ("ids", "sample_id"),
    "labels": ("label", "tag", "tags", "class", "classes", "category", "categories"),
    "split": ("set", "subset", "partition"),
}
"""Names that other programs give to each column."""
_MEANT = {name: column for column, names in NEAR.items() for name in names}


def near_misses(names: Sequence[str]) -> list[str]:
    """Return a phrase for each column that is not read, and whose name is near one that is missing."""
    found = []
    for name in names:
        if not name or name in COLUMNS:
            continue
        alike = get_close_matches(name, COLUMNS, 1, 0.8) if len(name) > 3 else []  # `idx` is a row number, no id
        column = _MEANT.get(name) or next(iter(alike), None)
        if column is not None and column not in names:
            found.append(f"a column '{name}', which is not read; if it is the column '{column}', rename it")
    return found
