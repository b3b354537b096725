"""`sparc plugins`: list the installed plugins, check them against the contract, and start new ones."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from sparc.cli.output import say
from sparc.cli.progress import Screen, console
from sparc.config import reference
from sparc.errors import InvalidConfig, PluginError
from sparc.plugins.contracts import BackboneSpec, Params
from sparc.session.data import resolve_device

_Row = tuple[str, ...]

app = typer.Typer(help="List, check and create plugins: streams and datasets.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """List, check and create plugins: streams and datasets."""


@app.command("list")
def list_plugins() -> None:
    """List the streams and datasets that plugins offer, and the plugins that did not load.

    `width` is the number of features of a stream, and `weights` says whether its weights are on this machine. Both hold
    for the default parameters; `-` means that they depend on a parameter. Brackets show the parameters with their
    defaults, and `?` for those without.

    Example:

        sparc plugins list
    """
    from sparc.plugins.registry import discover

    registry = discover()
    rows: list[tuple[_Row, list[str]]] = [(("name", "kind", "width", "weights", "from"), [])]
    for name, backbone in sorted(registry.backbones.items()):
        width = "-" if backbone.width is None else str(backbone.width)
        row: _Row = (name, f"{backbone.modality} stream", width, _weights(backbone), registry.owners["stream", name])
        rows.append((row, _description(backbone.summary, backbone.params)))
    for name, dataset in sorted(registry.datasets.items()):
        row = (name, "dataset", "-", "-", registry.owners["dataset", name])
        rows.append((row, _description(dataset.summary, dataset.params)))
    for name, error in registry.broken.items():
        rows.append(((name, "plugin", "-", "-", "-"), [f"did not load: {_first_line(error)}"]))
    wide = [max(len(row[column]) for row, _ in rows) for column in range(len(rows[0][0]))]
    for row, below in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, wide, strict=True)).rstrip()
        say(console, line, style="red" if row[1] == "plugin" else "bold")
        for one in below:
            say(console, f"    {one}", indent=2)


@app.command("new")
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name for --stream or --dataset.")],
    kind: Annotated[str, typer.Option("--kind", help="backbone (of a stream) or dataset.")] = "backbone",
    into: Annotated[Path, typer.Option("--into", help="Folder in which to create the package's folder.")] = Path(),
) -> None:
    """Create a plugin package to start from: it installs, passes its tests, and marks where your code goes.

    Examples:

        sparc plugins new my-model --kind backbone

        sparc plugins new my-data --kind dataset
    """
    from sparc.plugins.registry import discover
    from sparc.plugins.scaffold import new_plugin

    owner = discover().owners.get(("stream" if kind == "backbone" else kind, name))
    if owner is not None:
        raise InvalidConfig(f"'{name}' is already offered by {owner}", hint="choose another name")
    folder = new_plugin(name, kind, into)
    where = "" if kind == "backbone" else "[root=FOLDER]"
    say = partial(console.print, markup=False, soft_wrap=True)
    lines = (f"pip install -e '{folder}[dev]'", f"sparc plugins check '{name}{where}'", f"python -m pytest {folder}")
    say("\n  ".join((f"{folder}\n", *lines)))


@app.command("check")
def check_plugin(
    name: Annotated[
        str, typer.Argument(metavar="NAME[KEY=VALUE,...]", help="Stream or dataset; see sparc plugins list.")
    ],
    device: Annotated[str | None, typer.Option("--device", help="auto (CUDA if available), cpu, cuda, ...")] = None,
) -> None:
    """Check that a stream or dataset keeps the plugin contract, and show what to change if it does not.

    Examples:

        sparc plugins check sentence

        sparc plugins check image-folder[root=photos]
    """
    from sparc.plugins.registry import checked_params, discover

    registry, ref = discover(), reference(name)
    spec = registry.either(ref.name)
    if isinstance(spec.params, type) and issubclass(
        spec.params, Params
    ):  # else the plugin breaks a promise, not the user
        checked_params(spec, ref)
    say = partial(console.print, markup=False, soft_wrap=True)
    promises = broken = 0
    with Screen() as screen:
        resolved = resolve_device(device or "auto", screen)
        screen.loading(ref.name)
        from sparc.plugins.checks.backbone import backbone_outcomes
        from sparc.plugins.checks.dataset import dataset_outcomes

        if isinstance(spec, BackboneSpec):
            found = backbone_outcomes(spec, ref.params, device=resolved)
        else:
            found = dataset_outcomes(spec, ref.params)
        for one in found:
            promises += 1
            screen.close()
            if one.error is None:
                say(f"ok      {one.promise}")
            else:
                broken += 1
                say(f"broken  {one.promise}\n        found:  {one.error.message}\n        change: {one.error.hint}")
            screen.waiting(f"checking {ref.name}")
    if broken:
        raise PluginError(
            f"'{ref.name}' breaks {broken} of the {promises} promises that were checked",
            hint="the lines above say what to change; the check ends at a promise that later ones depend on",
        )


def _weights(backbone: BackboneSpec) -> str:
    """Return yes, no or -, or the error of a plugin that cannot tell: one plugin must not break the listing."""
    if backbone.has_weights is None:
        return "-"
    try:
        return "yes" if backbone.has_weights() else "no"
    except Exception as error:
        return _first_line(error)


def _description(summary: str, params: type[Params]) -> list[str]:
    """Return the summary and the parameters, as `--stream` and `--dataset` take them, one line each."""
    shown = []
    for name, field in params.model_fields.items():
        value = "?" if field.is_required() else field.default
        shown.append(name if value is None else f"{name}={value}")
    return [line for line in (summary, f"[{', '.join(shown)}]" if shown else "") if line]


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
