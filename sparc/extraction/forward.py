"""Samples through frozen backbones, batch by batch: read once for all of them, computed while the next are read."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from sparc.errors import BadSample, InvalidConfig, PluginError
from sparc.extraction.batch_size import LARGEST, LARGEST_ON_GPU, fitting_inputs, fitting_memory
from sparc.extraction.read import ReadBatch, Reader, Rows
from sparc.plugins.batches import mapped, tensors
from sparc.plugins.contracts import Backbone, Dataset, GridBackbone

MAX_WORKERS = 16
TRIED = 8
"""Samples of which one must be readable to find the batch size."""


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
        functions = {name: self._function(name) for name in self.backbones}
        self._run = {name: torch.compile(run) if self.how.compile else run for name, run in functions.items()}
        self._at_once: dict[str, int] = {}
        """Samples that a backbone takes at once where more are too many for the device's memory."""

    def _function(self, name: str) -> Callable[[Any], Any]:
        backbone = self.backbones[name]
        function: Callable[[Any], Any] = backbone.forward
        if self.how.tokens is not None:
            if not isinstance(backbone, GridBackbone) or backbone.grid is None:
                raise InvalidConfig(
                    f"stream '{name}': its backbone has no patches", hint="leave that stream out, or --tokens"
                )
            function = backbone.forward_tokens
        return function

    @property
    def _on_gpu(self) -> bool:
        return self.how.device.startswith("cuda")

    def batch_size(self, dataset: Dataset, samples: Sequence[int]) -> int:
        """Find how many samples a batch has, from one of `samples` that can be read.

        On a GPU, each backbone's share of a batch is found too, by computing a few copies of that sample.
        """
        reader = Reader({name: backbone.preprocess for name, backbone in self.backbones.items()}, self.modality)
        largest = LARGEST_ON_GPU if self._on_gpu else LARGEST
        for sample in samples[:TRIED]:
            read = reader([(dataset[sample], tuple(self.backbones))])
            if read.inputs:
                size = fitting_inputs(
                    sum(tensor.nbytes for one in read.inputs.values() for tensor in tensors(one)), largest
                )
                if self._on_gpu:
                    found = {name: self._at_once_on_gpu(name, one, size) for name, one in read.inputs.items()}
                    self._at_once.update(found)
                return size
        return largest

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

    def _refused(self, read: ReadBatch) -> bool:
        return bool(read.errors) and not self.how.skip_bad

    def _launch_all(self, read: ReadBatch) -> _UnderWay:
        count = sum(read.readable)
        outputs = {name: self._launch(name, made, count) for name, made in read.inputs.items()}
        return _UnderWay(outputs, read.readable, read.streams)

    def _at_once_on_gpu(self, name: str, inputs: Any, size: int) -> int:
        """Samples that a backbone takes at once, `size` at most, from the inputs of one."""
        device = self.how.device

        def peak(count: int) -> int:
            before = torch.cuda.memory_allocated(device)
            torch.cuda.reset_peak_memory_stats(device)
            copies = mapped(inputs, lambda tensor: tensor.to(device).repeat_interleave(count, 0))
            self._checked(name, self._function(name), copies, count)
            return torch.cuda.max_memory_allocated(device) - before

        reusable = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        with contextlib.suppress(torch.OutOfMemoryError):
            return fitting_memory(peak, torch.cuda.mem_get_info(device)[0] + reusable, size)
        return size  # what is too much is halved when it is computed

    def _loader(self, dataset: Dataset, batches: Sequence[Batch]) -> DataLoader[Any]:
        cpus = _cpus()
        # On the CPU the backbones want the other cores.
        workers = min(MAX_WORKERS, cpus if self._on_gpu else max(1, cpus // 2)) if self.modality == "image" else 0
        return DataLoader(
            Rows(dataset),  # type: ignore[arg-type]  # DataLoader asks for less than its annotation says
            batch_sampler=([(sample, batch.streams) for sample in batch.samples] for batch in batches),
            num_workers=workers,
            collate_fn=Reader({name: backbone.preprocess for name, backbone in self.backbones.items()}, self.modality),
            pin_memory=self._on_gpu,
        )

    def _launch(self, name: str, inputs: Any, count: int) -> list[_Output]:
        """Features in pieces, on the device, which may still be computing them."""
        at_once = min(count, self._at_once.get(name, count)) or 1
        while True:
            parts = [slice(low, min(low + at_once, count)) for low in range(0, count, at_once)]
            try:
                return [self._compute(name, mapped(inputs, itemgetter(part)), part) for part in parts]
            except (RuntimeError, MemoryError) as error:
                if not _is_out_of_memory(error):
                    raise
            # Not in a handler of the error, whose traceback holds what was in memory.
            if self._on_gpu:
                torch.cuda.empty_cache()
            if at_once == 1:
                where = self.how.device if self._on_gpu else "this machine"
                raise PluginError(
                    f"backbone '{name}': the memory of {where} does not hold one sample",
                    hint="free some of it, or choose a smaller model",
                )
            at_once = self._at_once[name] = (at_once + 1) // 2

    def _compute(self, name: str, inputs: Any, part: slice) -> _Output:
        moved = mapped(inputs, lambda tensor: tensor.to(self.how.device, non_blocking=True))
        return self._fetched(self._checked(name, self._run[name], moved, part.stop - part.start))

    def _fetched(self, output: _Output) -> _Output:
        """Let a GPU bring its results over while it computes the next."""
        if not self._on_gpu:
            return output
        features = _pinned_copy(output.features)
        tokens = None if output.tokens is None else _pinned_copy(output.tokens)
        arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
        arrived.record(torch.cuda.current_stream(self.how.device))
        return _Output(features, tokens, arrived)

    def _checked(self, name: str, run: Callable[[Any], Any], inputs: Any, count: int) -> _Output:
        kind = torch.device(self.how.device).type
        lower = self.how.precision != "float32"
        with torch.inference_mode(), torch.autocast(kind, dtype_of(self.how.precision), enabled=lower):
            output = run(inputs)
        output, tokens = output if self.how.tokens is not None else (output, None)
        _check(name, output, (count, self.backbones[name].width))
        if tokens is not None:
            rows, columns = self.backbones[name].grid  # type: ignore[attr-defined]
            _check(name, tokens, (count, rows * columns, tokens.shape[-1]))
        return _Output(output.detach().float(), tokens if tokens is None else stored(tokens.detach(), self.how.tokens))

    def _finish(self, under_way: _UnderWay) -> Computed:
        readable = torch.tensor(under_way.readable)
        features: dict[str, Tensor] = {}
        tokens: dict[str, Tensor] = {}
        for name in under_way.streams:
            pieces = under_way.outputs.get(name, [])
            for piece in pieces:
                if piece.arrived is not None:
                    piece.arrived.synchronize()
            features[name] = torch.zeros(len(readable), self.backbones[name].width)
            if pieces:
                features[name][readable] = torch.cat([piece.features for piece in pieces])
            parts = [piece.tokens for piece in pieces if piece.tokens is not None]
            if parts:
                tokens[name] = parts[0].new_zeros(len(readable), *parts[0].shape[1:])
                tokens[name][readable] = torch.cat(parts)
        return Computed(features, tokens, under_way.readable)


class _Output(NamedTuple):
    features: Tensor
    tokens: Tensor | None
    arrived: torch.cuda.Event | None = None


def _is_out_of_memory(error: RuntimeError | MemoryError) -> bool:
    """PyTorch has an exception for that, which it raises for an accelerator's memory alone."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def _pinned_copy(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, device="cpu", pin_memory=True).copy_(tensor, non_blocking=True)


def _check(name: str, output: Any, shape: tuple[int, ...]) -> None:
    if not isinstance(output, Tensor) or output.shape != shape or not output.is_floating_point():
        found = f"{output.dtype} {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise PluginError(
            f"backbone '{name}': expected a floating-point tensor of shape {shape}, found {found}",
            hint="repair its forward or its width",
        )


def dtype_of(name: str) -> torch.dtype:
    """The dtype of a name such as float16."""
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def stored(features: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Features in the dtype of the store; a finite one that float16 cannot hold becomes the largest that it can."""
    if dtype is None or features.dtype == dtype:
        return features
    limit = torch.finfo(dtype).max
    return torch.where(features.isfinite(), features.clamp(-limit, limit), features).to(dtype)


class _UnderWay(NamedTuple):
    outputs: dict[str, list[_Output]]
    readable: list[bool]
    streams: tuple[str, ...]


def _cpus() -> int:
    """Processors that this process may use, of which others of its machine under torchrun want their share."""
    try:
        usable = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        usable = os.cpu_count() or 1
    return max(1, usable // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def _timed(batches: Iterator[ReadBatch], spent: Spent) -> Iterator[ReadBatch]:
    while True:
        began = time.perf_counter()
        batch = next(batches, None)
        spent.data += time.perf_counter() - began
        if batch is None:
            return
        yield batch
