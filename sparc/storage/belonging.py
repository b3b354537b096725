"""Files of a space name the weights that they belong to, so that those of two runs are never read as those of one.

The digest in the metadata of `model.safetensors` names the weights. `config.json`, `completion.safetensors` and
`evaluation.json` repeat it. A file without it was written by another program, or before sparc wrote it. Weights in
several files have the digest that `config.json` says, which whoever loads them checks. Importing this module imports no
torch.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from sparc.errors import CorruptFile, MissingData
from sparc.storage.space_config import MODEL, read_config_file
from sparc.storage.tensor_files import DIGEST
from sparc.storage.weight_files import INDEXED, weights_path
from sparc.system.tensor_headers import read_header

WEIGHTS = "weights"
"""Key of the digest in the other files."""


def weights_in(directory: Path) -> str | None:
    """Return the digest of the weights in a directory; None without one. Raises StorageError."""
    if weights_path(directory) == directory / INDEXED:
        with contextlib.suppress(MissingData, CorruptFile):
            said = read_config_file(directory)
            return str(said[WEIGHTS]) if isinstance(said, dict) and WEIGHTS in said else None
        return None
    try:
        return read_header(directory / MODEL).metadata.get(DIGEST)
    except (OSError, ValueError):  # whoever loads the weights says what is wrong with them
        return None


def check_belongs(path: Path, said: object, hint: str) -> None:
    """Raise CorruptFile if a file says that it belongs to other weights than those beside it; or StorageError."""
    if isinstance(said, str) and (found := weights_in(path.parent)) not in (None, said):
        raise CorruptFile(
            f"{path} belongs to other weights than those of {path.parent / MODEL}: expected the digest {said[:12]}, "
            f"found {str(found)[:12]}",
            hint=hint,
        )
