"""Weights of backbones: which ones they are, and where their files lie.

A `BackboneSpec` says three things about its weights:

- `identify(params)`: which weights they are. Return `identify_weights(params.weights, "OWNER/NAME", backbone=NAME,
  revision=params.revision)`.
- `has_weights()`: True if they are on this machine. Use `partial(in_hub_cache, "OWNER/NAME", [FILE])`.
- `load(params, device)`: get the file with `hub_file`, `hub_folder` or `local_weights` and read it with `read_weights`;
  wrap the construction of a model with random weights in `seeded`.

By convention the parameter `weights` is None for the hub's weights, a local file or folder, or `random`; `revision` is
a branch, a tag or a commit of the hub's repository.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from sparc.errors import MissingData
from sparc.system.files import sha256
from sparc.system.hub import INDEX, hub_commit, parts_of
from sparc.system.nearby import meant
from sparc.system.refusals import reading

_Made = TypeVar("_Made")

WEIGHT_FILES = (
    "model.safetensors",
    "open_clip_model.safetensors",
    f"model.safetensors{INDEX}",
    f"open_clip_model.safetensors{INDEX}",
    "pytorch_model.bin",
    "open_clip_pytorch_model.bin",
    f"pytorch_model.bin{INDEX}",
)
"""File names under which the hub serves weights, in order of preference."""
_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
"""Suffixes of files that can hold weights."""


def local_weights(weights: str, names: Sequence[str] = WEIGHT_FILES) -> Path:
    """Return the weights file at a local path: the file itself, or the weights file in a folder.

    In a folder that is the first of `names`, in order of preference, or else the only file that can hold weights.

    Raises:
        MissingData: the path does not exist, or the folder holds no weights file, or several.
    """
    path = Path(weights).expanduser()
    if path.is_file():
        return path
    if not path.is_dir():
        hint = meant(path, "check weights=PATH; relative paths start at this folder")
        raise MissingData(f"weights: no file or folder at {path}", hint=hint)
    for name in names:
        if (path / name).is_file():
            return path / name
    with reading(path):
        inside = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
    possible = [file for file in inside if file.suffix.lower() in _SUFFIXES]
    if len(possible) == 1:
        return possible[0]
    found = ", ".join(file.name for file in (possible or inside)[:6]) or "no file"
    raise MissingData(
        f"weights: the folder {path} has none of {', '.join(names)}; found {found}",
        hint="give the file itself, weights=FILE",
    )


def weight_files(path: Path) -> list[Path]:
    """Return the files of weights: the file at `path`, or those that the index at `path` lists.

    Raises:
        MissingData: a file that the index lists is not beside it.
        CorruptFile: the index is none.
    """
    if not path.name.endswith(INDEX):
        return [path]
    files = [path.parent / name for name in parts_of(path)]
    if missing := [file.name for file in files if not file.is_file()]:
        raise MissingData(
            f"weights: {path} lists {len(files)} files, and {len(missing)} of them are not beside it, such as "
            f"{missing[0]}",
            hint="copy or download them into the same folder",
        )
    return files


def identify_weights(
    weights: str | None,
    repo: str,
    *,
    backbone: str,
    revision: str | None = None,
    files: Sequence[str] = WEIGHT_FILES,
) -> str:
    """Return a short text that identifies weights: `hub:OWNER/NAME@COMMIT`, a local file's digest, or `random`.

    The commit is the one to which `revision` points now, as `hub_commit` finds it. `files` are the names of the weights
    in order of preference. For local weights in several files the digest covers all of them.

    Raises:
        WeightsUnavailable: the hub does not answer or refuses, and the cache does not know the revision. A full commit
            as `revision` needs neither.
        MissingData: the local path does not exist, or holds no weights.
    """
    if weights is None:
        return f"hub:{repo}@{hub_commit(repo, revision, backbone=backbone, file=files[0])}"
    if weights == "random":
        return weights
    path = local_weights(weights, files)
    parts = weight_files(path)
    if parts == [path]:
        return f"sha256:{sha256(path)}"
    digests = [f"{part.name} {sha256(part)}\n" for part in parts]
    return f"sha256:{hashlib.sha256(''.join(digests).encode()).hexdigest()}"


def seeded(make: Callable[[], _Made]) -> _Made:
    """Return `make()`, called with a fixed random seed, so that random weights are always the same.

    The global random state is restored afterwards.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make()
