"""The manifest of one stream's features: what they are and where they came from.

    <root>/<dataset>/<split>/<stream>-<fingerprint>/manifest.json

`docs/store-format.md` is normative. The manifest is written last, so a directory that has one is complete. This module
imports no torch: commands read manifests before they load anything heavy. `store` reads and writes the features.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sparc.errors import CorruptFile, IncompatibleFormat
from sparc.system.brief import Brief
from sparc.system.files import read_json, write_json
from sparc.system.refusals import reading, writing

STORE_FORMAT = 2
MANIFEST = "manifest.json"
SAMPLES = "samples.json"
IMPORTING = "importing.json"
"""Journal of an import in the folder that it writes; an import that ended leaves none."""
IMPORTED = "imported"
"""Dataset name of imported features."""


class _ManifestPart(Brief, BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Shard(_ManifestPart):
    """Name, length and checksum of one shard file."""

    file: str = Field(pattern=r"^(shard|tokens)-\d{5,}\.safetensors$")
    rows: int = Field(ge=0)
    sha256: str


class PatchTokens(_ManifestPart):
    """Grid and shard files of the features of patches."""

    grid: tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]]
    """Rows and columns of patches."""
    shards: tuple[Shard, ...]


class Manifest(_ManifestPart):
    """Description of one stream's features and of how they were made."""

    format_version: int = STORE_FORMAT
    backbone: str
    params: dict[str, Any]
    weights: str
    """Identity of the weights, as the backbone gives it: a digest, a hub name, or `random`."""
    preprocessing: dict[str, Any] = {}
    """The backbone's description of how it preprocesses an image or a caption."""
    precision: str = "float32"
    """Precision of the backbone's matrix products."""
    exif: str | None = None
    """`apply` if images were turned as their EXIF orientation says, `ignore` if not; None for captions, for imported
    features, and for features from before there was a choice, when images were read as stored."""
    dataset: str
    split: str
    width: int = Field(gt=0)
    dtype: str
    """Dtype of the stored features."""
    samples: int = Field(ge=0)
    samples_sha256: str
    """Digest of the sample ids, in order. Streams open together only if their digests agree."""
    samples_file_sha256: str
    """Checksum of `samples.json`, which maps samples to rows."""
    skipped: tuple[str, ...] = ()
    """Samples that could not be read; their rows are zero. Extraction retries them unless it runs with skip-bad."""
    shards: tuple[Shard, ...]
    tokens: PatchTokens | None = None
    versions: dict[str, str] = {}


PATHS = ("weights", "root", "taxonomy")
"""Parameters that are paths by convention."""
FOLDER = "local-dir:"
"""Start of a parameter that is the path of a model's folder, as timm and open_clip write it."""
RANDOM = "random"
"""Identity of random weights."""


def fingerprint(name: str, params: Mapping[str, Any], identity: str) -> str:
    """Return the directory name of a plugin's output: its name and a digest of everything that determines the output.

    The digest covers the format version, so features in an older format are not found and are extracted again.
    `weights`, `root`, `taxonomy` and the value `local-dir:PATH` are paths. If `identity` describes their content, the
    digest ignores the paths, so that moving the files keeps the features.
    """
    telling = dict(params)
    if identity:
        telling = {key: value for key, value in telling.items() if key not in PATHS}
    if identity not in ("", RANDOM):  # random weights have no content, and the folder says of which model they are
        telling = {key: FOLDER if str(value).startswith(FOLDER) else value for key, value in telling.items()}
    text = json.dumps([STORE_FORMAT, name, telling, identity], sort_keys=True, default=str)
    return f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def is_fingerprint(name: str) -> bool:
    """Return True if the name of a directory has the form that `fingerprint` gives."""
    return re.search(r"-[0-9a-f]{12}$", name) is not None


def digest_ids(ids: Sequence[str]) -> str:
    """Return the digest of sample ids in order."""
    return hashlib.sha256(json.dumps(list(ids), ensure_ascii=False).encode()).hexdigest()


def feature_digests(manifests: Mapping[str, Manifest]) -> dict[str, list[str]]:
    """Return per stream the checksums of its files, which identify the features to the bit."""
    return {
        name: [manifest.samples_file_sha256, *(shard.sha256 for shard in manifest.shards)]
        for name, manifest in manifests.items()
    }


def is_complete(directory: Path) -> bool:
    """Return True if a stream's features are complete. Raises StorageError if the machine refuses to look."""
    with reading(directory):
        return (directory / MANIFEST).is_file()


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write the manifest, which declares a stream's features complete."""
    write_json(directory / MANIFEST, manifest.model_dump(mode="json"))


def revoke_manifest(directory: Path) -> None:
    """Remove the manifest before shards change, which declares a stream's features incomplete."""
    with writing(directory):
        (directory / MANIFEST).unlink(missing_ok=True)


def how_to_remake(directory: Path) -> str:
    """Return the hint of errors about damaged features: extract them again, or import them if they were imported."""
    # Extracted features end in a fingerprint. Their manifest may be damaged too.
    is_imported = not is_fingerprint(directory.name)
    with contextlib.suppress(OSError, ValueError, AttributeError, RecursionError):
        is_imported = json.loads((directory / MANIFEST).read_text(encoding="utf-8")).get("dataset") == IMPORTED
    if is_imported:
        return f"remove {directory.parent.parent} and import the features again: sparc import features"
    return f"remove {directory} to extract it again"


def read_manifest(directory: Path) -> Manifest:
    """Read the manifest of a stream. Raises MissingData, CorruptFile, IncompatibleFormat or StorageError."""
    try:
        content = read_json(directory / MANIFEST, what="the manifest of a stream")
    except CorruptFile as error:
        raise CorruptFile(error.message, hint=how_to_remake(directory)) from error
    version = content.get("format_version") if isinstance(content, dict) else None
    if isinstance(version, int) and version > STORE_FORMAT:
        raise IncompatibleFormat(
            f"{directory} has format version {version}, this sparc reads up to {STORE_FORMAT}",
            hint="upgrade: pip install -U sparc-sae",
        )
    try:
        return Manifest.model_validate(content)
    except (ValidationError, UnicodeEncodeError) as error:  # pydantic raises the latter for a key that UTF-8 lacks
        found = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise CorruptFile(
            f"{directory / MANIFEST} is not a manifest: {found}",
            hint=how_to_remake(directory),
        ) from error
