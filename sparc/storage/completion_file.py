"""`completion.safetensors`: the completion of a space, beside its model. A space without this file has none.

`docs/reference/checkpoint-format.md` is normative.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from sparc.config import SpaceConfig
from sparc.core.completion import Completion
from sparc.errors import CorruptFile
from sparc.storage.space_config import COMPLETION, CONFIG
from sparc.system.files import check_readable, write_atomically
from sparc.system.refusals import reading


def completion_writer(completion: Completion) -> Callable[[Path], object]:
    """Return a function that writes the file to a path."""
    tensors = {"mean": completion.mean, "factor": completion.factor}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return lambda path: save_file(tensors, path, metadata={"ridge": repr(completion.ridge)})


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
        if not path.is_file():
            return None
    try:
        check_readable(path)
        with reading(path), safe_open(path, framework="pt") as file:
            mean_T, factor_RT = file.get_tensor("mean"), file.get_tensor("factor")
            ridge = float(file.metadata()["ridge"])
        total = sum(config.streams.values())
        if tuple(mean_T.shape) != (total,) or factor_RT.ndim != 2 or factor_RT.shape[1] != total:
            raise ValueError(f"expected a mean and a factor of width {total}, found {tuple(factor_RT.shape)}")
        if not (mean_T.isfinite().all() and factor_RT.isfinite().all() and 0 < ridge < float("inf")):
            raise ValueError("expected finite numbers")
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise CorruptFile(
            f"{path} is truncated or does not fit {CONFIG}: {error}",
            hint=f"copy the file again; or remove it, then: sparc complete {directory}",
        ) from error
    return Completion(config.streams, mean_T.float(), factor_RT.float(), ridge)
