"""Processes that train or measure one space together, and what they exchange; torchrun starts one per GPU or core.

The processes form a mesh of samples x latents. Those of one row of the mesh have the same samples and hold other
latents; those of one column hold the same latents and have other samples. A training by one process has no ranks at
all: nothing in this module runs then.
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from sparc.errors import FailedElsewhere, InvalidConfig, ProcessLost
from sparc.training.pulse import RESUME, Pulse

PATIENCE = datetime.timedelta(minutes=10)
"""Time after which a collective gives up on a process that hangs.

The end of a process is noticed at once, and a machine that is gone from the network by `pulse`. Work of one process
that may take longer is waited for by `Ranks.wait`.
"""
POLL = 0.1
"""Seconds between two looks while processes wait for each other's extraction, which may take hours."""
LEAVING = 10.0
"""Seconds in which the leading process of an interrupted training ends."""
LINGERING = 1.0
"""Seconds in which processes that fail alike hear that the first of them reports the reason."""
_FAILED = "failed"
_joins = itertools.count()
"""Numbers for the times that this process has joined others, which have joined as often."""
_pulses: list[Pulse] = []
"""The pulse of this process, while it has joined others."""

T = TypeVar("T")
F = TypeVar("F")


@dataclass
class Traffic:
    """Bytes that this process has sent, by kind, for collectives that send the least that they can."""

    sent: dict[str, float] = field(default_factory=dict)

    def add(self, kind: str, count: float) -> None:
        """Count some bytes."""
        self.sent[kind] = self.sent.get(kind, 0.0) + count

    @property
    def total(self) -> float:
        """Bytes of all kinds."""
        return sum(self.sent.values())


class Sum(NamedTuple):
    """A sum over ranks that is under way."""

    work: Any

    def wait(self) -> None:
        """Wait until the tensor holds the sum. Raises ProcessLost."""
        if self.work is not None:
            with collective():
                self.work.wait()


@dataclass(frozen=True)
class Group:
    """Ranks that exchange tensors. A group of one rank exchanges nothing."""

    number: int = 0
    """Place of this process among them."""
    size: int = 1
    handle: Any = None
    """The process group; None for a group of one."""
    traffic: Traffic = field(default_factory=Traffic)

    def sum_(self, tensor: Tensor, kind: str = "other") -> Tensor:
        """Replace a tensor by its sum over the ranks; all have the same bits. Raises ProcessLost."""
        return self._reduce(tensor, dist.ReduceOp.SUM, kind)

    def most_(self, tensor: Tensor, kind: str = "other") -> Tensor:
        """Replace each element by its largest value on any rank."""
        return self._reduce(tensor, dist.ReduceOp.MAX, kind)

    def least_(self, tensor: Tensor, kind: str = "other") -> Tensor:
        """Replace each element by its smallest value on any rank."""
        return self._reduce(tensor, dist.ReduceOp.MIN, kind)

    def begin_sum(self, tensor: Tensor, kind: str = "other") -> Sum:
        """Begin to replace a tensor by its sum over the ranks. Begin on all ranks in the same order."""
        if self.size == 1:
            return Sum(None)
        self._count_reduction(tensor, kind)
        with collective():
            return Sum(dist.all_reduce(tensor, dist.ReduceOp.SUM, group=self.handle, async_op=True))

    def gathered(self, tensor: Tensor, kind: str = "other") -> Tensor:
        """Return the tensors of all ranks, which have one shape, stacked: (ranks, ...)."""
        if self.size == 1:
            return tensor.unsqueeze(0)
        self.traffic.add(kind, (self.size - 1) * tensor.numel() * tensor.element_size())
        found = tensor.new_empty(self.size, *tensor.shape)
        with collective():
            dist.all_gather(list(found.unbind(0)), tensor.contiguous(), group=self.handle)
        return found

    def _reduce(self, tensor: Tensor, operation: Any, kind: str) -> Tensor:
        if self.size > 1:
            self._count_reduction(tensor, kind)
            with collective():
                dist.all_reduce(tensor, operation, group=self.handle)
        return tensor

    def _count_reduction(self, tensor: Tensor, kind: str) -> None:
        # In a ring, each rank sends all parts but one, first to be summed, then as sums.
        self.traffic.add(kind, 2 * (self.size - 1) / self.size * tensor.numel() * tensor.element_size())


@dataclass(frozen=True)
class Ranks:
    """The processes of a training, as one of them sees them."""

    rank: int
    size: int
    store: Any
    """Key-value store of all processes, which outlives their connections."""
    samples: Group = field(default_factory=Group)
    """Ranks that hold the same latents and have other samples."""
    latents: Group = field(default_factory=Group)
    """Ranks that have the same samples and hold other latents."""
    traffic: Traffic = field(default_factory=Traffic)
    everyone: Group = field(default_factory=Group)
    hosts: Any = None
    """Process group of `latents` for tensors in the memory of hosts."""

    @property
    def leads(self) -> bool:
        """True in the one process that writes files and prints."""
        return self.rank == 0

    def arranged(self, shards: int, device: str) -> Ranks:
        """Return the ranks as a mesh with the latents split into some shards, a divisor of their number."""
        from torch.distributed.device_mesh import init_device_mesh

        kind = torch.device(device).type
        mesh = init_device_mesh(kind, (self.size // shards, shards), mesh_dim_names=("samples", "latents"))
        groups = [
            Group(mesh.get_local_rank(name), mesh.size(place), mesh.get_group(name), self.traffic)
            if mesh.size(place) > 1
            else Group(traffic=self.traffic)
            for place, name in enumerate(("samples", "latents"))
        ]
        rows = [list(range(first, first + shards)) for first in range(0, self.size, shards)]
        hosts = [dist.new_group(row, backend="gloo", timeout=PATIENCE) for row in rows] if shards > 1 else None
        return replace(
            self,
            samples=groups[0],
            latents=groups[1],
            everyone=Group(self.rank, self.size, None, self.traffic),
            hosts=None if hosts is None else hosts[self.rank // shards],
        )

    def any(self, *flags: bool) -> list[bool]:
        """Return for each flag whether it is set on any rank. The flags travel between hosts, so no GPU waits."""
        found = torch.tensor(flags, dtype=torch.int32)
        with collective():
            dist.all_reduce(found, dist.ReduceOp.MAX)
        return [bool(one) for one in found.tolist()]

    def same(self, value: T) -> T:
        """Return the value that the leading process has."""
        found = [value]
        with collective():
            dist.broadcast_object_list(found, src=0, device=torch.device("cpu"))
        return found[0]

    def copy_(self, *tensors: Tensor) -> None:
        """Replace tensors by those of the leading process."""
        with collective():
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def spread(self, work: Callable[[T], F], parts: Iterable[T], /) -> Iterator[F]:
        """Do the parts of some work in turns, and yield what all processes found, in the order of the parts."""
        every = list(parts)
        for first in range(0, len(every), self.size):
            turn = every[first : first + self.size]
            own = work(turn[self.rank]) if self.rank < len(turn) else None
            found: list[Any] = [None] * self.size
            with collective():
                dist.all_gather_object(found, own)
            yield from found[: len(turn)]

    def wait(self, what: str) -> None:
        """Wait, however long, until all ranks have called this with the same words."""
        self.store.set(f"{what}/{self.rank}", "done")
        names = [f"{what}/{rank}" for rank in range(self.size)]
        with collective():
            while not self.store.check(names):
                if self.store.check([_FAILED]):
                    raise FailedElsewhere
                if (lost := _lost()) is not None:
                    raise lost
                time.sleep(POLL)  # in Python, so that a signal is heard


@contextlib.contextmanager
def collective() -> Iterator[None]:
    """Raise ProcessLost if an exchange inside the block fails, which it does when another process has ended."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        ended = ProcessLost(f"another process has ended: {_short(str(error))}", hint=RESUME)
        raise _lost() or ended from error


def _lost() -> ProcessLost | None:
    """Return who gives no sign of life; None if all do."""
    return next((pulse.reason for pulse in _pulses), None)


def _short(error: str) -> str:
    """Return the first sentence of a library's error without the place in its source."""
    line = re.sub(r"^\[[^\]]*\.c\w+:\d+\] ", "", error.strip().partition("\n")[0])
    return line.partition(". ")[0][:120]


@contextlib.contextmanager
def joined() -> Iterator[Ranks]:
    """Join the processes that torchrun started. Call it with more than one process.

    An error that several processes meet is that of the first: in the others it becomes FailedElsewhere.
    """
    every, rank, size = next(dist.rendezvous("env://", timeout=PATIENCE))
    number = str(next(_joins))
    store = dist.PrefixStore(number, every)  # torchrun's store keeps what an earlier call has written
    with collective():
        pulse = Pulse(rank, size, number)
    _pulses.append(pulse)
    try:
        with _grouped(store, rank, size) as ranks:
            yield ranks
    finally:
        pulse.end()
        _pulses.remove(pulse)


@contextlib.contextmanager
def _grouped(store: Any, rank: int, size: int) -> Iterator[Ranks]:
    """Make the process groups of processes that have found each other, and end together."""
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    dist.init_process_group(
        backend, store=dist.PrefixStore("groups", store), rank=rank, world_size=size, timeout=PATIENCE
    )
    own = dist.PrefixStore("sparc", store)
    try:
        yield Ranks(rank, size, own)
    except FailedElsewhere:
        raise
    except (KeyboardInterrupt, SystemExit) as error:  # torchrun stops all processes when one has ended
        if _first_to_fail(own) not in ("", str(rank)):
            raise FailedElsewhere from error
        _part(own, rank, size, in_order=True)
        raise
    except Exception as error:
        first = _first_to_fail(own, str(rank))
        with contextlib.suppress(KeyboardInterrupt):  # torchrun stops the others as soon as one has ended
            _part(own, rank, size, patience=LINGERING)
        if first != str(rank):
            raise FailedElsewhere from error
        raise
    _part(own, rank, size)
    dist.destroy_process_group()


def _part(store: Any, rank: int, size: int, *, in_order: bool = False, patience: float = LEAVING) -> None:
    """Keep the leading process, which may hold the store, until the others need it no more.

    `in_order` lets it end first, after an interruption: torchrun kills those that are left.
    """
    deadline = time.monotonic() + patience

    def wait_for(*names: str) -> None:
        while not store.check(list(names)) and time.monotonic() < deadline:
            time.sleep(POLL)

    with contextlib.suppress(RuntimeError):  # the store has gone with the leading process
        store.set(f"parted/{rank}", "")
        if rank == 0:
            wait_for(*(f"parted/{one}" for one in range(size)))
            store.set("left", "")
        elif in_order:
            wait_for("left")


def _first_to_fail(store: Any, rank: str = "") -> str:
    """Return which rank failed first, after `rank` has, if it is given; an empty text for none."""
    try:
        if rank:
            return str(store.compare_set(_FAILED, "", rank).decode())
        return str(store.get(_FAILED).decode()) if store.check([_FAILED]) else ""
    except RuntimeError:  # without torchrun, the store goes with the leading process, which has told its reason
        return rank and "0"


class Rows(NamedTuple):
    """The samples of each batch that a process takes."""

    some: slice
    total: int
    """Samples of the whole batch."""

    @classmethod
    def of(cls, total: int, group: Group) -> Rows:
        """Return this process's rows of batches of some length. Raises InvalidConfig."""
        if total < group.size:
            raise InvalidConfig(
                f"--batch-size: expected at least one sample for each of {group.size} processes, found {total}",
                hint="--batch-size counts the samples of all processes together",
            )
        return cls(slice(group.number * total // group.size, (group.number + 1) * total // group.size), total)
