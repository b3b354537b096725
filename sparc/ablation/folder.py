"""The directory of an ablation: what was asked, its runs, and what came out. One object owns its paths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparc.ablation.grid import Cell, Grid, written
from sparc.config import RunConfig
from sparc.errors import CorruptFile, InvalidConfig, MisalignedStreams
from sparc.storage.run import Run
from sparc.system.files import read_json, write_json

_PLACES = ("data-root", "features", "store", "device", "out", "seed")
"""Where things are may change when an ablation goes on; its seeds are listed."""


@dataclass(frozen=True)
class Ablation:
    """Paths of an ablation, and what its description holds."""

    path: Path

    def run(self, cell: Cell, seed: int) -> Run:
        """One training of a cell; it may not be there yet."""
        return Run(self.path / "runs" / cell.name / f"seed-{seed}")

    def options(self, cell: Cell, seed: int) -> RunConfig:
        """What a user would have said to `sparc train` for this run."""
        return cell.options.model_copy(update={"seed": seed, "out": self.run(cell, seed).path})

    def describe(self, asked: Mapping[str, Any], features: Mapping[str, Any]) -> None:
        """Write what is asked and the digests of the features, by split.

        Raises MisalignedStreams where runs were made on other features.
        """
        content = {**asked, "features": dict(features)}
        if self._description.is_file() and self._read().get("features") != content["features"]:
            raise MisalignedStreams(
                f"the features in the store are not those that {self.path} was started on",
                hint="choose another --out, and train anew",
            )
        write_json(self._description, content)

    def check(self, asked: Mapping[str, Any]) -> None:
        """Raise InvalidConfig, naming the difference, unless this is the place of what is asked, or free.

        Other seeds and other values of the same axes are more of the same ablation: its runs are found by both.
        """
        if not self.path.exists() or (self.path.is_dir() and not any(self.path.iterdir())):
            return
        hint = "choose another --out"
        if not self._description.is_file():
            raise InvalidConfig(f"there is something at {self.path} already, and it is no ablation", hint=hint)
        before = self._read()
        axes, now = (list(content.get("grid", {})) for content in (before, asked))
        if axes != now:
            difference = f"it varies {_said(axes)}, asked for is {_said(now)}"
            raise InvalidConfig(f"{self.path} is of another ablation: {difference}", hint=hint)
        if difference := _difference(before.get("options", {}), asked["options"]):
            raise InvalidConfig(f"{self.path} is of another ablation: {difference}", hint=hint)

    @property
    def _description(self) -> Path:
        return self.path / "ablation.json"

    def _read(self) -> dict[str, Any]:
        content = read_json(self._description, what="the description of an ablation")
        if not isinstance(content, dict):
            raise CorruptFile(f"{self._description} describes no ablation", hint="choose another --out")
        return content


def asked(base: RunConfig, grid: Grid, seeds: list[int]) -> dict[str, Any]:
    """What makes an ablation what it is, as plain data."""
    options = base.model_dump(mode="json", by_alias=True)
    shared = {key: value for key, value in options.items() if key not in (*_PLACES, *grid)}
    return {"grid": grid, "seeds": seeds, "options": shared}


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The first difference, in words; none where there is none."""
    key = next((key for key in (*now, *before) if before.get(key) != now.get(key)), None)
    if key is None:
        return ""
    return f"it has {key} = {_said(before.get(key))}, asked for is {_said(now.get(key))}"


def _said(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_said(one) for one in value)
    if isinstance(value, dict) and "name" in value:
        params = ",".join(f"{key}={param}" for key, param in value.get("params", {}).items())
        return f"{value['name']}[{params}]" if params else str(value["name"])
    return "none" if value is None else written(value)
