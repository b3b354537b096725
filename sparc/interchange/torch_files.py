"""Read arrays of safetensors and of files that `torch.save` wrote. Nothing in a pickle runs."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sparc.errors import CorruptFile, InvalidConfig
from sparc.interchange.arrays import NAMELESS, Array, Arrays, block_rows, in_memory, only_values, readable
from sparc.system.pickles import harmless

if TYPE_CHECKING:
    from torch import Tensor

_REFUSED = re.compile(r"(?:GLOBAL|class) (\S+)")
"""Class that torch refuses to load, in the text of its error."""


def load_weights_only(path: Path) -> Any:
    """Load what `torch.save` wrote: tensors, arrays and numbers of numpy, texts, lists and dicts, onto the CPU.

    Raises:
        StorageError, OutOfMemory: the machine refuses.
        CorruptFile: the file is damaged, or holds other Python objects, which are never loaded.
    """
    import pickle  # noqa: TID251  # for the type of an error

    import torch

    with readable(path), torch.serialization.safe_globals(harmless()):
        try:
            try:
                return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            except RuntimeError as error:
                if "mmap can only be used" not in str(error):
                    raise
                return torch.load(path, map_location="cpu", weights_only=True)  # in the format of torch before 1.6
        except pickle.UnpicklingError as error:
            if (refused := _REFUSED.search(str(error))) is None:
                raise ValueError(_reason(str(error))) from error
            raise CorruptFile(
                f"{path}: expected tensors, numbers and texts alone, found a Python object, {refused.group(1)}",
                hint="such objects are never loaded: save tensors alone, torch.save(model.state_dict(), file)",
            ) from error


def _reason(text: str) -> str:
    """Return the line of torch's error that states the reason; the others advise to run what is in the file."""
    _, _, reason = text.partition("WeightsUnpickler error: ")
    return (reason or text).splitlines()[0]


@contextlib.contextmanager
def open_pt(path: Path) -> Iterator[Arrays]:
    """Open a tensor, a list of tensors, or a dict of them and of lists, nested dicts as `outer/inner`."""
    content = load_weights_only(path)
    if isinstance(content, Mapping):
        yield {name: _array(path, name, value) for name, value in _flat(content) if _is_array(value)}
    elif _is_array(content):
        yield {NAMELESS: _array(path, "the file", content)}
    else:
        raise InvalidConfig(
            f"{path}: expected a tensor, a list of tensors, or a dict of them, found {type(content).__name__}",
            hint='torch.save({"features": x, "ids": ids}, file)',
        )


def _flat(content: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", value


def _is_array(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor | np.ndarray) or (isinstance(value, list | tuple) and len(value) > 0)


def _array(path: Path, name: str, value: Any) -> Array:
    import torch

    if isinstance(value, np.ndarray):
        return in_memory(value)
    if isinstance(value, torch.Tensor):
        return _of_tensor(value)
    if all(isinstance(one, torch.Tensor) and one.ndim for one in value):
        return _joined(path, name, value)
    return only_values((len(value),), "list", lambda: [_plain(one) for one in value])


def _plain(value: Any) -> Any:
    """Return a Python number for a tensor or a numpy array that holds one."""
    return value.item() if getattr(value, "ndim", None) == 0 else value


def _joined(path: Path, name: str, tensors: Sequence[Tensor]) -> Array:
    """Describe a list of tensors, each a sample (d,) or a batch (B, d). Raises InvalidConfig if they differ."""
    import torch

    first = tensors[0]
    inner = tuple(first.shape[first.ndim - 1 :])
    for row, one in enumerate(tensors):
        if one.ndim not in (1, 2) or one.ndim != first.ndim or tuple(one.shape[one.ndim - 1 :]) != inner:
            raise InvalidConfig(
                f"{path}: expected tensors of one width in {name}, found {tuple(first.shape)} and, as number {row}, "
                f"{tuple(one.shape)}",
                hint="each tensor of a list is a sample (width), or a batch of samples (samples, width)",
            )
    many = first.ndim == 2

    def blocks(room: Path) -> Iterator[NDArray[Any]]:
        rows = 1 if many else block_rows(first.nbytes)
        for low in range(0, len(tensors), rows):
            yield _numpy(tensors[low] if many else torch.stack(list(tensors[low : low + rows])))

    count = sum(len(one) for one in tensors) if many else len(tensors)
    return Array((count, *inner), str(first.dtype).removeprefix("torch."), _kind(first.dtype), blocks, list)


def _of_tensor(tensor: Tensor) -> Array:
    rows = block_rows(tensor[:1].nbytes) if tensor.ndim else 1
    return Array(
        tuple(tensor.shape),
        str(tensor.dtype).removeprefix("torch."),
        _kind(tensor.dtype),
        lambda room: (_numpy(tensor[low : low + rows]) for low in range(0, len(tensor), rows)),
        lambda: list(tensor.tolist()),
    )


def _kind(dtype: Any) -> str:
    import torch

    return "other" if dtype == torch.bool or dtype.is_complex else "real"


def _numpy(tensor: Tensor) -> NDArray[Any]:
    """Return a tensor's values; types that numpy lacks, such as bfloat16, become float32, which holds them all."""
    import torch

    tensor = tensor.detach()
    if tensor.is_floating_point() and tensor.dtype not in (torch.float16, torch.float32, torch.float64):
        tensor = tensor.float()
    found: NDArray[Any] = tensor.numpy()
    return found


@contextlib.contextmanager
def open_safetensors(path: Path) -> Iterator[Arrays]:
    """Open the tensors of a safetensors file, and lists in JSON in its metadata, such as ids."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        arrays = {name: _of_slice(file, name) for name in file.keys()}  # noqa: SIM118  # it is no mapping
        for name, text in (file.metadata() or {}).items():
            with contextlib.suppress(ValueError):
                if name not in arrays and isinstance(values := json.loads(text), list):
                    arrays[name] = _of_list(values)
        yield arrays


def _of_list(values: list[Any]) -> Array:
    return only_values((len(values),), "JSON", lambda: values)


def _of_slice(file: Any, name: str) -> Array:
    part = file.get_slice(name)
    shape, dtype = tuple(part.get_shape()), str(part.get_dtype())

    def blocks(room: Path) -> Iterator[NDArray[Any]]:
        rows = block_rows(part[:1].nbytes)
        for low in range(0, shape[0], rows):
            yield _numpy(part[low : low + rows])

    kind = "other" if dtype == "BOOL" or dtype.startswith("C") else "real"
    values = (lambda: list(file.get_tensor(name).tolist())) if shape else list
    return Array(shape, dtype, kind, blocks, values)
