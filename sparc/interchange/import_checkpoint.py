"""Import a checkpoint of the paper's research code as a shared latent space."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparc.config import SpaceConfig, validated
from sparc.errors import CorruptFile, InvalidConfig, MissingData
from sparc.system.files import read_json

if TYPE_CHECKING:
    from torch import Tensor

    from sparc.storage.checkpoint import SharedLatentSpace

DECODER, ENCODER = "decoders.", "encoders."


def read_research_checkpoint(file: Path, run_config: Path) -> SharedLatentSpace:
    """Read a space from a checkpoint `file` (.pth) and the run configuration (.json) beside it.

    The space computes the research code's codes and reconstructions. That code does not normalise its inputs, so
    neither does the space (`normalization="none"`). Counters of dead latents are dropped. Pickled objects in the file
    are refused.

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
    space = SharedLatentSpace(validated(SpaceConfig, {**shape, "normalization": "none"}, what=str(run_config)))
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
    lacking = [name for name in ("n_latents", "k") if not isinstance(args.get(name), int)]
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
    """Return the state dict of a checkpoint, which may be nested in another dict, without a wrapper's `module.`."""
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many unrelated types for files it cannot read
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CorruptFile(
            f"{path} is not a file of weights alone: {reason}",
            hint="export its state_dict with torch.save, and nothing else",
        ) from error
    inner = list(content.values()) if isinstance(content, dict) else []
    for candidate in (content, *inner):
        if isinstance(candidate, dict):
            named = {str(name).removeprefix("module."): value for name, value in candidate.items()}
            if any(name.startswith(ENCODER) for name in named):
                return named
    raise CorruptFile(
        f"{path}: expected tensors such as {ENCODER}STREAM.weight, found none", hint="give a checkpoint of SPARC's code"
    )


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
