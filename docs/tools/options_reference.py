"""Writes docs/reference/options.md from the fields of the options: python docs/tools/options_reference.py"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from sparc.ablation.grid import AXES
from sparc.config import (
    AttachOptions,
    DataOptions,
    DetachOptions,
    EncodeOptions,
    EvaluateOptions,
    ExploreOptions,
    ExtractionOptions,
    ExtractOptions,
    InputOptions,
    LocalizeOptions,
    Options,
    ParallelOptions,
    PlaceOptions,
    RunConfig,
    SearchOptions,
    SpaceOptions,
    TimeOptions,
    TrainingConfig,
    option_name,
)

PAGE = Path(__file__).parent.parent / "reference" / "options.md"
SECTIONS: dict[type[Options], tuple[str, str]] = {
    DataOptions: ("Streams and data", "Options of `sparc train`, `extract`, `ablate` and `complete`."),
    PlaceOptions: (
        "Places",
        "Options of `sparc train`, `ablate`, `evaluate`, `complete`, `attach`; `extract`, `explore`, `encode` and "
        "`search` lack `--features`.",
    ),
    SpaceOptions: ("Space", "Options of `sparc train` and `ablate`."),
    TrainingConfig: ("Training", "Options of `sparc train` and `ablate`."),
    ParallelOptions: ("Several processes", "An option of `sparc train`, which [torchrun](../scaling.md) starts."),
    ExtractionOptions: ("Extraction", "Options of `sparc train`, `extract` and `ablate`."),
    RunConfig: ("Run", "An option of `sparc train`. The `--out` of `sparc ablate` is the directory of all its runs."),
    TimeOptions: ("Time", "An option of `sparc train`, `extract`, `ablate`, `evaluate` and `attach`."),
    AttachOptions: ("`sparc attach`", "Beside the options of *Places*. Options of training are those of the run."),
    DetachOptions: ("`sparc detach`", ""),
    ExtractOptions: ("`sparc extract`", "Beside the options of *Streams and data*, *Places* and *Extraction*."),
    EvaluateOptions: ("`sparc evaluate`", "Beside the options of *Places*."),
    ExploreOptions: ("`sparc explore`", "Beside the options of *Places*."),
    InputOptions: ("Inputs", "Options of `sparc encode` and `search`."),
    EncodeOptions: ("`sparc encode`", "Beside the options of *Inputs* and *Places*."),
    SearchOptions: ("`sparc search`", "Beside the options of *Inputs* and *Places*."),
    LocalizeOptions: ("`sparc localize`", ""),
}
"""For each model its title, and the commands that have its options."""
PLAIN = {bool: "flag", int: "integer", float: "number", str: "text", Path: "path"}
BOUNDS = {"gt": "> {}", "ge": "≥ {}"}
INTRODUCTION = f"""# Options

Made from the fields in `sparc/config/options.py` by `python docs/tools/options_reference.py`; a test compares.

An option has one name everywhere: `n_latents` in Python is `--n-latents` on the command line and `n-latents` in a TOML
file. Only `lambda` differs: Python calls it `lambda_`, since `lambda` is a keyword there. `sparc.train`,
`sparc.extract` and the other functions take the options of the commands with the same names, and `sparc.RunConfig`
holds those of `sparc train`.

An option that is not given comes from the file that `--config` names, else from the defaults of the dataset, else from
this page. The defaults here are those of the recipe `sparc`; `--recipe paper` sets the paper's. Some
follow the [number of training samples](../how-to/train.md#settings-that-fit-the-samples).

A grid of `sparc ablate` may vary these:
{", ".join(f"`{name}`" for name in AXES)}.
"""


def page() -> str:
    """Return the page: a table for each model, a row for each field that the model declares itself."""
    return "\n".join([INTRODUCTION, *(_section(model) for model in SECTIONS)])


def _section(model: type[Options]) -> str:
    title, commands = SECTIONS[model]
    head = ["| option | in Python | value | default | |", "| --- | --- | --- | --- | --- |"]
    return "\n".join([f"## {title}\n", *([f"{commands}\n"] if commands else []), *head, *_rows(model)]) + "\n"


def _rows(model: type[Options]) -> Iterator[str]:
    hints = typing.get_type_hints(model, include_extras=True)
    for field in inspect.get_annotations(model):
        if field in model.model_fields:
            info = model.model_fields[field]
            meaning = (info.description or "").replace("|", "\\|")
            value = _value(info, hints[field])
            yield f"| `--{option_name(field)}` | `{field}` | {value} | {_default(info)} | {meaning} |"


def _value(info: FieldInfo, hint: Any) -> str:
    """Return what may be given: choices, the form of a text, or a type with its bounds."""
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    if literal := _literal(hint):
        return ", ".join(f"`{choice}`" for choice in get_args(literal))
    if extra.get("metavar"):
        return f"`{extra['metavar']}`"
    bounds = [
        text.format(getattr(one, name)) for one in info.metadata for name, text in BOUNDS.items() if hasattr(one, name)
    ]
    return " ".join([_plain(hint), *bounds])


def _literal(hint: Any) -> Any:
    """Return the Literal in a type hint, or None."""
    return hint if get_origin(hint) is Literal else next(filter(None, map(_literal, get_args(hint))), None)


def _plain(hint: Any) -> str:
    """Return the name of the plain type. Where text or a Path is accepted, it is a path."""
    kinds = _kinds(hint)
    return next(name for kind, name in reversed(PLAIN.items()) if kind in kinds)


def _kinds(hint: Any) -> set[Any]:
    if get_origin(hint) is Annotated:
        return _kinds(get_args(hint)[0])
    parts = get_args(hint)
    return {get_origin(hint)}.union(*map(_kinds, parts)) if parts else {hint}


def _default(info: FieldInfo) -> str:
    """Return the default; empty without one, or if the help states it."""
    if info.default is None or info.default is False or "Default:" in (info.description or ""):
        return ""
    if isinstance(info.default, Sequence) and not info.default:
        return ""
    if isinstance(info.json_schema_extra, dict) and info.json_schema_extra.get("fitted"):
        return f"`{info.default}`, or what [fits the samples](../how-to/train.md#settings-that-fit-the-samples)"
    return f"`{info.default}`"


def write() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    write()
