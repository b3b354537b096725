"""Writes sparc/config/signatures.py from the option models: python docs/tools/signatures.py"""

from __future__ import annotations

import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from sparc.config import (
    AttachOptions,
    CompleteOptions,
    DetachOptions,
    EncodeOptions,
    EvaluateOptions,
    ExploreOptions,
    ExtractOptions,
    LocalizeOptions,
    Options,
    RunConfig,
    SearchOptions,
)

FILE = Path(__file__).parent.parent.parent / "sparc" / "config" / "signatures.py"
MODELS: dict[str, type[Options]] = {
    "RunArguments": RunConfig,
    "ExtractArguments": ExtractOptions,
    "CompleteArguments": CompleteOptions,
    "AttachArguments": AttachOptions,
    "DetachArguments": DetachOptions,
    "EvaluateArguments": EvaluateOptions,
    "ExploreArguments": ExploreOptions,
    "LocalizeArguments": LocalizeOptions,
    "EncodeArguments": EncodeOptions,
    "SearchArguments": SearchOptions,
}
WIDER = {("RunArguments", "features"): "str | Path | Mapping[str, Any] | None"}
"""Types of arguments that a verb takes in more forms than the option has: `sparc.train` keeps arrays in the store."""
HEAD = '''"""Keyword arguments of `sparc.train` and the other verbs, for editors and type checkers.

`python docs/tools/signatures.py` generates this file from `sparc.config.options`, and a test compares the two.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

from sparc.config.references import PluginRef
'''


def page(models: dict[str, type[Options]] = MODELS) -> str:
    """Return the module's text: a TypedDict for each model, a key for each field, with its help."""
    return "\n\n".join([HEAD, *(_typed_dict(name, model) for name, model in models.items())])


def _typed_dict(name: str, model: type[Options]) -> str:
    parent = next((other for other, base in MODELS.items() if other != name and base in model.__mro__), None)
    inherited = MODELS[parent].model_fields if parent else {}
    lines = [
        f"class {name}({parent or 'TypedDict'}, total=False):",
        f'    """Arguments with the fields of `{model.__name__}`."""',
        "",
    ]
    hints = typing.get_type_hints(model, include_extras=True)
    for field, info in model.model_fields.items():
        if field not in inherited:
            kind = WIDER.get((name, field), written(hints[field]))
            lines += [f"    {field}: {kind}", *_wrapped(info.description or "")]
    return "\n".join(lines) + "\n"


def _wrapped(help: str) -> list[str]:
    """The help as a docstring, in lines of at most 120 columns."""
    lines, line = [], '    """'
    for word in f'{help}"""'.split():
        if len(line) + 1 + len(word) > 120:
            lines.append(line)
            line = f"    {word}"
        else:
            line += word if line.endswith('"""') and not lines else f" {word}"
    return [*lines, line]


def written(kind: Any) -> str:
    """Return a type as source text, without pydantic's annotations."""
    origin = get_origin(kind)
    if origin is Annotated:
        return written(get_args(kind)[0])
    if origin in (Union, types.UnionType):
        parts = [written(one) for one in get_args(kind)]
        return " | ".join(dict.fromkeys(parts))
    if origin is Literal:
        return f"Literal[{', '.join(repr(one).replace(chr(39), chr(34)) for one in get_args(kind))}]"
    if origin is not None:
        name = "Sequence" if origin is Sequence else origin.__name__
        return f"{name}[{', '.join(written(one) for one in get_args(kind))}]"
    return "None" if kind is type(None) else "Any" if kind is Any else kind.__name__


def write() -> None:
    """Write the module."""
    FILE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    write()
