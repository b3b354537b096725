"""Features of images and captions: preprocessed inputs go through the frozen backbones, batch by batch.

`FeatureExtractor` reads each sample once for all streams of a modality; the caption or image itself is read in
`preprocessing`. Data-loading workers preprocess the next batches while a batch is computed, and on a GPU one batch is
computed while the results of the last are copied.
"""

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

from sparc.errors import InvalidConfig, OutOfMemory, Problems, SparcError, remade
from sparc.extraction.batch_size import LARGEST, LARGEST_ON_GPU, fitting_inputs, fitting_memory
from sparc.extraction.items import distinct
from sparc.extraction.loading import Batches, load
from sparc.extraction.preprocessing import BatchReader, ItemBatch, PreprocessedBatch
from sparc.models.forward import check_features, forward
from sparc.plugins.batches import mapped, tensors
from sparc.plugins.contracts import Backbone, Dataset, GridBackbone
from sparc.plugins.images import DEFAULT_LIMITS, ImageLimits

MAX_WORKERS = 16
COUNT_SECONDS = 30.0
"""Longest time for which the other samples are read once one cannot be, to name all that cannot."""
SMALL = 16
"""Samples per batch while they are only read."""
PROBED = 8
"""Samples that are tried to find a readable one, from which the batch size follows."""


@dataclass(frozen=True)
class ComputeOptions:
    """Options that control how features are computed."""

    device: str = "cpu"
    precision: str = "float32"
    """Precision of the backbones' matrix products, by autocast: float32, bfloat16 or float16."""
    compile: bool = False
    """True compiles the backbones with torch.compile."""
    skip_bad: bool = False
    """True gives zeros for samples that cannot be read, instead of raising an error."""
    tokens: torch.dtype | None = None
    """Dtype of the features of patches; None computes none."""
    limits: ImageLimits = DEFAULT_LIMITS
    """Largest image that is read."""


@dataclass
class WaitingTime:
    """Seconds that an extraction spent waiting for data, for the device, and for the disk."""

    data: float = 0.0
    device: float = 0.0
    disk: float = 0.0


class BatchFeatures(NamedTuple):
    """Features of a batch."""

    features: dict[str, Tensor]
    """(samples, width) float32 by stream; zero for a sample that could not be read."""
    tokens: dict[str, Tensor]
    """(samples, patches, width) by stream, if features of patches are computed."""
    readable: list[bool]
    """(samples,) bool, True if the sample could be read."""


@dataclass
class FeatureExtractor:
    """Frozen backbones of one modality, by stream, with the options to compute their features.

    Raises InvalidConfig if features of patches are to be computed and a backbone has none.
    """

    backbones: Mapping[str, Backbone]
    modality: str
    options: ComputeOptions = field(default_factory=ComputeOptions)
    spent: WaitingTime = field(default_factory=WaitingTime)
    """Waiting times of all calls so far."""

    def __post_init__(self) -> None:
        functions = {name: self._function(name) for name in self.backbones}
        self._run = {name: torch.compile(run) if self.options.compile else run for name, run in functions.items()}
        self._at_once: dict[str, int] = {}
        """Number of samples that a backbone computes at once, if a whole batch exceeds the device's memory."""
        self.witness: int | None = None
        """A sample of the dataset that could be read; if it no longer can, the dataset is gone."""
        self.problems = Problems()
        """Samples that could not be read."""
        self._until: float | None = None
        """Time at which the count of samples that cannot be read ends."""
        self.tried = 0
        """Number of samples that were read, or could not be."""

    def _function(self, name: str) -> Callable[[Any], Any]:
        backbone = self.backbones[name]
        function: Callable[[Any], Any] = backbone.forward
        if self.options.tokens is not None:
            if not isinstance(backbone, GridBackbone) or backbone.grid is None:
                raise InvalidConfig(
                    f"stream '{name}': its backbone has no patches", hint="remove that stream or --tokens"
                )
            function = backbone.forward_tokens
        return function

    @property
    def _on_gpu(self) -> bool:
        return self.options.device.startswith("cuda")

    def batch_size(self, dataset: Dataset, samples: Sequence[int]) -> int:
        """Return the number of samples per batch, measured on the first readable one of `samples`.

        On a GPU this also measures how many samples each backbone can compute at once, on copies of that sample.
        """
        largest = LARGEST_ON_GPU if self._on_gpu else LARGEST
        tried = [ItemBatch([sample], tuple(self.backbones)) for sample in samples[:PROBED]]
        # One process, so that a sample that kills it is named here too.
        with contextlib.closing(self._loaded(dataset, tried, workers=1)) as loaded:
            for batch, read in zip(tried, loaded, strict=False):
                if read.failure is not None:
                    raise _raised(read)
                if read.inputs:
                    self.witness = batch.samples[0]
                    break
            else:
                return largest
        sizes = [tensor.nbytes for one in read.inputs.values() for tensor in tensors(one)]
        size = fitting_inputs(sum(sizes), largest)
        if self._on_gpu:
            found = {name: self._at_once_on_gpu(name, one, size) for name, one in read.inputs.items()}
            self._at_once.update(found)
        return size

    def __call__(self, dataset: Dataset, batches: Batches) -> Generator[BatchFeatures]:
        """Yield the features of each batch. The device computes a batch while the results of the last are copied.

        Raises:
            BadSample: a sample cannot be read, and `skip_bad` is not set.
            PluginError: a backbone breaks its contract.
            StorageError, OutOfMemory: the machine refuses to read a sample, which `skip_bad` does not pass over.
        """
        launched: _LaunchedBatch | None = None
        loaded = self._timed(self._loaded(dataset, batches, workers=self.workers))
        for read in loaded:
            began = time.perf_counter()
            self._count(read)
            wrong = read.failure is not None or (read.errors and not self.options.skip_bad)
            following = None if wrong else self._launch_all(read)
            done = self._finish(launched) if launched is not None else None
            self.spent.device += time.perf_counter() - began
            if done is not None:
                yield done
            if following is None:
                if read.failure is None:
                    self._count_others(loaded)
                raise _raised(read, self.bad() if self.problems else None)
            launched = following
        if launched is not None:
            began = time.perf_counter()
            done = self._finish(launched)
            self.spent.device += time.perf_counter() - began
            yield done

    def _count(self, read: PreprocessedBatch) -> None:
        self.tried += len(read.readable)
        for error in read.errors:
            self.problems.add(error)

    def _count_others(self, loaded: Iterator[PreprocessedBatch]) -> None:
        """Read further samples without computing anything, to name all that cannot be read in one error."""
        self._until = self._until or time.monotonic() + COUNT_SECONDS
        while time.monotonic() < self._until and (read := next(loaded, None)) is not None:
            if read.failure is not None:
                return
            self._count(read)

    def count_unreadable(self, dataset: Dataset) -> None:
        """Read the samples of another split, after an error, as far as the time that is left for that suffices."""
        owners = distinct(dataset, self.modality).owners.tolist()
        self.witness = None
        batches = [ItemBatch(owners[low : low + SMALL], tuple(self.backbones)) for low in range(0, len(owners), SMALL)]
        with contextlib.closing(self._loaded(dataset, batches, workers=self.workers)) as loaded:
            self._count_others(loaded)

    def bad(self) -> SparcError:
        """Return the error for all samples that could not be read so far."""
        found = self.problems.joined()
        unread = f"{len(self.problems):,} of the {self.tried:,} samples read so far cannot be read"
        return remade(type(found), found.message, f"{found.hint}; {unread}", found.details)

    def _timed(self, batches: Iterator[PreprocessedBatch]) -> Iterator[PreprocessedBatch]:
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            self.spent.data += time.perf_counter() - began
            if batch is None:
                return
            yield batch

    def _launch_all(self, read: PreprocessedBatch) -> _LaunchedBatch:
        count = sum(read.readable)
        outputs = {name: self._launch(name, inputs, count) for name, inputs in read.inputs.items()}
        return _LaunchedBatch(outputs, read.readable, read.streams)

    def _at_once_on_gpu(self, name: str, inputs: Any, size: int) -> int:
        """Return how many samples, at most `size`, a backbone computes at once; `inputs` are those of one sample."""
        device = self.options.device

        def peak(count: int) -> int:
            before = torch.cuda.memory_allocated(device)
            torch.cuda.reset_peak_memory_stats(device)
            copies = mapped(inputs, lambda tensor: tensor.to(device).repeat_interleave(count, 0))
            self._checked(name, self._function(name), copies, count)
            return torch.cuda.max_memory_allocated(device) - before

        reusable = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        with contextlib.suppress(torch.OutOfMemoryError):
            return fitting_memory(peak, torch.cuda.mem_get_info(device)[0] + reusable, size)
        return size  # `_launch` halves it when it runs out of memory

    @property
    def workers(self) -> int:
        """Number of loading processes. On the CPU half of the cores are left to the backbones."""
        cpus = _cpus()
        return min(MAX_WORKERS, cpus if self._on_gpu else max(1, cpus // 2))

    def _loaded(self, dataset: Dataset, batches: Batches, *, workers: int) -> Generator[PreprocessedBatch]:
        preprocess = {name: backbone.preprocess for name, backbone in self.backbones.items()}
        reader = BatchReader(dataset, preprocess, self.modality, self.options.limits, witness=self.witness)
        return load(reader, batches, workers=workers if self.modality == "image" else 0, pin=self._on_gpu)

    def _launch(self, name: str, inputs: Any, count: int) -> list[_Output]:
        """Start the computation of a batch, and return its features in pieces, which a GPU may still be computing."""
        at_once = min(count, self._at_once.get(name, count)) or 1
        while True:
            parts = [slice(low, min(low + at_once, count)) for low in range(0, count, at_once)]
            try:
                return [self._compute(name, mapped(inputs, itemgetter(part)), part) for part in parts]
            except (RuntimeError, MemoryError) as error:
                if not _is_out_of_memory(error):
                    raise
                refused = str(error)  # not the error: its traceback keeps the tensors alive
            # Outside of the handler, for the same reason.
            if self._on_gpu:
                torch.cuda.empty_cache()
            if at_once == 1:
                where = self.options.device if self._on_gpu else "this machine"
                raise OutOfMemory(
                    f"backbone '{name}': one sample does not fit in the memory of {where}: {' '.join(refused.split())}",
                    hint="free some of it, or choose a smaller model",
                )
            at_once = self._at_once[name] = (at_once + 1) // 2

    def _compute(self, name: str, inputs: Any, part: slice) -> _Output:
        moved = mapped(inputs, lambda tensor: tensor.to(self.options.device, non_blocking=True))
        return self._fetched(self._checked(name, self._run[name], moved, part.stop - part.start))

    def _fetched(self, output: _Output) -> _Output:
        """Start the copy of a GPU's results to main memory, which runs while the GPU computes the next batch."""
        if not self._on_gpu:
            return output
        features = _pinned_copy(output.features)
        tokens = None if output.tokens is None else _pinned_copy(output.tokens)
        arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
        arrived.record(torch.cuda.current_stream(self.options.device))
        return _Output(features, tokens, arrived)

    def _checked(self, name: str, run: Callable[[Any], Any], inputs: Any, count: int) -> _Output:
        """Compute features and check their type and shape. Raises PluginError."""
        output = forward(run, inputs, self.options.device, self.options.precision)
        output, tokens = output if self.options.tokens is not None else (output, None)
        check_features(name, output, (count, self.backbones[name].width))
        if tokens is not None:
            rows, columns = self.backbones[name].grid  # type: ignore[attr-defined]
            check_features(name, tokens, (count, rows * columns, tokens.shape[-1]))
            tokens = stored(tokens.detach(), self.options.tokens)
        return _Output(output.detach().float(), tokens)

    def _finish(self, launched: _LaunchedBatch) -> BatchFeatures:
        """Wait for the features of a batch, and put zeros for samples that could not be read."""
        readable = torch.tensor(launched.readable)
        features: dict[str, Tensor] = {}
        tokens: dict[str, Tensor] = {}
        for name in launched.streams:
            pieces = launched.outputs.get(name, [])
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
        return BatchFeatures(features, tokens, launched.readable)


class _Output(NamedTuple):
    features: Tensor
    tokens: Tensor | None
    arrived: torch.cuda.Event | None = None


class _LaunchedBatch(NamedTuple):
    outputs: dict[str, list[_Output]]
    readable: list[bool]
    streams: tuple[str, ...]


def _is_out_of_memory(error: RuntimeError | MemoryError) -> bool:
    """Return True for a lack of memory. On the CPU PyTorch raises a plain RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def _raised(read: PreprocessedBatch, bad: SparcError | None = None) -> SparcError:
    """Return the error of a batch, `bad` if samples are at fault; its cause has the loading process's traceback."""
    error = read.failure or bad or read.errors[0]
    if read.trace:
        error.__cause__ = RuntimeError(read.trace)
    return error


def _pinned_copy(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, device="cpu", pin_memory=True).copy_(tensor, non_blocking=True)


def dtype_of(name: str) -> torch.dtype:
    """Return the dtype with a name such as `float16`."""
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def stored(features: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Return features in the dtype of the store. A finite value that overflows float16 becomes its largest value."""
    if dtype is None or features.dtype == dtype:
        return features
    limit = torch.finfo(dtype).max
    return torch.where(features.isfinite(), features.clamp(-limit, limit), features).to(dtype)


def _cpus() -> int:
    """Return the processors that this process may use; under torchrun, its share of them."""
    try:
        usable = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        usable = os.cpu_count() or 1
    return max(1, usable // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
