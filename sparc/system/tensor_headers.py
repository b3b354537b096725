"""Headers of safetensors files: names, types and shapes of the tensors, and metadata, read within a limit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from sparc.system.refusals import reading

MOST_HEADER = 64 << 20
"""Bytes of the longest header that is read. safetensors itself reads up to 100 MB."""
LENGTH_BYTES = 8
"""Bytes before the header, which say how long it is."""


class TensorInfo(NamedTuple):
    """Type and shape of a tensor, as a header says them."""

    dtype: str
    shape: tuple[int, ...]


class Header(NamedTuple):
    """Header of a file."""

    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]


def read_header(path: Path, most: int = MOST_HEADER) -> Header:
    """Read the header of a safetensors file, of at most `most` bytes, without its tensors.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the header is longer, or is no header.
        StorageError: the machine refuses to read the file.
    """
    with reading(path), path.open("rb") as file:
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        if length > most:
            raise ValueError(f"expected a header of at most {most:,} bytes, found {length:,}")
        written = file.read(length)
    if len(written) < length:
        raise ValueError(f"expected a header of {length:,} bytes, found {len(written):,}")
    try:
        content = json.loads(written)
        metadata = content.pop("__metadata__", None) or {}
        tensors = {name: TensorInfo(str(one["dtype"]), tuple(map(int, one["shape"]))) for name, one in content.items()}
        return Header(tensors, {str(key): str(value) for key, value in metadata.items()})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise ValueError(f"expected a header of safetensors, found {type(error).__name__} {error}") from error
