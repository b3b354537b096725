"""Features without a store: a worker computes those of samples in the order of reading, and sends them.

The worker is that of an extraction. Its events carry the features as text (base64), 12 kB per sample for the demo's
three streams. It stops while nobody reads them, so it is never more than a few batches ahead.
"""

from __future__ import annotations

import base64
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from sparc.extraction.features import FeatureExtractor, dtype_of, stored
from sparc.extraction.items import Items, distinct
from sparc.extraction.plan import Feed, Job, Order
from sparc.extraction.preprocessing import ItemBatch
from sparc.extraction.reading_order import ReadingOrder
from sparc.extraction.supervise import Progress, events, following
from sparc.plugins.contracts import Dataset
from sparc.storage.store import check_finite

Emit = Callable[[dict[str, Any]], None]
AT_ONCE = 1 << 16
"""Batches that one set of loading processes loads."""


def feed(
    jobs: Iterable[Job], order: Feed, on_progress: Callable[[Progress], None] = lambda progress: None
) -> Iterator[dict[str, Tensor]]:
    """Yield the features (n, D) by stream of the samples that `order` names, in its order, from a worker process.

    The features have the dtype of the store. Raises the SparcError of the worker.
    """
    current = Progress()
    for event in events(Order(jobs=list(jobs), feed=order)):
        if event["event"] == "features":
            yield {name: _decoded(one) for name, one in event["streams"].items()}
            continue
        before, current = current, following(current, event)
        if current != before:
            on_progress(current)


def send(dataset: Dataset, extractors: Sequence[FeatureExtractor], dtype: str, order: Feed, emit: Emit) -> None:
    """Compute the features of a dataset, with one extractor per modality, and send them. The worker calls this.

    Raises as `FeatureExtractor`, and BadFeatures if a feature is not finite.
    """
    items = [distinct(dataset, extractor.modality) for extractor in extractors]
    size = min(
        extractor.batch_size(dataset, one.owners.tolist()) for extractor, one in zip(extractors, items, strict=True)
    )
    chunks = _Chunks(order, ReadingOrder(len(dataset), order.seed), size)
    warned = False
    for low in range(0, len(chunks), AT_ONCE):
        some = range(low, min(low + AT_ONCE, len(chunks)))
        batches = [
            _Batches(chunks, some, one, tuple(extractor.backbones))
            for extractor, one in zip(extractors, items, strict=True)
        ]
        computed = [extractor(dataset, of_kind) for extractor, of_kind in zip(extractors, batches, strict=True)]
        for number, parts in zip(some, zip(*computed, strict=True), strict=True):
            samples = chunks[number]
            streams: dict[str, Tensor] = {}
            for part, one, extractor in zip(parts, items, extractors, strict=True):
                position = torch.from_numpy(np.unique(one.rows[samples], return_inverse=True)[1].ravel())
                streams |= {name: stored(rows[position], dtype_of(dtype)) for name, rows in part.features.items()}
                if not warned and not all(part.readable):
                    warned = True
                    warnings.warn(f"{extractor.problems.first[0].message}; such samples are skipped", stacklevel=1)
            for name, rows in streams.items():
                check_finite(rows, [dataset.ids[sample] for sample in samples], name)
            emit({"event": "features", "streams": {name: _encoded(rows) for name, rows in streams.items()}})


@dataclass(frozen=True)
class _Chunks:
    """Samples that are computed together, in the order of reading."""

    order: Feed
    reading: ReadingOrder
    size: int

    def __len__(self) -> int:
        return -(-self._places // self.size)

    @property
    def _places(self) -> int:
        return len(self.order.first) + self.order.end - self.order.start

    def __getitem__(self, number: int) -> list[int]:
        first = self.order.first
        whole = range(number * self.size, min((number + 1) * self.size, self._places))
        return [self.reading[first[one] if one < len(first) else self.order.start + one - len(first)] for one in whole]


@dataclass(frozen=True)
class _Batches(Sequence[ItemBatch]):
    """The distinct images or captions of some chunks, found when they are needed."""

    chunks: _Chunks
    numbers: range
    items: Items
    streams: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, number: int) -> ItemBatch: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[ItemBatch]: ...
    def __getitem__(self, number: int | slice) -> ItemBatch | Sequence[ItemBatch]:
        if isinstance(number, slice):
            return [self[one] for one in range(*number.indices(len(self)))]
        rows = np.unique(self.items.rows[self.chunks[self.numbers[number]]])
        return ItemBatch(self.items.owners[rows].tolist(), self.streams)


def _encoded(rows: Tensor) -> dict[str, Any]:
    content = base64.b64encode(rows.contiguous().view(torch.uint8).numpy().tobytes())
    return {"dtype": str(rows.dtype).removeprefix("torch."), "width": rows.shape[1], "data": content.decode("ascii")}


def _decoded(sent: dict[str, Any]) -> Tensor:
    content = bytearray(base64.b64decode(sent["data"]))
    return torch.frombuffer(content, dtype=dtype_of(sent["dtype"])).reshape(-1, sent["width"])
