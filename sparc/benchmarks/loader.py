"""Throughput of the training loader."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from sparc.config import TrainingConfig, validated
from sparc.storage.store import SHARD_ROWS
from sparc.training.loader import FeaturesInMemory, Loader


@dataclass(frozen=True)
class LoaderCost:
    """Samples per second in shuffled order, each with a row of every stream."""

    first_epoch: float
    """While pages of the files are first mapped into the process; they are in the page cache already."""
    later_epochs: float
    shard_rows: int
    samples: int


def measure_loader(widths: list[int], *, samples: int, batch_size: int, epochs: int = 3) -> LoaderCost:
    """Time the loader on float16 features in files with the shards of a store, written just before."""
    with tempfile.TemporaryDirectory(prefix="sparc-bench-") as folder:
        shards: dict[str, list[Tensor]] = {}
        for number, width in enumerate(widths):
            shards[f"stream-{number}"] = pieces = []
            for first in range(0, samples, SHARD_ROWS):
                path = Path(folder) / f"{number}-{first}.safetensors"
                rows = torch.randn(min(SHARD_ROWS, samples - first), width).half()
                save_file({"features": rows}, path)
                with safe_open(path, framework="pt") as file:
                    pieces.append(file.get_tensor("features"))
        seconds = []
        for seed in range(epochs):
            config = validated(TrainingConfig, {"batch_size": batch_size, "epochs": 1, "seed": seed})
            loader = Loader(FeaturesInMemory(shards), config)
            began = time.perf_counter()
            loaded = sum(len(next(iter(batch.values()))) for batch in loader)
            seconds.append((time.perf_counter() - began) / loaded)
    return LoaderCost(
        first_epoch=round(1 / seconds[0]),
        later_epochs=round(1 / min(seconds[1:])),
        shard_rows=SHARD_ROWS,
        samples=samples,
    )
