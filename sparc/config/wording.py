"""Words for wrong options: what was expected, and how to write it, as in a command, in a file or in Python."""

from __future__ import annotations

import difflib
import json
import shlex
import types
import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic.fields import FieldInfo

LARGEST = 2**63
"""Bound of whole numbers that is not worth a word unless it is crossed."""
LETTERS = 80
"""Most letters of a wrong value that are shown."""


def option_name(field: str) -> str:
    """Return the option name of a field: `n_latents` is `n-latents`, `lambda_` is `lambda`."""
    return field.rstrip("_").replace("_", "-")


class Spelling(NamedTuple):
    """The way in which the caller writes options."""

    name: Callable[[str], str]
    """Return the name of a field."""
    assigned: Callable[[str, Any], str]
    """Return a name and a value as they are written together."""


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _argument(name: str, value: Any) -> str:
    return f"{name}={value!r}"


ARGUMENT = Spelling(lambda field: field, _argument)
"""An argument in Python."""
KEY = Spelling(option_name, lambda name, value: f"{name} = {_json(value)}")
"""A key of a file."""
OPTION = Spelling(lambda field: f"--{option_name(field)}", lambda name, value: f"{name} {shlex.quote(str(value))}")
"""An option of the command line."""
PARAMETER = Spelling(lambda field: field, lambda name, value: f"[{name}={value}]")
"""A parameter of a stream or a dataset, in brackets."""
_present: ContextVar[Spelling] = ContextVar("spelling", default=ARGUMENT)


@contextmanager
def spelled_as(spelling: Spelling) -> Iterator[None]:
    """Spell the options in errors inside the block in this way."""
    before = _present.set(spelling)
    try:
        yield
    finally:
        _present.reset(before)


def spelling() -> Spelling:
    """Return the way in which options are spelled now."""
    return _present.get()


class Unfit(ValueError):
    """A value that a validator refuses, with what to do instead of the example of its option."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def found(value: Any) -> str:
    """Return a wrong value as its user wrote it: numbers bare, also those in a text of the command line."""
    if isinstance(value, str):
        try:
            float(value)
        except ValueError:
            return f"{value!r:.{LETTERS}}"
        return f"{value.strip():.{LETTERS}}"
    return f"{value!r:.{LETTERS}}"


def expected(field: FieldInfo, error: str) -> str | None:
    """Return which values a field takes, in words; None if its type is no number and no choice. error: pydantic's."""
    kinds = _kinds(field.annotation)
    if choices := _choices(field):
        *others, last = map(str, choices)
        return f"{', '.join(others)} or {last}" if others else last
    if kinds == {bool}:
        return "true or false"
    if kinds not in ({int}, {float}):
        return None
    whole = kinds == {int}
    least, above, most, below = (_bound(field, name) for name in ("ge", "gt", "le", "lt"))
    low = high = ""
    if least is not None or (above is not None and whole):
        low = f"from {above + 1 if least is None else least}"
    elif above is not None:
        low = f"above {above}"
    if most is not None:
        high = f"to {most}"
    elif below is not None and (below != LARGEST or error in ("less_than", "int_parsing_size")):
        high = f"to {below - 1:,}" if whole else f"and below {below}"
    return " ".join(filter(None, ("a whole number" if whole else "a number", low, high)))


def _bound(field: FieldInfo, name: str) -> Any:
    """Return a bound of a field, such as `ge`; None without it."""
    return next((bound for one in field.metadata if (bound := getattr(one, name, None)) is not None), None)


def advice(field: FieldInfo, name: str, way: Spelling, value: Any) -> str:
    """Return what to write instead of a wrong value: the choice that is near, or an example, such as the default."""
    choices = _choices(field)
    if near := difflib.get_close_matches(str(value), map(str, choices), n=1):
        return f"did you mean {way.assigned(name, near[0])}?"
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    example: Any = extra.get("example") or _plain_default(field)
    if example is None:
        example = choices[0] if choices else extra.get("metavar")
    if example in (None, ""):
        return f"write another value for {name}"
    out = "" if field.is_required() else f"; or leave {name} out"
    fits = ", and it fits the number of samples" if out and extra.get("fitted") else ""
    return f"as in {way.assigned(name, example)}{out}{fits}"


def _plain_default(field: FieldInfo) -> Any:
    """Return a default that can stand as an example; for a number without one, the smallest that fits."""
    if isinstance(field.default, int | float | str) and not isinstance(field.default, bool) and field.default != "":
        return field.default
    if _kinds(field.annotation) == {bool}:
        return "true"
    least, above = _bound(field, "ge"), _bound(field, "gt")
    return least if above is None else above + 1


def _choices(field: FieldInfo) -> list[Any]:
    return list(_literals(field.annotation))


def _literals(hint: Any) -> Iterator[Any]:
    if get_origin(hint) is Literal:
        yield from get_args(hint)
    elif get_origin(hint) in (Union, types.UnionType):
        for one in get_args(hint):
            yield from _literals(one)


def _kinds(hint: Any) -> set[Any]:
    """Return the plain types of a hint, without None."""
    if typing.get_origin(hint) is Annotated:
        return _kinds(get_args(hint)[0])
    if get_origin(hint) in (Union, types.UnionType):
        return set().union(*map(_kinds, get_args(hint)))
    return set() if hint is type(None) else {hint}
