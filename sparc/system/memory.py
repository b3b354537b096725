"""What the process does with memory that it has used."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from pathlib import Path

# Parameters of mallopt, as malloc.h numbers them.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> None:
    """Have the C library keep what a batch frees for the next one, instead of giving it back to the system.

    Memory that comes from the system anew is filled with zeros page by page, which can halve the speed of a backbone on
    the CPU and costs a training step 5 to 40 % (docs/performance.md). For processes of our own, not of a caller of the
    library. Only glibc gives memory back so readily; elsewhere nothing happens.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(_TOP_PAD, 2**28)
        libc.mallopt(_MMAP_MAX, 0)


def resident_bytes() -> int | None:
    """Memory that the process holds now; None where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
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


def available_bytes() -> int | None:
    """Memory left for more processes, on the machine or in the control group that limits it; None if it is not said."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
        available = 1024 * int(text.partition("MemAvailable:")[2].split()[0])
    except (OSError, ValueError, IndexError):
        return None
    with contextlib.suppress(OSError, ValueError, KeyError):
        group = Path("/sys/fs/cgroup")
        lines = (group / "memory.stat").read_text(encoding="ascii").splitlines()
        used = int((group / "memory.current").read_text(encoding="ascii"))
        kept = dict(line.split() for line in lines)  # files in the cache give way
        limit = int((group / "memory.max").read_text(encoding="ascii"))  # 'max' where there is none
        available = min(available, limit - used + int(kept["inactive_file"]) + int(kept["active_file"]))
    return max(0, available)
