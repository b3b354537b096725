"""Trackers of a training: what `metrics.jsonl` and `speed.jsonl` get, TensorBoard or Weights & Biases gets too.

Each is an optional extra, and its own library writes. A run that resumes continues what it has logged before.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from typing import TYPE_CHECKING, Any

from sparc.config import RunConfig
from sparc.errors import InvalidConfig, StorageError
from sparc.storage.run import Run
from sparc.storage.training_log import RATE
from sparc.system.refusals import writing

if TYPE_CHECKING:
    from sparc.training.trainer import Step

FOLDER = "tensorboard"
"""Folder of TensorBoard's files, in the run."""


class Tracker:
    """A context manager that receives the logged steps of a training. This base class ignores them."""

    def __enter__(self) -> Tracker:
        """Begin."""
        return self

    def __exit__(self, *error: object) -> None:
        """End, after an error too."""

    def log(self, step: Step) -> None:
        """Receive a step that has a line in `metrics.jsonl`."""


def check_tracker(config: RunConfig) -> None:
    """Raise InvalidConfig if the library of the tracker is not installed."""
    if config.track is not None and importlib.util.find_spec(config.track) is None:
        raise InvalidConfig(
            f"--track {config.track}: the package {config.track} is not installed",
            hint=f"pip install 'sparc-sae[{config.track}]', or leave --track out",
        )


def tracking(config: RunConfig, run: Run) -> Tracker:
    """Return the tracker that a configuration names. Raises as `check_tracker`."""
    check_tracker(config)
    if config.track is None:
        return Tracker()
    return _TensorBoard(run) if config.track == "tensorboard" else _Wandb(config, run)


def _numbers(step: Step) -> dict[str, float]:
    """Return what a tracker gets of a step."""
    numbers = {name: value for name, value in step.record.items() if name != "step"}
    return numbers if step.rate is None else {**numbers, RATE: step.rate}


class _TensorBoard(Tracker):
    """Writes event files into the run."""

    def __init__(self, run: Run) -> None:
        self._folder = run.path / FOLDER
        self._writer: Any = None

    def log(self, step: Step) -> None:
        """Write a scalar for each number. Steps that a killed training logged after its last checkpoint are dropped."""
        with writing(self._folder):
            if self._writer is None:
                from torch.utils.tensorboard import SummaryWriter

                self._writer = SummaryWriter(str(self._folder), purge_step=step.number)
            for name, value in _numbers(step).items():
                self._writer.add_scalar(name, value, step.number)

    def __exit__(self, *error: object) -> None:
        """Write what is left."""
        if self._writer is not None:
            with writing(self._folder):
                self._writer.close()


class _Wandb(Tracker):
    """Logs a run of Weights & Biases. Whether it goes to a server is up to wandb's own variables."""

    def __init__(self, config: RunConfig, run: Run) -> None:
        self._config, self._path = config, run.path
        self._run: Any = None
        identity = f"{run.path.resolve()} {run.provenance().started}"
        self._id = hashlib.sha256(identity.encode()).hexdigest()[:16]

    def __enter__(self) -> Tracker:
        """Begin a run of wandb, or resume the one of this run."""
        import wandb

        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "sparc"),
                name=self._path.name,
                id=self._id,
                resume="allow",
                dir=str(self._path),
                config=self._config.model_dump(mode="json", by_alias=True),
            )
        except (wandb.Error, OSError) as error:
            raise StorageError(
                f"--track wandb: {' '.join(str(error).split())}",
                hint="wandb login; or log without a server: WANDB_MODE=offline",
            ) from error
        return self

    def log(self, step: Step) -> None:
        """Log the numbers of a step."""
        if self._run is not None:
            self._run.log(_numbers(step), step=step.number)

    def __exit__(self, *error: object) -> None:
        """End the run of wandb: finished, or interrupted."""
        if self._run is not None:
            self._run.finish(exit_code=0 if error[0] is None else 1)
