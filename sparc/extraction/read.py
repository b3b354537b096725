"""Samples read and preprocessed, in data-loading workers: each once for all streams that want it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from sparc.errors import BadSample
from sparc.plugins.contracts import Dataset, Sample


@dataclass(frozen=True)
class Rows:
    """A dataset as torch's DataLoader wants it; each sample comes with the streams that want it."""

    dataset: Dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, wanted: tuple[int, tuple[str, ...]]) -> tuple[Sample, tuple[str, ...]]:
        index, streams = wanted
        return self.dataset[index], streams


class ReadBatch(NamedTuple):
    """A batch as a data-loading worker made it."""

    inputs: dict[str, Any]
    """By stream, of the readable samples; empty where none is."""
    readable: list[bool]
    errors: list[tuple[str, str]]
    streams: tuple[str, ...]


@dataclass(frozen=True)
class Reader:
    """Reads samples and preprocesses the readable ones for each stream, in a data-loading worker.

    Errors come back as data: an exception would lose its hint on the way out of the worker process.
    """

    preprocess: Mapping[str, Callable[[Sequence[Sample]], Any]]
    modality: str

    def __call__(self, wanted: Sequence[tuple[Sample, tuple[str, ...]]]) -> ReadBatch:
        """Read and preprocess samples, each with the streams that want it."""
        read: list[Sample] = []
        readable: list[bool] = []
        errors: list[tuple[str, str]] = []
        streams = wanted[0][1]
        for sample, _ in wanted:
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
            readable = self._without(culprits, [sample.id for sample, _ in wanted], readable)
            read = [sample for sample in read if sample.id not in culprits]
            inputs = {name: self.preprocess[name](read) for name in streams} if read else {}
        return ReadBatch(inputs, readable, errors, streams)

    def _refusal(self, sample: Sample, streams: Sequence[str]) -> tuple[str, str] | None:
        """Why a stream cannot preprocess a sample; None where all can."""
        for name in streams:
            try:
                self.preprocess[name]([sample])
            except Exception as error:
                why = f"{type(error).__name__}: {error}".splitlines()[0]
                return f"stream '{name}' cannot preprocess sample '{sample.id}': {why}", "mend it; or pass --skip-bad"
        return None

    @staticmethod
    def _without(culprits: Collection[str], ids: Sequence[str], readable: Sequence[bool]) -> list[bool]:
        return [read and sample not in culprits for sample, read in zip(ids, readable, strict=True)]

    def _read(self, sample: Sample) -> Sample:
        """The sample with what these streams read of it already read, once."""
        if self.modality == "image":
            image = sample.image()
            return replace(sample, open_image=lambda: image)
        return replace(sample, caption=sample.text())
