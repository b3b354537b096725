"""`sparc plugins`: what is installed, and what did not load."""

from __future__ import annotations

import typer
from rich.markup import escape
from rich.table import Table

from sparc.cli.progress import console

app = typer.Typer(help="See the installed streams and datasets.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """See the installed streams and datasets."""


@app.command("list")
def list_plugins() -> None:
    """List the streams and datasets that plugins offer, and the plugins that did not load.

    Example:

        sparc plugins list
    """
    from sparc.plugins import discover

    registry = discover()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("name", "kind", "from", "what"):
        table.add_column(column, overflow="fold" if column == "what" else "ignore")
    for name, backbone in sorted(registry.backbones.items()):
        row = (name, f"{backbone.modality} stream", registry.owners["stream", name], backbone.summary)
        table.add_row(*map(escape, row))
    for name, dataset in sorted(registry.datasets.items()):
        table.add_row(*map(escape, (name, "dataset", registry.owners["dataset", name], dataset.summary)))
    for name, error in registry.broken.items():
        table.add_row(escape(name), "[red]plugin[/red]", "", f"[red]did not load: {escape(_line(error))}[/red]")
    console.print(table)


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
