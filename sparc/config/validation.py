"""Validation with readable errors: all errors of pydantic become one message and a hint in terms of options."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from sparc.errors import InvalidConfig

_Model = TypeVar("_Model", bound=BaseModel)


class ExplainedModel(BaseModel):
    """A model whose constructor raises InvalidConfig too, with all that is wrong."""

    if not TYPE_CHECKING:  # editors and mypy see the fields instead

        def __init__(self, **values: Any) -> None:
            """Check the values of the fields. Raises InvalidConfig."""
            try:
                super().__init__(**values)
            except ValidationError as error:
                raise _explained(type(self), error) from error


def validated(model: type[_Model], content: Any, *, what: str = "") -> _Model:
    """Build `model` from `content`. Raises InvalidConfig with all errors, prefixed with `what`."""
    try:
        return model.model_validate(content)
    except (ValidationError, InvalidConfig) as error:
        found = error if isinstance(error, InvalidConfig) else _explained(model, error)
        raise InvalidConfig(f"{what}: {found.message}" if what else found.message, hint=found.hint) from error


def suggestion(word: str, known: Sequence[str]) -> str:
    """Return a hint for a misspelled word: the nearest known word and all known words."""
    near = difflib.get_close_matches(word, known, n=1)
    return (f"did you mean '{near[0]}'? " if near else "") + f"known: {', '.join(known) or 'none'}"


def _explained(model: type[BaseModel], error: ValidationError) -> InvalidConfig:
    """Put all errors into one, a message for each option."""
    # A value of several types has an error for each of them, and the first says enough.
    by_option: dict[tuple[int | str, ...], Any] = {}
    for one in error.errors():
        by_option.setdefault(one["loc"][:1], one)
    found = sorted(by_option.values(), key=lambda one: one["type"] != "extra_forbidden")
    if found[0]["type"] == "extra_forbidden":
        found = [one for one in found if one["type"] != "missing"]  # a misspelled key is why another one is missing
    messages, hints = zip(*(_explained_one(model, one) for one in found), strict=True)
    return InvalidConfig("; ".join(messages), hint="; ".join(dict.fromkeys(hints)))


def _explained_one(model: type[BaseModel], error: Mapping[str, Any]) -> tuple[str, str]:
    """Return the message and the hint for one option."""
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        known = [field.alias or name for name, field in model.model_fields.items()]
        return f"unknown parameter '{place}'", suggestion(place, known)
    if error["type"] == "value_error":
        message = error["msg"].removeprefix("Value error, ")
        return f"{place}: {message}" if place else message, "change that value"
    if error["type"] == "missing":
        hint = (
            "--data-root FOLDER, or NAME[root=FOLDER]"
            if place == "root"
            else f"add {place}=..., as in NAME[{place}=...]"
        )
        return f"expected '{place}', found nothing", hint
    name, message = place.rstrip("_").replace("_", "-"), error["msg"]
    return f"{name}: {message[0].lower()}{message[1:]}, found {error['input']!r}", "change that value"
