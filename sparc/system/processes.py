"""Start interpreters that import from where this one does, and never from the current folder.

Python puts the current folder first on the import path of `python -m` and `python -c`. A file `PIL.py` in a folder of
data would then run in place of the library, and a folder `sparc` would hide an editable installation.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

SAFE = "PYTHONSAFEPATH"
"""Variable that makes new interpreters leave out the current folder. Processes inherit it."""
_PARENT = Path(__file__).parents[2]
"""Folder that holds the package sparc."""


def python(module: str) -> list[str]:
    """Return the command that runs `main()` of a module in a new interpreter, with the import path of this one."""
    return python_code(f"from {module} import main; main()")


def python_code(code: str) -> list[str]:
    """Return the command that runs a line of Python in a new interpreter, with the import path of this one."""
    return [sys.executable, "-P", "-c", f"import sys; sys.path[:] = {import_path()!r}; {code}"]


def import_path() -> list[str]:
    """Return the import path of this interpreter without the current folder that Python has put first.

    The folder stays if sparc itself lies there, as in a checkout that is not installed.
    """
    if sys.flags.safe_path or not sys.path or not _is_current(sys.path[0]):
        return list(sys.path)
    return [str(_PARENT), *sys.path[1:]] if _is_current(str(_PARENT)) else sys.path[1:]


def _is_current(entry: str) -> bool:
    try:
        return entry == "" or os.path.samefile(entry, os.curdir)
    except OSError:  # no such folder, or the current one is gone
        return False


@contextlib.contextmanager
def safe_path() -> Iterator[None]:
    """Make the interpreters that the block starts leave out the current folder."""
    before = os.environ.get(SAFE)
    os.environ[SAFE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[SAFE]
        else:
            os.environ[SAFE] = before
