"""Validation with readable errors: all errors of pydantic become one message and a hint in terms of options."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from sparc.config.references import PluginRef
from sparc.config.wording import KEY, PARAMETER, Spelling, Unfit, advice, expected, found, spelled_as, spelling
from sparc.errors import InvalidConfig

_Model = TypeVar("_Model", bound=BaseModel)


def _refuse_nul(value: Any) -> None:
    """Raise InvalidConfig if a text in a value holds a NUL character, which no path and no name can hold."""
    texts = [value]
    while texts:
        one = texts.pop()
        if isinstance(one, Mapping):
            texts += [*one, *one.values()]
        elif isinstance(one, list | tuple):
            texts += one
        elif isinstance(one, PluginRef):
            texts += [one.name, one.alias, one.params]
        elif isinstance(one, str | Path) and "\0" in str(one):
            found = f"expected a text without a NUL character, found {str(one)!r:.60}"
            raise InvalidConfig(found, hint="write that name or path again")


class ExplainedModel(BaseModel):
    """A model whose constructor raises InvalidConfig too, with all that is wrong."""

    if not TYPE_CHECKING:  # editors and mypy see the fields instead

        def __init__(self, **values: Any) -> None:
            """Check the values of the fields. Raises InvalidConfig."""
            _refuse_nul(values)
            try:
                super().__init__(**values)
            except ValidationError as error:
                raise _explained(type(self), error, values) from error

    @classmethod
    def disagreement(cls, given: Mapping[str, Any]) -> Unfit | None:
        """Return what is wrong about values that are valid each, beside other fields that are wrong; None if nothing.

        `given` has the valid values by field name. pydantic validates the whole model only without wrong fields.
        """
        return None


def validated(model: type[_Model], content: Any, *, what: str = "") -> _Model:
    """Build `model` from `content`. Raises InvalidConfig with all errors, prefixed with `what`, such as a file."""
    with spelled_as(KEY) if what else contextlib.nullcontext():
        try:
            _refuse_nul(content)
            return model.model_validate(content)
        except (ValidationError, InvalidConfig) as error:
            wrong = error if isinstance(error, InvalidConfig) else _explained(model, error, content)
            raise InvalidConfig(f"{what}: {wrong.message}" if what else wrong.message, hint=wrong.hint) from error


def suggestion(word: str, known: Sequence[str]) -> str:
    """Return a hint for a misspelled word: the nearest known word and all known words."""
    near = difflib.get_close_matches(word, known, n=1)
    return (f"did you mean '{near[0]}'? " if near else "") + f"known: {', '.join(known) or 'none'}"


def _explained(model: type[BaseModel], error: ValidationError, content: Any) -> InvalidConfig:
    """Put all errors into one, a message for each option, and one for options of `content` that do not fit others."""
    # A value of several types has an error for each of them, and the first says enough.
    by_option: dict[tuple[int | str, ...], Any] = {}
    for one in error.errors():
        by_option.setdefault(one["loc"][:1], one)
    wrong = sorted(by_option.values(), key=lambda one: one["type"] != "extra_forbidden")
    if wrong[0]["type"] == "extra_forbidden":
        wrong = [one for one in wrong if one["type"] != "missing"]  # a misspelled key is why another one is missing
    said = [_explained_one(model, one) for one in wrong]
    if (more := _disagreement(model, content, set(by_option))) is not None:
        said.append((str(more), more.hint))
    messages, hints = zip(*said, strict=True)
    return InvalidConfig("; ".join(messages), hint="; ".join(dict.fromkeys(hints)))


def _disagreement(model: type[BaseModel], content: Any, wrong: set[tuple[int | str, ...]]) -> Unfit | None:
    if not issubclass(model, ExplainedModel) or not isinstance(content, Mapping) or () in wrong:
        return None
    given = {}
    for name, field in model.model_fields.items():
        key = next((one for one in (field.alias, name) if one in content), None)
        if (field.alias or name,) not in wrong and (name,) not in wrong:
            given[name] = field.default if key is None else content[key]
    return model.disagreement(given)


def _explained_one(model: type[BaseModel], error: Mapping[str, Any]) -> tuple[str, str]:
    """Return the message and the hint for one option."""
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        known = [field.alias or name for name, field in model.model_fields.items()]
        return f"unknown parameter '{place}'", suggestion(place, known)
    if error["type"] == "missing":
        hint = (
            "--data-root FOLDER, or NAME[root=FOLDER]"
            if place == "root"
            else f"add {place}=..., as in NAME[{place}=...]"
        )
        return f"expected '{place}', found nothing", hint
    way: Spelling = spelling() if issubclass(model, ExplainedModel) else PARAMETER
    fields = {field.alias or name: name for name, field in model.model_fields.items()}
    first, *inside = map(str, error["loc"] or ("",))
    name = fields.get(first, first)
    field, shown = model.model_fields.get(name), ".".join([way.name(name), *inside]) if first else ""
    hint = advice(field, shown, way, error["input"]) if field is not None else "write another value"
    if error["type"] == "value_error":
        raised = error.get("ctx", {}).get("error")
        message = error["msg"].removeprefix("Value error, ")
        return f"{shown}: {message}" if shown else message, getattr(raised, "hint", hint)
    wanted = expected(field, error["type"]) if field is not None else None
    if wanted is not None:
        return f"{shown}: expected {wanted}, found {found(error['input'])}", hint
    message = error["msg"]
    return f"{shown}: {message[0].lower()}{message[1:]}, found {found(error['input'])}", hint
