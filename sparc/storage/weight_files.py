"""The weights of a space on disk: `model.safetensors`, or several files and an index, as the Hugging Face Hub has them.

sparc writes one file. Other programs split large weights, each tensor whole in one of the files; the index says which.
Importing this module imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sparc.errors import MissingData
from sparc.storage.space_config import COMPLETION, CONFIG, MODEL
from sparc.storage.tensor_files import check_header, read_tensors
from sparc.system.files import read_json
from sparc.system.hub import INDEX, parts_of
from sparc.system.refusals import reading
from sparc.system.tensor_headers import read_header

if TYPE_CHECKING:
    from torch import Tensor

INDEXED = f"{MODEL}{INDEX}"
PATTERNS = (MODEL, INDEXED, "*-of-*.safetensors")
"""Names of the files of weights in a repository."""


def weights_path(directory: Path) -> Path | None:
    """Return the file of the weights in a directory, or the index of several; None if it has neither.

    Raises StorageError.
    """
    with reading(directory):
        return next((directory / name for name in (MODEL, INDEXED) if (directory / name).is_file()), None)


def weight_files(directory: Path) -> list[Path]:
    """Return the files that hold the weights in a directory; none without weights.

    Raises MissingData if the index lists a file that is not there; CorruptFile, StorageError.
    """
    path = weights_path(directory)
    if path is None or path.name == MODEL:
        return [] if path is None else [path]
    files = [directory / name for name in parts_of(path)]
    with reading(directory):
        missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise MissingData(
            f"{path} lists {len(files)} files, and {len(missing)} of them are not beside it, such as {missing[0]}",
            hint="copy or download them into the same folder",
        )
    return files


def space_files(directory: Path) -> list[Path]:
    """Return the files of the space in a directory, those that are there. Raises as `weight_files`."""
    index = [directory / INDEXED] if weights_path(directory) == directory / INDEXED else []
    files = [directory / CONFIG, *index, *weight_files(directory), directory / COMPLETION]
    return [path for path in files if path.is_file()]


def read_split(index: Path, expected: Mapping[str, tuple[int, ...]], most: int) -> dict[str, Tensor]:
    """Read the tensors of weights in several files, after all headers were compared with what is expected.

    Raises MissingData as `weight_files`, ValueError if the index lists other tensors, and as `read_tensors`.
    """
    files = weight_files(index.parent)
    places: dict[str, str] = read_json(index, what="the index of weights in several files")["weight_map"]
    if differing := sorted(places.keys() ^ expected.keys()):
        raise ValueError(f"expected the tensors {', '.join(expected)} in {index.name}; they differ in {differing[0]}")
    parts = [{name: shape for name, shape in expected.items() if places[name] == file.name} for file in files]
    for file, part in zip(files, parts, strict=True):
        check_header(read_header(file, most), part)
    found: dict[str, Tensor] = {}
    for file, part in zip(files, parts, strict=True):
        found |= read_tensors(file, part, most)
    return found
