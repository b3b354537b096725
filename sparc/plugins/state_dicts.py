"""State dicts: tensors by name, read from the files that people have, and named as the model names them.

A file of a training holds more than weights, and its names carry the prefixes of what wrapped the model. Files are read
without running code in them; what needs that is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparc.errors import CorruptFile, SparcError
from sparc.plugins.weights import weight_files
from sparc.system.finite import not_finite
from sparc.system.pickles import harmless
from sparc.system.refusals import reading
from sparc.system.tensor_headers import read_header

if TYPE_CHECKING:
    from torch import Tensor

NESTED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema", "state_dict", "model")
"""Keys under which files of a training hold the weights, in timm's order of preference: a moving average first."""
WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Parts of names that torch.compile and other wrappers put in, at any depth."""
AMBIGUOUS = 0.9
"""Two prefixes are both possible if the lesser fits this part of the names that the better one fits."""
_BEGINNINGS = (
    (b"version https://git-lfs", "a Git LFS pointer, not the weights", "run `git lfs pull` in its folder"),
    (b"<", "a web page, not weights", "download the file itself, for example with `hf download`"),
    (b"\x89HDF", "weights of Keras or TensorFlow", "convert them to safetensors with the library that wrote them"),
)


MOST_TENSORS = 100_000
"""Most tensors of a file of weights, each of which takes time."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a .safetensors file, a torch file, or the files that an index lists. Runs no code in them.

    From a file of a training, the weights are taken that lie under one of the keys in `NESTED`.

    Raises:
        CorruptFile: a file has neither format, is truncated, could run code, or holds weights that are not finite.
        MissingData: a file that the index lists is not beside it.
        StorageError, OutOfMemory: the machine refuses.
    """
    state: dict[str, Tensor] = {}
    for file in weight_files(path):
        found = _tensors(_read_file(file), file)
        check_finite(found, file)
        state.update(found)
    return state


def check_finite(state: Mapping[str, Tensor], path: Path) -> None:
    """Raise CorruptFile if weights that were read from a file hold NaN or infinite numbers."""
    if (found := not_finite(state)) is not None:
        raise CorruptFile(
            f"{path}: expected finite weights, found {found}",
            hint="the training diverged, or the file is damaged: download it again, or give an earlier checkpoint",
        )


def without_prefix(
    state: Mapping[str, Tensor], names: Collection[str], path: Path, *, least: float = 0.5
) -> dict[str, Tensor]:
    """Return the tensors of a model named as in `names`, without the prefix of what wrapped the model in its file.

    Any prefix is found, such as `module.`, `model.` or `visual.`; tensors beside it belong to other models and are left
    out. The state dict is returned as it is if its names fit best as they are, or if they are not the model's: if less
    than the part `least` of `names` is found.

    Raises:
        CorruptFile: the file at `path` holds several such models.
    """
    cleaned = {".".join(part for part in name.split(".") if part not in WRAPPERS): state[name] for name in state}
    found: Counter[str] = Counter()
    for name in cleaned:
        parts = name.split(".")
        found.update(".".join(parts[:at]) for at in range(len(parts)) if ".".join(parts[at:]) in names)
    if not found:
        return cleaned
    (best, fitting), *others = found.most_common()
    if fitting < len(names) * least or found[""] == fitting:
        return cleaned
    if others and others[0][1] >= AMBIGUOUS * fitting:
        raise CorruptFile(
            f"{path}: expected the weights of one model, found several, under '{best}.' and '{others[0][0]}.'",
            hint="save the tensors of one of them into a file of their own",
        )
    return {name.removeprefix(f"{best}."): cleaned[name] for name in cleaned if name.startswith(f"{best}.")}


def library_of(names: Collection[str]) -> str | None:
    """Return the library that names tensors so, `open_clip` or `transformers`; None if it is none of them."""
    if any(name.startswith(("visual.", "transformer.resblocks.")) for name in names):
        return "open_clip"
    if any(".attention." in name or ".self_attn." in name or "embeddings." in name for name in names):
        return "transformers"
    return None


def _read_file(path: Path) -> Any:
    """Return what a file holds. Raises CorruptFile."""
    import torch
    from safetensors.torch import load_file

    try:
        with reading(path):
            _refuse_others(path)
            if path.suffix.lower() == ".safetensors":
                if (count := len(read_header(path).tensors)) > MOST_TENSORS:
                    raise ValueError(f"it has {count:,} tensors, no model has more than {MOST_TENSORS:,}")
                return load_file(path)
            with torch.serialization.safe_globals(harmless()):
                return torch.load(path, map_location="cpu", weights_only=True)
    except SparcError:
        raise
    except Exception as error:  # torch and safetensors raise many unrelated types for broken files
        _, _, refused = str(error).partition("WeightsUnpickler error: ")  # before it, torch advises to run the file
        reason = next(iter((refused or str(error)).strip().splitlines()), type(error).__name__)
        hint = "download it again"
        if "TorchScript" in str(error):
            reason = "it is a TorchScript program"
            hint = "save its tensors alone: torch.save(torch.jit.load(FILE).state_dict(), NEW_FILE)"
        elif unsafe := _unsafe(path, str(error)):
            reason = f"it holds objects that could run code, such as {unsafe}"
            hint = "where it was written, save its tensors alone: torch.save(model.state_dict(), FILE)"
        raise CorruptFile(f"{path} holds no readable weights: {reason}", hint=hint) from error


def _refuse_others(path: Path) -> None:
    """Raise CorruptFile for a file of another kind that people take for weights."""
    with path.open("rb") as file:
        beginning = file.read(64).lstrip()
    for bytes_, kind, hint in _BEGINNINGS:
        if beginning.startswith(bytes_):
            raise CorruptFile(f"{path} is {kind}", hint=hint)
    if not beginning:
        raise CorruptFile(f"{path} is empty", hint="download it again")


def _unsafe(path: Path, message: str) -> str | None:
    """Return the first name of what torch refused to unpickle; None if it refused nothing."""
    import torch

    _, at, rest = message.partition("GLOBAL ")
    try:
        with torch.serialization.safe_globals(harmless()):
            names = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    except Exception:  # neither a zip file nor a pickle
        names = []
    if names or not (at and rest.strip()):
        built = message.partition("but got <class '")[2].partition("'")[0]  # such as an array of Python objects
        return names[0] if names else built or None
    return rest.split()[0].strip(".,")


def _tensors(content: Any, path: Path) -> dict[str, Tensor]:
    """Return the state dict in what a torch file holds. Raises CorruptFile."""
    import torch

    if isinstance(content, dict):
        for key in NESTED:
            if isinstance(content.get(key), dict) and (found := _only_tensors(content[key])):
                return found
        flat = _only_tensors(content)
        nested = [found for value in content.values() if isinstance(value, dict) and (found := _only_tensors(value))]
        if len(nested) == 1 and len(nested[0]) > len(flat):
            return nested[0]
        if flat and all(len(found) < len(flat) for found in nested):
            return flat
    inside = ", ".join(str(key) for key in list(content)[:8]) if isinstance(content, dict) else type(content).__name__
    keys = "a dict of tensors, or one under " + ", ".join(f"'{key}'" for key in NESTED)
    if isinstance(content, torch.Tensor):
        inside = "one tensor"
    raise CorruptFile(
        f"{path} holds no readable weights: expected {keys}; found {inside or 'nothing'}",
        hint="save the state dict alone: torch.save(model.state_dict(), FILE)",
    )


def _only_tensors(content: Mapping[Any, Any]) -> dict[str, Tensor]:
    import torch

    return {str(name): value for name, value in content.items() if isinstance(value, torch.Tensor)}
