"""Samples become backbone inputs: each sample is read once for all streams that need it.

This runs in the processes that load data. All errors are returned as data, because an exception that leaves such a
process loses its type and its hint.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

from PIL.Image import Image

from sparc.errors import BadSample, PluginError, SparcError, StorageError
from sparc.extraction.reading_log import NO_LOG, ReadingLog, Stage
from sparc.plugins.contracts import Dataset, Sample
from sparc.plugins.images import DEFAULT_LIMITS, ImageLimits, limit_images
from sparc.system.refusals import refusal

A_BUG = "this may be a bug in the plugin; --debug shows where"


class ItemBatch(NamedTuple):
    """Samples to compute together; each stands for one distinct item."""

    samples: list[int]
    streams: tuple[str, ...]
    """Streams that need their features."""


class PreprocessedBatch(NamedTuple):
    """A batch as a loading process returns it."""

    inputs: dict[str, Any]
    """Inputs of the readable samples by stream; empty if no sample is readable."""
    readable: list[bool]
    """True for each sample that could be read and preprocessed."""
    errors: list[BadSample]
    """Error of each sample that is not readable, of bad data only."""
    streams: tuple[str, ...]
    failure: SparcError | None = None
    """Error that says nothing about a sample: the machine refused to read, or a plugin broke down."""
    trace: str = ""
    """Traceback of the failure."""


@dataclass
class BatchReader:
    """Reads the samples of a batch and preprocesses the readable ones for each stream."""

    dataset: Dataset
    preprocess: Mapping[str, Callable[[Sequence[Sample]], Any]]
    modality: str
    limits: ImageLimits = DEFAULT_LIMITS
    log: ReadingLog = NO_LOG
    witness: int | None = None
    """A sample that could be read. If a later one cannot, it tells whether the whole dataset is gone."""
    _last: int | None = None
    """Last of several samples that are preprocessed together."""

    def __getitem__(self, batch: ItemBatch) -> PreprocessedBatch:
        """Return the batch's inputs. Raises nothing: errors are in what it returns."""
        try:
            return self._read_batch(batch)
        except SparcError as error:
            found, trace = error, traceback.format_exc()
        except Exception as error:
            found, trace = fault(error, "load a batch"), traceback.format_exc()
        finally:
            self.log.rest()
        return PreprocessedBatch({}, [False] * len(batch.samples), [], batch.streams, found, trace)

    def _read_batch(self, batch: ItemBatch) -> PreprocessedBatch:
        if self.modality == "image":
            limit_images(self.limits)  # a spawned process has not inherited them
        found = [self._read(number) for number in batch.samples]
        errors = {number: one for number, one in zip(batch.samples, found, strict=True) if isinstance(one, BadSample)}
        read = {number: one for number, one in zip(batch.samples, found, strict=True) if isinstance(one, Sample)}
        if errors:
            self._check_witness(next(iter(errors.values())))
        elif self.witness is None:
            self.witness = batch.samples[0]
        try:
            inputs = self._inputs(read, batch.streams)
        except BadSample as error:
            refused = {number: why for number, one in read.items() if (why := self._refused(number, one, batch))}
            if not refused:
                raise PluginError(error.message, hint=A_BUG) from error
            errors |= refused
            read = {number: one for number, one in read.items() if number not in refused}
            inputs = self._inputs(read, batch.streams)
        return PreprocessedBatch(
            inputs, [number in read for number in batch.samples], list(errors.values()), batch.streams
        )

    def _read(self, number: int) -> Sample | BadSample:
        """Return a sample with its image or caption read, so that no stream reads it again, or why it cannot be read.

        Raises SparcError if that says nothing about the sample.
        """
        self.log.note(number, Stage.READING)
        try:
            sample = self.dataset[number]
            if self.modality == "image":
                return replace(sample, open_image=partial(self._shown, number, sample.image()))
            return replace(sample, caption=sample.text())
        except BadSample as error:
            # A plugin may take any error for bad data.
            if (found := refusal(error, f"read sample '{self.dataset.ids[number]}'")) is not None:
                raise found from error
            return error
        except SparcError:
            raise
        except Exception as error:
            raise fault(error, f"read sample '{self.dataset.ids[number]}'") from error

    def _shown(self, number: int, image: Image) -> Image:
        """Return an image to a stream. After the last of a batch, the stream may work on any of them."""
        self.log.note(number, Stage.PREPROCESSING if number != self._last else Stage.PREPROCESSING_ALL)
        return image

    def _check_witness(self, error: BadSample) -> None:
        """Raise StorageError if a sample that could be read before cannot be read now, such as without the mount."""
        if self.witness is None:
            return
        again = self._read(self.witness)
        if isinstance(again, BadSample):
            raise StorageError(
                f"samples that could be read before cannot be read now: {again.message}",
                hint="check that the disk or the network folder is there, and run the same command again",
            ) from error

    def _inputs(self, read: Mapping[int, Sample], streams: Sequence[str]) -> dict[str, Any]:
        """Preprocess samples for each stream.

        Raises BadSample if a stream cannot preprocess them, and StorageError or OutOfMemory if the machine refuses.
        """
        inputs: dict[str, Any] = {}
        numbers = list(read)
        self._last = numbers[-1] if len(numbers) > 1 else None
        for name in streams if read else ():
            self.log.note(numbers[-1], Stage.PREPROCESSING_ALL if len(numbers) > 1 else Stage.PREPROCESSING)
            try:
                inputs[name] = self.preprocess[name](list(read.values()))
            except BadSample:
                raise
            except Exception as error:
                what, size = _named(read), self._largest(read)
                if (found := refusal(error, f"preprocess {what}{size} for stream '{name}'")) is not None:
                    raise found from error
                if isinstance(error, SparcError):
                    raise
                why = f"{type(error).__name__}: {error}".splitlines()[0]
                raise BadSample(
                    f"stream '{name}' cannot preprocess {what}: {why}{size}", hint="replace it, or pass --skip-bad"
                ) from error
        return inputs

    def _refused(self, number: int, sample: Sample, batch: ItemBatch) -> BadSample | None:
        """Return why a sample alone cannot be preprocessed, None if it can."""
        try:
            self._inputs({number: sample}, batch.streams)
        except BadSample as error:
            return error
        return None

    def _largest(self, read: Mapping[int, Sample]) -> str:
        """Return the size of the largest image in brackets; nothing for captions."""
        if self.modality != "image":
            return ""
        width, height = max((_size(sample) for sample in read.values()), key=lambda size: size[0] * size[1])
        return f" ({'up to ' if len(read) > 1 else ''}{width:,} x {height:,} pixels)"


def fault(error: Exception, doing: str) -> SparcError:
    """Return an error that says nothing about the data: the machine's refusal, or a plugin's fault."""
    if (found := refusal(error, doing)) is not None:
        return found
    why = f"{type(error).__name__}: {error}".splitlines()[0]
    return PluginError(f"cannot {doing}: {why}", hint=A_BUG)


def _size(sample: Sample) -> tuple[int, int]:
    assert sample.open_image is not None
    return sample.open_image().size


def _named(read: Mapping[int, Sample]) -> str:
    ids = [sample.id for sample in read.values()]
    return f"sample '{ids[0]}'" if len(ids) == 1 else f"{len(ids)} samples, '{ids[0]}' to '{ids[-1]}'"
