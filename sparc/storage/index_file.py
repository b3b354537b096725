"""`codes-KEY.safetensors`: the codes of a stream's samples in a space, by latent, beside the features in the store.

`docs/store-format.md` is normative. The key names the space and the features, so that neither can change unnoticed.
The metadata have a CRC-32 of the small tensors, which is checked when a file is opened. The lists are large, and a
query needs few of them, so each has a CRC-32 of its own, which is checked when the list is read.
Importing this module imports no torch.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sparc.storage.manifest import feature_digests, read_manifest
from sparc.storage.space_config import COMPLETION, CONFIG, MODEL
from sparc.storage.weight_files import weight_files
from sparc.system.files import check_readable, sha256, write_output
from sparc.system.refusals import reading

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
KINDS = {
    "starts": "torch.int64",
    "samples": "torch.int32",
    "values": "torch.float32",
    "norms": "torch.float32",
    "present": "torch.bool",
    "owners": "torch.int64",
    "checks": "torch.int64",
}
"""The tensors of a file, and their types."""
_LISTS = ("samples", "values")
"""The large tensors, whose parts `checks` covers."""
_CHECK = "crc32"


def index_path(features: Path, space: Path, stream: str) -> Path:
    """Return the file for the codes of a stream's features, in a directory, as the space in another one encodes them.

    Raises MissingData, CorruptFile or StorageError.
    """
    digests = [sha256(space / name) if (space / name).is_file() else "" for name in (CONFIG, MODEL, COMPLETION)]
    digests += [sha256(path) for path in weight_files(space) if path.name != MODEL]
    made_of = [FORMAT, stream, digests, feature_digests({stream: read_manifest(features)})]
    return features / f"codes-{hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:12]}.safetensors"


def read_index(path: Path) -> dict[str, Tensor] | None:
    """Return the tensors of an index, mapped from its file.

    None if there is no file, or if it is damaged, or that of another space: whoever asks makes it again. The lists are
    not checked. Raises StorageError, OutOfMemory.
    """
    from safetensors import SafetensorError, safe_open

    try:
        check_readable(path)
        with reading(path), safe_open(path, framework="pt") as file:
            found = {name: file.get_tensor(name) for name in KINDS}
            said = (file.metadata() or {}).get(_CHECK)
    except (FileNotFoundError, SafetensorError):
        return None
    return found if _fits(found) and said == _check(path, found) else None


def write_index(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write an index. Raises StorageError."""
    from safetensors.torch import save_file

    content = {name: tensors[name] for name in KINDS}
    said = {_CHECK: _check(path, content)}
    write_output(path, lambda temporary: save_file(content, temporary, metadata=said))


def _check(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Return a CRC-32 of the name of an index and of its tensors without the lists."""
    found = zlib.crc32(path.name.encode())
    for name in KINDS:
        if name not in _LISTS:
            found = zlib.crc32(tensors[name].contiguous().numpy().data, found)
    return f"{found:08x}"


def _fits(found: Mapping[str, Tensor]) -> bool:
    """Return True if the tensors have the types of an index, and lengths that fit each other."""
    if any(str(found[name].dtype) != kind or found[name].ndim != 1 for name, kind in KINDS.items()):
        return False
    starts, entries, count = found["starts"], len(found["samples"]), len(found["norms"])
    if len(found["checks"]) != len(starts) - 1:
        return False
    lengths = len(found["values"]) == entries and len(found["present"]) == len(found["owners"]) == count
    return lengths and len(starts) > 1 and bool((starts.diff() >= 0).all()) and starts[[0, -1]].tolist() == [0, entries]
