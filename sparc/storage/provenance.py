"""`provenance.json`: where a run comes from, that is its data, its options, and the software that made it.

`docs/reference/checkpoint-format.md` is normative.
"""

from __future__ import annotations

import platform
import re
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from sparc.config import RunConfig
from sparc.errors import CorruptFile, IncompatibleFormat, InvalidConfig, said
from sparc.storage.manifest import feature_digests
from sparc.system.brief import Brief
from sparc.system.files import read_json, write_json

if TYPE_CHECKING:
    from sparc.storage.store import FeatureStore

DISTRIBUTION = "sparc-sae"
PROVENANCE = "provenance.json"
"""A directory that has this file is a run."""


class StreamOrigin(BaseModel):
    """The backbone that made a stream's features, and the plugin that offered the backbone."""

    model_config = ConfigDict(frozen=True)

    backbone: str
    params: dict[str, Any]
    weights: str
    """Identity of the weights, as the backbone gives it."""
    plugin: str | None = None
    """Package and version; None for imported features."""


class Change(BaseModel):
    """A stream that was attached to the space of another run, or detached from it."""

    model_config = ConfigDict(frozen=True)

    change: Literal["attached", "detached"]
    stream: str
    run: str
    """Directory of the other run."""


class Provenance(Brief, BaseModel):
    """Origin of a run. Unknown keys are ignored, so that runs of a newer version can be described."""

    model_config = ConfigDict(frozen=True)

    command: tuple[str, ...]
    started: str
    """Local time with its offset, ISO 8601."""
    seed: int
    device: str
    platform: str
    versions: dict[str, str]
    """Versions of Python, sparc and its dependencies."""
    random_weights: tuple[str, ...]
    """Streams whose backbone had random weights."""
    streams: dict[str, StreamOrigin]
    samples: int
    """Number of training samples."""
    features: dict[str, list[str]]
    """Per stream the checksums of its files, which identify the training features to the bit."""
    options: RunConfig
    """All options, including defaults."""
    changes: tuple[Change, ...] = ()
    """Streams attached and detached since the first training, oldest first."""

    @field_validator("options", mode="before")
    @classmethod
    def _as_then(cls, options: Any) -> Any:
        """Add the options whose default was another one when a run was made that does not name them."""
        return {"exif": "ignore", **options} if isinstance(options, Mapping) else options


def provenance_of(
    config: RunConfig,
    features: FeatureStore,
    *,
    owners: Mapping[tuple[str, str], str],
    device: str,
    command: Sequence[str],
) -> Provenance:
    """Return the provenance of a run that starts now on these training features.

    `owners` maps kind and name to the package that offers it, as `Registry.owners` does.
    """
    plugins = {} if config.features is not None else owners  # imported features come from no plugin
    return Provenance(
        command=tuple(command),
        started=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        seed=config.seed,
        device=device,
        platform=platform.platform(),
        versions=library_versions(),
        random_weights=tuple(features.random_weights),
        streams={
            name: StreamOrigin(
                backbone=manifest.backbone,
                params=manifest.params,
                weights=manifest.weights,
                plugin=plugins.get(("stream", manifest.backbone)),
            )
            for name, manifest in features.manifests.items()
        },
        samples=len(features),
        features=feature_digests(features.manifests),
        options=config,
    )


def library_versions() -> dict[str, str]:
    """Return the versions of Python, of sparc, and of those of its dependencies that are installed."""
    versions = {"python": platform.python_version()}
    try:
        needed = [text for text in requires(DISTRIBUTION) or () if "extra ==" not in text]
    except PackageNotFoundError:  # sparc runs from a folder and was never installed
        needed = []
    for name in [DISTRIBUTION, *(re.split(r"[^\w.-]", text, maxsplit=1)[0] for text in needed)]:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def write_provenance(path: Path, provenance: Provenance) -> None:
    """Write `provenance` as JSON, with the options named as on the command line. Raises StorageError."""
    write_json(path, provenance.model_dump(mode="json", by_alias=True))


def read_provenance(path: Path) -> Provenance:
    """Read what `write_provenance` wrote. Raises MissingData or CorruptFile, naming the file."""
    content = read_json(path, what="the provenance of a run")
    try:
        return Provenance.model_validate(content)
    except UnicodeEncodeError as error:  # pydantic raises it for a key that UTF-8 lacks
        raise _damaged(path, str(error)) from error
    except (ValidationError, InvalidConfig) as error:
        # The configuration inside raises InvalidConfig, caused by what is wrong with its options.
        in_options = isinstance(error, InvalidConfig)
        cause = error.__cause__ if in_options else error
        if not isinstance(cause, ValidationError):  # a reference to a plugin that does not parse
            raise _damaged(path, f"options: {said(error)}") from error
        first = cause.errors()[0]
        if in_options and first["type"] == "extra_forbidden":
            raise IncompatibleFormat(
                f"{path} has the option '{first['loc'][-1]}', which this sparc does not know",
                hint="upgrade: pip install -U sparc-sae",
            ) from error
        place = ".".join(str(part) for part in first["loc"])
        raise _damaged(path, f"{f'{place}: ' if place else ''}{first['msg']}") from error


def _damaged(path: Path, what: str) -> CorruptFile:
    return CorruptFile(
        f"{path} is not the provenance of a run: {what}",
        hint="restore the file, or train again; the extracted features are kept",
    )
