"""`sparc extract`, and the extraction that `sparc train` does first."""

from __future__ import annotations

import contextlib
import os
import re
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from sparc.cli.options import (
    Compile,
    Config,
    DataRoot,
    Dataset,
    Device,
    Precision,
    SkipBad,
    Store,
    StoreDtype,
    Streams,
    resolve,
    said_of,
)
from sparc.cli.plan import show_plan
from sparc.cli.progress import Bar, console
from sparc.errors import InvalidConfig
from sparc.session_options import jobs_of, resolve_device

if TYPE_CHECKING:
    from sparc.config import RunConfig
    from sparc.extraction import Job, Progress
    from sparc.plugins.registry import Registry

Part = tuple[int, int]
WHOLE: Part = (0, 1)


def extract(
    stream: Streams = None,
    dataset: Dataset = None,
    data_root: DataRoot = None,
    store: Store = None,
    device: Device = None,
    precision: Precision = None,
    store_dtype: StoreDtype = None,
    compile_: Compile = None,
    skip_bad: SkipBad = None,
    tokens: Annotated[
        str | None, typer.Option("--tokens", help="patch: store the features of image patches too; needs much disk.")
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            "--shard",
            metavar="I/N",
            help="Be process I, from 0, of N that share the work. torchrun says it by itself.",
        ),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what it will take, from a few samples, and write nothing.")
    ] = False,
    config: Config = None,
) -> None:
    """Extract the features of a dataset into the store, as `sparc train` does first.

    What the store has is not computed again; an interrupted extraction goes on where it stopped. Each image is read
    once for all image streams, and what several samples show is computed once.

    Examples:

        sparc extract

        sparc extract --stream dinov2 --stream clip-img --stream clip-txt --dataset image-folder --data-root photos

        sparc extract --plan --stream dinov2 --dataset coco --data-root coco

        torchrun --nproc-per-node 2 --no-python sparc extract --config run.toml
    """
    said = said_of(locals())
    from sparc.plugins.registry import discover

    registry = discover()
    options = resolve(said, config, registry)
    if options.features is not None:
        raise InvalidConfig("imported features are not extracted, found --features", hint="sparc train --config FILE")
    patches = _patches(tokens, options, registry)
    part = _part(shard)
    resolved = resolve_device(_device_of_rank(options.device, part))
    if plan:
        show_plan(jobs_of(options, registry, resolved, tokens=patches))
        return
    jobs = extract_missing(options, registry, resolved, part, tokens=patches)
    for streams in jobs.values():
        for job in streams.values():
            state = "" if job.done else "  (other processes are still at work)"
            console.print(f"{job.directory}{state}", soft_wrap=True, markup=False)


def extract_missing(
    options: RunConfig, registry: Registry, device: str, part: Part = WHOLE, *, tokens: bool = False
) -> dict[str, dict[str, Job]]:
    """Extract what the store lacks, showing progress; returns all jobs, split to stream to job."""
    from sparc.extraction import extract as run

    jobs = jobs_of(options, registry, device, tokens=tokens)
    flat = [job for streams in jobs.values() for job in streams.values()]
    there = sum(job.done for job in flat)
    if there:
        console.print(f"[dim]features: {there} of {len(flat)} are in the store[/dim]")
    with contextlib.ExitStack() as stack:
        run(flat, _Show(stack), part=part)
    return jobs


def _patches(tokens: str | None, options: RunConfig, registry: Registry) -> bool:
    """Whether features of patches are asked for. Raises InvalidConfig."""
    if tokens not in (None, "patch"):
        raise InvalidConfig(f"--tokens: expected patch, found '{tokens}'", hint="--tokens patch, or leave it out")
    modalities = {registry.backbone(stream.name).modality for stream in options.stream}
    if tokens and modalities and "image" not in modalities:
        raise InvalidConfig("--tokens patch: none of the streams sees images", hint="add one, or leave --tokens out")
    return tokens is not None


def _part(shard: str | None) -> Part:
    """Which process of how many this is: by --shard, else by what torchrun says. Raises InvalidConfig."""
    if shard is None:
        if not {"RANK", "WORLD_SIZE"} <= os.environ.keys():
            return WHOLE
        shard = f"{os.environ['RANK']}/{os.environ['WORLD_SIZE']}"
    said = re.fullmatch(r"(\d+)/(\d+)", shard)
    if said is None or int(said[1]) >= int(said[2]):
        raise InvalidConfig(f"--shard: expected I/N with I below N, found '{shard}'", hint="--shard 0/4, ..., 3/4")
    return int(said[1]), int(said[2])


def _device_of_rank(device: str, part: Part) -> str:
    """Under torchrun each process of a machine has a GPU of its own."""
    import torch

    local = os.environ.get("LOCAL_RANK")
    wanted = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    return f"cuda:{local}" if wanted and local is not None and part[1] > 1 else device


class _Show:
    """A bar for the streams of a split that are extracted together, then what their time went into."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self._bar: Bar | None = None
        self._of: Any = None

    def __call__(self, progress: Progress) -> None:
        if not progress.total:  # backbones are being loaded
            return
        if self._of != (progress.streams, progress.split) or self._bar is None:
            self._stack.close()
            self._of = progress.streams, progress.split
            title = escape(f"extract {', '.join(progress.streams)} {progress.split}")
            self._bar = self._stack.enter_context(Bar(title, "samples"))
        if not progress.finished:
            self._bar.update(progress.done, progress.total, f"waits: {shares(progress.spent)}")
            return
        console.print(f"[dim]{bottleneck(progress.spent)}[/dim]")
        if progress.skipped:
            some = ", ".join(progress.skipped[:3]) + (", ..." if len(progress.skipped) > 3 else "")
            console.print(
                f"[yellow]skipped {len(progress.skipped)} samples that could not be read in "
                f"{escape(', '.join(progress.streams))}: {escape(some)}[/yellow]",
                soft_wrap=True,
            )


BOTTLENECK = {
    "data": "reading and preprocessing samples",
    "device": "the backbones",
    "disk": "writing features",
}


def bottleneck(spent: dict[str, float]) -> str:
    """What an extraction spent its time waiting for, and most of all."""
    return f"  waited for {shares(spent)}: the bottleneck was {BOTTLENECK[max(spent, key=spent.__getitem__)]}"


def shares(spent: dict[str, float]) -> str:
    """Shares of the time, by what it went into."""
    total = sum(spent.values()) or 1.0
    return ", ".join(f"{kind} {seconds / total:.0%}" for kind, seconds in spent.items())
