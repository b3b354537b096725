"""Checks of a contract, one after the other, each with what it found."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from sparc.errors import PluginError, SparcError
from sparc.plugins.contracts import Params

HEAVY = ("torch", "torchvision", "timm", "open_clip", "transformers", "tensorflow", "jax", "datasets", "sklearn")
NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


@dataclass(frozen=True)
class Outcome:
    """A promise of the contract, and why it is not kept; None where it is."""

    promise: str
    error: SparcError | None = None


Check = tuple[str, Callable[[], None]]
"""A promise, and what raises a SparcError where it is not kept."""


def outcomes(checks: Iterator[Check]) -> Iterator[Outcome]:
    """Check promises until the one that all others need is broken."""
    for promise, check in checks:
        try:
            check()
        except SparcError as error:
            yield Outcome(promise, error)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            yield Outcome(promise, PluginError(f"it raises {reason}", hint="let it end in what it promises"))
        else:
            yield Outcome(promise)


def raise_broken(what: str, found: Iterator[Outcome]) -> None:
    """Raise PluginError that names every broken promise and what to change."""
    broken = [one for one in found if one.error is not None]
    if broken:
        lines = [f"\n- {one.promise}: {one.error.message}; {one.error.hint}" for one in broken if one.error]
        raise PluginError(f"{what} breaks {len(broken)} of its promises:{''.join(lines)}", hint="change that")


def require(kept: bool, found: str, *, change: str) -> None:
    """Raise PluginError unless a promise is kept."""
    if not kept:
        raise PluginError(found, hint=change)


def check_words(name: str, summary: str) -> None:
    """A name that the command line can read, and a summary of one line."""
    require(
        bool(NAME.fullmatch(name)),
        f"its name is {name!r}",
        change="choose small letters, digits, '-', '_' and '.', such as 'my-model'",
    )
    one_line = bool(summary.strip()) and "\n" not in summary
    require(one_line, f"its summary is {summary!r}", change="say in one line what it is")


def check_params(kind: Any) -> None:
    """Parameters that are frozen, refuse what they do not know, and can be written down."""
    require(
        isinstance(kind, type) and issubclass(kind, Params),
        f"its params are {kind!r}",
        change="make them a class that inherits from sparc.Params",
    )
    strict = kind.model_config.get("extra") == "forbid" and bool(kind.model_config.get("frozen"))
    require(strict, "its params are not frozen, or take any key", change="leave model_config as sparc.Params has it")
    kind.model_json_schema()


def check_identity(identify: Callable[[Any], str], params: Params) -> None:
    """A text, the same each time."""
    found = identify(params), identify(params)
    text = isinstance(found[0], str) and found[0] == found[1]
    require(
        text, f"identify gives {found[0]!r}, then {found[1]!r}", change="return the same short text for the same data"
    )


def check_light(module: str) -> None:
    """Importing what offers the plugin loads no heavy library."""
    loaded, failure = _imported(module)
    require(not failure, f"importing {module} fails: {failure}", change="mend that")
    require(
        not loaded,
        f"importing {module} imports {', '.join(loaded)}",
        change="import heavy libraries inside the functions that use them, so that `sparc plugins list` stays quick",
    )


def module_of(function: Callable[..., Any]) -> str:
    """Name the module that a function comes from, through functools.partial."""
    while isinstance(function, partial):
        function = function.func
    return str(getattr(function, "__module__", type(function).__module__))


@cache
def _imported(module: str) -> tuple[list[str], str]:
    """Heavy libraries that a module imports, in a process of its own, or why it cannot be imported."""
    code = f"import sys, {module}; print(*[name for name in {HEAVY} if name in sys.modules])"
    paths = os.pathsep.join(sys.path)  # the module may be known to this process alone
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    return done.stdout.split(), "" if done.returncode == 0 else done.stderr.strip()[-200:]


def params_of(kind: type[Params], given: Mapping[str, Any] | None, what: str) -> Params:
    """Parameters to check with. Raises InvalidConfig."""
    from sparc.config import validated

    return validated(kind, dict(given or {}), what=f"'{what}'")
