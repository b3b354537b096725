"""Options from TOML files, whose keys are the options of `sparc train` without the leading dashes."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from sparc.config import RunConfig, names, suggestion
from sparc.errors import InvalidConfig, MissingData
from sparc.system.texts import read_text

ABLATION_KEYS = ("grid", "seeds")
"""Keys that only `sparc ablate` reads."""


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
        options = tomllib.loads(read_text(path))
    except FileNotFoundError as error:
        raise MissingData(f"config file not found: {path}", hint="check the path given to --config") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InvalidConfig(f"config file {path} is not valid TOML: {error}", hint="fix that line") from error
    known = names(RunConfig)
    for key in options:
        if key in ABLATION_KEYS and not ablation:
            raise InvalidConfig(f"'{key}' in {path} is for sparc ablate", hint=f"sparc ablate --config {path}")
        if key not in (*known, *ABLATION_KEYS):
            raise InvalidConfig(f"unknown key '{key}' in {path}", hint=suggestion(key, known))
    return options
