"""Safetensors files of sparc, which carry a digest of their content, and whose header is checked before they are read.

The digest is SHA-256 over the metadata and the tensors, each in the order of their names: one line of JSON for each,
and the bytes of a tensor behind its line. It lies in the metadata as `sha256`. A file that has none was written by
another program, or before sparc wrote digests.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sparc.errors import CorruptFile
from sparc.system.refusals import reading
from sparc.system.tensor_headers import LENGTH_BYTES, MOST_HEADER, Header, read_header

if TYPE_CHECKING:
    from torch import Tensor

DIGEST = "sha256"
_HEX = re.compile("[0-9a-f]{64}")
FLOATS = ("F32", "F16", "BF16", "F64")
_DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "float64": "F64", "int64": "I64", "int32": "I32"}


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors on the CPU, with metadata and the digest of both. Equal content gives equal bytes.

    The metadata may hold the digest already. Call it from `write_atomically`, which words what the machine refuses.
    """
    from safetensors.torch import save_file

    said = {**metadata, DIGEST: metadata.get(DIGEST) or digest(tensors, metadata)}
    save_file(dict(tensors), path, metadata=said)
    # safetensors writes the metadata in a random order.
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        content = json.loads(file.read(length))
        content["__metadata__"] = dict(sorted(said.items()))
        written = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
        if len(written) <= length:
            file.seek(LENGTH_BYTES)
            file.write(written.ljust(length))


def digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Return the digest of tensors on the CPU and metadata, without the metadata's own digest."""
    import torch

    found = hashlib.sha256()
    for key in sorted(metadata):
        if key != DIGEST:
            found.update(f"{json.dumps([key, metadata[key]])}\n".encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach()
        dtype = str(tensor.dtype).removeprefix("torch.")
        found.update(f"{json.dumps([name, _DTYPES.get(dtype, dtype), list(tensor.shape)])}\n".encode())
        found.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def check_header(header: Header, expected: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ValueError unless a header lists floating-point tensors of exactly these names and shapes."""
    if lacking := [name for name in expected if name not in header.tensors]:
        raise ValueError(f"expected the tensor {lacking[0]}, found none of that name")
    if len(header.tensors) > len(expected):
        more = next(name for name in header.tensors if name not in expected)
        raise ValueError(f"expected {len(expected)} tensors, found {len(header.tensors):,}, such as {more[:80]}")
    for name, shape in expected.items():
        found = header.tensors[name]
        if found.shape != tuple(shape) or found.dtype not in FLOATS:
            raise ValueError(f"expected {name} as F32 {tuple(shape)}, found {found.dtype[:20]} {str(found.shape)[:80]}")


def read_tensors(path: Path, expected: Mapping[str, tuple[int, ...]], most: int = MOST_HEADER) -> dict[str, Tensor]:
    """Read the tensors of a file into memory, after its header was compared with what is expected.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError, SafetensorError: the header is longer than `most`, lists other names, shapes or types, or the
            content does not fit it.
        CorruptFile: the content does not fit its digest.
        StorageError: the machine refuses to read the file.
    """
    from safetensors import safe_open

    header = read_header(path, most)
    check_header(header, expected)
    with reading(path), safe_open(path, framework="pt") as file:
        # Copies: tensors of safetensors are views of the file, which may change.
        tensors = {name: file.get_tensor(name).clone() for name in expected}
        check_digest(path, tensors, file.metadata() or {})
    return tensors


def check_digest(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Raise CorruptFile if a file's content differs from its digest. A file without one passes."""
    said = metadata.get(DIGEST) or next(filter(_HEX.fullmatch, metadata.values()), None)  # its key may be altered
    if said is not None and (found := digest(tensors, metadata)) != said:
        raise CorruptFile(
            f"{path} is altered: expected the digest {said[:12]} of its content, found {found[:12]}",
            hint="copy the file again, or make it again",
        )
