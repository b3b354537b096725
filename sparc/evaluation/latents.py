"""Every latent in a row: who activates it, what it is called, which other one says the same."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sparc.evaluation.concepts import Names
from sparc.evaluation.sharing import PerLatent
from sparc.plugins.contracts import Taxonomy
from sparc.system.files import write_atomically


@dataclass(frozen=True)
class LatentTable:
    """Columns of equal length, one entry per latent; None where there is nothing to say."""

    columns: dict[str, list[Any]]

    def write(self, path: Path) -> None:
        """Write a CSV file with a header. Raises StorageError."""

        def fill(part: Path) -> None:
            with part.open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(self.columns)
                writer.writerows(zip(*self.columns.values(), strict=True))

        write_atomically(path, fill)


def latent_table(found: PerLatent, names: Names | None, taxonomy: Taxonomy | None) -> LatentTable:
    """Lay out what was found of each latent; its name and how sure it is where there are labels."""
    n_latents = len(found.cofiring)
    columns: dict[str, list[Any]] = {"latent": list(range(n_latents))}
    columns |= {f"samples {name}": counts.tolist() for name, counts in found.fires.items()}
    columns |= {"cofiring": _rounded(found.cofiring), "entropy": _rounded(found.entropy)}
    columns["twin"] = [twin if twin >= 0 else None for twin in found.twin.tolist()]
    columns["twin cosine"] = _rounded(found.likeness)
    if names is not None and taxonomy is not None:
        labels = [taxonomy.labels[label] if label >= 0 else None for label in names.label.tolist()]
        columns["name"] = labels
        columns["depth"] = [None if label is None else taxonomy.depth(label) for label in labels]
        columns |= {"purity": _rounded(names.purity), "lift": _rounded(names.lift)}
        columns["confirmed"] = names.confirmed.tolist()
    return LatentTable(columns)


def _rounded(values: np.typing.NDArray[np.float64]) -> list[float | None]:
    """Four places, which is more than samples give."""
    return [round(value, 4) if np.isfinite(value) else None for value in values.tolist()]
