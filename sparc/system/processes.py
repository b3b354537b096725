"""Start interpreters that import from where this one does, and never from the current folder.

Python puts the current folder first on the import path of `python -m` and `python -c`. A file `PIL.py` in a folder of
data would then run in place of the library, and a folder `sparc` would hide an editable installation.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SAFE = "PYTHONSAFEPATH"
"""Variable that makes new interpreters leave out the current folder. Processes inherit it."""
_PARENT = Path(__file__).parents[2]
"""Folder that holds the package sparc."""


def leads() -> bool:
    """Return False in all but the first of the processes that torchrun started: they print and write no report."""
    return os.environ.get("RANK", "0") == "0" or os.environ.get("WORLD_SIZE", "1") == "1"


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


def within(seconds: float, function: Callable[[], Any]) -> Any:
    """Return the result of a function, which JSON can hold, from a copy of this process that is killed after a while.

    Meant for C code that loops for ever on damaged content, where no signal of this process ends it. Without `fork`, on
    Windows, the function runs here.

    Raises:
        TimeoutError: it took longer.
        ValueError: it raised an error, or crashed.
    """
    if not hasattr(os, "fork"):
        return function()
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other threads are no concern of the function
        child = os.fork()
    if not child:
        try:
            found = json.dumps([True, function()])
        except BaseException as error:
            found = json.dumps([False, f"{type(error).__name__}: {error}"])
        with contextlib.suppress(OSError), os.fdopen(writer, "w", encoding="utf-8", errors="surrogatepass") as pipe:
            pipe.write(found)
        os._exit(0)
    os.close(writer)
    try:
        written = _read_for(reader, seconds)
    finally:
        os.close(reader)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    if not written:
        raise ValueError("the library that reads it crashed")
    succeeded, result = json.loads(written.decode("utf-8", "surrogatepass"))
    if not succeeded:
        raise ValueError(result)
    return result


def _read_for(pipe: int, seconds: float) -> bytes:
    """Return what comes through a pipe until it closes. Raises TimeoutError after a while."""
    end, pieces = time.monotonic() + seconds, list[bytes]()
    while True:
        ready, _, _ = select.select([pipe], [], [], max(0.0, end - time.monotonic()))
        if not ready:
            raise TimeoutError(f"reading it takes more than {seconds:.0f} seconds")
        if not (piece := os.read(pipe, 1 << 20)):
            return b"".join(pieces)
        pieces.append(piece)


def started(module: str) -> subprocess.Popen[str]:
    """Start `main()` of a module in a new interpreter, with pipes as its standard input and output.

    SIGINT does not reach it, since a terminal sends Ctrl-C to it too, and this process ends it.
    """
    with _interrupts_blocked():
        return subprocess.Popen(
            python(module),
            env={**os.environ, SAFE: "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )


@contextlib.contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Start processes that SIGINT does not reach, not even while they import. Here it arrives after the block."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
