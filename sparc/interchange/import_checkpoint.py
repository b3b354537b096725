"""Import a checkpoint of the paper's research code as a shared latent space."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparc.config import SpaceConfig, validated
from sparc.errors import CorruptFile, InvalidConfig, MissingData
from sparc.interchange.torch_files import load_weights_only
from sparc.system.files import read_json

if TYPE_CHECKING:
    from torch import Tensor

    from sparc.storage.checkpoint import SharedLatentSpace

DECODER, ENCODER = "decoders.", "encoders."
WRAPPERS = ("module.", "_orig_mod.")


def read_research_checkpoint(file: Path, run_config: Path) -> SharedLatentSpace:
    """Read a space from a checkpoint `file` (.pth) and the run configuration (.json) beside it.

    The space computes the research code's codes and reconstructions. That code's datasets divide each row of features
    by its norm, so the space does (`normalization="unit"`), and raw features give the same codes as normalised ones.
    Counters of dead latents are dropped. Pickled objects in the file are refused.

    Raises:
        MissingData: a file does not exist.
        CorruptFile: a file is not a checkpoint or a configuration, or tensors have the wrong shape.
        InvalidConfig: sparc does not have the configuration's selection.
    """
    args = _arguments(run_config)
    if not file.is_file():
        raise MissingData(f"no checkpoint at {file}", hint="check the path")

    import torch

    from sparc.storage.checkpoint import SharedLatentSpace

    state = _state(file)
    streams = [name[len(ENCODER) : -len(".weight")] for name in state if name.startswith(ENCODER)]
    widths = {stream: int(_tensor(state, f"{ENCODER}{stream}.weight", 2, file).shape[1]) for stream in streams}
    shape = {"streams": widths, "n_latents": args["n_latents"], "k": args["k"], "selection": args["topk_type"]}
    space = SharedLatentSpace(validated(SpaceConfig, {**shape, "normalization": "unit"}, what=str(run_config)))
    with torch.no_grad():
        for position, (stream, segment) in enumerate(space.segments.items()):
            length, width = space.n_latents, widths[stream]
            for name, shape_of, target in (
                (f"{ENCODER}{stream}.weight", (length, width), space.encoders[position]),
                (f"{DECODER}{stream}.weight", (width, length), space.decoder[:, segment].T),
                (f"pre_biases.{stream}", (width,), space.pre_bias[segment]),
                (f"latent_biases.{stream}", (length,), space.latent_bias[position]),
            ):
                found = _tensor(state, name, len(shape_of), file)
                if tuple(found.shape) != shape_of:
                    raise CorruptFile(
                        f"{file}: expected {name} of shape {shape_of}, found {tuple(found.shape)}",
                        hint=f"check that {run_config} is this checkpoint's",
                    )
                target.copy_(found)
    return space.eval()


def _arguments(path: Path) -> dict[str, Any]:
    """Return the run's arguments that a space needs."""
    content = read_json(path, what="the configuration of a run")
    args = content.get("args", content) if isinstance(content, dict) else {}
    args = args if isinstance(args, dict) else {}
    lacking = [name for name in ("n_latents", "k") if type(args.get(name)) is not int]  # True is an int too
    if lacking:
        raise CorruptFile(
            f"{path}: expected numbers n_latents and k in 'args', found no {' and no '.join(lacking)}",
            hint="give the configuration that the research code wrote beside the checkpoint",
        )
    selection = args.get("topk_type", "global")
    if selection not in ("global", "local"):
        raise InvalidConfig(
            f"{path}: expected topk_type global or local, found '{selection}'", hint="sparc has no other selection"
        )
    return {"n_latents": args["n_latents"], "k": args["k"], "topk_type": selection}


def _state(path: Path) -> Mapping[str, Tensor]:
    """Return the state dict of a checkpoint, which may be nested in another dict, without the prefixes of wrappers."""
    content = load_weights_only(path)
    inner = list(content.values()) if isinstance(content, dict) else []
    for candidate in (content, *inner):
        if isinstance(candidate, dict):
            named = {_unwrapped(str(name)): value for name, value in candidate.items()}
            if any(name.startswith(ENCODER) for name in named):
                return named
    raise CorruptFile(
        f"{path}: expected tensors such as {ENCODER}STREAM.weight, found none", hint="give a checkpoint of SPARC's code"
    )


def _unwrapped(name: str) -> str:
    """Return a name without what data parallelism and `torch.compile` put before it."""
    while name.startswith(WRAPPERS):
        name = name.partition(".")[2]
    return name


def _tensor(state: Mapping[str, Tensor], name: str, dimensions: int, file: Path) -> Tensor:
    """Return a tensor of the state dict. Raises CorruptFile if it is missing or has other dimensions."""
    import torch

    tensor = state.get(name)
    if not isinstance(tensor, torch.Tensor) or tensor.ndim != dimensions:
        found = "none" if tensor is None else f"{getattr(tensor, 'ndim', 0)} dimensions"
        raise CorruptFile(
            f"{file}: expected {name} with {dimensions} dimensions, found {found}",
            hint="give a checkpoint of SPARC's code",
        )
    return tensor
