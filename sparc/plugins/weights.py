"""Where weights come from: local files, and the Hugging Face Hub through its cache. And where sparc keeps its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sparc.errors import CorruptFile, MissingData, WeightsUnavailable
from sparc.system.files import sha256

if TYPE_CHECKING:
    from torch import Tensor

_Made = TypeVar("_Made")

WEIGHT_FILES = (
    "model.safetensors",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "open_clip_pytorch_model.bin",
)
"""Names under which the hub serves weights, the preferred first."""


def cache_dir(*parts: str) -> Path:
    """Return a folder below the root of caches and stores: `$SPARC_CACHE`, else `~/.cache/sparc`. It may not exist."""
    return Path(os.environ.get("SPARC_CACHE") or Path.home() / ".cache" / "sparc").joinpath(*parts)


def hub_file(repo: str, filenames: Sequence[str], *, backbone: str) -> Path:
    """Return the local path of the first of `filenames` that a hub repository has, downloading it the first time.

    Raises:
        WeightsUnavailable: neither in the cache (`HF_HOME`) nor to be downloaded; names `backbone` and the file.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    failure: Exception | None = None
    unreachable = False
    for filename in filenames:
        try:
            return Path(hf_hub_download(repo, filename, local_files_only=unreachable))
        except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
            failure = failure or error
            # It takes half a minute until the hub's client gives up: once is enough.
            unreachable = unreachable or isinstance(error, LocalEntryNotFoundError)
    raise WeightsUnavailable(backbone, f"{repo}/{filenames[0]}", _reason(failure)) from failure


def hub_folder(repo: str, patterns: Sequence[str], *, needs: str, backbone: str) -> Path:
    """Return a local folder with the files of a hub repository that match `patterns`, `needs` among them.

    Raises:
        WeightsUnavailable: they are neither in the cache (`HF_HOME`) nor to be downloaded.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(repo, allow_patterns=list(patterns)))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise WeightsUnavailable(backbone, f"{repo}/{needs}", _reason(error)) from error
    if not (folder / needs).is_file():
        raise WeightsUnavailable(backbone, f"{repo}/{needs}", "the cached copy is incomplete")
    return folder


def in_hub_cache(repo: str, filenames: Sequence[str]) -> bool:
    """Whether the hub's cache on this machine (`HF_HOME`) has one of the files of a repository. Asks no network."""
    from huggingface_hub import try_to_load_from_cache

    return any(isinstance(try_to_load_from_cache(repo, filename), str) for filename in filenames)


def _reason(error: Exception | None) -> str:
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set"
    if isinstance(error, LocalEntryNotFoundError | ConnectionError | TimeoutError):
        return "no connection to the hub"
    return type(error).__name__


def local_weights(weights: str) -> Path:
    """Return the weights file at a local path: the file itself, or the one that a folder from the hub holds.

    Raises:
        MissingData: nothing is there, or a folder without weights.
    """
    path = Path(weights).expanduser()
    if path.is_file():
        return path
    if not path.is_dir():
        raise MissingData(
            f"weights: no file or folder at {path}", hint="check weights=PATH; relative paths start at this folder"
        )
    for name in WEIGHT_FILES:
        if (path / name).is_file():
            return path / name
    raise MissingData(
        f"weights: the folder {path} has none of {', '.join(WEIGHT_FILES)}", hint="give the file itself, weights=FILE"
    )


def identify_weights(weights: str | None, hub: str) -> str:
    """Say in a short text which weights those are: a local file by its digest, `random`, or the hub's by name."""
    if weights is None:
        return f"hub:{hub}"
    return weights if weights == "random" else f"sha256:{sha256(local_weights(weights))}"


def seeded(make: Callable[[], _Made]) -> _Made:
    """Call `make` so that the weights it draws at random are the same every time; other draws go on as they were."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make()


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a .safetensors file, or from a torch file without executing anything in it.

    Raises:
        CorruptFile: the file is neither, or is truncated.
    """
    import torch
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise many unrelated types for broken files
        reason = str(error).strip().splitlines()[0] if str(error) else type(error).__name__
        raise CorruptFile(f"{path} holds no weights that can be read: {reason}", hint="download it again") from error
    return state
