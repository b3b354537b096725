"""The naive step in a process of its own, taken when asked for.

Research code runs so: with the C library's own habits of memory, which cost it a quarter to a half more time than
`keep_freed_memory`, and without sharing memory with the engine that it is compared with.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from types import TracebackType

import torch

from sparc.benchmarks.dense import DenseTraining
from sparc.config import SpaceConfig, TrainingConfig, validated
from sparc.errors import SparcError
from sparc.storage.checkpoint import SharedLatentSpace


class DenseApart:
    """A process with a naive training on random features, that waits for being asked; ended with its context."""

    def __init__(self, shape: SpaceConfig, config: TrainingConfig, device: str) -> None:
        """Start it, with as many threads as this process has."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "sparc.benchmarks.apart"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        order = {"shape": shape.model_dump(), "config": config.model_dump(), "device": device}
        self._say(json.dumps({**order, "threads": torch.get_num_threads()}))

    def advance(self) -> None:
        """Have it take one step, and wait for that. Raises SparcError where it ended instead."""
        assert self._process.stdout is not None
        self._say("step")
        if not self._process.stdout.readline():
            raise SparcError(
                f"the process of the naive step ended with code {self._process.wait()}",
                hint="if it was killed, the dense codes want more memory than there is: measure without --oracle",
            )

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # who waits for the answer hears of it
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def __enter__(self) -> DenseApart:
        """The process itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


def main() -> None:
    """Read from the first line what to train, and take a step for each line after it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal interrupts both, and the parent ends this one
    order = json.loads(sys.stdin.readline())
    torch.set_num_threads(order["threads"])
    config = validated(TrainingConfig, order["config"])
    space = SharedLatentSpace(validated(SpaceConfig, order["shape"])).to(order["device"])
    features = {name: torch.randn(config.batch_size, width) for name, width in space.streams.items()}
    batch, training = space.normalize(features), DenseTraining(space, config)
    del space  # the training has a copy
    for _ in sys.stdin:
        training.advance(batch).item()  # on a GPU this waits for the whole step
        sys.stdout.write("done\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
