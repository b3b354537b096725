"""The log in which each loading process notes the sample that it reads, so that the sample is known if it never ends.

The notes lie in memory that all processes share. A process that is killed leaves its last note behind.
"""

from __future__ import annotations

import os
import threading
from enum import IntEnum
from functools import partial
from multiprocessing.sharedctypes import RawArray
from typing import Any, NamedTuple

from sparc.system.liveness import hear


class Stage(IntEnum):
    """State of a loading process."""

    STARTING = 0
    IDLE = 1
    READING = 2
    """It reads one sample."""
    PREPROCESSING = 3
    """It preprocesses one sample of a batch, the one whose image a stream looked at last."""
    PREPROCESSING_ALL = 4
    """It preprocesses a batch, of which the sample is one."""


class Entry(NamedTuple):
    """The last note of a loading process."""

    pid: int
    serial: int
    """Number of notes so far."""
    sample: int
    stage: Stage


_OWN = threading.local()
"""Slot of this process, or of this thread."""
_FIELDS = len(Entry._fields)


class ReadingLog:
    """Notes of several loading processes or threads, in one slot each."""

    def __init__(self, slots: int, *, shared: bool = True) -> None:
        """Make room for a number of slots. Raises OSError if memory cannot be shared between processes."""
        self._values: Any = RawArray("q", _FIELDS * slots) if shared and slots else [0] * (_FIELDS * slots)

    def enter(self, slot: int) -> None:
        """Take a slot, in the process or thread that writes to it."""
        _OWN.slot = slot
        hear(partial(self._again, slot))
        self._values[_FIELDS * slot] = os.getpid()
        self.rest()

    def note(self, sample: int, stage: Stage) -> None:
        """Note the sample that is worked on. Does nothing in a process or thread without a slot."""
        slot = getattr(_OWN, "slot", None)
        if slot is None or not self._values:
            return
        base = _FIELDS * slot
        self._values[base + 2] = sample
        self._values[base + 3] = stage
        self._values[base + 1] += 1

    def _again(self, slot: int) -> None:
        """Note that the work goes on: a download that takes long still receives data."""
        self._values[_FIELDS * slot + 1] += 1

    def rest(self) -> None:
        """Note that nothing is worked on."""
        self.note(-1, Stage.IDLE)

    def entries(self) -> list[Entry]:
        """Return the last note of each slot."""
        rows = [self._values[base : base + _FIELDS] for base in range(0, len(self._values), _FIELDS)]
        return [Entry(pid, serial, sample, Stage(stage)) for pid, serial, sample, stage in rows]


NO_LOG = ReadingLog(0, shared=False)
"""A log that takes no notes."""
