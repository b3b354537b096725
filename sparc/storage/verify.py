"""Verify a feature store: checksums, ids and manifests of its streams, and features that no model should give."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sparc.errors import MissingData, SparcError
from sparc.storage.manifest import MANIFEST, read_manifest
from sparc.storage.store import FEATURES, TOKENS, FeatureStore, check_place, open_patches, open_streams, read_shard
from sparc.system.refusals import reading

FAR = 10.0
"""A norm this many times the median, or the median this many times a norm, is an outlier."""
SHOWN = 3
"""Ids and columns that a message lists."""


class Doubt(NamedTuple):
    """A message about a stream; an error means that its features cannot be used."""

    is_error: bool
    message: str
    hint: str


@dataclass(frozen=True)
class Verified:
    """The findings in the directory of one stream."""

    directory: Path
    samples: int
    doubts: tuple[Doubt, ...]


def stream_directories(root: Path) -> list[Path]:
    """Return the directories below `root` that hold a manifest or shards, in order. Links are not followed.

    Raises MissingData if there are none, and StorageError.
    """
    found = []
    with reading(root):
        for folder, below, files in os.walk(root):
            below.sort()
            if MANIFEST in files or any(name.startswith("shard-") and name.endswith(".safetensors") for name in files):
                found.append(Path(folder))
    if not found:
        raise MissingData(
            f"no features in {root}", hint="give a store, a folder of imported features, or the directory of a stream"
        )
    return found


def verify_stream(directory: Path) -> Verified:
    """Read all of a stream, and return what is wrong or doubtful about it. Raises nothing but refusals of memory."""
    try:
        if not (directory / MANIFEST).is_file():
            return _unfinished(directory)
        store = open_streams({directory.name: directory})
        doubts = list(_doubts(store, directory.name))
        if read_manifest(directory).tokens is not None:
            open_patches(directory)
    except SparcError as error:
        return Verified(directory, 0, (Doubt(True, error.message, error.hint),))
    return Verified(directory, len(store), tuple(doubts))


def _unfinished(directory: Path) -> Verified:
    """Check the shards of an extraction that is not finished."""
    doubts, rows = [], 0
    for kind, key in (("shard", FEATURES), ("tokens", TOKENS)):
        for path in sorted(directory.glob(f"{kind}-*.safetensors")):
            try:
                found = read_shard(path, key=key, checked=True)
                check_place(path, found)
            except SparcError as error:
                doubts.append(Doubt(True, error.message, f"extract it again, which makes {path.name} anew"))
                continue
            rows += len(found.ids) if key == FEATURES else 0
    more = f"it is not finished: {rows:,} rows so far, and no {MANIFEST}"
    return Verified(
        directory, 0, (*doubts, Doubt(False, more, "run the same extraction again, which goes on from here"))
    )


def _doubts(store: FeatureStore, name: str) -> Iterator[Doubt]:
    """Yield what is doubtful about features whose files are sound: columns and norms."""
    shards, manifest = store.shards[name], store.manifests[name]
    low_D, high_D, norms_N = _ranges(shards)
    there_N = norms_N > 0
    if not there_N.any():
        yield Doubt(True, f"all {len(norms_N):,} rows are zero", "look at the backbone: it gives nothing")
        return
    constant = np.flatnonzero(low_D == high_D)
    if constant.size:
        yield Doubt(
            False,
            f"{constant.size} of {manifest.width} columns are constant, such as {_some(constant)}",
            "they tell nothing: look at the backbone, or leave them as they are",
        )
    twins = _duplicates(shards, manifest.width)
    twins = twins[~np.isin(twins, constant)]
    if twins.size:
        yield Doubt(
            False,
            f"{twins.size} of {manifest.width} columns equal another one, such as {_some(twins)}",
            "they count twice: look at the backbone, or at how the features were joined",
        )
    median = float(np.median(norms_N[there_N]))
    far = np.flatnonzero(there_N & ((norms_N > FAR * median) | (norms_N * FAR < median)))
    if far.size:
        row_of_sample = store.rows[name].numpy()
        samples = np.flatnonzero(np.isin(row_of_sample, far))
        shown = ", ".join(f"'{store.ids[sample]}'" for sample in samples[:SHOWN])
        yield Doubt(
            False,
            f"the norm of {far.size:,} of {there_N.sum():,} rows is over {FAR:g} times the median, {median:.3g}, or "
            f"under a tenth of it, such as that of {shown}",
            "look at these samples; --normalization unit makes them as long as the others",
        )
    if skipped := len(manifest.skipped):
        yield Doubt(
            False, f"{skipped:,} samples could not be read, and lack the stream", "extract again to try them once more"
        )


def _ranges(shards: Sequence[Tensor]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the least and the largest value of each column in the rows that are not zero, and the norm of each row."""
    low_D, high_D = torch.tensor(torch.inf), torch.tensor(-torch.inf)
    norms = []
    for rows in shards:
        values_ND = rows.double()
        norms_N = values_ND.norm(dim=1)
        norms.append(norms_N)
        if (there_N := norms_N > 0).any():
            low_D = torch.minimum(low_D, values_ND[there_N].amin(dim=0))
            high_D = torch.maximum(high_D, values_ND[there_N].amax(dim=0))
    return low_D.numpy(), high_D.numpy(), torch.cat(norms).numpy()


def _duplicates(shards: Sequence[Tensor], width: int) -> np.ndarray:
    """Return the columns that are equal to an earlier one, by two random sums of each that equal columns share."""
    generator = torch.Generator().manual_seed(0)
    sums_2D = torch.zeros(2, width, dtype=torch.float64)
    for rows in shards:
        weights_2N = torch.randn(2, len(rows), dtype=torch.float64, generator=generator)
        for number in range(2):  # row by row, so that equal columns are added in the same order
            sums_2D[number] += (rows.double() * weights_2N[number].unsqueeze(1)).sum(dim=0)
    _, first, back = np.unique(sums_2D.numpy(), axis=1, return_index=True, return_inverse=True)
    return np.flatnonzero(first[back.ravel()] != np.arange(width))


def _some(columns: np.ndarray) -> str:
    return ", ".join(map(str, columns[:SHOWN].tolist()))
