"""Names of latents as a run stores them: in the table of all latents that an evaluation writes.

The table is the only source of names, so a latent has one name in every command.
"""

from __future__ import annotations

import contextlib
import csv
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparc.errors import CorruptFile, SparcError
from sparc.system.cells import csv_text
from sparc.system.files import read_json, sha256
from sparc.system.refusals import reading

LATENTS = "latents.csv"
"""File name of the table of all latents, in the evaluation folder of a run."""


@dataclass(frozen=True)
class LatentName:
    """The label that a latent stands for, found on one half of the held-out images and checked on the other.

    Of data without labels, it is a word of captions.
    """

    label: str
    depth: int
    """Depth of the label in the taxonomy; 0 for a word."""
    purity: float | None
    """Share of the latent's images that have the label, on the checking half; None if that half has none of them."""
    lift: float | None
    """Purity over the label's frequency, on the checking half; None if no image of that half has the label."""
    confirmed: bool
    """True if the label holds on the checking half. Only confirmed names are shown."""


def name_columns(names: Mapping[int, LatentName], n_latents: int) -> dict[str, list[Any]]:
    """Return the table's columns about names, one entry per latent; empty cells for a latent without a name."""
    cells = [names.get(latent) for latent in range(n_latents)]
    return {
        "name": [None if name is None else name.label for name in cells],
        "depth": [None if name is None else name.depth for name in cells],
        "purity": [None if name is None else name.purity for name in cells],
        "lift": [None if name is None else name.lift for name in cells],
        "confirmed": [name is not None and name.confirmed for name in cells],
    }


def read_latent_names(path: Path) -> dict[int, LatentName]:
    """Read the names of latents, confirmed or not, from the table at `path`.

    Empty if there is no table, or if the data had no labels. Warns if the table is not that of the evaluation beside
    it: somebody may have edited it. Raises CorruptFile, StorageError.
    """
    _compare(path)
    try:
        with reading(path), path.open(encoding="utf-8", newline="") as file:
            return {int(row["latent"]): _name(row) for row in csv.DictReader(file) if row.get("name")}
    except FileNotFoundError:
        return {}
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise CorruptFile(
            f"the table of latents is damaged: {path} ({type(error).__name__} {error})",
            hint="measure the run again: sparc evaluate",
        ) from error


def _compare(path: Path) -> None:
    evaluation = path.parent.parent / "evaluation.json"
    with contextlib.suppress(FileNotFoundError, SparcError):  # whoever reads these files says what is wrong with them
        content = read_json(evaluation, what="the evaluation of a run")
        said = content.get("latents") if isinstance(content, dict) else None
        if isinstance(said, str) and sha256(path) != said:
            warnings.warn(
                f"{path} is not the table that was written with {evaluation}, so names of latents may be those of "
                "another run; if you have not edited it, measure the run again: sparc evaluate",
                stacklevel=3,
            )


def _name(row: Mapping[str, str]) -> LatentName:
    return LatentName(
        label=csv_text(row["name"]),
        depth=int(row["depth"]),
        purity=float(row["purity"]) if row["purity"] else None,
        lift=float(row["lift"]) if row["lift"] else None,
        confirmed={"True": True, "False": False}[row["confirmed"]],
    )
