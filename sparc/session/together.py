"""Trainings and evaluations by several processes, which torchrun starts with the same command."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sparc.config import RunConfig
from sparc.errors import InvalidConfig
from sparc.session.listener import Listener
from sparc.system.processes import leads

if TYPE_CHECKING:
    from sparc.training.distributed import Ranks

_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class Mute(Listener):
    """Listener of the processes that do not lead: it drops warnings too, which the leading one gives."""

    def warn(self, text: str) -> None:
        """Say nothing."""


def are_several() -> bool:
    """Return True if torchrun started several processes, this one among them."""
    return all(name in os.environ for name in _VARIABLES) and os.environ["WORLD_SIZE"] != "1"


@contextlib.contextmanager
def together(listener: Listener) -> Iterator[Ranks | None]:
    """Join the processes that torchrun started; yield None if this one is alone."""
    if not are_several():
        yield None
        return
    listener.loading("PyTorch")
    from sparc.training.distributed import joined

    with warnings.catch_warnings():
        if not leads():
            warnings.simplefilter("ignore")
        with joined() as ranks:
            yield ranks


def heard(listener: Listener, ranks: Ranks | None) -> Listener:
    """Return the listener in the process that prints, and one that says nothing in the others."""
    return listener if ranks is None or ranks.leads else Mute()


def check_shares(config: RunConfig, ranks: Ranks | None) -> None:
    """Raise InvalidConfig unless the processes, and PyTorch, can share the latents and the samples of a batch."""
    size, shards = 1 if ranks is None else ranks.size, config.shard_latents
    if size % shards:
        raise InvalidConfig(
            f"--shard-latents: expected a divisor of the number of processes, {size}, found {shards}",
            hint="torchrun --nproc-per-node N --no-python sparc train ... starts N processes",
        )
    if shards > 1:
        from sparc.training.sharded_state import check_supported

        check_supported()
    if config.batch_size < size // shards:
        raise InvalidConfig(
            f"--batch-size: expected at least one sample for each of {size // shards} processes, "
            f"found {config.batch_size}",
            hint="--batch-size counts the samples of all processes together",
        )


def check_alone(command: str) -> None:
    """Raise InvalidConfig if torchrun started several processes, which this command cannot use."""
    if are_several():
        raise InvalidConfig(
            f"{command}: expected one process, found {os.environ['WORLD_SIZE']}", hint="run it without torchrun"
        )


def on_this_machine() -> int:
    """Return the number of processes of the training on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if are_several() else 1
