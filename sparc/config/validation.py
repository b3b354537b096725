"""Validation with readable errors: the first error of pydantic becomes a message and a hint in terms of options."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from sparc.errors import InvalidConfig

_Model = TypeVar("_Model", bound=BaseModel)


def validated(model: type[_Model], content: Any, *, what: str = "") -> _Model:
    """Build `model` from `content`. Raises InvalidConfig with the first error, prefixed with `what`."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise _explained(model, error, what) from error


def suggestion(word: str, known: Sequence[str]) -> str:
    """Return a hint for a misspelled word: the nearest known word and all known words."""
    near = difflib.get_close_matches(word, known, n=1)
    return (f"did you mean '{near[0]}'? " if near else "") + f"known: {', '.join(known) or 'none'}"


def _explained(model: type[BaseModel], error: ValidationError, what: str) -> InvalidConfig:
    # A misspelled key is often why another key is missing, so unknown keys come first.
    first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    known = [field.alias or name for name, field in model.model_fields.items()]
    place = ".".join(str(part) for part in first["loc"])
    prefix = f"{what}: " if what else ""
    if first["type"] == "extra_forbidden":
        return InvalidConfig(f"{prefix}unknown parameter '{place}'", hint=suggestion(place, known))
    if first["type"] == "value_error":
        message = first["msg"].removeprefix("Value error, ")
        return InvalidConfig(f"{prefix}{f'{place}: ' if place else ''}{message}", hint="change that value")
    if first["type"] == "missing":
        hint = (
            "--data-root FOLDER, or NAME[root=FOLDER]"
            if place == "root"
            else f"add {place}=..., as in NAME[{place}=...]"
        )
        return InvalidConfig(f"{prefix}expected '{place}', found nothing", hint=hint)
    message = (
        f"{prefix}{place.rstrip('_').replace('_', '-')}: {first['msg'][0].lower()}{first['msg'][1:]}, "
        f"found {first['input']!r}"
    )
    return InvalidConfig(message, hint="change that value")
