"""The journal of an import: which folders it writes, until all are complete.

    <out>/importing.json

An import that was killed leaves it, so that neither the next import nor a training takes what it wrote for whole.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from sparc.interchange import SPLITS
from sparc.interchange.arrays import TEMPORARY
from sparc.interchange.sample_labels import LABELS
from sparc.storage.manifest import IMPORTING, MANIFEST
from sparc.storage.store import SAMPLES
from sparc.system.files import read_json, remove_temporaries, sync_folder, write_json
from sparc.system.locks import owned
from sparc.system.refusals import writing


@contextlib.contextmanager
def importing(out: Path) -> Iterator[None]:
    """Own the folder of imported features inside the block, and remove what an import left that was killed.

    Raises InUse if another process works there, and StorageError.
    """
    with owned(out, "wait until it ends; or choose another --out"):
        remove_temporaries(out)
        _undo(out)
        yield


@contextlib.contextmanager
def journal(out: Path, folders: Sequence[Path]) -> Iterator[None]:
    """Note the folders that the block writes, and forget them when it ends.

    What is incomplete is removed if the block raises an error.
    """
    write_json(out / IMPORTING, [folder.relative_to(out).as_posix() for folder in folders])
    try:
        yield
    except BaseException:
        _undo(out)
        raise
    with writing(out):
        (out / IMPORTING).unlink()
    sync_folder(out)


def _undo(out: Path) -> None:
    """Remove the folders of a journal, then the journal. Only folders that an import can have made are touched."""
    path = out / IMPORTING
    if not path.exists():
        return
    found = read_json(path, what="the journal of an import")
    with writing(out):
        for place in found if isinstance(found, list) else ():
            parts = Path(str(place)).parts
            if len(parts) == 2 and parts[0] in SPLITS and parts[1] not in ("..", "."):
                (out / parts[0] / LABELS).unlink(missing_ok=True)
                _clear(out.joinpath(*parts))
        path.unlink(missing_ok=True)


def _clear(folder: Path) -> None:
    """Remove what an import writes into the folder of a stream; then the folder, and that of the split, if empty."""
    # The manifest goes first: without it the rest counts for nothing.
    for pattern in (MANIFEST, SAMPLES, "shard-*.safetensors", ".*.tmp"):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)
    for left in folder.glob(f"{TEMPORARY}*"):
        shutil.rmtree(left, ignore_errors=True)
    with contextlib.suppress(OSError):  # somebody's files are there, or the split has other streams
        folder.rmdir()
        folder.parent.rmdir()
