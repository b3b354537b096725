"""Memory of the process: how much it holds, how much is left, and whether the C library keeps what is freed."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from pathlib import Path

from sparc.errors import OutOfMemory

# Parameter numbers of mallopt, from malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_CONTROL_GROUP = Path("/sys/fs/cgroup")


def keep_freed_memory() -> None:
    """Make the C library keep freed memory for the next batch instead of returning it to the system.

    The kernel fills returned pages with zeros before it hands them out again, which can halve the speed of a backbone
    on the CPU and costs a training step 5 to 40 % (docs/performance.md). Call this only in processes that sparc owns,
    never in a caller's process. Only glibc returns memory so eagerly; elsewhere the call has no effect.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(_TOP_PAD, 2**28)
        libc.mallopt(_MMAP_MAX, 0)


def resident_bytes(*, virtual: bool = False) -> int:
    """Return the memory that the process holds now; with `virtual`, the size of its address space."""
    import psutil  # not at the top: every command imports this module, few ask for memory

    held = psutil.Process().memory_info()
    found: int = held.vms if virtual else held.rss
    return found


def check_room(needed: int, what: str, hint: str) -> None:
    """Raise OutOfMemory if something takes more memory than there is, before any of it is allocated."""
    if needed > (there := available_bytes()):
        raise OutOfMemory(
            f"{what} would take {needed / 2**30:,.1f} GiB of memory, and {there / 2**30:,.1f} GiB are free", hint=hint
        )


def peak_bytes() -> int | None:
    """Return the most memory that the process has held so far, or None if the system does not record it.

    psutil reports a peak on Windows only.
    """
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def available_bytes() -> int:
    """Return the memory left for more processes, on the machine or in the control group that limits it."""
    import psutil

    available: int = psutil.virtual_memory().available
    left = _left_in_group(_CONTROL_GROUP)  # psutil does not know control groups
    return available if left is None else max(0, min(available, left))


def _left_in_group(group: Path) -> int | None:
    """Return the bytes below a control group's limit, or None without a limit. Cached files count as free."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        lines = (group / "memory.stat").read_text(encoding="ascii").splitlines()
        used = int((group / "memory.current").read_text(encoding="ascii"))
        cached = dict(line.split() for line in lines)
        limit = int((group / "memory.max").read_text(encoding="ascii"))  # 'max', no number, without a limit
        return limit - used + int(cached["inactive_file"]) + int(cached["active_file"])
    return None
