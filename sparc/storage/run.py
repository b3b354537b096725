"""A run directory: a checkpoint, and what was measured on it. One object owns its paths."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparc.errors import InvalidConfig, MissingData
from sparc.storage.card import PROVENANCE
from sparc.system.files import read_json, storage_error, write_atomically, write_json


@dataclass(frozen=True)
class Run:
    """Paths of a run and what its JSON files hold."""

    path: Path

    @classmethod
    def create(cls, path: Path) -> Run:
        """Make a new run directory.

        Raises:
            InvalidConfig: one is there, and a run is never overwritten.
            StorageError: the directory cannot be made.
        """
        cls.check_free(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(path, error) or error from error
        return cls(path)

    @staticmethod
    def check_free(path: Path) -> None:
        """Raise InvalidConfig unless a new run can be made at `path`."""
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            hint = f"choose another --out; or go on with it: sparc train --resume {path}"
            raise InvalidConfig(f"there is something at {path} already, and a run is never overwritten", hint=hint)

    @classmethod
    def open(cls, path: Path) -> Run:
        """Open a run that exists. Raises MissingData."""
        run = cls(path)
        if (path / "ablation.json").is_file():
            one = next(path.glob("runs/*/*"), None)
            raise MissingData(
                f"{path} is an ablation, which holds many runs",
                hint=f"choose one of {path / 'runs'}{f', such as {one}' if one else ''}",
            )
        if not run.begun:
            raise MissingData(
                f"no run at {path}: it has no {run._provenance.name}", hint="give the --out of a training"
            )
        return run

    @classmethod
    def next_free(cls, parent: Path, name: str) -> Path:
        """Return `parent/name`, or the first of `name-2`, `name-3`, ... that is not there."""
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
        """What was measured on held-out samples."""
        return self.path / "evaluation.json"

    @property
    def pictures(self) -> Path:
        """Plots of the evaluation, and its table of latents."""
        return self.path / "evaluation"

    @property
    def localization(self) -> Path:
        """How well maps point."""
        return self.path / "localization.json"

    @property
    def state(self) -> Path:
        """What resuming needs, one file so that it is replaced whole; gone when the training is finished."""
        return self.path / "state" / "training.safetensors"

    @property
    def metrics(self) -> Path:
        """One JSON object per logged step."""
        return self.path / "metrics.jsonl"

    @property
    def begun(self) -> bool:
        """Whether there is a run, finished or not."""
        return self._provenance.is_file()

    @property
    def finished(self) -> bool:
        """Whether the training came to its end."""
        return (self.path / "model.safetensors").is_file()

    def write_provenance(self, content: dict[str, Any]) -> None:
        """Write where the run comes from: versions, seed, data, command, options."""
        write_json(self._provenance, content)

    def provenance(self) -> dict[str, Any]:
        """Read what `write_provenance` wrote."""
        content: dict[str, Any] = read_json(self._provenance, what="the provenance of a run")
        return content

    def log(self, record: dict[str, Any]) -> None:
        """Append a line to the metrics. Raises StorageError."""
        try:
            with self.metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise storage_error(self.metrics, error) or error from error

    def forget_metrics_after(self, step: int) -> None:
        """Drop logged steps that a resumed training will make again, and a line that was cut short."""
        if not self.metrics.exists():
            return
        kept = []
        for line in self.metrics.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except ValueError:
                break
        write_atomically(self.metrics, lambda path: path.write_text("".join(kept), encoding="utf-8"))

    def drop_state(self) -> None:
        """Remove what only resuming needed."""
        shutil.rmtree(self.state.parent, ignore_errors=True)
