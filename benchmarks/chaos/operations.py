"""Count the operations of a command on files below a folder, and kill the process that does one of them.

The count is shared with the processes that it forks: the worker of an extraction, the workers of an ablation.
"""

from __future__ import annotations

import builtins
import io
import mmap
import os
import signal
from collections.abc import Callable
from typing import Any

NAMES = ("replace", "rename", "unlink", "remove", "mkdir", "rmdir", "link", "fsync", "ftruncate", "pwrite", "open")
WRITING = set("wax+")


class Operations:
    """Wraps the functions of `os`, and `open`. `at` is the operation to kill at, from 0; after it if `after`."""

    def __init__(self, folder: str, at: int | None = None, *, after: bool = False) -> None:
        """Store the folder; `install` wraps the functions."""
        self.folder, self.at, self.after = os.path.realpath(folder), at, after
        self._shared = mmap.mmap(-1, 8)

    @property
    def count(self) -> int:
        """Operations so far."""
        return int.from_bytes(self._shared[:8], "little")

    def install(self) -> None:
        """Wrap the functions in this process. Processes that it forks inherit this."""
        for name in NAMES:
            setattr(os, name, self._wrapped(getattr(os, name), name))
        wrapped = self._wrapped(io.open, "file")
        io.open = builtins.open = wrapped  # type: ignore[assignment]

    def _wrapped(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            if not self._counts(name, arguments, keywords):
                return function(*arguments, **keywords)
            number = self.count
            self._shared[:8] = (number + 1).to_bytes(8, "little")
            if number == self.at and not self.after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = function(*arguments, **keywords)
            if number == self.at:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    def _counts(self, name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> bool:
        if not arguments:
            return False
        first = arguments[0]
        if name in ("fsync", "ftruncate", "pwrite"):
            try:
                first = os.readlink(f"/proc/self/fd/{first if isinstance(first, int) else first.fileno()}")
            except (OSError, AttributeError):
                return False
        elif name == "file":
            mode = keywords.get("mode", arguments[1] if len(arguments) > 1 else "r")
            if isinstance(first, int) or not WRITING & set(str(mode)):
                return False
        elif name == "open" and not (len(arguments) > 1 and arguments[1] & (os.O_WRONLY | os.O_RDWR)):
            return False
        try:
            return os.path.realpath(os.fspath(first)).startswith(self.folder)
        except TypeError:
            return False
