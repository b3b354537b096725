"""Look at what sparc needs from this machine and this installation, before a long run fails for lack of it."""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import NamedTuple

from sparc.errors import SparcError
from sparc.plugins.registry import discover
from sparc.storage.provenance import library_versions
from sparc.system.cache import cache_dir
from sparc.system.files import check_writable
from sparc.system.memory import available_bytes
from sparc.system.refusals import file_limit

SHARED_MEMORY = "/dev/shm"
ENOUGH_SHARED = 1 << 30
"""Bytes of shared memory below which batches of images take the slower way through pipes."""
ENOUGH_DISK = 5 << 30
ENOUGH_MEMORY = 2 << 30
ENOUGH_FILES = 1024


class Finding(NamedTuple):
    """One thing that was looked at."""

    level: str
    """`ok`, `warning`, or `error`: work that needs this will fail."""
    subject: str
    text: str
    hint: str = ""


def findings() -> Iterator[Finding]:
    """Look at versions, device, libraries that must fit each other, memory, disks, caches and plugins, one by one."""
    versions = library_versions()
    yield Finding("ok", "versions", ", ".join(f"{name} {found}" for name, found in versions.items()))
    yield from _device()
    yield from _torchvision()
    yield from _memory()
    yield from _folders()
    yield from _plugins()


def _device() -> Iterator[Finding]:
    import torch

    threads = f"{torch.get_num_threads()} threads of {os.cpu_count()} processors"
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(number)
            name = torch.cuda.get_device_name(number)
            yield Finding("ok", "device", f"cuda:{number}, {name}, {_gb(free)} of {_gb(total)} free")
    elif torch.version.cuda is not None and Path("/dev/nvidiactl").exists():
        yield Finding(
            "error",
            "device",
            f"a GPU is there, and PyTorch for CUDA {torch.version.cuda} cannot use it; the CPU is used, {threads}",
            "compare that version with the driver's, nvidia-smi; install PyTorch for an older CUDA, or a newer driver",
        )
    elif torch.version.cuda is None and Path("/dev/nvidiactl").exists():
        yield Finding(
            "warning",
            "device",
            f"a GPU is there, and this PyTorch was built without CUDA; the CPU is used, {threads}",
            "install PyTorch for CUDA: https://pytorch.org/get-started",
        )
    else:
        yield Finding("ok", "device", f"cpu, {threads}; no GPU")


def _torchvision() -> Iterator[Finding]:
    """Compare torchvision, whose binaries fit one version of PyTorch only, with the PyTorch that is installed."""
    try:
        vision, torch = version("torchvision"), version("torch")
        needed = next((one for one in requires("torchvision") or () if one.startswith("torch==")), "")
    except PackageNotFoundError:
        yield Finding("warning", "torchvision", "it is not installed", "timm needs it: pip install torchvision")
        return
    wanted, build = needed.removeprefix("torch=="), torch.partition("+")[2]
    advice = "install both together: pip install --upgrade torch torchvision"
    if wanted and wanted.partition("+")[0] != torch.partition("+")[0]:
        yield Finding("error", "torchvision", f"{vision} was built for torch {wanted}, found torch {torch}", advice)
        return
    if (other := vision.partition("+")[2]) != build and other and build:
        yield Finding("error", "torchvision", f"{vision} and torch {torch} were built for different devices", advice)
        return
    try:
        importlib.import_module("torchvision")
    except Exception as error:  # of its binaries, such as a missing operator
        yield Finding("error", "torchvision", f"{vision} does not load: {_line(error)}", advice)
        return
    yield Finding("ok", "torchvision", f"{vision} fits torch {torch}")


def _memory() -> Iterator[Finding]:
    free = available_bytes()
    level = "ok" if free >= ENOUGH_MEMORY else "warning"
    yield Finding(level, "memory", f"{_gb(free)} free", "" if level == "ok" else "close other programs")
    if os.path.isdir(SHARED_MEMORY):
        shared = shutil.disk_usage(SHARED_MEMORY)
        if shared.total < ENOUGH_SHARED:
            yield Finding(
                "warning",
                "shared memory",
                f"{SHARED_MEMORY} has {_mb(shared.total)}: images go through pipes, which is slower",
                "in Docker, give it room: docker run --shm-size=2g, or --ipc=host",
            )
        else:
            yield Finding("ok", "shared memory", f"{SHARED_MEMORY}, {_gb(shared.free)} of {_gb(shared.total)} free")
    limit = file_limit()
    if limit is not None and limit < ENOUGH_FILES:
        yield Finding("warning", "open files", f"at most {limit}", "raise the limit: ulimit -n 4096")


def _folders() -> Iterator[Finding]:
    from huggingface_hub import constants

    offline = ", and HF_HUB_OFFLINE is set: nothing is downloaded" if constants.HF_HUB_OFFLINE else ""
    for subject, folder, variable, more in (
        ("cache", cache_dir(), "SPARC_CACHE", ""),
        ("hub cache", Path(constants.HF_HUB_CACHE), "HF_HOME", offline),
    ):
        try:
            check_writable(folder)
            free = shutil.disk_usage(folder).free
        except (SparcError, OSError) as error:
            yield Finding(
                "error", subject, f"{folder}: {_line(error)}", f"point {variable} to a folder that can be written"
            )
            continue
        level = "ok" if free >= ENOUGH_DISK else "warning"
        hint = "" if level == "ok" else f"free some space, or point {variable} to another disk"
        yield Finding(level, subject, f"{folder}, {_gb(free)} free{more}", hint)
    partial = list(Path(constants.HF_HUB_CACHE).glob("*/blobs/*.incomplete"))
    if partial:
        yield Finding(
            "warning",
            "hub cache",
            f"{len(partial)} downloads are not complete, such as {partial[0].parent.parent.name}",
            "they go on when they are needed; or remove the files *.incomplete",
        )


def _plugins() -> Iterator[Finding]:
    try:
        registry = discover()
    except SparcError as error:
        yield Finding("error", "plugins", error.message, error.hint)
        return
    found = f"{len(registry.backbones)} streams and {len(registry.datasets)} datasets"
    if registry.backbones:
        yield Finding("ok", "plugins", found)
    else:
        yield Finding(
            "error", "plugins", found, "install sparc: pip install sparc-sae, or pip install -e . in a checkout"
        )
    for name, broken in registry.broken.items():
        why = getattr(broken, "hint", "") or "reinstall or uninstall that plugin"
        yield Finding("error", "plugins", f"'{name}' does not load: {type(broken).__name__}: {_line(broken)}", why)


def _line(error: Exception) -> str:
    return " ".join(str(getattr(error, "message", error)).split())[:200]


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB"


def _mb(size: float) -> str:
    return f"{size / 1e6:.0f} MB"
