"""`codes-KEY.safetensors`: the codes of a stream's samples in a space, by latent, beside the features in the store.

`docs/store-format.md` is normative. The key names the space and the features, so that neither can change unnoticed.
Importing this module imports no torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sparc.storage.manifest import feature_digests, read_manifest
from sparc.storage.space_config import COMPLETION, CONFIG, MODEL
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
}
"""The tensors of a file, and their types."""


def index_path(features: Path, space: Path, stream: str) -> Path:
    """Return the file for the codes of a stream's features, in a directory, as the space in another one encodes them.

    Raises MissingData, CorruptFile or StorageError.
    """
    digests = [sha256(space / name) if (space / name).is_file() else "" for name in (CONFIG, MODEL, COMPLETION)]
    made_of = [FORMAT, stream, digests, feature_digests({stream: read_manifest(features)})]
    return features / f"codes-{hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:12]}.safetensors"


def read_index(path: Path) -> dict[str, Tensor] | None:
    """Return the tensors of an index, mapped from its file.

    None if there is no file, or if it is damaged: whoever asks makes it again. Raises StorageError, OutOfMemory.
    """
    from safetensors import SafetensorError, safe_open

    try:
        check_readable(path)
        with reading(path), safe_open(path, framework="pt") as file:
            found = {name: file.get_tensor(name) for name in KINDS}
    except (FileNotFoundError, SafetensorError):
        return None
    return found if _fits(found) else None


def write_index(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write an index. Raises StorageError."""
    from safetensors.torch import save_file

    write_output(path, lambda temporary: save_file({name: tensors[name] for name in KINDS}, temporary))


def _fits(found: Mapping[str, Tensor]) -> bool:
    """Return True if the tensors have the types of an index, and lengths that fit each other."""
    if any(str(found[name].dtype) != kind or found[name].ndim != 1 for name, kind in KINDS.items()):
        return False
    starts, entries, count = found["starts"], len(found["samples"]), len(found["norms"])
    lengths = len(found["values"]) == entries and len(found["present"]) == len(found["owners"]) == count
    return lengths and len(starts) > 1 and bool((starts.diff() >= 0).all()) and starts[[0, -1]].tolist() == [0, entries]
