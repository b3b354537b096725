"""Checkpoints of a training: everything that it needs to resume, in one file each, with a digest of its content.

The last ones are kept, and the one with the least loss on held-out samples, which `best.json` names.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from sparc.errors import CorruptFile, said
from sparc.storage.run import Run
from sparc.storage.tensor_files import DIGEST, check_digest, write_tensors
from sparc.system.files import write_atomically, write_json
from sparc.system.refusals import reading, writing
from sparc.system.tensor_headers import read_header

PROGRESS = "progress.json"
"""In a checkpoint that is a folder, written by the ranks that split the latents: its `Progress`."""


@dataclass(frozen=True)
class Progress:
    """Metadata of a checkpoint, which lie beside its tensors."""

    step: int
    """Steps done."""
    updates: int
    """Updates of the weights: the steps that were not skipped."""
    held_out_loss: float | None = None
    """Loss on held-out samples; None if there are none."""

    @classmethod
    def read(cls, path: Path) -> Progress:
        """Read what the header of a checkpoint says. Raises ValueError, KeyError, TypeError, and as `read_header`."""
        if path.is_dir():
            content = json.loads((path / PROGRESS).read_bytes())
        else:
            metadata = read_header(path).metadata
            content, _ = json.loads(metadata["state"]), metadata[DIGEST]
        step, updates, loss = content["step"], content["updates"], content["held_out_loss"]
        if not (isinstance(step, int) and isinstance(updates, int)):
            raise ValueError("expected numbers of steps")
        return cls(step, updates, None if loss is None else float(loss))


def save_state(run: Run, tensors: Mapping[str, Tensor], progress: Progress, *, keep: int) -> None:
    """Save a checkpoint, then remove those that are neither among the last `keep` nor the best.

    The log is on the disk before the checkpoint is. Raises StorageError.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {"state": json.dumps(asdict(progress), sort_keys=True)}
    run.sync_metrics()
    write_atomically(run.state(progress.step), lambda path: write_tensors(path, tensors, metadata))
    drop_old(run, keep)


def drop_old(run: Run, keep: int) -> None:
    """Remove checkpoints that are neither among the last `keep` nor the best; mark the best. Raises StorageError."""
    states = run.states()
    best = best_state(states)
    if best is not None:
        write_json(run.best, {"step": best[1].step, "held_out_loss": best[1].held_out_loss})
    for path in states[keep:]:
        if best is None or path != best[0]:
            with writing(path):
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)


def described(states: list[Path]) -> list[tuple[Path, Progress | None]]:
    """Return what each checkpoint says about itself, and None for one whose header is damaged."""
    found: list[tuple[Path, Progress | None]] = []
    for path in states:
        progress = None
        with contextlib.suppress(SafetensorError, OSError, KeyError, TypeError, ValueError, RecursionError):
            progress = Progress.read(path)
        found.append((path, progress))
    return found


def best_state(states: list[Path]) -> tuple[Path, Progress] | None:
    """Return the checkpoint with the least loss on held-out samples, of equal ones the oldest; None if none has one."""
    found = [
        (progress.held_out_loss, progress.step, path, progress)
        for path, progress in described(states)
        if progress is not None and progress.held_out_loss is not None
    ]
    return min(found, key=lambda one: one[:2])[2:] if found else None


def load_state(
    run: Run,
    use: Callable[[Mapping[str, Tensor], Progress], None],
    use_folder: Callable[[Path, Progress], None],
) -> Progress | None:
    """Call `use` or `use_folder` with the newest checkpoint that is whole, and return what it says about itself.

    Warns about a damaged one, and takes the one before. Returns None if there are no checkpoints. Raises CorruptFile if
    all are damaged, StorageError and OutOfMemory.
    """
    damage: list[str] = []
    for path in (states := run.states()):
        try:
            progress = Progress.read(path)
            if path.is_dir():
                use_folder(path, progress)
            else:
                with reading(path), safe_open(path, framework="pt") as file:
                    tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                    check_digest(path, tensors, file.metadata() or {})
                use(tensors, progress)
        except (SafetensorError, CorruptFile, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            damage.append(" ".join(f"{path}: {said(error)}".split()))
            continue
        if damage:
            warnings.warn(
                f"a checkpoint is damaged ({damage[0]}); the training resumes from the one before, of step "
                f"{progress.step}",
                stacklevel=2,
            )
        return progress
    if not states:
        return None
    raise CorruptFile(
        f"all {len(states)} checkpoints are truncated or do not fit the run; the newest is {damage[0]}",
        hint=f"restore a file; or remove {run.states()[0].parent} and resume, which trains from the start",
    )


def below(prefix: str, tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tensors whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
