"""Files that a user names: options in TOML, whose keys are those of `sparc train` without dashes, and results."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from sparc.config import RunConfig, names, suggestion, validated
from sparc.errors import InvalidConfig, MissingData
from sparc.session.listener import Listener
from sparc.system.nearby import meant
from sparc.system.refusals import reading
from sparc.system.texts import read_text

ABLATION_KEYS = ("grid", "seeds")
"""Keys that only `sparc ablate` reads."""
SINGLE_QUOTES = r"write a path of Windows in single quotes, which keep its backslashes: 'C:\data'"
_TWICE = re.compile(r"Cannot (overwrite|declare|mutate)|Duplicate")
_DRIVE = re.compile(r"\s*[A-Za-z]:")
_ESCAPED = re.compile(r"[\b\t\n\f\r\x1b]")


def read_options(path: Path, *, ablation: bool = False) -> dict[str, Any]:
    """Read options from a TOML file; `ablation` also allows the keys of `sparc ablate`.

    Raises:
        MissingData: the file does not exist.
        InvalidConfig: the file is not text or not TOML, or has an unknown key, or a key of another command.
        StorageError: the machine refuses to read the file.
    """
    if path.is_dir():
        raise InvalidConfig(
            f"config file {path} cannot be read: Is a directory", hint="give a TOML file: --config run.toml"
        )
    try:
        text = read_text(path)
        with reading(path):
            options = tomllib.loads(text)
            _refuse_escaped(options, path)
    except FileNotFoundError as error:
        hint = meant(path, "check the path given to --config", folder=False)
        raise MissingData(f"config file not found: {path}", hint=hint) from error
    except tomllib.TOMLDecodeError as error:
        message, hint = _invalid(text, str(error))
        raise InvalidConfig(f"config file {path} is not valid TOML: {message}", hint=hint) from error
    except ValueError as error:  # it is nested too deep, or a number has thousands of digits
        reason = str(error).partition(";")[0]
        raise InvalidConfig(f"config file {path} is not valid TOML: {reason}", hint="fix that line") from error
    known = names(RunConfig)
    for key in options:
        if key in ABLATION_KEYS and not ablation:
            raise InvalidConfig(f"'{key}' in {path} is for sparc ablate", hint=f"sparc ablate --config {path}")
        if key not in (*known, *ABLATION_KEYS):
            raise InvalidConfig(f"unknown key '{key}' in {path}", hint=suggestion(key, known))
    validated(RunConfig, {key: value for key, value in options.items() if key in known}, what=str(path))
    return options


def check_output(out: str | Path, inputs: object, listener: Listener) -> None:
    """Say that a file will be replaced, or that its folder will be made.

    inputs: one input, or a list of them. Raises InvalidConfig if the file is one of them.
    """
    path = Path(out)
    every = inputs if isinstance(inputs, list | tuple) else [inputs]
    with reading(path):
        there, has_folder = path.is_file(), path.parent.is_dir()
        taken = there and any(_is_same(path, one) for one in every if isinstance(one, str | Path))
    if taken:
        raise InvalidConfig(f"--out: {path} is one of the inputs, and would be replaced", hint="choose another name")
    if there:
        listener.note(f"{path} is there, and will be replaced")
    elif not has_folder:
        listener.note(f"the folder {path.parent} will be made")


def _is_same(path: Path, other: str | Path) -> bool:
    try:
        return path.samefile(Path(other).expanduser())
    except (OSError, ValueError):  # a text, and not a file
        return False


def _invalid(text: str, error: str) -> tuple[str, str]:
    """Return message and hint for a text that is not TOML."""
    place = re.search(r"at line (\d+)", error)
    lines = text.split("\n")
    number = int(place[1]) if place else len(text.rstrip().split("\n"))
    line = lines[number - 1].strip() if number <= len(lines) else ""
    if _TWICE.match(error):
        key = re.search(r"Duplicate inline table key (.+) \(", error)
        named = key[1] if key else line.partition("=")[0].strip() if re.match(r"[^\[\]=]+=|\[.+\]$", line) else ""
        found = f"the key {named.strip(chr(39))} is there twice, again in line {number}" if named else error
        return found, "keep one of both"
    if "\\" in line and '"' in line and ("Unescaped" in error or "hex value" in error or "escape" in error.lower()):
        return f"{error}: {line:.80}", SINGLE_QUOTES
    return error, "fix that line"


def _refuse_escaped(value: Any, path: Path, key: str = "") -> None:
    r"""Raise InvalidConfig for a path of Windows in double quotes, in which `\n` and `\t` are a line end and a tab."""
    if isinstance(value, dict):
        for name, one in value.items():
            _refuse_escaped(one, path, key or name)
    elif isinstance(value, list):
        for one in value:
            _refuse_escaped(one, path, key)
    elif isinstance(value, str) and _DRIVE.match(value) and _ESCAPED.search(value):
        raise InvalidConfig(
            f"'{key}' in {path}: the backslashes of {value!r} mean other characters", hint=SINGLE_QUOTES
        )
