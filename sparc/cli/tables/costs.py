"""The costs of the commands of a configuration, `sparc plan`."""

from __future__ import annotations

from rich.filesize import decimal
from rich.table import Table

from sparc.cli.progress import console
from sparc.cli.tables.extraction import duration
from sparc.session.planning import Plan


def print_costs(found: Plan) -> None:
    """Print a line for each command, then what was measured, and what the machine has too little of."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("command", "time", "disk", "at most", "memory", "on a GPU"):
        table.add_column(column, justify="left" if column == "command" else "right", no_wrap=True)
    costs = {"sparc extract": found.extract, "sparc train": found.train, "sparc evaluate": found.evaluate}
    for name, cost in costs.items():
        if cost is not None:
            sizes = (cost.disk, cost.disk_at_most, cost.memory, cost.device_memory)
            table.add_row(name, duration(cost.seconds), *("?" if size is None else decimal(size) for size in sizes))
    console.print(
        f"{found.samples:,} training samples, {found.held_out:,} held-out samples, {found.n_latents:,} latents, "
        f"{found.steps:,} steps on {found.device}",
        markup=False,
    )
    console.print(table)
    if found.extract is None:
        console.print("the store has all features, so nothing is to be extracted")
    else:
        console.print("sparc train extracts first, if sparc extract was not called: add both times")
    console.print("measured:")
    for line in found.measured:
        console.print(f"  {line}", markup=False, soft_wrap=True)
    for line in found.lacking:
        console.print(f"too little: {line}", markup=False, soft_wrap=True)
