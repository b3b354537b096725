"""`config.json` of a trained space: its shape, and how it was trained.

`docs/reference/checkpoint-format.md` is normative. This module imports no torch, so that a command can describe a space
without loading it. `checkpoint` loads and saves the weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sparc.config import SpaceConfig, TrainingConfig, validated
from sparc.errors import CorruptFile, IncompatibleFormat, InvalidConfig
from sparc.system.files import read_json

SPACE_FORMAT = 1
CONFIG = "config.json"
MODEL = "model.safetensors"
COMPLETION = "completion.safetensors"
TRAINING = "training"
"""Key of the options of the training."""
_NAMES_IN_FILE = {"lambda_": "cross_weight"}
"""Training options that format 1 names differently."""


def config_content(space: SpaceConfig, training: TrainingConfig | None) -> dict[str, Any]:
    """Return the content of `config.json`; `training` is kept for the record and may be missing."""
    shape = space.model_dump(exclude=set() if space.attached else {"attached"})
    content: dict[str, Any] = {"format_version": SPACE_FORMAT, "space": shape}
    if training is not None:
        content[TRAINING] = {key: getattr(training, name) for name, key in training_keys().items()}
    return content


def training_keys() -> dict[str, str]:
    """Return the key in the file of each training option."""
    return {name: _NAMES_IN_FILE.get(name, name) for name in TrainingConfig.model_fields}


def read_config_file(directory: Path) -> Any:
    """Return all that `config.json` says. Raises MissingData or CorruptFile."""
    return read_json(directory / CONFIG, what="the configuration of a space")


def read_config(directory: Path) -> SpaceConfig:
    """Read the shape of the space in `directory`. Raises MissingData, CorruptFile or IncompatibleFormat."""
    path = directory / CONFIG
    content = read_config_file(directory)
    version = content.get("format_version") if isinstance(content, dict) else None
    if not isinstance(version, int):
        raise CorruptFile(f"{path} has no format version", hint="is this a directory that sparc wrote?")
    if version > SPACE_FORMAT:
        raise IncompatibleFormat(
            f"{directory} has format version {version}, this sparc reads up to {SPACE_FORMAT}",
            hint="upgrade: pip install -U sparc-sae",
        )
    try:
        return validated(SpaceConfig, content.get("space"), what=str(path))
    except InvalidConfig as error:
        raise CorruptFile(error.message, hint="restore the file, or train again") from error
