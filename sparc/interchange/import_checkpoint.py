"""Import a checkpoint of the paper's research code as a shared latent space."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparc.config import SpaceConfig, validated
from sparc.errors import CorruptFile, InvalidConfig, MissingData
from sparc.interchange.torch_files import load_weights_only
from sparc.system.files import read_json
from sparc.system.nearby import meant

if TYPE_CHECKING:
    from torch import Tensor

    from sparc.storage.checkpoint import SharedLatentSpace

ENCODER = "encoders."
WRAPPERS = ("module.", "_orig_mod.", "model.")
"""Prefixes that data parallelism, `torch.compile` and Lightning put before a name."""
_OF_STREAM = re.compile(
    r"(?P<kind>encoders|decoders)\.(?P<stream>.+)\.weight|(?:pre|latent)_biases\.(?P<biased>.+)", re.DOTALL
)
_GROUPS = (ENCODER, "decoders.", "pre_biases.", "latent_biases.")


def read_research_checkpoint(file: Path, run_config: Path) -> SharedLatentSpace:
    """Read a space from a checkpoint `file` (.pth) and the run configuration (.json) beside it.

    The space computes the research code's codes and reconstructions. That code's datasets divide each row of features
    by its norm, so the space does (`normalization="unit"`), and raw features give the same codes as normalised ones.
    Counters of dead latents are dropped. Pickled objects in the file are refused.

    Raises:
        MissingData: a file does not exist.
        CorruptFile: a file is not a checkpoint or a configuration, or tensors are missing, not finite, or have the
            wrong shape.
        InvalidConfig: sparc does not have the configuration's selection, or a parameter of the checkpoint, or the file
            has several checkpoints.
    """
    args = _arguments(run_config)
    if not file.is_file():
        raise MissingData(f"no checkpoint at {file}", hint=meant(file, "check the path", folder=False))

    import torch

    from sparc.storage.checkpoint import SharedLatentSpace

    state = _state(file)
    streams = _streams(state, file)
    widths = {stream: int(_tensor(state, f"{ENCODER}{stream}.weight", 2, file).shape[1]) for stream in streams}
    shape = {"streams": widths, "n_latents": args["n_latents"], "k": args["k"], "selection": args["topk_type"]}
    for stream, width in widths.items():  # before a space of that size is allocated
        _of_shape(state, f"{ENCODER}{stream}.weight", (args["n_latents"], width), file)
    space = SharedLatentSpace(validated(SpaceConfig, {**shape, "normalization": "unit"}, what=str(run_config)))
    with torch.no_grad():
        for position, (stream, segment) in enumerate(space.segments.items()):
            length, width = space.n_latents, widths[stream]
            for name, shape_of, target in (
                (f"{ENCODER}{stream}.weight", (length, width), space.encoders[position]),
                (f"decoders.{stream}.weight", (width, length), space.decoder[:, segment].T),
                (f"pre_biases.{stream}", (width,), space.pre_bias[segment]),
                (f"latent_biases.{stream}", (length,), space.latent_bias[position]),
            ):
                target.copy_(_of_shape(state, name, shape_of, file))
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
    """Return the state dict of a checkpoint, which may be nested in another dict, without the prefixes of wrappers.

    Raises InvalidConfig if there are several: the weights and their running mean, for example.
    """
    content = load_weights_only(path)
    nested = content.items() if isinstance(content, dict) else ()
    found: dict[str, dict[str, Tensor]] = {}
    for place, candidate in (("", content), *((str(name), inner) for name, inner in nested)):
        if isinstance(candidate, dict) and (named := _named(candidate, path)) is not None:
            found[place] = named
    if not found:
        raise CorruptFile(
            f"{path}: expected tensors such as {ENCODER}STREAM.weight, found none",
            hint="give a checkpoint of SPARC's code",
        )
    if len(found) > 1:
        raise InvalidConfig(
            f"{path}: expected one checkpoint, found {len(found)}: {', '.join(place or 'the file' for place in found)}",
            hint=f"save the one that you want: torch.save(torch.load(file)['{list(found)[-1]}'], other)",
        )
    return next(iter(found.values()))


def _named(candidate: Mapping[Any, Any], path: Path) -> dict[str, Any] | None:
    """Return a state dict by names without wrappers, or None if it is none. Raises InvalidConfig if two names agree."""
    named: dict[str, Any] = {}
    for name, value in candidate.items():
        short = str(name)
        while short.startswith(WRAPPERS):
            short = short.partition(".")[2]
        if short in named and short.startswith(_GROUPS):
            raise InvalidConfig(
                f"{path}: expected one tensor {short}, found two: the other is {name}",
                hint="save the state dict of one model",
            )
        named[short] = value
    return named if any(name.startswith(ENCODER) for name in named) else None


def _streams(state: Mapping[str, Any], path: Path) -> list[str]:
    """Return the streams that have any parameter. Raises InvalidConfig for a parameter that a space does not have."""
    found: dict[str, None] = {}
    for name in state:
        if name.startswith(_GROUPS):
            if (parts := _OF_STREAM.fullmatch(name)) is None:
                raise InvalidConfig(
                    f"{path}: expected one weight per encoder and decoder, found {name}",
                    hint="a space of sparc has no such parameter: give a checkpoint of SPARC's code",
                )
            found[parts["stream"] or parts["biased"]] = None
    return list(found)


def _of_shape(state: Mapping[str, Tensor], name: str, shape: tuple[int, ...], file: Path) -> Tensor:
    """Return a tensor of the state dict. Raises CorruptFile as `_tensor`, and if it has another shape."""
    found = _tensor(state, name, len(shape), file)
    if tuple(found.shape) != shape:
        raise CorruptFile(
            f"{file}: expected {name} of shape {shape}, found {tuple(found.shape)}",
            hint="check that the configuration of the run is this checkpoint's",
        )
    return found


def _tensor(state: Mapping[str, Tensor], name: str, dimensions: int, file: Path) -> Tensor:
    """Return a tensor of the state dict. Raises CorruptFile if it is missing, not finite or has other dimensions."""
    import torch

    tensor = state.get(name)
    if not isinstance(tensor, torch.Tensor) or tensor.ndim != dimensions:
        found = "none" if tensor is None else f"{getattr(tensor, 'ndim', 0)} dimensions"
        raise CorruptFile(
            f"{file}: expected {name} with {dimensions} dimensions, found {found}",
            hint="give a checkpoint of SPARC's code",
        )
    if tensor.layout != torch.strided or tensor.is_quantized or not tensor.is_floating_point():
        raise CorruptFile(
            f"{file}: expected {name} as floating-point numbers, found {tensor.dtype} ({tensor.layout})",
            hint="save it as x.to_dense().float()",
        )
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise CorruptFile(
            f"{file}: expected {tensor.numel():,} numbers of {name}, found a view that repeats fewer",
            hint="save it as x.contiguous()",
        )
    if wrong := int((~tensor.float().isfinite()).sum()):
        raise CorruptFile(
            f"{file}: expected finite numbers in {name}, found {wrong} of {tensor.numel()} that are "
            "not finite in float32",
            hint="the training diverged, or the file is damaged: give an earlier checkpoint",
        )
    return tensor
