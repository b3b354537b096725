"""`completion.safetensors`: the completion of a space, beside its model. A space without this file has none.

`docs/reference/checkpoint-format.md` is normative.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from sparc.config import SpaceConfig
from sparc.core.completion import Completion
from sparc.core.newcomer import Newcomer
from sparc.errors import CorruptFile
from sparc.storage.space_config import COMPLETION, CONFIG
from sparc.system.files import check_readable, write_atomically
from sparc.system.refusals import reading


def completion_writer(completion: Completion) -> Callable[[Path], object]:
    """Return a function that writes the file to a path."""
    newcomers = completion.newcomers.values()
    tensors = {
        "mean": torch.cat([completion.mean, *(one.mean for one in newcomers)]),
        "factor": torch.cat([completion.factor, *(one.common for one in newcomers)], dim=1),
        **{f"own.{len(completion.streams) + number}": one.own for number, one in enumerate(newcomers)},
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # One key: safetensors writes several in a random order.
    ridges = " ".join(repr(ridge) for ridge in (completion.ridge, *(one.ridge for one in newcomers)))
    return lambda path: save_file(tensors, path, metadata={"ridge": ridges})


def write_completion(directory: Path, completion: Completion) -> None:
    """Write the file into the directory of a space. Raises StorageError."""
    write_atomically(directory / COMPLETION, completion_writer(completion))


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
    try:
        check_readable(path)
        with reading(path), safe_open(path, framework="pt") as file:
            mean_T, factor_RT = file.get_tensor("mean").float(), file.get_tensor("factor").float()
            owns = [file.get_tensor(f"own.{number}").float() for number in numbers]
            ridge, *own_ridges = map(float, (file.metadata() or {})["ridge"].split())
        total = sum(config.streams.values())
        if tuple(mean_T.shape) != (total,) or factor_RT.ndim != 2 or factor_RT.shape[1] != total:
            raise ValueError(f"expected a mean and a factor of width {total}, found {tuple(factor_RT.shape)}")
        for stream, own_QD in zip(config.attached, owns, strict=True):
            if own_QD.ndim != 2 or own_QD.shape[1] != config.streams[stream]:
                raise ValueError(
                    f"expected rows of width {config.streams[stream]} for the attached stream {stream}, found "
                    f"{tuple(own_QD.shape)}"
                )
        if len(own_ridges) != len(config.attached):
            raise ValueError(f"expected {1 + len(config.attached)} ridges, found {1 + len(own_ridges)}")
        positive = all(0 < one < float("inf") for one in (ridge, *own_ridges))
        if not (positive and all(found.isfinite().all() for found in (mean_T, factor_RT, *owns))):
            raise ValueError("expected finite numbers, and ridges above zero")
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise CorruptFile(
            f"{path} is truncated or does not fit {CONFIG}: {error}",
            hint=f"copy the file again; or remove it, then: sparc complete {directory}",
        ) from error
    # Each part is a tensor of its own, as before streams were attached: strides could change the rounding of products.
    widths = [sum(founding.values()), *(config.streams[stream] for stream in config.attached)]
    means = [part_D.clone() for part_D in mean_T.split(widths)]
    factors = [part_RD.contiguous() for part_RD in factor_RT.split(widths, dim=1)]
    newcomers = {
        stream: Newcomer(*parts)
        for stream, *parts in zip(config.attached, means[1:], factors[1:], owns, own_ridges, strict=True)
    }
    return Completion(founding, means[0], factors[0], ridge, newcomers)
