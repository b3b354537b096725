"""Samples become backbone inputs, in data-loading workers: each sample is read once for all streams that need it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from sparc.errors import BadSample
from sparc.plugins.contracts import Dataset, Sample


@dataclass(frozen=True)
class RequestedSamples:
    """A dataset for torch's DataLoader, indexed by a sample number and the streams that need that sample."""

    dataset: Dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, request: tuple[int, tuple[str, ...]]) -> tuple[Sample, tuple[str, ...]]:
        index, streams = request
        return self.dataset[index], streams


class PreprocessedBatch(NamedTuple):
    """A batch as a data-loading worker returns it."""

    inputs: dict[str, Any]
    """Inputs of the readable samples by stream; empty if no sample is readable."""
    readable: list[bool]
    """True for each sample that could be read and preprocessed."""
    errors: list[tuple[str, str]]
    """Message and hint of each sample that is not readable."""
    streams: tuple[str, ...]


@dataclass(frozen=True)
class Preprocessor:
    """Reads samples and preprocesses the readable ones for each stream, in a data-loading worker.

    Errors are returned as data, because an exception would lose its hint when it leaves the worker process.
    """

    preprocess: Mapping[str, Callable[[Sequence[Sample]], Any]]
    modality: str

    def __call__(self, requests: Sequence[tuple[Sample, tuple[str, ...]]]) -> PreprocessedBatch:
        """Read and preprocess samples. All come with the same streams, those that need the batch."""
        read: list[Sample] = []
        readable: list[bool] = []
        errors: list[tuple[str, str]] = []
        streams = requests[0][1]
        for sample, _ in requests:
            try:
                read.append(self._read(sample))
                readable.append(True)
            except BadSample as error:
                errors.append((error.message, error.hint))
                readable.append(False)
        try:
            inputs = {name: self.preprocess[name](read) for name in streams} if read else {}
        except Exception:
            culprits = {sample.id: why for sample in read if (why := self._refusal(sample, streams))}
            if not culprits:
                raise
            errors += culprits.values()
            readable = self._without(culprits, [sample.id for sample, _ in requests], readable)
            read = [sample for sample in read if sample.id not in culprits]
            inputs = {name: self.preprocess[name](read) for name in streams} if read else {}
        return PreprocessedBatch(inputs, readable, errors, streams)

    def _refusal(self, sample: Sample, streams: Sequence[str]) -> tuple[str, str] | None:
        """Return message and hint if a stream cannot preprocess a sample, None if all can."""
        for name in streams:
            try:
                self.preprocess[name]([sample])
            except Exception as error:
                why = f"{type(error).__name__}: {error}".splitlines()[0]
                return (
                    f"stream '{name}' cannot preprocess sample '{sample.id}': {why}",
                    "replace it, or pass --skip-bad",
                )
        return None

    @staticmethod
    def _without(culprits: Collection[str], ids: Sequence[str], readable: Sequence[bool]) -> list[bool]:
        return [read and sample not in culprits for sample, read in zip(ids, readable, strict=True)]

    def _read(self, sample: Sample) -> Sample:
        """Return the sample with its image or caption read, so that no stream reads it again."""
        if self.modality == "image":
            image = sample.image()
            return replace(sample, open_image=lambda: image)
        return replace(sample, caption=sample.text())
