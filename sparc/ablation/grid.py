"""A grid: values for some options, and its cells, one per combination of values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from sparc.config import RunConfig, SpaceOptions, TrainingConfig, names, option_name, suggestion, validated
from sparc.config.wording import KEY, spelled_as
from sparc.errors import InvalidConfig

Value = int | float | str
Grid = dict[str, list[Value]]
"""Values by axis, axes in the order of `AXES`."""

FIXED = ("seed", "on-nan", "keep-checkpoints")
"""Options of training that a grid cannot vary: seeds are counted apart, and the others change no result."""
AXES = tuple(name for name in names(SpaceOptions, TrainingConfig) if name not in FIXED)
"""Options that a grid may vary: those that change the space, and not the features."""
_HINT = "KEY=VALUE,VALUE,..., such as k=8,16"


@dataclass(frozen=True)
class Cell:
    """One combination of values."""

    values: dict[str, Value]
    """Value by axis."""
    config: RunConfig

    @property
    def name(self) -> str:
        """Name of the cell and of its folder, such as `k=8,lambda=0.5`."""
        return _named(self.values)


def parse_axes(words: Iterable[str]) -> dict[str, list[str]]:
    """Parse words of the form `KEY=VALUE,VALUE,...`. Raises InvalidConfig."""
    axes: dict[str, list[str]] = {}
    for word in words:
        key, _, text = word.partition("=")
        values = [value.strip() for value in text.split(",")]
        if not all(values):
            raise InvalidConfig(f"--grid: expected values after the key, found '{word}'", hint=_HINT)
        if axes.setdefault(key.strip(), values) is not values:
            raise InvalidConfig(f"--grid: expected each key once, found '{key.strip()}' twice", hint=_HINT)
    return axes


def checked_grid(axes: Any) -> Grid:
    """Turn the axes that a user wrote into a grid whose values have the types of the options.

    Raises InvalidConfig if there is no axis, a key cannot vary, or its values are no list, invalid or repeated.
    """
    if not isinstance(axes, Mapping) or not axes:
        raise InvalidConfig(
            f"expected a grid of at least one key, found {axes or 'none'}", hint=f"--grid {_HINT}; keys: {_keys()}"
        )
    for key in axes:
        _check_key(key)
    return {key: _values(key, axes[key]) for key in AXES if key in axes}


def checked_seeds(count: Any, first: int) -> list[int]:
    """Return `count` consecutive seeds from `first` on. Raises InvalidConfig unless `count` is a positive integer."""
    if type(count) is not int or count < 1:
        raise InvalidConfig(f"seeds: expected a number, 1 or more, found {count!r}", hint="--seeds 3, or seeds = 3")
    return list(range(first, first + count))


def cells(base: RunConfig, grid: Grid) -> list[Cell]:
    """Combine the values, the last axis varying fastest. Raises InvalidConfig that names the first invalid cell."""
    content = base.model_dump(mode="json", by_alias=True, exclude_unset=True)
    found = []
    for combination in product(*grid.values()):
        values = dict(zip(grid, combination, strict=True))
        try:
            with spelled_as(KEY):
                found.append(Cell(values, validated(RunConfig, {**content, **values}).checked()))
        except InvalidConfig as error:
            raise InvalidConfig(f"in the cell {_named(values)}: {error.message}", hint=error.hint) from error
    return found


def written(value: Value) -> str:
    """Format a value as a user writes it: 1, not 1.0."""
    return str(value).removesuffix(".0")


def _named(values: Mapping[str, Value]) -> str:
    return ",".join(f"{key}={written(value)}" for key, value in values.items())


def _check_key(key: str) -> None:
    if key in AXES:
        return
    if key == "seed":
        raise InvalidConfig("a grid cannot vary 'seed'", hint="--seeds N trains each cell with N seeds, from --seed on")
    if key == "recipe":
        raise InvalidConfig(
            "a grid cannot vary 'recipe', which stands for several options",
            hint="vary those: --grid pre-bias=mean,zeros --grid completion=linear,none",
        )
    if key in FIXED:
        raise InvalidConfig(f"a grid cannot vary '{key}', which changes no result", hint=f"keys: {_keys()}")
    if key in names(RunConfig):
        raise InvalidConfig(
            f"a grid cannot vary '{key}': all cells share their features and their directory",
            hint=f"keys: {_keys()}; for other features, run sparc ablate again",
        )
    raise InvalidConfig(f"--grid: unknown key '{key}'", hint=suggestion(key, AXES))


def _values(key: str, values: Any) -> list[Value]:
    if isinstance(values, str) or not isinstance(values, Sequence) or not values:
        raise InvalidConfig(f"grid: expected a list of values of {key}, found {values!r}", hint=f"{key} = [..., ...]")
    field = next(name for name in RunConfig.model_fields if option_name(name) == key)
    parsed: list[Value] = []
    for value in values:
        found = getattr(validated(RunConfig, {key: value}, what="grid"), field)
        if found in parsed:
            raise InvalidConfig(
                f"grid: expected distinct values of {key}, found {value} twice", hint="remove one of them"
            )
        parsed.append(found)
    return parsed


def _keys() -> str:
    return ", ".join(AXES)
