"""What an extraction will take, from computing a few samples of it. Nothing is written."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch

from sparc.extraction.forward import Batch, Forward, Spent, dtype_of
from sparc.extraction.items import distinct
from sparc.plugins.contracts import Dataset
from sparc.system.memory import peak_bytes

BATCHES = 8
SECONDS = 20.0


@dataclass(frozen=True)
class Estimate:
    """What all samples of some streams that are computed together would take."""

    samples: int
    rows: int
    """Distinct images or captions."""
    seconds: float
    """To compute all rows."""
    bytes: int
    """Of features in the store."""
    memory: int | None
    """Bytes that the process held at most; None where the system does not say."""
    device_memory: int | None
    """Bytes of tensors on the GPU at most; None without one."""


def estimate(dataset: Dataset, forward: Forward, dtype: str) -> Estimate:
    """Compute some batches from all over the dataset, and draw a line through them. Raises as the extraction would."""
    items = distinct(dataset, forward.modality)
    size = forward.batch_size(dataset, items.owners.tolist())
    count = min(len(items), BATCHES * size)
    chosen: list[int] = items.owners[np.linspace(0, len(items) - 1, count).astype(int)].tolist()
    streams = tuple(forward.backbones)
    batches = [Batch(chosen[low : low + size], streams) for low in range(0, count, size)]
    began = first = time.perf_counter()
    done = after_first = token_bytes = 0
    for computed in forward(dataset, batches, Spent()):
        now = time.perf_counter()
        done += len(computed.readable)
        token_bytes = sum(tokens[:1].nbytes for tokens in computed.tokens.values()) or token_bytes
        if done == len(computed.readable):  # it waited for the data-loading workers to start
            first, after_first = now, done
        if now - began > SECONDS:
            break
    rate = (done - after_first) / (now - first) if done > after_first else done / (now - began)
    itemsize = torch.empty((), dtype=dtype_of(dtype)).element_size()
    on_gpu = forward.how.device.startswith("cuda")
    return Estimate(
        samples=len(items.ids),
        rows=len(items),
        seconds=len(items) / rate,
        bytes=len(items) * (token_bytes + itemsize * sum(backbone.width for backbone in forward.backbones.values())),
        memory=peak_bytes(),
        device_memory=torch.cuda.max_memory_allocated(forward.how.device) if on_gpu else None,
    )
