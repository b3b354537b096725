"""Estimated costs: of an extraction, `sparc extract --plan`, and of a training, `sparc train --dry-run`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from sparc.cli.progress import console
from sparc.errors import Problems, counted
from sparc.extraction import Progress
from sparc.session.rehearsal import Rehearsal


def print_plan(found: Sequence[tuple[Progress, dict[str, Any]]], known: Problems | None = None) -> None:
    """Print the time, disk and memory that the missing features will take, and the samples that cannot be read.

    known: what the dataset says of its samples; samples that were tried for the plan are in `found`.
    """
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
            duration(one["seconds"]),
            decimal(int(one["bytes"])),
            " + ".join(decimal(int(one[kind])) for kind in ("memory", "device_memory") if one[kind] is not None),
        )
    console.print(table)
    _print_problems(found, known or Problems())
    seconds, size = (sum(one[key] for _, one in found) for key in ("seconds", "bytes"))
    console.print(f"total: {duration(seconds)} and {decimal(int(size))} on disk", markup=False)


def _print_problems(found: Sequence[tuple[Progress, dict[str, Any]]], known: Problems) -> None:
    stops = "an extraction stops" + (" without --skip-bad" if not known.grave else "")
    lists = [(f"{counted(len(known), 'problem')} of the dataset, at which {stops}:", known.lines())]
    lists += [
        (
            f"{one['unreadable']:,} of the {one['tried']:,} samples of {progress.split} that were tried cannot be "
            "read, and an extraction without --skip-bad stops:",
            one["problems"],
        )
        for progress, one in found
        if one["unreadable"]
    ]
    for which, lines in lists:
        if lines:
            console.print(which, markup=False)
        for line in lines:
            console.print(f"  {line}", markup=False, soft_wrap=True)


def print_rehearsal(found: Rehearsal) -> None:
    """Print that two steps of everything worked, and what all steps will take."""
    print_plan(found.extraction)
    seconds = found.seconds_per_step * found.steps
    console.print(
        f"training: two steps on {found.samples:,} samples worked; {found.steps:,} steps at "
        f"{1000 * found.seconds_per_step:.0f} ms take {duration(seconds)}, and a checkpoint has "
        f"{decimal(found.checkpoint_bytes)}\n"
        f"saving, resuming and evaluating ({found.evaluated} held-out samples) worked; nothing was written",
        markup=False,
    )


def duration(seconds: float) -> str:
    """Return seconds in the unit that suits them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
