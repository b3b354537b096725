"""A run: the directory that holds a trained space and what was recorded about it. `Run` owns the paths.

    <run>/provenance.json               where the run comes from; a directory with this file is a run
          config.json                   the space: its shape and training options
          model.safetensors             the space: its weights, or an index of several files; a run that has them is
                                        finished
          metrics.jsonl                 losses during training
          speed.jsonl                   how fast it trained, which differs between two trainings of the same run
          training.png                  curves of the metrics
          state/step-N.safetensors      what an interrupted run keeps to resume: its last checkpoints, and the best
          state/best.json               the checkpoint with the least loss on held-out samples
          state/space/                  the space that a stream is being attached to
                                        state/ is removed when training finishes
          evaluation.json, evaluation/  held-out metrics, plots, latents.csv
          localization.json             scores of attribution maps
          on/DATASET-DIGEST/            the same three, measured on other data

`docs/reference/checkpoint-format.md` is normative.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sparc.config import SpaceConfig
from sparc.errors import InUse, InvalidConfig, MissingData, SparcError, StorageError
from sparc.storage.belonging import check_provenance
from sparc.storage.nearby import near_run
from sparc.storage.provenance import PROVENANCE, Provenance, read_provenance, write_provenance
from sparc.storage.space_config import COMPLETION, CONFIG, MODEL, read_config
from sparc.storage.training_log import LOG
from sparc.storage.weight_files import PATTERNS, space_files, weights_path
from sparc.system.files import is_temporary, remove_temporaries, write_atomically
from sparc.system.locks import LOCK, holder, in_use, owned
from sparc.system.refusals import reading, writing

OTHER_DATA = "on"
"""Folder, in a run, of what is measured on other data than its own."""
BASE = Path("state") / "space"
"""Place, in a run, of the space that a stream is being attached to."""


@dataclass(frozen=True)
class Run:
    """Paths of a run, its provenance and its log of metrics."""

    path: Path

    @classmethod
    def create(cls, path: Path) -> Run:
        """Make a new run directory.

        Raises:
            InvalidConfig: `path` is taken; a run is never overwritten.
            StorageError: the directory cannot be made.
        """
        cls.check_free(path)
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)
            for left in path.iterdir():  # by a process that was killed before the directory was a run
                if left.is_dir() and not left.is_symlink():
                    shutil.rmtree(left)
                elif left.name != LOCK:
                    left.unlink()
        return cls(path)

    @classmethod
    def check_free(cls, path: Path) -> None:
        """Raise InvalidConfig unless `path` is free for a new run; StorageError if the machine refuses to look.

        What a process leaves that was killed before its directory was a run does not count. Raises InUse if another
        process works there.
        """
        with writing(path):  # a name that no file can have is no free one
            taken = not cls._is_free(path)
        if taken:
            if path.is_dir() and (owner := holder(path)) is not None and owner.pid != os.getpid():
                raise in_use(path, owner, "wait until it ends; or choose another --out")
            hint = f"choose another --out; or resume the run: sparc train --resume {path}"
            if not (path / PROVENANCE).is_file():
                hint = "choose another --out"
            raise InvalidConfig(f"{path} already exists, and a run is never overwritten", hint=hint)

    @staticmethod
    def _is_free(path: Path) -> bool:
        """Return True if there is nothing, or only what a killed process leaves before its directory is a run."""
        try:
            os.lstat(path)
        except FileNotFoundError:
            return True
        if not path.is_dir():
            return False
        names = {file.name for file in path.iterdir() if not is_temporary(file)}
        if MODEL not in names and names and names <= {CONFIG, COMPLETION, PROVENANCE}:
            return _was_being_written(path)
        if names == {BASE.parent.name}:  # a stream was to be attached
            inner = {file.relative_to(path) for file in (path / BASE.parent).rglob("*") if not is_temporary(file)}
            return all(path == BASE or _is_of_space(path) for path in inner)
        return not names

    @classmethod
    def open(cls, path: Path) -> Run:
        """Open an existing run. Raises MissingData, or StorageError if the machine refuses to look."""
        run = cls(path)
        with reading(path):
            is_ablation = (path / "ablation.json").is_file()
        if is_ablation:
            one = next(path.glob("runs/*/*"), None)
            raise MissingData(
                f"{path} is an ablation, which holds many runs",
                hint=f"choose one of {path / 'runs'}{f', such as {one}' if one else ''}",
            )
        if not run.begun and run.is_space:
            raise MissingData(
                f"{path} is a space without the record of a run, so its backbones and data are not known",
                hint="sparc evaluate, explore and localize take --dataset and --stream; or --features; "
                "sparc.load(...).encode takes features",
            )
        if not run.begun:
            raise MissingData(
                f"no run at {path}: it has no {run._provenance.name}" if path.is_dir() else f"no run at {path}",
                hint=near_run(path, "give the directory of a run"),
            )
        if not run.finished and _was_being_written(path):
            raise MissingData(f"{path} is incomplete: detaching a stream was interrupted", hint="detach it again")
        return run

    @classmethod
    def open_space(cls, path: Path) -> Run:
        """Open an existing run, or a space alone, such as an imported one. Raises as `open`."""
        run = cls(path)
        return run if not run.begun and run.is_space else cls.open(path)

    @property
    def is_space(self) -> bool:
        """True if the directory has the files of a space."""
        return self.finished and (self.path / CONFIG).is_file()

    @classmethod
    def next_free(cls, parent: Path, name: str) -> Path:
        """Return `parent/name`, or the first of `name-2`, `name-3`, ... that is free and in which nobody works."""
        candidate, number = parent / name, 1
        while not cls._is_free(candidate) or holder(candidate) is not None:
            number += 1
            candidate = parent / f"{name}-{number}"
        return candidate

    @property
    def _provenance(self) -> Path:
        return self.path / PROVENANCE

    @property
    def evaluation(self) -> Path:
        """Metrics on held-out samples."""
        return self.path / "evaluation.json"

    @property
    def pictures(self) -> Path:
        """Directory of the evaluation's plots and of its table of latents, `latents.csv`."""
        return self.path / "evaluation"

    @property
    def localization(self) -> Path:
        """Scores of attribution maps, written by `sparc evaluate --localization`."""
        return self.path / "localization.json"

    def state(self, step: int) -> Path:
        """Return the path of a checkpoint, which holds all that an interrupted run needs to resume after a step.

        It holds weights, Adam's two moments, the counters of dead latents, the number of steps done and a digest of all
        that (`sparc.training.state` writes and reads it). The order of samples follows from seed and epoch, so no
        generator state is needed.
        """
        return self._state / f"step-{step:012d}.safetensors"

    def shards(self, step: int) -> Path:
        """Return the path of a checkpoint that several processes write: a folder (`sparc.training.sharded_state`)."""
        return self._state / f"step-{step:012d}.shards"

    def states(self) -> list[Path]:
        """Return the paths of all checkpoints, the newest first. Raises StorageError if the machine refuses to look."""
        with reading(self._state):
            found = [path for kind in ("safetensors", "shards") for path in self._state.glob(f"step-*.{kind}")]
        return sorted((path for path in found if re.fullmatch(r"step-\d{12}", path.stem)), reverse=True)

    @property
    def best(self) -> Path:
        """Mark of the checkpoint with the least loss on held-out samples."""
        return self._state / "best.json"

    @property
    def _state(self) -> Path:
        return self.path / BASE.parent

    @property
    def base(self) -> Path:
        """Copy of the space that a stream is being attached to, so that the run can resume without the other run."""
        return self.path / BASE

    def others(self) -> list[Run]:
        """Return the folders of what was measured on other data, which are laid out as a run. Raises StorageError."""
        with reading(self.path):
            return [Run(path.parent) for path in sorted((self.path / OTHER_DATA).glob("*/evaluation.json"))]

    @property
    def metrics(self) -> Path:
        """Log of the training, one JSON object per logged step."""
        return self.path / LOG

    @property
    def speed(self) -> Path:
        """Log of the speed, one JSON object per logged step; apart from the metrics, which a resumed run repeats."""
        return self.path / "speed.jsonl"

    @property
    def curves(self) -> Path:
        """Plot of the metrics, drawn when the training ends."""
        return self.path / "training.png"

    @property
    def begun(self) -> bool:
        """True if the directory is a run, finished or not."""
        with reading(self.path):
            return self._provenance.is_file()

    @property
    def finished(self) -> bool:
        """True if the training is complete."""
        return weights_path(self.path) is not None

    def write_provenance(self, provenance: Provenance) -> None:
        """Write where the run comes from, which makes the directory a run. Raises StorageError."""
        write_provenance(self._provenance, provenance)

    def provenance(self) -> Provenance:
        """Read where the run comes from.

        Raises MissingData; CorruptFile if it is damaged, or that of another run than the space beside it.
        """
        found = read_provenance(self._provenance)
        if self.finished:
            check_provenance(self._provenance, found)
        return found

    def log(self, record: Mapping[str, float]) -> None:
        """Append a line to the metrics. Raises StorageError."""
        _append(self.metrics, record)

    def log_speed(self, record: Mapping[str, float]) -> None:
        """Append a line to the speeds. Raises StorageError."""
        _append(self.speed, record)

    def sync_metrics(self) -> None:
        """Write the metrics to the disk, so that a checkpoint never outlives the lines before it."""
        with writing(self.metrics), contextlib.suppress(FileNotFoundError), self.metrics.open("rb+") as file:
            os.fsync(file.fileno())

    def forget_metrics_after(self, step: int) -> None:
        """Drop the steps after `step`, which a resumed training logs again, and lines that are damaged.

        Warns about damaged lines. The last one may be cut by a kill, which is no damage: its step is logged again.
        """
        for log in (self.metrics, self.speed):
            damaged = _forget_after(log, step)
            if damaged:
                warnings.warn(
                    f"{log}: {len(damaged)} damaged lines are dropped, the first is line {damaged[0]}; the weights do "
                    "not depend on them",
                    stacklevel=2,
                )

    def copy_base(self, directory: Path) -> None:
        """Copy the space in `directory` to `base`. Raises StorageError."""
        with writing(self.base):
            self.base.mkdir(parents=True, exist_ok=True)
            for path in space_files(directory):
                shutil.copyfile(path, self.base / path.name)

    def drop_state(self) -> None:
        """Remove the state, which only resuming needs."""
        shutil.rmtree(self._state, ignore_errors=True)

    def sweep(self) -> None:
        """Remove what killed processes left in this run, which this process owns: temporary files, a finished state."""
        remove_temporaries(self.path, self._state, self.base, self.pictures)
        if self.finished:
            self.drop_state()

    def sweep_if_free(self) -> None:
        """Sweep a run that is done, unless another process owns it. A kill after the last write leaves files there."""
        with contextlib.suppress(InUse, StorageError), owned(self.path, ""):
            self.sweep()


def _is_of_space(path: Path) -> bool:
    """Return True for the name of a file of the space that a stream is being attached to."""
    return path.parent == BASE and any(path.match(name) for name in (CONFIG, COMPLETION, *PATTERNS))


def _was_being_written(path: Path) -> bool:
    """Return True for a space without weights, which are written last, that is not the run of an unfinished training.

    A process that imported a checkpoint, or detached a stream, was killed there.
    """
    try:
        if (path / PROVENANCE).exists():
            changes = read_provenance(path / PROVENANCE).changes
            return bool(changes) and changes[-1].change == "detached"
        return not (path / CONFIG).exists() or isinstance(read_config(path), SpaceConfig)
    except SparcError:
        return False


def _append(path: Path, record: Mapping[str, float]) -> None:
    with writing(path), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def _forget_after(path: Path, step: int) -> list[int]:
    """Keep the whole lines of a log up to a step, and return the numbers of damaged lines."""
    try:
        with reading(path):
            lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    kept: list[bytes] = []
    damaged: list[int] = []
    for number, line in enumerate(lines, 1):
        logged = _logged_step(line)
        if logged is None:
            damaged += [number] if number < len(lines) else []
        elif logged <= step:
            kept.append(line + b"\n")
    write_atomically(path, lambda temporary: temporary.write_bytes(b"".join(kept)))
    return damaged


def _logged_step(line: bytes) -> int | None:
    """Return the step of a line of the metrics; None if the line is damaged."""
    try:
        found = json.loads(line)["step"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return found if isinstance(found, int) and not isinstance(found, bool) else None
