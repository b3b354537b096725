"""Suggest a file or folder for a path at which there is none."""

from __future__ import annotations

import contextlib
import difflib
import os
from itertools import islice
from pathlib import Path

LOOKED_AT = 1000
"""Most entries of a folder that are looked at."""


def meant(path: str | Path, otherwise: str, *, folder: bool | None = None) -> str:
    """Return the hint for a path that does not exist: the one that was meant if one is near, else `otherwise`.

    folder: True if a folder is wanted, False if a file is, None if either is. Only the first part of the path that does
    not exist is compared. A suggestion in the current folder is written without that folder.
    """
    near = _near(Path(path).expanduser(), folder)
    if near is None:
        return otherwise
    with contextlib.suppress(ValueError, OSError):
        near = near.relative_to(Path.cwd()) if near.is_absolute() else near
    return f"did you mean {near}?"


def _near(path: Path, folder: bool | None) -> Path | None:
    with contextlib.suppress(OSError, ValueError):
        parts = [path, *path.parents]
        missing = next((one for one in reversed(parts) if not os.path.lexists(one)), None)
        if missing is None or missing.name in ("", ".."):
            return None
        rest = path.relative_to(missing)
        with os.scandir(missing.parent) as entries:
            names = [entry.name for entry in islice(entries, LOOKED_AT)]
        lower = {name.casefold(): name for name in names}
        for name in difflib.get_close_matches(missing.name.casefold(), lower, n=5, cutoff=0.7):
            found = missing.parent / lower[name] / rest
            if found.is_dir() if folder else found.is_file() if folder is False else found.exists():
                return found
    return None
