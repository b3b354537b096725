"""`sparc plugins`: what is installed, and what did not load."""

from __future__ import annotations

import typer
from rich.markup import escape
from rich.table import Table

from sparc.cli.progress import console
from sparc.contracts import BackboneSpec, Params

app = typer.Typer(help="See the installed streams and datasets.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """See the installed streams and datasets."""


@app.command("list")
def list_plugins() -> None:
    """List the streams and datasets that plugins offer, and the plugins that did not load.

    `width` counts a stream's features, `weights` says whether its weights are on this machine, both with the parameters
    left as they are; `-` where that takes a parameter to know. In brackets: the parameters and their values, `?` where
    one must be given.

    Example:

        sparc plugins list
    """
    from sparc.plugins import discover

    registry = discover()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("name", "kind", "width", "weights", "from", "what"):
        table.add_column(column, overflow="fold" if column == "what" else "ignore")
    for name, backbone in sorted(registry.backbones.items()):
        width = "-" if backbone.width is None else str(backbone.width)
        row = (name, f"{backbone.modality} stream", width, _weights(backbone), registry.owners["stream", name])
        table.add_row(*map(escape, row), _what(backbone.summary, backbone.params))
    for name, dataset in sorted(registry.datasets.items()):
        row = (name, "dataset", "", "", registry.owners["dataset", name])
        table.add_row(*map(escape, row), _what(dataset.summary, dataset.params))
    for name, error in registry.broken.items():
        what = f"[red]did not load: {escape(_line(error))}[/red]"
        table.add_row(escape(name), "[red]plugin[/red]", "", "", "", what)
    console.print(table)


def _weights(backbone: BackboneSpec) -> str:
    """Whether the weights are here. A plugin that fails to say must not take the listing down."""
    if backbone.has_weights is None:
        return "-"
    try:
        return "yes" if backbone.has_weights() else "no"
    except Exception as error:
        return _line(error)


def _what(summary: str, params: type[Params]) -> str:
    """The summary and, below it, the parameters as `--stream` and `--dataset` take them."""
    shown = []
    for name, field in params.model_fields.items():
        value = "?" if field.is_required() else field.default
        shown.append(name if value is None else f"{name}={value}")
    return escape(summary) + (f"\n[dim]{escape('[' + ', '.join(shown) + ']')}[/dim]" if shown else "")


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
