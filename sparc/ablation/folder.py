"""The directory of an ablation. One object owns the paths of its description, runs and results."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparc.ablation.grid import Cell, Grid, written
from sparc.config import ResumeOptions, RunConfig, names
from sparc.errors import CorruptFile, InvalidConfig, MisalignedStreams
from sparc.storage.run import Run
from sparc.system.files import is_temporary, read_json, remove_temporaries, write_json
from sparc.system.locks import owned
from sparc.system.refusals import reading

_FREE = (*names(ResumeOptions), "out", "seed")
"""Options that may differ when an ablation is resumed: places, a limit of time, and the seed, as seeds are a list."""


@dataclass(frozen=True)
class AblationFolder:
    """Paths of an ablation, and its description."""

    path: Path

    def run(self, cell: Cell, seed: int) -> Run:
        """Return the run of a cell with a seed; its directory may not exist yet."""
        return Run(self.path / "runs" / cell.name / f"seed-{seed}")

    def config(self, cell: Cell, seed: int) -> RunConfig:
        """Return the configuration that gives this run with `sparc train`."""
        return cell.config.model_copy(update={"seed": seed, "out": self.run(cell, seed).path})

    @contextlib.contextmanager
    def owned(self) -> Iterator[None]:
        """Own the folder inside the block, and remove what killed processes left. Raises InUse."""
        with owned(self.path, "wait until it ends; or choose another --out"):
            remove_temporaries(self.path)
            yield

    def describe(self, content: Mapping[str, Any], features: Mapping[str, Any]) -> None:
        """Write the description and the digests of the features, by split.

        Raises MisalignedStreams if earlier runs were trained on other features.
        """
        content = {**content, "features": dict(features)}
        if self._description.is_file() and self._read().get("features") != content["features"]:
            raise MisalignedStreams(
                f"the features in the store are not the ones that {self.path} was started on",
                hint="choose another --out to train on these features",
            )
        write_json(self._description, content)

    def check(self, content: Mapping[str, Any]) -> None:
        """Raise InvalidConfig, naming the difference, unless the folder is free or holds the same ablation.

        More seeds and more values of the same axes extend an ablation: cell and seed name the directory of a run.
        """
        with reading(self.path):
            there = self.path.exists()
            if not there or (self.path.is_dir() and all(is_temporary(one) for one in self.path.iterdir())):
                return
        hint = "choose another --out"
        if not self._description.is_file():
            raise InvalidConfig(f"{self.path} already exists and is not an ablation", hint=hint)
        before = self._read()
        axes, now = (list(one.get("grid", {})) for one in (before, content))
        if axes != now:
            difference = f"expected a grid of {_text(axes)}, found {_text(now)}"
            raise InvalidConfig(f"{self.path} holds another ablation: {difference}", hint=hint)
        if difference := _difference(before.get("options", {}), content["options"]):
            raise InvalidConfig(f"{self.path} holds another ablation: {difference}", hint=hint)

    @property
    def _description(self) -> Path:
        return self.path / "ablation.json"

    def _read(self) -> dict[str, Any]:
        content = read_json(self._description, what="the description of an ablation")
        if not isinstance(content, dict):
            raise CorruptFile(f"{self._description} does not describe an ablation", hint="choose another --out")
        return content


def description(config: RunConfig, grid: Grid, seeds: list[int]) -> dict[str, Any]:
    """Return the identity of an ablation as plain data: its grid, its seeds, and the options that all cells share."""
    options = config.model_dump(mode="json", by_alias=True)
    shared = {key: value for key, value in options.items() if key not in (*_FREE, *grid)}
    return {"grid": grid, "seeds": seeds, "options": shared}


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return the first difference as text, or an empty string."""
    # An option that is newer than the folder had its default.
    before = {**RunConfig().model_dump(mode="json", by_alias=True), **before}
    key = next((key for key in now if before.get(key) != now.get(key)), None)
    if key is None:
        return ""
    return f"expected {key} = {_text(before.get(key))}, found {_text(now.get(key))}"


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_text(one) for one in value)
    if isinstance(value, dict) and "name" in value:
        params = ",".join(f"{key}={param}" for key, param in value.get("params", {}).items())
        return f"{value['name']}[{params}]" if params else str(value["name"])
    return "none" if value is None else written(value)
