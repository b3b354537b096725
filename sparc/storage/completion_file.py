"""`completion.safetensors`: the completion of a space, beside its model. A space without this file has none.

`docs/reference/checkpoint-format.md` is normative.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from sparc.config import SpaceConfig
from sparc.core.completion import Completion
from sparc.core.kernel_guess import KernelGuess
from sparc.core.newcomer import Newcomer
from sparc.errors import CorruptFile
from sparc.storage.belonging import WEIGHTS, check_belongs, weights_in
from sparc.storage.space_config import COMPLETION, CONFIG
from sparc.storage.tensor_files import read_tensors, write_tensors
from sparc.system.files import write_atomically
from sparc.system.refusals import reading
from sparc.system.tensor_headers import Header, read_header

HEADER_BYTES = 1 << 10
"""Bytes of the file's header for each tensor, and for what it says beside them."""


def completion_writer(completion: Completion, weights: str | None) -> Callable[[Path], object]:
    """Return a function that writes the file to a path. `weights` is the digest of those that it belongs to."""
    newcomers = completion.newcomers.values()
    tensors = {
        "mean": torch.cat([completion.mean, *(one.mean for one in newcomers)]),
        "factor": torch.cat([completion.factor, *(one.common for one in newcomers)], dim=1),
        **{f"own.{len(completion.streams) + number}": one.own for number, one in enumerate(newcomers)},
    }
    numbers = {name: number for number, name in enumerate(completion.streams)}
    for name, kernel in completion.kernels.items():
        tensors |= {
            f"landmarks.{numbers[name]}": kernel.landmarks,
            f"weights.{numbers[name]}": kernel.weights,
        }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    ridges = " ".join(repr(ridge) for ridge in (completion.ridge, *(one.ridge for one in newcomers)))
    precisions = {f"precision.{numbers[name]}": repr(one.precision) for name, one in completion.kernels.items()}
    metadata = {"ridge": ridges, **precisions, **({} if weights is None else {WEIGHTS: weights})}
    return lambda path: write_tensors(path, tensors, metadata)


def write_completion(directory: Path, completion: Completion) -> None:
    """Write the file into the directory of a space. Raises StorageError."""
    write_atomically(directory / COMPLETION, completion_writer(completion, weights_in(directory)))


def read_completion(directory: Path, config: SpaceConfig) -> Completion | None:
    """Read the completion of the space in a directory; None if it has none.

    Raises:
        CorruptFile: the file is truncated, altered, or does not fit the space.
        StorageError: the machine refuses to read it.
    """
    path = directory / COMPLETION
    with reading(path):
        if not os.path.lexists(path):
            return None
    founding = config.founding
    numbers = range(len(founding), len(config.streams))
    again = f"sparc complete {directory}"
    try:
        most = HEADER_BYTES * (3 + 2 * len(config.streams))
        header = read_header(path, most)
        total = sum(config.streams.values())
        widths = {"factor": total, **{f"own.{number}": list(config.streams.values())[number] for number in numbers}}
        shapes = {name: (_rows(header, name), width) for name, width in widths.items()}
        of_kernels = _shapes_of_kernels(header, founding, rank=shapes["factor"][0])
        expected = {"mean": (total,), **shapes, **of_kernels}
        tensors = {name: one.float() for name, one in read_tensors(path, expected, most).items()}
        mean_T, factor_RT, *owns = (tensors[name] for name in ("mean", *shapes))
        check_belongs(path, header.metadata.get(WEIGHTS), f"copy all files of one run; or remove it, then: {again}")
        ridge, *own_ridges = map(float, header.metadata["ridge"].split())
        if len(own_ridges) != len(config.attached):
            raise ValueError(f"expected {1 + len(config.attached)} ridges, found {1 + len(own_ridges)}")
        if wrong := [one for one in (ridge, *own_ridges) if not 0 < one < float("inf")]:
            raise ValueError(f"expected finite ridges above zero, found {wrong[0]}")
        if strange := [name for name, found in tensors.items() if not found.isfinite().all()]:
            raise ValueError(f"expected finite numbers, found others in {', '.join(strange)}")
        kernels = _kernels(header, founding, tensors)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise CorruptFile(
            f"{path} is truncated or does not fit {CONFIG}: {error}",
            hint=f"copy the file again; or remove it, then: {again}",
        ) from error
    # Each part is a tensor of its own, as before streams were attached: strides could change the rounding of products.
    parts = [sum(founding.values()), *(config.streams[stream] for stream in config.attached)]
    means = [part_D.clone() for part_D in torch.split(mean_T, parts)]
    factors = [part_RD.contiguous() for part_RD in torch.split(factor_RT, parts, dim=1)]
    newcomers = {
        stream: Newcomer(mean_D, common_RD, own_QD, own_ridge)
        for stream, mean_D, common_RD, own_QD, own_ridge in zip(
            config.attached, means[1:], factors[1:], owns, own_ridges, strict=True
        )
    }
    return Completion(founding, means[0], factors[0], ridge, newcomers, kernels)


def _shapes_of_kernels(header: Header, founding: Mapping[str, int], rank: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for number, width in enumerate(founding.values()):
        if f"landmarks.{number}" in header.tensors:
            count = _rows(header, f"landmarks.{number}")
            shapes |= {f"landmarks.{number}": (count, width), f"weights.{number}": (count, rank)}
    return shapes


def _kernels(header: Header, founding: Mapping[str, int], tensors: Mapping[str, Tensor]) -> dict[str, KernelGuess]:
    """Return the kernels by stream. Raises KeyError or ValueError for a precision that is missing or not above zero."""
    kernels = {}
    for number, name in enumerate(founding):
        if f"landmarks.{number}" in tensors:
            precision = float(header.metadata[f"precision.{number}"])
            if not 0 < precision < float("inf"):
                raise ValueError(f"expected a finite precision above zero, found {precision}")
            kernels[name] = KernelGuess(tensors[f"landmarks.{number}"], tensors[f"weights.{number}"], precision)
    return kernels


def _rows(header: Header, name: str) -> int:
    """Return the number of rows of a table. Raises ValueError if there is no such table."""
    shape = header.tensors[name].shape if name in header.tensors else ()
    if len(shape) != 2:
        raise ValueError(f"expected a table {name}, found {shape or 'none'}")
    return shape[0]
