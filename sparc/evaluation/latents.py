"""The table of all latents, one row each: the samples that activate it, its name, its nearest other latent."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sparc.evaluation.sharing import PerLatent
from sparc.storage.latent_names import LatentName, name_columns
from sparc.system.cells import csv_cell
from sparc.system.files import write_atomically


@dataclass(frozen=True)
class LatentTable:
    """Columns of equal length, one entry per latent; None where a latent has no value."""

    columns: dict[str, list[Any]]

    def write(self, path: Path) -> None:
        """Write a CSV file with a header. Raises StorageError."""

        def fill(temporary: Path) -> None:
            with temporary.open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(map(csv_cell, self.columns))
                writer.writerows(map(csv_cell, row) for row in zip(*self.columns.values(), strict=True))

        write_atomically(path, fill)


def latent_table(per_latent: PerLatent, names: Mapping[int, LatentName] | None) -> LatentTable:
    """Return the table of all latents. Without labels and words (`names` is None) it has no columns about names."""
    n_latents = len(per_latent.cofiring)
    columns: dict[str, list[Any]] = {"latent": list(range(n_latents))}
    columns |= {f"samples {stream}": counts.tolist() for stream, counts in per_latent.fires.items()}
    columns |= {"cofiring": _rounded(per_latent.cofiring), "entropy": _rounded(per_latent.entropy)}
    columns["twin"] = [twin if twin >= 0 else None for twin in per_latent.twin.tolist()]
    columns["twin cosine"] = _rounded(per_latent.likeness)
    return LatentTable(columns if names is None else columns | name_columns(names, n_latents))


def _rounded(values: np.typing.NDArray[np.float64]) -> list[float | None]:
    return [rounded(value) for value in values.tolist()]


def rounded(value: float) -> float | None:
    """Round to four places, finer than the samples can tell; None for NaN and infinity."""
    return round(value, 4) if np.isfinite(value) else None
