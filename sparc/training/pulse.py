"""Signs of life of the processes of a training, so that none waits for a machine that is gone from the network.

A process that ends closes its connections, which the others notice at once. A machine that loses its network or its
power closes none, and a stopped process neither. So a thread of each process counts beats in the key-value store of all
processes. The first process looks at the counts of all, and the others look at its count, beside which it names who is
lost. Work of any length goes on meanwhile: the thread beats while the main thread computes or waits.

Time is counted in looks. A clock would count the time for which all processes are stopped, as by Ctrl-Z, or their
machine sleeps.
"""

from __future__ import annotations

import datetime
import json
import os
import socket
import sys
import threading
from typing import Any, NamedTuple

import torch.distributed as dist

from sparc.errors import ProcessLost

BEAT = 3.0
"""Seconds between two beats."""
LOOKS = 10
"""Looks in a row without a new beat, after which a process is lost."""
GRACE = 5.0
"""Seconds in which the main thread ends with the reason; then the process is ended where it waits."""
RESUME = "torchrun reports which one, and the signal; then give the command again, for a training with --resume RUN"
_PARTED = -1
"""Number of the last beat, of a process that has left the training."""


class _Beat(NamedTuple):
    """Sign of life that a process leaves in the store."""

    number: int
    host: str
    lost: str = ""
    """Who is lost, as the first process says."""

    @classmethod
    def read(cls, store: Any, rank: int) -> _Beat | None:
        """Return the beat of a process; None if it has not begun."""
        return cls(*json.loads(store.get(str(rank)))) if store.check([str(rank)]) else None


class Pulse:
    """The beats of this process, and its looks at those of others."""

    def __init__(self, rank: int, size: int, number: str) -> None:
        """Begin to beat; `number` is that of this joining. A wait in the store blocks all that share its connection."""
        self.reason: ProcessLost | None = None
        """Who is lost; None while nobody is."""
        self._rank, self._size = rank, size
        self._place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        self._done = 0
        """Number of beats and looks that the store has answered."""
        self._heard = False
        """True if the first process has found who is lost, and says so."""
        self._ended, self._parted = threading.Event(), threading.Event()
        self._store = _connected(number)
        for work in (self._beat, self._watch):
            threading.Thread(target=work, daemon=True, name=f"sparc {work.__name__}").start()

    def end(self) -> None:
        """End the beats; the others do not wait for them any more."""
        self._ended.set()
        if self.reason is None:
            self._parted.wait(1.0)

    def _beat(self) -> None:
        host, lost = socket.gethostname(), ""
        looks = _Looks(range(1, self._size) if self._rank == 0 else [0])
        try:
            while not self._ended.is_set():
                self._store.set(str(self._rank), json.dumps(_Beat(self._done, host, lost)))
                lost = lost or looks.take(self._store)
                self._done += 1
                if lost and self.reason is None:
                    self._heard = self._rank != 0 and not looks.own
                    self._lose(lost)
                self._ended.wait(BEAT)
            self._store.set(str(self._rank), json.dumps(_Beat(_PARTED, host, lost)))
        except RuntimeError:  # the store has gone; `_watch` counts how long it does not answer
            pass
        finally:
            self._parted.set()

    def _watch(self) -> None:
        """Notice that the store does not answer; then a network, or the machine of the first process, is gone."""
        seen, same = -1, 0
        while not self._ended.wait(BEAT) and self.reason is None:
            seen, same = self._done, same + 1 if seen == self._done else 0
            if same > LOOKS:
                self._lose(f"the key-value store of all processes, {self._place}, has not answered")

    def _lose(self, who: str) -> None:
        self.reason = ProcessLost(
            f"{who} for {BEAT * LOOKS:.0f} s: a machine or its network is gone, or a process is stopped", hint=RESUME
        )
        threading.Thread(target=self._force, daemon=True).start()

    def _force(self) -> None:
        """End this process unless its main thread does: it may be in a collective, which nothing can interrupt."""
        if self._ended.wait(GRACE):
            return
        if not self._heard and self.reason is not None:
            sys.stderr.write(f"error: {self.reason.message}\nhint:  {self.reason.hint}\n")
            sys.stderr.flush()
        os._exit(1)


class _Looks:
    """Looks at the beats of some processes."""

    def __init__(self, ranks: range | list[int]) -> None:
        self._ranks = list(ranks)
        self._last: dict[int, int] = {}
        self._same: dict[int, int] = {}
        """Looks in a row that saw the same beat."""
        self.own = False
        """True if these looks found who is lost, and the first process did not say it."""

    def take(self, store: Any) -> str:
        """Look once; return who is lost, or an empty text."""
        for rank in self._ranks:
            beat = _Beat.read(store, rank)
            if beat is None or beat.number == _PARTED:
                self._last.pop(rank, None)
                continue
            if beat.lost:
                return beat.lost
            self._same[rank] = self._same.get(rank, 0) + 1 if self._last.get(rank) == beat.number else 0
            self._last[rank] = beat.number
            if self._same[rank] >= LOOKS:
                self.own = True
                return f"process {rank} on {beat.host} has given no sign of life"
        return ""


def _connected(number: str) -> Any:
    """Connect to the store that torchrun, or the first process, holds; keys are of this start of the processes."""
    store = dist.TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=False,
        wait_for_workers=False,
        timeout=datetime.timedelta(seconds=BEAT * LOOKS),
    )
    start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return dist.PrefixStore(f"sparc pulse {start}/{number}", store)
