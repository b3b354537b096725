"""What the process does with memory that it has used."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from pathlib import Path

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def keep_freed_memory() -> None:
    """Have the C library keep what a training step frees for the next one, instead of giving it back.

    Memory that comes back from the system is written with zeros page by page, which costs a step on the CPU 5 to 40 %
    (docs/performance.md). Only glibc does this; elsewhere nothing happens.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(_MMAP_MAX, 0)


def resident_bytes() -> int | None:
    """Memory that the process holds now; None where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096
    except (OSError, ValueError):
        return None


def peak_bytes() -> int | None:
    """The most memory that the process has held so far; None where the system does not say."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
