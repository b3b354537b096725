"""The naive step in a process of its own, which takes a step on each request.

Research code runs this way: with the C library's default memory settings, which make it a quarter to a half slower than
with `keep_freed_memory`, and without sharing memory with the engine that it is compared with.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from types import TracebackType

import torch

from sparc.benchmarks.dense import DenseTraining
from sparc.config import SpaceConfig, TrainingConfig, validated
from sparc.errors import SparcError
from sparc.storage.checkpoint import SharedLatentSpace
from sparc.system.processes import started


class DenseProcess:
    """A process that trains naively on random features, one step per request; it ends with its context."""

    def __init__(self, shape: SpaceConfig, config: TrainingConfig, device: str) -> None:
        """Start the process, with as many threads as this one has."""
        self._process = started("sparc.benchmarks.dense_process")
        settings = {"shape": shape.model_dump(), "config": config.model_dump(), "device": device}
        self._send(json.dumps({**settings, "threads": torch.get_num_threads()}))

    def advance(self) -> None:
        """Request one step and wait until it is done. Raises SparcError if the process has ended."""
        assert self._process.stdout is not None
        self._send("step")
        if not self._process.stdout.readline():
            raise SparcError(
                f"the process of the naive step ended with code {self._process.wait()}",
                hint="if it was killed, the dense codes need more memory than there is; measure without --oracle",
            )

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # `advance` notices, since no answer comes
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def __enter__(self) -> DenseProcess:
        """Return the process."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


def main() -> None:
    """Read the settings from the first line, and take a step for each line after it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both processes, and the parent ends this one
    settings = json.loads(sys.stdin.readline())
    torch.set_num_threads(settings["threads"])
    config = validated(TrainingConfig, settings["config"])
    space = SharedLatentSpace(validated(SpaceConfig, settings["shape"])).to(settings["device"])
    features = {name: torch.randn(config.batch_size, width) for name, width in space.streams.items()}
    batch, training = space.normalize(features), DenseTraining(space, config)
    del space  # the training has a copy
    for _ in sys.stdin:
        training.advance(batch).item()  # on a GPU, `item` waits for the whole step
        sys.stdout.write("done\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
