"""`sparc extract`, and the extraction that `sparc train` does first."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from rich.markup import escape

from sparc.cli.options import (
    Config,
    DataRoot,
    Dataset,
    Device,
    SkipBad,
    Store,
    Streams,
    dataset_ref,
    resolve,
    resolve_device,
    store_root,
)
from sparc.cli.progress import Bar, console

if TYPE_CHECKING:
    from sparc.config import RunOptions
    from sparc.extract import Job, Progress
    from sparc.plugins import Registry


def extract(
    stream: Streams = None,
    dataset: Dataset = None,
    data_root: DataRoot = None,
    store: Store = None,
    device: Device = None,
    skip_bad: SkipBad = None,
    config: Config = None,
) -> None:
    """Extract the features of a dataset into the store, as `sparc train` does first.

    What the store has is not computed again; an interrupted extraction goes on where it stopped.

    Examples:

        sparc extract

        sparc extract --stream dinov2 --stream clip-img --stream clip-txt --dataset image-folder --data-root photos
    """
    from sparc.plugins import discover

    registry = discover()
    said = {
        "stream": stream,
        "dataset": dataset,
        "data-root": data_root,
        "store": store,
        "device": device,
        "skip-bad": skip_bad,
    }
    options = resolve(said, config, registry)
    jobs = extract_missing(options, registry, resolve_device(options.device))
    for streams in jobs.values():
        for job in streams.values():
            console.print(str(job.directory), soft_wrap=True, markup=False)


def extract_missing(options: RunOptions, registry: Registry, device: str) -> dict[str, dict[str, Job]]:
    """Extract what the store lacks, showing progress; returns all jobs, split to stream to job."""
    from sparc.extract import extract as run
    from sparc.extract import plan

    jobs = plan(
        registry,
        dataset_ref(options),
        options.stream,
        root=store_root(options),
        device=device,
        skip_bad=options.skip_bad,
    )
    flat = [job for streams in jobs.values() for job in streams.values()]
    there = sum(job.done for job in flat)
    if there:
        console.print(f"[dim]features: {there} of {len(flat)} are in the store[/dim]")
    with contextlib.ExitStack() as stack:
        run(flat, _Show(stack))
    return jobs


class _Show:
    """A bar for each stream and split that is extracted, one after another."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self._bar: Bar | None = None
        self._of: tuple[str, str] | None = None

    def __call__(self, progress: Progress) -> None:
        if not progress.total:  # the backbone is being loaded
            return
        if self._of != (progress.stream, progress.split) or self._bar is None:
            self._stack.close()
            self._of = progress.stream, progress.split
            title = escape(f"extract {progress.stream} {progress.split}")
            self._bar = self._stack.enter_context(Bar(title, "samples"))
        self._bar.update(progress.done, progress.total)
        if progress.skipped:
            some = ", ".join(progress.skipped[:3]) + (", ..." if len(progress.skipped) > 3 else "")
            console.print(
                f"[yellow]skipped {len(progress.skipped)} samples that could not be read in "
                f"{escape(progress.stream)}: {escape(some)}[/yellow]",
                soft_wrap=True,
            )
