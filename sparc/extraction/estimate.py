"""Time, disk space and memory that an extraction will take, measured on a few samples. Nothing is written."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sparc.extraction.features import FeatureExtractor, dtype_of
from sparc.extraction.items import distinct
from sparc.extraction.preprocessing import ItemBatch
from sparc.plugins.contracts import Dataset
from sparc.system.memory import peak_bytes

BATCHES = 8
SECONDS = 20.0
QUOTED = 4
"""Bytes beside an id in a list of ids."""


@dataclass(frozen=True)
class Estimate:
    """Cost of all samples of the streams that are computed together."""

    samples: int
    rows: int
    """Distinct images or captions."""
    seconds: float
    """Time to compute all rows."""
    begin: float
    """Time before the first batch, in which loading processes start."""
    bytes: int
    """Size of the features in the store."""
    ids_bytes: int
    """Size of the ids in the store."""
    memory: int | None
    """Peak memory of the process in bytes; None if the system does not record it."""
    widths: dict[str, int]
    """Width of each stream's features."""
    device_memory: int | None
    """Peak memory of tensors on the GPU in bytes; None without a GPU."""
    tried: int
    """Samples that were read for the estimate."""
    unreadable: int
    """Number of those that cannot be read."""
    problems: list[str]
    """Why not: a line for each of the first ones."""


def estimate(
    dataset: Dataset,
    extractor: FeatureExtractor,
    dtype: str,
    on_rows: Callable[[int, int], None] = lambda done, total: None,
) -> Estimate:
    """Compute batches from all over the dataset, and extrapolate linearly.

    Samples that cannot be read are counted if `extractor` skips them. Raises what the extraction would raise.
    """
    entered = time.perf_counter()
    items = distinct(dataset, extractor.modality)
    size = extractor.batch_size(dataset, items.owners.tolist())
    ahead = 2 * extractor.workers  # batches that the loading processes read before the first is computed
    count = min(len(items), max(BATCHES, 3 * ahead) * size)
    chosen: list[int] = items.owners[np.linspace(0, len(items) - 1, count).astype(int)].tolist()
    streams = tuple(extractor.backbones)
    batches = [ItemBatch(chosen[low : low + size], streams) for low in range(0, count, size)]
    began, token_bytes = time.perf_counter(), 0
    ends, done = [began], [0]
    for computed in extractor(dataset, batches):
        ends.append(time.perf_counter())
        done.append(done[-1] + len(computed.readable))
        on_rows(done[-1], count)
        token_bytes = sum(tokens[:1].nbytes for tokens in computed.tokens.values()) or token_bytes
        if ends[-1] - began > SECONDS:
            break
    rate, before = pace(ends, done, ahead)
    lengths = [len(name.encode()) + QUOTED for name in items.ids]
    itemsize = torch.empty((), dtype=dtype_of(dtype)).element_size()
    on_gpu = extractor.options.device.startswith("cuda")
    return Estimate(
        samples=len(items.ids),
        rows=len(items),
        seconds=len(items) / rate,
        begin=began - entered + before,
        bytes=len(items) * (token_bytes + itemsize * sum(backbone.width for backbone in extractor.backbones.values())),
        ids_bytes=len(streams) * (sum(lengths) + sum(lengths[owner] for owner in items.owners)),
        memory=peak_bytes(),
        widths={name: backbone.width for name, backbone in extractor.backbones.items()},
        device_memory=torch.cuda.max_memory_allocated(extractor.options.device) if on_gpu else None,
        tried=extractor.tried,
        unreadable=len(extractor.problems),
        problems=extractor.problems.lines(),
    )


def pace(ends: Sequence[float], done: Sequence[int], ahead: int) -> tuple[float, float]:
    """Return the rows per second of an extraction that runs, and the seconds that its begin takes beyond that.

    ends, done: the time of the start and of each batch's end, and the rows done by then. A batch ends when the next one
    is computed, and the last one at once. ahead: batches that the loading processes read before the first is computed.
    """
    if len(ends) < 4:
        return done[-1] / max(1e-9, ends[-1] - ends[0]), 0.0
    # The first batch includes the start of the loading processes, and those that were read meanwhile come at once.
    early, last = min(max(1, ahead), (len(ends) - 2) // 2), len(ends) - 2
    rate = (done[last] - done[early]) / max(1e-9, ends[last] - ends[early])
    return rate, max(0.0, ends[early] - ends[0] - done[early + 1] / rate)
