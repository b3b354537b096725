"""One backbone over one split, into shards. What is complete is never computed again."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from sparc.contracts import Backbone, Dataset, Sample
from sparc.errors import BadSample, CorruptFile, MissingData, PluginError
from sparc.files import sha256
from sparc.store import (
    SHARD_ROWS,
    Manifest,
    Shard,
    digest_ids,
    read_shard,
    revoke_manifest,
    shard_path,
    write_manifest,
    write_shard,
)

BATCH = 32
LEFTOVER_SECONDS = 3600
Report = Callable[[int], None]
"""Called with the number of samples done so far."""


@dataclass(frozen=True)
class Origin:
    """What the manifest says about where features came from."""

    backbone: str
    modality: str
    params: dict[str, Any]
    weights: str
    dataset: str
    split: str
    versions: dict[str, str]


def extract_stream(
    dataset: Dataset,
    backbone: Backbone,
    directory: Path,
    origin: Origin,
    *,
    device: str = "cpu",
    skip_bad: bool = False,
    shard_rows: int = SHARD_ROWS,
    report: Report = lambda done: None,
) -> Manifest:
    """Write the features of all samples into `directory` and its manifest, going on where an earlier call stopped.

    Raises:
        BadSample: a sample cannot be read. With `skip_bad` its row is zero instead, saying that it lacks the stream.
        BadFeatures: a feature is not finite.
        PluginError: the backbone does not give what it promises.
        StorageError: the disk is full; complete shards stay.
    """
    _remove_leftovers(directory)
    revoke_manifest(directory)  # a shard may be made anew, and then its checksum is another
    ids = list(dataset.ids)
    shards: list[Shard] = []
    all_skipped: list[str] = []
    done = 0
    for number, start in enumerate(range(0, len(ids), shard_rows)):
        path, wanted = shard_path(directory, number), ids[start : start + shard_rows]
        skipped = _skipped_in(path, wanted, skip_bad)
        if skipped is None:
            features, skipped = torch.zeros(len(wanted), backbone.width), []
            rows = range(start, start + len(wanted))
            for row, batch_features, readable in _forward(dataset, backbone, rows, origin, device, skip_bad):
                features[row - start : row - start + len(batch_features)] = batch_features
                skipped += [ids[row + offset] for offset, read in enumerate(readable) if not read]
                report(row + len(batch_features))
            write_shard(path, features, wanted, stream=origin.backbone, skipped=skipped)
        all_skipped += skipped
        shards.append(Shard(file=path.name, rows=len(wanted), sha256=sha256(path)))
        done += len(wanted)
        report(done)
    manifest = Manifest(
        backbone=origin.backbone,
        params=origin.params,
        weights=origin.weights,
        dataset=origin.dataset,
        split=origin.split,
        width=backbone.width,
        dtype="float32",
        samples=len(ids),
        samples_sha256=digest_ids(ids),
        skipped=tuple(all_skipped),
        shards=tuple(shards),
        versions=origin.versions,
    )
    write_manifest(directory, manifest)
    return manifest


def _remove_leftovers(directory: Path) -> None:
    """Remove half-written files of killed extractions; a young one may belong to another process at work here."""
    for leftover in directory.glob(".*.tmp"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - leftover.stat().st_mtime > LEFTOVER_SECONDS:
                leftover.unlink()


def _skipped_in(path: Path, wanted: Sequence[str], skip_bad: bool) -> list[str] | None:
    """What was skipped in a shard that an earlier call completed; None where it must be made."""
    try:
        _, ids, skipped = read_shard(path)
    except (MissingData, CorruptFile):
        return None
    return skipped if ids == list(wanted) and (skip_bad or not skipped) else None


def _forward(
    dataset: Dataset, backbone: Backbone, rows: range, origin: Origin, device: str, skip_bad: bool
) -> Iterator[tuple[int, Tensor, list[bool]]]:
    """Batch by batch: first row, features (B, width) with zeros where a sample was skipped, and which were readable."""
    workers = min(8, max(1, (os.cpu_count() or 1) // 2)) if origin.modality == "image" else 0
    loader: DataLoader[Any] = DataLoader(
        _Rows(dataset),  # type: ignore[arg-type]  # DataLoader asks for less than its annotation says
        sampler=rows,
        batch_size=BATCH,
        num_workers=workers,
        collate_fn=_Read(backbone.preprocess, origin.modality),
        pin_memory=device.startswith("cuda"),
    )
    first = rows.start
    for batch, readable, errors in loader:
        if errors and not skip_bad:
            message, hint = errors[0]
            raise BadSample(message, hint=hint)
        features = torch.zeros(len(readable), backbone.width)
        if any(readable):
            with torch.inference_mode():
                output = backbone.forward(_to(batch, device))
            features[torch.tensor(readable)] = _checked(output, sum(readable), backbone.width, origin.backbone)
        yield first, features, readable
        first += len(readable)


def _checked(output: Any, count: int, width: int, name: str) -> Tensor:
    expected = f"expected a floating-point tensor of shape ({count}, {width})"
    if not isinstance(output, Tensor) or output.shape != (count, width) or not output.is_floating_point():
        found = f"{output.dtype} {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise PluginError(f"backbone '{name}': {expected}, found {found}", hint="repair its forward or its width")
    return output.detach().float().cpu()


def _to(batch: Any, device: str) -> Any:
    if isinstance(batch, dict):
        return {key: value.to(device, non_blocking=True) for key, value in batch.items()}
    return batch.to(device, non_blocking=True)


@dataclass(frozen=True)
class _Rows:
    """A dataset as torch's DataLoader wants it."""

    dataset: Dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        return self.dataset[index]


@dataclass(frozen=True)
class _Read:
    """Reads samples and preprocesses the readable ones, in a data-loading worker.

    Errors come back as data: an exception would lose its hint on the way out of the worker process.
    """

    preprocess: Callable[[Sequence[Sample]], Any]
    modality: str

    def __call__(self, samples: Sequence[Sample]) -> tuple[Any, list[bool], list[tuple[str, str]]]:
        read: list[Sample] = []
        readable: list[bool] = []
        errors: list[tuple[str, str]] = []
        for sample in samples:
            try:
                read.append(self._read(sample))
                readable.append(True)
            except BadSample as error:
                errors.append((error.message, error.hint))
                readable.append(False)
        return (self.preprocess(read) if read else None), readable, errors

    def _read(self, sample: Sample) -> Sample:
        """The sample with what this stream reads of it already read, once."""
        if self.modality == "image":
            image = sample.image()
            return replace(sample, open_image=lambda: image)
        return replace(sample, caption=sample.text())
