"""Suggest a run for a path at which there is none."""

from __future__ import annotations

import contextlib
import difflib
import os
from pathlib import Path

from sparc.errors import MissingData
from sparc.storage.provenance import PROVENANCE
from sparc.storage.space_config import CONFIG

LOOKED_AT = 1000
"""Most entries of a folder that are looked at."""
SHOWN = 5


def runs_in(folder: Path) -> list[Path]:
    """Return the runs and spaces in a folder, the newest first; nothing if it cannot be listed."""
    found = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry, _ in zip(entries, range(LOOKED_AT), strict=False):
            path = folder / entry.name
            with contextlib.suppress(OSError):
                if any((path / name).is_file() for name in (PROVENANCE, CONFIG)):
                    found.append((-entry.stat().st_mtime, path))
    return [path for _, path in sorted(found)]


def check_there(path: Path) -> None:
    """Raise MissingData if there is no folder at the path of a space."""
    if not path.is_dir():
        raise MissingData(f"no space at {path}", hint=near_run(path, "give the directory of a run or a space"))


def near_run(path: str | Path, otherwise: str) -> str:
    """Return a hint for a path without a run: the run that was meant, else those that are there, else `otherwise`."""
    path = Path(path)
    folders = dict.fromkeys((path.parent, Path("runs"), Path()))
    runs = [run for folder in folders for run in runs_in(folder)]
    if inside := runs_in(path) or runs_in(path / "runs"):  # the folder of runs, or that of the project
        return f"{path} holds runs: give one, such as {inside[0]}"
    by_name = {run.name: run for run in reversed(runs)}
    if near := difflib.get_close_matches(path.name, by_name, n=1, cutoff=0.6):
        return f"did you mean {by_name[near[0]]}?"
    if runs:
        more = ", ..." if len(runs) > SHOWN else ""
        return f"{otherwise}; there are {', '.join(map(str, runs[:SHOWN]))}{more}"
    return otherwise
