"""What a stream has to compute: each distinct image or caption of a dataset once, however many samples show it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparc.contracts import Dataset, Sample


@dataclass(frozen=True)
class Items:
    """The distinct items of a dataset in the order in which they first appear: a row of features each."""

    ids: list[str]
    """Of the samples."""
    rows: NDArray[np.int64]
    """(samples,) the row of each sample."""
    owners: NDArray[np.int64]
    """(rows,) the first sample of each row: the one that is read."""

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.owners)


def distinct(dataset: Dataset, modality: str) -> Items:
    """Find the distinct images, by `Sample.image_id`, or the distinct captions. Opens no image."""
    first: dict[object, int] = {}
    rows = np.empty(len(dataset), np.int64)
    owners: list[int] = []
    for position in range(len(dataset)):
        row = first.setdefault(_key(dataset[position], modality, position), len(owners))
        if row == len(owners):
            owners.append(position)
        rows[position] = row
    return Items(list(dataset.ids), rows, np.array(owners, np.int64))


def _key(sample: Sample, modality: str, position: int) -> object:
    """What equal items have in common; what cannot be read stays apart, so that it is named."""
    if modality == "image":
        return position if sample.image_id is None else sample.image_id
    caption = sample.caption or ""
    return hashlib.blake2b(caption.encode(), digest_size=16).digest() if caption.strip() else position
