"""Helpers with which backbone plugins identify, find and load weights: from the hub, local files, or random numbers.

A `BackboneSpec` says three things about its weights, and this module has a function for each:

- `identify(params)`: which weights they are. Return `identify_weights(params.weights, "OWNER/NAME/FILE")`.
- `has_weights()`: True if they are on this machine. Use `partial(in_hub_cache, "OWNER/NAME", [FILE])`.
- `load(params, device)`: get the file with `hub_file`, `hub_folder` or `local_weights` and read it with `read_weights`;
  wrap the construction of a model with random weights in `seeded`.

By convention the parameter `weights` is None for the hub's weights, a local file or folder, or `random`.
"""

from __future__ import annotations

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
"""File names under which the hub serves weights, in order of preference."""


def hub_file(repo: str, filenames: Sequence[str], *, backbone: str) -> Path:
    """Return the local path of the first of `filenames` that a hub repository has, downloading it the first time.

    Raises:
        WeightsUnavailable: the file is not in the cache (`HF_HOME`) and cannot be downloaded. The error names
            `backbone` and the file.
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
            # The hub's client retries for half a minute before it gives up, so ask the network only once.
            unreachable = unreachable or isinstance(error, LocalEntryNotFoundError)
    raise WeightsUnavailable(backbone, f"{repo}/{filenames[0]}", _reason(failure)) from failure


def hub_folder(repo: str, patterns: Sequence[str], *, needs: str, backbone: str) -> Path:
    """Return a local folder with the files of a hub repository that match `patterns`, including the file `needs`.

    Raises:
        WeightsUnavailable: the files are not in the cache (`HF_HOME`) and cannot be downloaded.
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
    """Return True if the hub's local cache (`HF_HOME`) has one of the files of a repository. Uses no network."""
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
    """Return the weights file at a local path: the file itself, or the weights file in a folder from the hub.

    Raises:
        MissingData: the path does not exist, or the folder holds no weights file.
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
    """Return a short text that identifies weights: a local file's digest, `random`, or the name `hub` on the hub."""
    if weights is None:
        return f"hub:{hub}"
    return weights if weights == "random" else f"sha256:{sha256(local_weights(weights))}"


def seeded(make: Callable[[], _Made]) -> _Made:
    """Return `make()`, called with a fixed random seed, so that random weights are always the same.

    The global random state is restored afterwards.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make()


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a .safetensors file, or from a torch file without unpickling arbitrary objects.

    Raises:
        CorruptFile: the file has neither format, or is truncated.
    """
    import torch
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise many unrelated types for broken files
        reason = str(error).strip().splitlines()[0] if str(error) else type(error).__name__
        raise CorruptFile(f"{path} holds no readable weights: {reason}", hint="download it again") from error
    return state
