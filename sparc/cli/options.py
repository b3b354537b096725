"""Command line options, generated from the fields of the models in `sparc.config.options`."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer

from sparc.config import Options, option_name
from sparc.config.wording import OPTION, spelled_as

RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="Directory of a run.")]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="TOML file with any of these options, by name, without the dashes.")
]
PANELS = {
    "DataOptions": "Streams and data",
    "PlaceOptions": "Places",
    "MeasureOptions": "Other data, and imported spaces",
    "TimeOptions": "Places",
    "ParallelOptions": "Training",
    "SpaceOptions": "Space",
    "TrainingConfig": "Training",
    "ExtractionOptions": "Extraction",
}
"""Titles of the groups in `--help`, by the model that declares the options."""


def with_options(
    model: type[Options], *, without: Sequence[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of `model`.

    Its parameter `given` receives the options that stand on the command line, by option name. Its other parameters
    become options as usual. `without` names fields to leave out.
    """
    fields = {name: parameter(model, name) for name in model.model_fields if name not in without}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = {
            name: one.replace(kind=one.KEYWORD_ONLY)
            for name, one in inspect.signature(command, eval_str=True).parameters.items()
            if name != "given"
        }

        @functools.wraps(command)
        def called(**values: Any) -> None:
            given = {option_name(name): values.pop(name) for name in fields}
            with spelled_as(OPTION):
                command(given={name: value for name, value in given.items() if value not in (None, [])}, **values)

        parameters = sorted(
            [*fields.values(), *own.values()], key=lambda one: one.default is not inspect.Parameter.empty
        )
        called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        called.__annotations__ = {one.name: one.annotation for one in parameters}
        return called

    return decorate


def parameter(model: type[Options], field: str) -> inspect.Parameter:
    """Return the parameter of a Typer command for a field. Its default, None, means that the option was not given."""
    info, hint = model.model_fields[field], typing.get_type_hints(model, include_extras=True)[field]
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    help_text = info.description or ""
    if extra.get("fitted"):
        help_text += f" Default: by the number of samples, at the paper's {info.default}."
    elif isinstance(info.default, str | int | float) and not isinstance(info.default, bool) and info.default != "auto":
        help_text += f" Default: {info.default}."
    metavars = {Path: "PATH", int: "INTEGER", float: "NUMBER"}
    metavar = next((name for kind, name in metavars.items() if kind in _plain(hint)), None)
    shown = typer.Option(
        f"--{option_name(field)}",
        metavar=str(extra.get("metavar") or "") or metavar,
        help=help_text,
        rich_help_panel=PANELS.get(_declaring(model, field)),
    )
    kind = _kind(hint)
    return inspect.Parameter(field, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, shown])


def _declaring(model: type[Options], field: str) -> str:
    """Return the name of the class that declares the field."""
    return next(one.__name__ for one in model.__mro__ if field in inspect.get_annotations(one))


def _kind(hint: Any) -> Any:
    """Return the type for Typer: an optional plain type, or an optional list of one."""
    kinds = _plain(hint)
    # Typer would turn an empty path into the current folder, and its errors name neither bounds nor what it found.
    kind = bool if bool in kinds else str
    return list[kind] | None if Sequence in kinds else kind | None  # type: ignore[valid-type]


def _plain(hint: Any) -> set[Any]:
    """Return all plain types in a type hint, with Sequence if it contains one."""
    origin = get_origin(hint)
    if origin is Annotated:
        return _plain(get_args(hint)[0])
    if origin in (Union, types.UnionType):
        return set().union(*map(_plain, get_args(hint)))
    if origin is Literal:
        return {type(one) for one in get_args(hint)}
    if origin is Sequence:
        return {Sequence, *_plain(get_args(hint)[0])}
    return set() if hint is type(None) else {hint}
