"""Run the checks of a contract one by one, and the checks that backbones and datasets share."""

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
    """One promise of the contract, and the error if a plugin breaks it; None if the plugin keeps it."""

    promise: str
    error: SparcError | None = None


Check = tuple[str, Callable[[], None]]
"""A promise, and a function that raises SparcError if a plugin breaks it."""


def outcomes(checks: Iterator[Check]) -> Iterator[Outcome]:
    """Run checks and yield their outcomes. The iterator of checks ends early if later checks are impossible."""
    for promise, check in checks:
        try:
            check()
        except SparcError as error:
            yield Outcome(promise, error)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            yield Outcome(promise, PluginError(f"it raises {reason}", hint="fix it, so that it does not raise"))
        else:
            yield Outcome(promise)


def raise_broken(what: str, found: Iterator[Outcome]) -> None:
    """Raise PluginError if a promise is broken. The error names every broken promise and what to change."""
    broken = [one for one in found if one.error is not None]
    if broken:
        lines = [f"\n- {one.promise}: {one.error.message}; {one.error.hint}" for one in broken if one.error]
        raise PluginError(f"{what} breaks {len(broken)} of its promises:{''.join(lines)}", hint="make these changes")


def require(kept: bool, found: str, *, change: str) -> None:
    """Raise PluginError with what was found and what to change, unless `kept`."""
    if not kept:
        raise PluginError(found, hint=change)


def check_words(name: str, summary: str) -> None:
    """Check that the name is valid on the command line, and the summary is one line."""
    require(
        bool(NAME.fullmatch(name)),
        f"its name is {name!r}",
        change="choose small letters, digits, '-', '_' and '.', such as 'my-model'",
    )
    one_line = bool(summary.strip()) and "\n" not in summary
    require(one_line, f"its summary is {summary!r}", change="describe it in one line")


def check_params(kind: Any) -> None:
    """Check that the parameters are frozen, refuse unknown keys, and have a JSON schema."""
    require(
        isinstance(kind, type) and issubclass(kind, Params),
        f"its params are {kind!r}",
        change="make them a class that inherits from sparc.plugins.Params",
    )
    strict = kind.model_config.get("extra") == "forbid" and bool(kind.model_config.get("frozen"))
    require(
        strict, "its params are not frozen, or accept any key", change="keep the model_config of sparc.plugins.Params"
    )
    kind.model_json_schema()


def check_identity(identify: Callable[[Any], str], params: Params) -> None:
    """Check that `identify` returns a text, the same each time."""
    found = identify(params), identify(params)
    text = isinstance(found[0], str) and found[0] == found[1]
    require(
        text, f"identify gives {found[0]!r}, then {found[1]!r}", change="return the same short text for the same data"
    )


def check_light(module: str) -> None:
    """Check that importing the plugin's module imports no heavy library."""
    loaded, failure = _imported(module)
    require(not failure, f"importing {module} fails: {failure}", change="fix the import")
    require(
        not loaded,
        f"importing {module} imports {', '.join(loaded)}",
        change="import heavy libraries inside the functions that use them, so that `sparc plugins list` stays quick",
    )


def module_of(function: Callable[..., Any]) -> str:
    """Return the name of the module that defines a function, or the function inside a functools.partial."""
    while isinstance(function, partial):
        function = function.func
    return str(getattr(function, "__module__", type(function).__module__))


@cache
def _imported(module: str) -> tuple[list[str], str]:
    """Import a module in a new process; return the heavy libraries that it imports, and its error if it fails."""
    code = f"import sys, {module}; print(*[name for name in {HEAVY} if name in sys.modules])"
    paths = os.pathsep.join(sys.path)  # this process may know the module only by its sys.path
    environment = {**os.environ, "PYTHONPATH": paths}
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    return done.stdout.split(), "" if done.returncode == 0 else done.stderr.strip()[-200:]


def params_of(kind: type[Params], given: Mapping[str, Any] | None, what: str) -> Params:
    """Return the parameters to check with. Raises InvalidConfig."""
    from sparc.config import validated

    return validated(kind, dict(given or {}), what=f"'{what}'")
