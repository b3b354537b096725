"""Names that look the same are the same: Unicode writes an accented letter in one form or in two.

macOS stores file names decomposed ("e" and an accent), most programs write them composed. `same_name` makes both equal.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from pathlib import Path


def same_name(name: str) -> str:
    """Return a name in Unicode's composed form (NFC), in which names that look the same are equal."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def find_path(root: Path, name: str) -> Path:
    """Return `root / name`, or the existing path that looks the same; if there is none, `root / name`."""
    exact = root / name
    if name.isascii() or exact.exists():
        return exact
    found = root
    for part in Path(name).parts:
        listed = found / part
        if not listed.exists():
            listed = found / _listing(found, found.stat().st_mtime_ns if found.is_dir() else 0).get(
                same_name(part), part
            )
        found = listed
    return found


@lru_cache(maxsize=64)
def _listing(folder: Path, changed: int) -> dict[str, str]:
    """Return the names in a folder by their composed form; `changed` makes the cache forget a changed folder."""
    return {same_name(path.name): path.name for path in folder.iterdir()} if folder.is_dir() else {}
