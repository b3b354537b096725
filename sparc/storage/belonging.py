"""Files of a space name the weights that they belong to, so that those of two runs are never read as those of one.

The digest in the metadata of `model.safetensors` names the weights. `config.json`, `completion.safetensors` and
`evaluation.json` repeat it. A file without it was written by another program, or before sparc wrote it. Importing this
module imports no torch.
"""

from __future__ import annotations

from pathlib import Path

from sparc.errors import CorruptFile
from sparc.storage.space_config import MODEL
from sparc.storage.tensor_files import DIGEST
from sparc.system.tensor_headers import read_header

WEIGHTS = "weights"
"""Key of the digest in the other files."""


def weights_in(directory: Path) -> str | None:
    """Return the digest of the weights in a directory; None without one. Raises StorageError."""
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
