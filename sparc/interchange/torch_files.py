"""Read arrays of safetensors and of files that `torch.save` wrote. Nothing in a pickle runs."""

from __future__ import annotations

import contextlib
import json
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sparc.errors import CorruptFile, InvalidConfig
from sparc.interchange.arrays import (
    NAMELESS,
    Array,
    Arrays,
    block_rows,
    in_memory,
    kind_of,
    only_values,
    plain_values,
    readable,
)
from sparc.system.pickles import harmless
from sparc.system.tensor_headers import TensorInfo, read_header

if TYPE_CHECKING:
    from torch import Tensor

_REFUSED = re.compile(r"(?:GLOBAL|class) (\S+)")
"""Class that torch refuses to load, in the text of its error."""
_FORM = 'torch.save({"features": x, "ids": ids}, file)'


def load_weights_only(path: Path) -> Any:
    """Load what `torch.save` wrote: tensors, arrays and numbers of numpy, texts, lists and dicts, onto the CPU.

    Raises:
        StorageError, OutOfMemory: the machine refuses.
        CorruptFile: the file is damaged, or holds other Python objects, which are never loaded.
    """
    import pickle  # noqa: TID251  # for the type of an error

    import torch

    with readable(path), torch.serialization.safe_globals(harmless()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Validating sparse tensor|Sparse CS. tensor")  # what is refused later
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
    """Open a tensor, a list of tensors or rows, or a dict of them and of ids, nested dicts as `outer/inner`."""
    content = load_weights_only(path)
    if isinstance(content, Mapping):
        found: dict[str, Array] = {}
        for name, value in _flat(content):
            if name in found:
                raise InvalidConfig(
                    f"{path}: expected one array of a name, found two named '{name}'",
                    hint="rename one of them: a dict in a dict is named outer/inner, and a key 0 is named '0'",
                )
            if _is_array(value):
                found[name] = _array(path, name, value)
        yield found
    elif isinstance(content, list | tuple) and any(isinstance(one, Mapping | str) for one in content):
        names = ", ".join(map(repr, content[0])) if isinstance(content[0], Mapping) else ""
        raise InvalidConfig(
            f"{path}: expected a tensor, a list of tensors, or a dict of them, found a {type(content).__name__} of "
            f"{f'{len(content)} dicts with {names}' if names else 'texts'}",
            hint='torch.save({"features": [one["..."] for one in x], "ids": [one["..."] for one in x]}, file)'
            if names
            else _FORM,
        )
    elif isinstance(content, tuple | list) and _is_pair(content):
        raise InvalidConfig(
            f"{path}: expected a tensor, a list of tensors, or a dict of them, found a {type(content).__name__} of "
            f"{', '.join(type(one).__name__ for one in content[:4])}",
            hint=_FORM,
        )
    elif _is_array(content):
        yield {NAMELESS: _array(path, "the file", content)}
    else:
        raise InvalidConfig(
            f"{path}: expected a tensor, a list of tensors, or a dict of them, found {type(content).__name__}",
            hint=_FORM,
        )


def _is_pair(content: Sequence[Any]) -> bool:
    """Return whether a list holds things of several kinds, such as features and ids, instead of rows of one kind."""
    import torch

    families: tuple[Any, ...] = (torch.Tensor, np.ndarray, (list, tuple), object)
    kinds = {next(number for number, family in enumerate(families) if isinstance(one, family)) for one in content}
    texts = [isinstance(one, list | tuple) and any(isinstance(inner, str) for inner in one) for one in content]
    return len(kinds) > 1 or any(texts)


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
        return _of_tensor(path, name, value)
    return _of_list(path, name, value)


def _of_list(path: Path, name: str, value: Sequence[Any]) -> Array:
    """Describe a list: of samples (d,) or batches (B, d) of features, or of ids, or of batches of ids."""
    import torch

    kinds = {type(one) for one in value}
    if kinds <= {int, str, bytes} or not all(
        isinstance(one, torch.Tensor | np.ndarray | list | tuple) for one in value
    ):
        if kinds == {float} or kinds == {float, int}:
            return replace(in_memory(np.array(value, float)), dtype="list of float", values=lambda: list(value))
        return only_values((len(value),), "list", lambda: [_plain(one) for one in value])
    values = partial(_joined_ids, value)
    if any(
        not isinstance(one, torch.Tensor | np.ndarray) and any(isinstance(x, str | bytes) for x in one) for one in value
    ):
        return only_values((sum(len(one) for one in value),), "list of lists", values)
    rows = [_row(one) for one in value]
    if all(one.ndim == 0 for one in rows):
        return only_values((len(value),), "list", lambda: [_plain(one) for one in value])
    return _joined(path, name, rows, values)


def _row(value: Any) -> Tensor | NDArray[Any]:
    """Return the numbers of a list, a tensor or an array."""
    import torch

    if isinstance(value, torch.Tensor):
        return value
    try:
        return np.asarray([_plain(one) for one in value] if isinstance(value, list | tuple) else value)
    except ValueError:  # lists of different lengths
        return np.empty(0, object)


def _plain(value: Any) -> Any:
    """Return a Python number for a tensor or a numpy array that holds one."""
    if isinstance(value, np.generic | np.ndarray) and value.ndim == 0:
        return plain_values(np.asarray(value).reshape(1))[0]
    return value.item() if getattr(value, "ndim", None) == 0 else value


def _joined_ids(batches: Sequence[Any]) -> list[Any]:
    """Return the ids of a list of batches."""
    return [_plain(one) for batch in batches for one in _listed(batch)]


def _listed(batch: Any) -> Any:
    if isinstance(batch, np.ndarray):
        return plain_values(batch)
    return batch.tolist() if hasattr(batch, "tolist") else batch


def _joined(path: Path, name: str, rows: Sequence[Tensor | NDArray[Any]], values: Callable[[], list[Any]]) -> Array:
    """Describe a list of tensors or arrays, each a sample (d,) or a batch (B, d), which may be ids too."""
    import torch

    first = rows[0]
    inner = tuple(first.shape[first.ndim - 1 :])
    many = first.ndim == 2
    count = sum(len(one) for one in rows) if many else len(rows)
    dtype = str(first.dtype).removeprefix("torch.")
    for number, one in enumerate(rows):
        wrong = f"{one.dtype} {tuple(one.shape)}" if _kind(one) != "real" else str(tuple(one.shape))
        if (
            one.ndim not in (1, 2)
            or one.ndim != first.ndim
            or tuple(one.shape[one.ndim - 1 :]) != inner
            or " (" in wrong
        ):
            fault = InvalidConfig(
                f"{path}: expected tensors of one width in {name}, found {tuple(first.shape)} and, as number {number}, "
                f"{wrong}",
                hint="each tensor of a list is a sample (width), or a batch of samples (samples, width)",
            )
            return only_values((len(rows),), f"list of {dtype}", values, fault=fault)

    def blocks(room: Path) -> Iterator[NDArray[Any]]:
        step = 1 if many else block_rows(first.nbytes)
        for low in range(0, len(rows), step):
            some = [_numpy(one) if isinstance(one, torch.Tensor) else one for one in rows[low : low + step]]
            yield some[0] if many else np.stack(some)

    return Array((count, *inner), f"list of {dtype}", "real", blocks, values)


def _of_tensor(path: Path, name: str, tensor: Tensor) -> Array:
    import torch

    form = "quantized" if tensor.is_quantized else str(tensor.layout).removeprefix("torch.")
    if tensor.layout != torch.strided or tensor.is_quantized:
        dense = "x.dequantize()" if tensor.is_quantized else "x.to_dense()"
        fault = InvalidConfig(f"{path}: expected a dense tensor as {name}, found a {form} one", hint=f"save {dense}")
        shape = tuple(tensor.shape) if not tensor.is_nested else (tensor.size(0),)
        return only_values(shape, f"{form} tensor", lambda: list(tensor.to_dense().tolist()), fault=fault)
    rows = block_rows(tensor[:1].nbytes) if tensor.ndim else 1
    return Array(
        tuple(tensor.shape),
        str(tensor.dtype).removeprefix("torch."),
        _kind(tensor),
        lambda room: (_numpy(tensor[low : low + rows]) for low in range(0, len(tensor), rows)),
        lambda: list(tensor.tolist()),
    )


def _kind(values: Tensor | NDArray[Any]) -> str:
    import torch

    if isinstance(values, np.ndarray):
        return kind_of(values.dtype)
    dense = values.layout == torch.strided and not values.is_quantized
    return "real" if dense and values.dtype != torch.bool and not values.is_complex() else "other"


def _numpy(tensor: Tensor) -> NDArray[Any]:
    """Return a tensor's values; types that numpy lacks, such as bfloat16, become float32, which holds them all."""
    import torch

    tensor = tensor.detach().resolve_neg()
    if tensor.is_floating_point() and tensor.dtype not in (torch.float16, torch.float32, torch.float64):
        tensor = tensor.float()
    found: NDArray[Any] = tensor.numpy()
    return found


@contextlib.contextmanager
def open_safetensors(path: Path) -> Iterator[Arrays]:
    """Open the tensors of a safetensors file, and lists in JSON in its metadata, such as ids."""
    from safetensors import safe_open

    # The header says all at once: asked one by one, half a million tensors take half a minute.
    header = read_header(path)
    with safe_open(path, framework="pt") as file:
        arrays = {name: _of_slice(file, name, one) for name, one in header.tensors.items()}
        for name, text in (file.metadata() or {}).items():
            with contextlib.suppress(ValueError, RecursionError):
                if name not in arrays and isinstance(values := json.loads(text), list):
                    arrays[name] = _of_json(values)
        yield arrays


def _of_json(values: list[Any]) -> Array:
    return only_values((len(values),), "JSON", lambda: values)


def _of_slice(file: Any, name: str, info: TensorInfo) -> Array:
    dtype, shape = info

    def blocks(room: Path) -> Iterator[NDArray[Any]]:
        part = file.get_slice(name)
        rows = block_rows(part[:1].nbytes)
        for low in range(0, shape[0], rows):
            yield _numpy(part[low : low + rows])

    kind = "other" if dtype == "BOOL" or dtype.startswith("C") else "real"
    values = (lambda: list(file.get_tensor(name).tolist())) if shape else list
    return Array(shape, dtype, kind, blocks, values)
