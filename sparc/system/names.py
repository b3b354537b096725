"""Names that look the same are the same: Unicode writes an accented letter in one form or in two.

macOS stores file names decomposed ("e" and an accent), most programs write them composed. `same_name` makes both equal.
Cameras and Windows write suffixes in capitals: `find_path` finds them in any case.
"""

from __future__ import annotations

import os
import unicodedata
from functools import lru_cache
from pathlib import Path


def same_name(name: str) -> str:
    """Return a name in Unicode's composed form (NFC), in which names that look the same are equal."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def find_path(root: Path, name: str) -> Path:
    """Return `root / name`, or the one existing path that looks the same; if there is none, `root / name`.

    Paths that look the same differ in Unicode's form, in the case of their suffixes, or in spaces at the ends of names.
    """
    exact = root / name
    if os.path.exists(exact):  # unlike Path.exists, this is False for a name that is too long
        return exact
    found = root
    for part in Path(name).parts:
        listed = found / part
        if not os.path.exists(listed):
            listed = found / _listing(found, found.stat().st_mtime_ns if found.is_dir() else 0).get(_look(part), part)
        found = listed
    return found


def _look(name: str) -> str:
    stem, dot, suffix = same_name(name.strip()).rpartition(".")
    return f"{stem}.{suffix.lower()}" if dot else suffix


@lru_cache(maxsize=64)
def _listing(folder: Path, changed: int) -> dict[str, str]:
    """Return the names in a folder by their looks, without those that look like another one.

    `changed` makes the cache forget a changed folder.
    """
    found: dict[str, str] = {}
    alike = set()
    for name in os.listdir(folder) if folder.is_dir() else ():
        look = _look(name)
        if found.setdefault(look, name) != name:
            alike.add(look)
    return {look: name for look, name in found.items() if look not in alike}
