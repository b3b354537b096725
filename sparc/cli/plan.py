"""What an extraction will take, as a table: `sparc extract --plan`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from sparc.cli.progress import console

if TYPE_CHECKING:
    from sparc.extraction import Job


def show_plan(jobs: dict[str, dict[str, Job]]) -> None:
    """Try some samples of what the store lacks, and print what all of it will take."""
    from sparc.extraction import probe

    found = probe(job for streams in jobs.values() for job in streams.values())
    if not found:
        console.print("nothing to do: all features are in the store")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("streams", "split", "samples", "distinct", "time", "disk", "memory"):
        table.add_column(column, justify="left" if column in ("streams", "split") else "right", no_wrap=True)
    for progress, one in found:
        table.add_row(
            escape(", ".join(progress.streams)),
            progress.split,
            f"{one['samples']:,}",
            f"{one['rows']:,}",
            _duration(one["seconds"]),
            _size(one["bytes"]),
            " + ".join(_size(one[kind]) for kind in ("memory", "device_memory") if one[kind] is not None),
        )
    console.print(table)
    seconds, size = (sum(one[key] for _, one in found) for key in ("seconds", "bytes"))
    console.print(f"in all {_duration(seconds)} and {_size(size)} on disk", markup=False)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
