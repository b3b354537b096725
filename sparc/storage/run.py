"""A run: the directory that holds a trained space and what was recorded about it. `Run` owns the paths.

    <run>/provenance.json               where the run comes from; a directory with this file is a run
          config.json                   the space: its shape and training options
          model.safetensors             the space: its weights; a run that has them is finished
          metrics.jsonl                 losses during training
          state/training.safetensors    what an interrupted run keeps to resume; removed when training finishes
          state/space/                  the space that a stream is being attached to; removed likewise
          evaluation.json, evaluation/  held-out metrics, plots, latents.csv
          localization.json             scores of attribution maps

`docs/reference/checkpoint-format.md` is normative.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sparc.errors import InvalidConfig, MissingData
from sparc.storage.provenance import PROVENANCE, Provenance, read_provenance, write_provenance
from sparc.storage.space_config import COMPLETION, CONFIG, MODEL
from sparc.system.files import is_temporary, write_atomically
from sparc.system.refusals import reading, writing


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
        return cls(path)

    @staticmethod
    def check_free(path: Path) -> None:
        """Raise InvalidConfig unless `path` is free for a new run; StorageError if the machine refuses to look."""
        # A process that was killed while it wrote its first file leaves a temporary one.
        with reading(path):
            taken = path.exists() and (not path.is_dir() or any(not is_temporary(file) for file in path.iterdir()))
        if taken:
            hint = f"choose another --out; or resume the run: sparc train --resume {path}"
            raise InvalidConfig(f"{path} already exists, and a run is never overwritten", hint=hint)

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
        if not run.begun:
            raise MissingData(
                f"no run at {path}: it has no {run._provenance.name}",
                hint="give the directory of a run",
            )
        return run

    @classmethod
    def next_free(cls, parent: Path, name: str) -> Path:
        """Return `parent/name`, or the first of `name-2`, `name-3`, ... that does not exist."""
        candidate, number = parent / name, 1
        while candidate.exists():
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

    @property
    def state(self) -> Path:
        """Everything an interrupted run keeps in order to resume, in one file that is replaced as a whole.

        It holds weights, Adam's two moments, the counters of dead latents, and the number of steps done
        (`sparc.training.trainer.Training.save` writes it, `restore` reads it). The order of samples follows from seed
        and epoch, so no generator state is needed. The file is removed when training finishes.
        """
        return self.path / "state" / "training.safetensors"

    @property
    def base(self) -> Path:
        """Copy of the space that a stream is being attached to, so that the run can resume without the other run."""
        return self.path / "state" / "space"

    @property
    def metrics(self) -> Path:
        """Log of the training, one JSON object per logged step."""
        return self.path / "metrics.jsonl"

    @property
    def begun(self) -> bool:
        """True if the directory is a run, finished or not."""
        with reading(self.path):
            return self._provenance.is_file()

    @property
    def finished(self) -> bool:
        """True if the training is complete."""
        with reading(self.path):
            return (self.path / MODEL).is_file()

    def write_provenance(self, provenance: Provenance) -> None:
        """Write where the run comes from, which makes the directory a run. Raises StorageError."""
        write_provenance(self._provenance, provenance)

    def provenance(self) -> Provenance:
        """Read where the run comes from. Raises MissingData or CorruptFile."""
        return read_provenance(self._provenance)

    def log(self, record: Mapping[str, float]) -> None:
        """Append a line to the metrics. Raises StorageError."""
        with writing(self.metrics), self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def forget_metrics_after(self, step: int) -> None:
        """Drop the steps after `step`, which a resumed training logs again, and a truncated last line."""
        kept = []
        try:
            with reading(self.metrics):
                lines = self.metrics.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return
        for line in lines:
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except ValueError:
                break
        write_atomically(self.metrics, lambda path: path.write_text("".join(kept), encoding="utf-8"))

    def copy_base(self, directory: Path) -> None:
        """Copy the space in `directory` to `base`. Raises StorageError."""
        with writing(self.base):
            self.base.mkdir(parents=True, exist_ok=True)
            for name in (CONFIG, MODEL, COMPLETION):
                if (directory / name).is_file():
                    shutil.copyfile(directory / name, self.base / name)

    def drop_state(self) -> None:
        """Remove the state, which only resuming needs."""
        shutil.rmtree(self.state.parent, ignore_errors=True)
