"""Samples through frozen backbones, batch by batch: read once for all of them, computed while the next are read."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from sparc.contracts import Backbone, Dataset, GridBackbone, Sample
from sparc.errors import BadSample, InvalidConfig, PluginError

BATCH = 32
BATCH_ON_GPU = 256
MAX_WORKERS = 16


@dataclass(frozen=True)
class Computing:
    """How features are computed."""

    device: str = "cpu"
    precision: str = "float32"
    """Of the backbones' products: float32, bfloat16 or float16, by autocast."""
    compile: bool = False
    """Whether torch.compile compiles the backbones first."""
    skip_bad: bool = False
    """Whether samples that cannot be read lack their features, and are no error."""
    tokens: torch.dtype | None = None
    """Dtype of the patches' features, where they are asked for."""


@dataclass
class Spent:
    """Seconds that an extraction waited for data, for the device, and for the disk."""

    data: float = 0.0
    device: float = 0.0
    disk: float = 0.0


class Batch(NamedTuple):
    """Samples to compute together."""

    samples: list[int]
    streams: tuple[str, ...]
    """The streams that want them."""


class Computed(NamedTuple):
    """Features of a batch."""

    features: dict[str, Tensor]
    """(samples, width) float32 by stream, zero where a sample could not be read."""
    tokens: dict[str, Tensor]
    """(samples, patches, width) by stream, where they are asked for."""
    readable: list[bool]


@dataclass
class Forward:
    """Frozen backbones of one modality, by stream, and how they compute.

    Raises InvalidConfig where features of patches are asked for, and a backbone has none.
    """

    backbones: Mapping[str, Backbone]
    modality: str
    how: Computing = field(default_factory=Computing)

    def __post_init__(self) -> None:
        self._run = {name: self._function(name) for name in self.backbones}
        self._at_once: dict[str, int] = {}
        """Samples that a backbone takes at once where more were too many for the device's memory."""

    def _function(self, name: str) -> Callable[[Any], Any]:
        backbone = self.backbones[name]
        function: Callable[[Any], Any] = backbone.forward
        if self.how.tokens is not None:
            if not isinstance(backbone, GridBackbone) or backbone.grid is None:
                raise InvalidConfig(
                    f"stream '{name}': its backbone has no patches", hint="leave that stream out, or --tokens"
                )
            function = backbone.forward_tokens
        return torch.compile(function) if self.how.compile else function

    @property
    def batch(self) -> int:
        """Samples in a batch."""
        return BATCH_ON_GPU if self.how.device.startswith("cuda") else BATCH

    def __call__(self, dataset: Dataset, batches: Sequence[Batch], spent: Spent) -> Generator[Computed]:
        """Yield the features of each batch. A batch is on its way through the device while the one before is taken off.

        Raises:
            BadSample: a sample cannot be read, and skipping is not asked for.
            PluginError: a backbone does not give what it promises.
        """
        under_way: _UnderWay | None = None
        for read in _timed(iter(self._loader(dataset, batches)), spent):
            began = time.perf_counter()
            following = None if self._refused(read) else self._launch_all(read)
            done = self._finish(under_way) if under_way is not None else None
            spent.device += time.perf_counter() - began
            if done is not None:
                yield done
            if following is None:
                message, hint = read.errors[0]
                raise BadSample(message, hint=hint)
            under_way = following
        if under_way is not None:
            began = time.perf_counter()
            done = self._finish(under_way)
            spent.device += time.perf_counter() - began
            yield done

    def _refused(self, read: _Batch) -> bool:
        return bool(read.errors) and not self.how.skip_bad

    def _launch_all(self, read: _Batch) -> _UnderWay:
        count = sum(read.readable)
        outputs = {name: self._launch(name, made, count) for name, made in read.inputs.items()}
        return _UnderWay(outputs, read.readable, read.streams)

    def _loader(self, dataset: Dataset, batches: Sequence[Batch]) -> DataLoader[Any]:
        on_gpu = self.how.device.startswith("cuda")
        cpus = os.cpu_count() or 1
        # On the CPU the backbones want the other cores.
        workers = min(MAX_WORKERS, cpus if on_gpu else max(1, cpus // 2)) if self.modality == "image" else 0
        return DataLoader(
            _Rows(dataset),  # type: ignore[arg-type]  # DataLoader asks for less than its annotation says
            batch_sampler=([(sample, batch.streams) for sample in batch.samples] for batch in batches),
            num_workers=workers,
            collate_fn=_Read({name: backbone.preprocess for name, backbone in self.backbones.items()}, self.modality),
            pin_memory=on_gpu,
        )

    def _launch(self, name: str, inputs: Any, count: int) -> list[_Output]:
        """Features in pieces, on the device, which may still be computing them."""
        moved = _mapped(inputs, lambda tensor: tensor.to(self.how.device, non_blocking=True))
        at_once = self._at_once.get(name, count)
        while True:
            try:
                return [
                    self._checked(name, _mapped(moved, itemgetter(part)), part.stop - part.start)
                    for part in (slice(low, min(low + at_once, count)) for low in range(0, count, at_once))
                ]
            except torch.OutOfMemoryError:
                if at_once == 1:
                    raise
                at_once = self._at_once[name] = (at_once + 1) // 2
                if self.how.device.startswith("cuda"):
                    torch.cuda.empty_cache()

    def _checked(self, name: str, inputs: Any, count: int) -> _Output:
        kind = torch.device(self.how.device).type
        lower = self.how.precision != "float32"
        with torch.inference_mode(), torch.autocast(kind, getattr(torch, self.how.precision), enabled=lower):
            output = self._run[name](inputs)
        output, tokens = output if self.how.tokens is not None else (output, None)
        _check(name, output, (count, self.backbones[name].width))
        if tokens is not None:
            rows, columns = self.backbones[name].grid  # type: ignore[attr-defined]
            _check(name, tokens, (count, rows * columns, tokens.shape[-1]))
        return _Output(output.detach().float(), tokens if tokens is None else tokens.detach().to(self.how.tokens))

    def _finish(self, under_way: _UnderWay) -> Computed:
        readable = torch.tensor(under_way.readable)
        features: dict[str, Tensor] = {}
        tokens: dict[str, Tensor] = {}
        for name in under_way.streams:
            pieces = under_way.outputs.get(name, [])
            features[name] = torch.zeros(len(readable), self.backbones[name].width)
            if pieces:
                features[name][readable] = torch.cat([piece.features for piece in pieces]).cpu()
            parts = [piece.tokens for piece in pieces if piece.tokens is not None]
            if parts:
                tokens[name] = parts[0].new_zeros(len(readable), *parts[0].shape[1:], device="cpu")
                tokens[name][readable] = torch.cat(parts).cpu()
        return Computed(features, tokens, under_way.readable)


class _Output(NamedTuple):
    features: Tensor
    tokens: Tensor | None


def _check(name: str, output: Any, shape: tuple[int, ...]) -> None:
    if not isinstance(output, Tensor) or output.shape != shape or not output.is_floating_point():
        found = f"{output.dtype} {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise PluginError(
            f"backbone '{name}': expected a floating-point tensor of shape {shape}, found {found}",
            hint="repair its forward or its width",
        )


class _UnderWay(NamedTuple):
    outputs: dict[str, list[_Output]]
    readable: list[bool]
    streams: tuple[str, ...]


def _timed(batches: Iterator[_Batch], spent: Spent) -> Iterator[_Batch]:
    while True:
        began = time.perf_counter()
        batch = next(batches, None)
        spent.data += time.perf_counter() - began
        if batch is None:
            return
        yield batch


def _mapped(inputs: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """A batch that is a tensor or a dict of tensors, with each tensor replaced."""
    if isinstance(inputs, dict):
        return {key: function(value) for key, value in inputs.items()}
    return function(inputs)


@dataclass(frozen=True)
class _Rows:
    """A dataset as torch's DataLoader wants it; each sample comes with the streams that want it."""

    dataset: Dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, wanted: tuple[int, tuple[str, ...]]) -> tuple[Sample, tuple[str, ...]]:
        index, streams = wanted
        return self.dataset[index], streams


class _Batch(NamedTuple):
    """A batch as a data-loading worker made it."""

    inputs: dict[str, Any]
    """By stream, of the readable samples; empty where none is."""
    readable: list[bool]
    errors: list[tuple[str, str]]
    streams: tuple[str, ...]


@dataclass(frozen=True)
class _Read:
    """Reads samples and preprocesses the readable ones for each stream, in a data-loading worker.

    Errors come back as data: an exception would lose its hint on the way out of the worker process.
    """

    preprocess: Mapping[str, Callable[[Sequence[Sample]], Any]]
    modality: str

    def __call__(self, wanted: Sequence[tuple[Sample, tuple[str, ...]]]) -> _Batch:
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
        inputs = {name: self.preprocess[name](read) for name in streams} if read else {}
        return _Batch(inputs, readable, errors, streams)

    def _read(self, sample: Sample) -> Sample:
        """The sample with what these streams read of it already read, once."""
        if self.modality == "image":
            image = sample.image()
            return replace(sample, open_image=lambda: image)
        return replace(sample, caption=sample.text())
