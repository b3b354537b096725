"""Checkpoints of a training whose latents are split over ranks: a folder in which each rank writes its own.

`torch.distributed.checkpoint` writes safetensors files, whose headers tell where each part lies in the whole tensor,
and reads them into any other split, or into one process. `progress.json` is what `state.Progress` holds, and the digest
of each file; a folder without it is not complete.
"""

from __future__ import annotations

import inspect
import json
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from sparc.errors import CorruptFile, InvalidConfig
from sparc.system.files import sha256, write_json
from sparc.system.refusals import reading, writing
from sparc.training.distributed import Ranks, collective
from sparc.training.sharding import SpaceShard, split_dim
from sparc.training.state import PROGRESS, Progress


def check_supported() -> None:
    """Raise InvalidConfig if this PyTorch can neither write nor read safetensors in parts."""
    from torch.distributed import checkpoint

    writer = getattr(checkpoint, "HuggingFaceStorageWriter", None)
    if writer is None or "save_distributed" not in inspect.signature(writer).parameters:
        raise InvalidConfig(
            f"expected PyTorch 2.9 or later for checkpoints of --shard-latents, found {torch.__version__}",
            hint="upgrade: pip install --upgrade torch; or begin a run without --shard-latents",
        )


def write_shards(path: Path, tensors: Mapping[str, Tensor], progress: Progress, space: SpaceShard) -> None:
    """Write this rank's part of a checkpoint into a folder; all ranks of a row of the mesh call this.

    Raises StorageError.
    """
    from torch.distributed import checkpoint

    ranks, temporary = space.ranks, path.with_name(f".{path.name}.tmp")
    leads = ranks.latents.number == 0
    with writing(path):
        if leads:
            for left in temporary.parent.glob(".step-*.tmp"):  # by processes that were killed
                if left.is_dir():
                    shutil.rmtree(left)
            temporary.mkdir(parents=True)
        with collective():
            dist.barrier(group=ranks.hosts)
        whole = {name: _distributed(name, tensor.detach().cpu(), space) for name, tensor in tensors.items()}
        writer = checkpoint.HuggingFaceStorageWriter(str(temporary), save_distributed=True)
        try:
            checkpoint.save(whole, storage_writer=writer, process_group=ranks.hosts)
        except checkpoint.api.CheckpointException as error:
            raise next(iter(error.failures.values()))[0] from error
        files = sorted(temporary.glob("*.safetensors"))[ranks.latents.number :: ranks.latents.size]
        digests: list[Any] = [None] * ranks.latents.size
        with collective():
            dist.all_gather_object(digests, {file.name: sha256(file) for file in files}, group=ranks.hosts)
        if leads:
            every = {name: digest for some in digests for name, digest in some.items()}
            write_json(temporary / PROGRESS, {**asdict(progress), "files": dict(sorted(every.items()))})
            if path.is_dir():
                shutil.rmtree(path)
            temporary.replace(path)


def read_shards(path: Path, tensors: Mapping[str, Tensor], space: SpaceShard | None, ranks: Ranks | None) -> None:
    """Read a checkpoint in a folder into tensors: whole ones, or with `space` those of its latents.

    All ranks call this. Raises CorruptFile in all of them if any finds damage, and as `check_supported`.
    """
    check_supported()
    damage = _damage(path, ranks)
    if ranks is None:
        is_damaged = damage is not None
    else:
        (is_damaged,) = ranks.any(damage is not None)
    if is_damaged:
        raise CorruptFile(damage or f"{path} is damaged", hint="remove that folder")
    from torch.distributed import checkpoint

    # Parts go to the host first: gloo moves no tensors of a GPU.
    hosts = {name: tensor.detach().cpu() for name, tensor in tensors.items()}
    state = {name: _distributed(name, tensor, space) if space else tensor for name, tensor in hosts.items()}
    with reading(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one process is meant
        reader, group = checkpoint.HuggingFaceStorageReader(str(path)), space.ranks.hosts if space else None
        try:
            checkpoint.load(state, storage_reader=reader, process_group=group, no_dist=space is None)
        except checkpoint.api.CheckpointException as error:
            raise CorruptFile(f"{path} does not fit this run: {error}", hint="remove that folder") from error
    for name, tensor in tensors.items():
        tensor.detach().copy_(hosts[name])


def _damage(path: Path, ranks: Ranks | None) -> str | None:
    """Return what is wrong with this rank's share of the files of a folder; None if nothing is."""
    try:
        digests = json.loads((path / PROGRESS).read_bytes())["files"]
        some = sorted(digests) if ranks is None else sorted(digests)[ranks.rank :: ranks.size]
        with reading(path):
            wrong = [name for name in some if sha256(path / name) != digests[name]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{path}: {error}"
    return f"{path / wrong[0]} is altered" if wrong else None


def _distributed(name: str, tensor: Tensor, space: SpaceShard) -> Tensor:
    """Return this rank's part as a part of the whole tensor. Both share their memory."""
    dim = split_dim(name)
    if dim is None:
        return tensor
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import DTensor, Shard

    mesh = DeviceMesh.from_group(space.ranks.hosts, "cpu")
    shape = list(tensor.shape)
    shape[dim] = space.whole.n_latents
    strides = [1]
    for size in reversed(shape[1:]):
        strides.insert(0, strides[0] * size)
    found: Tensor = DTensor.from_local(
        tensor.contiguous(), mesh, [Shard(dim)], run_check=False, shape=torch.Size(shape), stride=tuple(strides)
    )
    return found
