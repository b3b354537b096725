"""Files of a space name what they belong to, so that those of two runs are never read as those of one.

The digest in the metadata of `model.safetensors` names the weights. `config.json`, `completion.safetensors` and
`evaluation.json` repeat it. `config.json` of a run also names its training features and its log, and repeats options of
`provenance.json`. A file without a digest was written by another program, or before sparc wrote it. Weights in several
files have the digest that `config.json` says, which whoever loads them checks. Importing this module imports no torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from sparc.config import SpaceOptions, option_name
from sparc.errors import CorruptFile, MissingData, SparcError
from sparc.storage.provenance import PROVENANCE, Provenance, read_provenance
from sparc.storage.space_config import CONFIG, MODEL, TRAINING, read_config, read_config_file, training_keys
from sparc.storage.tensor_files import DIGEST
from sparc.storage.training_log import LOG
from sparc.storage.weight_files import INDEXED, weights_path
from sparc.system.files import sha256
from sparc.system.refusals import reading
from sparc.system.tensor_headers import read_header

WEIGHTS, _FEATURES, _LOG = "weights", "features", "metrics"
"""Keys of the digests in the other files: of the weights, the training features, and the log of the training."""
TOGETHER = "copy all files of one run"


def weights_in(directory: Path) -> str | None:
    """Return the digest of the weights in a directory; None without one. Raises StorageError."""
    if weights_path(directory) == directory / INDEXED:
        with contextlib.suppress(MissingData, CorruptFile):
            said = read_config_file(directory)
            return str(said[WEIGHTS]) if isinstance(said, dict) and WEIGHTS in said else None
        return None
    try:
        return read_header(directory / MODEL).metadata.get(DIGEST)
    except (OSError, ValueError):  # whoever loads the weights says what is wrong with them
        return None


def check_belongs(path: Path, said: object, hint: str) -> None:
    """Raise CorruptFile if a file says that it belongs to other weights than those beside it; or StorageError."""
    if isinstance(said, str) and (found := weights_in(path.parent)) not in (None, said):
        raise CorruptFile(
            f"{path} belongs to other weights than those of {path.parent / MODEL}: expected the digest {said[:12]}, "
            f"found {str(found)[:12]}",
            hint=hint,
        )


def run_digests(directory: Path) -> dict[str, str]:
    """Return the digests of a run's training features and log for its `config.json`; none if these cannot be read."""
    found = {}
    with contextlib.suppress(SparcError, OSError):  # the weights are worth more
        found[_FEATURES] = _digest_features(read_provenance(directory / PROVENANCE))
        found[_LOG] = sha256(directory / LOG)
    return found


def _digest_features(provenance: Provenance) -> str:
    return hashlib.sha256(json.dumps(provenance.features, sort_keys=True).encode()).hexdigest()


def check_provenance(path: Path, provenance: Provenance) -> None:
    """Raise CorruptFile if the provenance at `path` is that of another run than the space beside it.

    Compared are the streams, the options of the space and its training, and the training features. Raises StorageError.
    """
    wrong = next(_disagreements(path.parent, provenance), None)
    if wrong is not None:
        what, expected, found = wrong
        raise CorruptFile(
            f"{path} is that of another run than {CONFIG} beside it: expected {what} {expected}, found {found}",
            hint=TOGETHER,
        )


def _disagreements(directory: Path, provenance: Provenance) -> Iterator[tuple[str, object, object]]:
    """Yield a name, and what `config.json` and the provenance say about it, where these differ."""
    try:
        shape, content = read_config(directory), read_config_file(directory)
    except SparcError:  # whoever reads the space says what is wrong with it
        return
    if provenance.streams and set(shape.streams) != set(provenance.streams):
        yield "the streams", ", ".join(sorted(shape.streams)), ", ".join(provenance.streams)
    said, options = content.get(TRAINING), provenance.options
    if isinstance(said, dict):  # the space of a training, not one that somebody saved
        expected = {name: getattr(shape, name) for name in SpaceOptions.model_fields}
        expected |= {name: said[key] for name, key in training_keys().items() if key in said}
        for name, value in expected.items():
            if name in options.model_fields_set and getattr(options, name) != value:
                yield option_name(name), value, getattr(options, name)
    if isinstance(features := content.get(_FEATURES), str) and features != _digest_features(provenance):
        yield "training features of the digest", features[:12], _digest_features(provenance)[:12]


def doubt_about_log(directory: Path) -> str | None:
    """Return what is wrong with the log of a finished run, if it is not the one that the run's `config.json` names."""
    path = directory / LOG
    with contextlib.suppress(FileNotFoundError, SparcError):
        content = read_config_file(directory)
        said = content.get(_LOG) if isinstance(content, dict) else None
        with reading(path):
            if isinstance(said, str) and sha256(path) != said:
                return f"{path} is not the log of this training: it is that of another run, or was changed"
    return None
