"""Features on disk. `docs/store-format.md` is normative; this module is its only reader and writer.

    <root>/<dataset>/<split>/<stream>-<fingerprint>/manifest.json
                                                    samples.json
                                                    shard-00000.safetensors ...

A shard is whole or not there; the manifest is written last, so a directory with one is complete. Samples that show the
same image, or the same caption, share a row.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sparc.core.space import present
from sparc.errors import BadFeatures, CorruptFile, IncompatibleFormat, MisalignedStreams, MissingData
from sparc.system.files import read_json, sha256, write_atomically, write_json

FORMAT_VERSION = 2
SHARD_ROWS = 1024
"""Rows per shard: what an interruption of the extraction may cost at most."""
MANIFEST = "manifest.json"
SAMPLES = "samples.json"
FEATURES = "features"
TOKENS = "tokens"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Shard(_Record):
    """One shard file, as its manifest knows it."""

    file: str
    rows: int
    sha256: str


class PatchTokens(_Record):
    """What the manifest knows of the features of patches."""

    grid: tuple[int, int]
    """Rows and columns of patches."""
    shards: tuple[Shard, ...]


class Manifest(_Record):
    """What a stream's features are, and where they came from."""

    format_version: int = FORMAT_VERSION
    backbone: str
    params: dict[str, Any]
    weights: str
    """What the backbone says its weights are: a digest, a hub name, or `random`."""
    preprocessing: dict[str, Any] = {}
    """What the backbone says it does to an image or a caption first."""
    precision: str = "float32"
    """Of the backbone's products."""
    dataset: str
    split: str
    width: int
    dtype: str
    """Of the features as they are stored."""
    samples: int
    samples_sha256: str
    """Digest of the sample ids, in order: streams belong together only if it is the same."""
    samples_file_sha256: str
    """Checksum of the file that says which row is a sample's."""
    skipped: tuple[str, ...] = ()
    """Samples that could not be read; their rows are zero. They are tried again unless skipping is asked for."""
    shards: tuple[Shard, ...]
    tokens: PatchTokens | None = None
    versions: dict[str, str] = {}


def fingerprint(name: str, params: Mapping[str, Any], identity: str) -> str:
    """Directory name of a plugin's output: its name, and a digest of all that could change what it gives.

    The format counts, so that features in an older one are not found, and are made anew. `weights` and `root` are
    paths; where `identity` says what they hold, moving them makes nothing anew.
    """
    telling = {key: value for key, value in params.items() if not identity or key not in ("weights", "root")}
    text = json.dumps([FORMAT_VERSION, name, telling, identity], sort_keys=True, default=str)
    return f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def digest_ids(ids: Sequence[str]) -> str:
    """Digest of sample ids in order."""
    return hashlib.sha256(json.dumps(list(ids), ensure_ascii=False).encode()).hexdigest()


def shard_path(directory: Path, number: int) -> Path:
    """Path of shard `number` of a stream."""
    return directory / f"shard-{number:05d}.safetensors"


def tokens_path(directory: Path, number: int) -> Path:
    """Path of the patches' features of shard `number`."""
    return directory / f"tokens-{number:05d}.safetensors"


class ShardContent(NamedTuple):
    """What a shard file holds."""

    features: Tensor
    """(rows, width)."""
    ids: list[str]
    skipped: list[str]


def write_shard(
    path: Path,
    features: Tensor,
    ids: Sequence[str],
    *,
    stream: str,
    skipped: Sequence[str] = (),
    key: str = FEATURES,
) -> None:
    """Write a shard: features (rows, width), the ids of its samples, and which of them could not be read.

    With the key `tokens` they are those of patches, (rows, patches, width).

    Raises:
        BadFeatures: a value is not finite; names stream and sample.
        StorageError: the disk is full; nothing is left behind.
    """
    _check_finite(features, ids, stream)
    # One key: safetensors writes several in random order, and the same features shall be the same bytes.
    samples = json.dumps({"ids": list(ids), "skipped": list(skipped)}, ensure_ascii=False)
    write_atomically(
        path, lambda temporary: save_file({key: features.contiguous()}, temporary, metadata={"samples": samples})
    )


def read_shard(path: Path, *, key: str = FEATURES) -> ShardContent:
    """Read a shard of features, or of `tokens`. Raises MissingData or CorruptFile, naming the file."""
    if not path.is_file():
        raise MissingData(f"a shard is missing: {path}", hint=f"remove {path.parent} to extract it anew")
    try:
        with safe_open(path, framework="pt") as file:
            samples = json.loads(file.metadata()["samples"])
            return ShardContent(file.get_tensor(key), samples["ids"], samples["skipped"])
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise _corrupt(path, str(error)) from error


def write_samples(directory: Path, ids: Sequence[str], rows: NDArray[np.int64]) -> str:
    """Write which row of the shards is each sample's; returns the file's checksum."""
    path = directory / SAMPLES
    text = json.dumps({"ids": list(ids), "rows": rows.tolist()}, ensure_ascii=False)
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return sha256(path)


def _read_samples(directory: Path, manifest: Manifest) -> tuple[list[str], Tensor]:
    """Sample ids, and the row of each. Raises MissingData or CorruptFile."""
    path = directory / SAMPLES
    content = read_json(path, what="the list of a stream's samples")
    if sha256(path) != manifest.samples_file_sha256:
        raise _corrupt(path, "its checksum differs from the manifest's")
    ids: list[str] = content["ids"]
    if digest_ids(ids) != manifest.samples_sha256:
        raise _corrupt(path, "its ids are not those of the manifest")
    return ids, torch.tensor(content["rows"], dtype=torch.int64)


def _corrupt(path: Path, reason: str) -> CorruptFile:
    return CorruptFile(f"{path} is truncated or altered: {reason}", hint=f"remove {path.parent} to extract it anew")


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Declare a stream's features complete."""
    write_json(directory / MANIFEST, manifest.model_dump(mode="json"))


def revoke_manifest(directory: Path) -> None:
    """Declare a stream's features incomplete, since shards are about to change."""
    (directory / MANIFEST).unlink(missing_ok=True)


def read_manifest(directory: Path) -> Manifest:
    """Read what a stream's features are. Raises MissingData, CorruptFile or IncompatibleFormat."""
    content = read_json(directory / MANIFEST, what="the manifest of a stream")
    version = content.get("format_version") if isinstance(content, dict) else None
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise IncompatibleFormat(
            f"{directory} has format version {version}, this sparc reads up to {FORMAT_VERSION}",
            hint="upgrade: pip install -U sparc-sae",
        )
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        raise CorruptFile(
            f"{directory / MANIFEST} is not a manifest: {error.errors()[0]['msg']}",
            hint=f"remove {directory} to extract it anew",
        ) from error


def is_complete(directory: Path) -> bool:
    """Whether a stream's features are all there."""
    return (directory / MANIFEST).is_file()


@dataclass(frozen=True)
class FeatureStore:
    """Features of several streams, sample by sample; mapped from their files, not read into memory."""

    shards: dict[str, list[Tensor]]
    """Raw features by stream, in pieces (rows, width) that follow one another."""
    rows: dict[str, Tensor]
    """By stream (samples,): the row of each sample."""
    ids: tuple[str, ...]
    manifests: dict[str, Manifest]

    def __len__(self) -> int:
        """Count the samples."""
        return len(self.ids)

    @property
    def features(self) -> dict[str, Tensor]:
        """Raw features (samples, width) by stream, in memory."""
        return {name: torch.cat(shards)[self.rows[name]] for name, shards in self.shards.items()}

    @property
    def widths(self) -> dict[str, int]:
        """Width of each stream."""
        return {name: manifest.width for name, manifest in self.manifests.items()}

    @property
    def random_weights(self) -> list[str]:
        """Streams whose backbone had random weights."""
        return [name for name, manifest in self.manifests.items() if manifest.weights == "random"]

    def missing(self) -> dict[str, int]:
        """Per stream, how many samples lack it: rows of zeros."""
        return {
            name: int((~torch.cat([present(rows) for rows in shards])[self.rows[name]]).sum())
            for name, shards in self.shards.items()
        }


def open_streams(directories: Mapping[str, Path]) -> FeatureStore:
    """Read the features of streams that belong together, checking every shard against its checksum.

    Raises:
        MissingData: a stream was not extracted, or a shard is gone.
        MisalignedStreams: the streams hold different samples.
        CorruptFile: a shard is truncated or altered.
        BadFeatures: a value is not finite; names stream and sample.
    """
    manifests = {name: read_manifest(directory) for name, directory in directories.items()}
    digests = {name: manifest.samples_sha256 for name, manifest in manifests.items()}
    if len(set(digests.values())) > 1:
        found = "; ".join(f"{name}: {manifests[name].samples} samples, {digests[name][:8]}" for name in manifests)
        raise MisalignedStreams(
            f"the streams hold different samples: {found}", hint="extract them from one dataset and split"
        )
    samples = {name: _read_samples(directory, manifests[name]) for name, directory in directories.items()}
    shards = {name: _read_stream(name, directories[name], manifests[name], *samples[name]) for name in directories}
    ids = next(iter(samples.values()))[0]
    return FeatureStore(shards, {name: rows for name, (_, rows) in samples.items()}, tuple(ids), manifests)


class Patches(NamedTuple):
    """Features of patches, mapped from their files."""

    grid: tuple[int, int]
    """Rows and columns of patches."""
    shards: list[Tensor]
    """(rows, patches, width), in pieces that follow one another."""
    rows: Tensor
    """(samples,) the row of each sample."""


def open_patches(directory: Path) -> Patches:
    """Open the features of patches that `sparc extract --tokens patch` made, checking every shard.

    Raises MissingData where there are none, or as `open_streams`.
    """
    manifest = read_manifest(directory)
    if manifest.tokens is None:
        raise MissingData(f"{directory} has no features of patches", hint="sparc extract --tokens patch")
    _, rows = _read_samples(directory, manifest)
    shards = []
    for shard in manifest.tokens.shards:
        path = directory / shard.file
        shards.append(read_shard(path, key=TOKENS).features)
        if sha256(path) != shard.sha256:
            raise _corrupt(path, "its checksum differs from the manifest's")
    return Patches(manifest.tokens.grid, shards, rows)


def _read_stream(
    name: str, directory: Path, manifest: Manifest, sample_ids: Sequence[str], rows: Tensor
) -> list[Tensor]:
    parts: list[Tensor] = []
    ids: list[str] = []
    for shard in manifest.shards:
        path = directory / shard.file
        features, shard_ids, _ = read_shard(path)
        if sha256(path) != shard.sha256:
            raise _corrupt(path, "its checksum differs from the manifest's")
        _check_finite(features, shard_ids, name)
        parts.append(features)
        ids += shard_ids
    distinct, owners = np.unique(rows.numpy(), return_index=True)
    if distinct.tolist() != list(range(len(ids))) or [sample_ids[owner] for owner in owners] != ids:
        raise CorruptFile(
            f"the shards in {directory} do not hold the samples of their manifest",
            hint=f"remove {directory} to extract it anew",
        )
    return parts


def _check_finite(features: Tensor, ids: Sequence[str], stream: str) -> None:
    finite = features.isfinite().flatten(1).all(dim=1)
    if not finite.all():
        row = int((~finite).nonzero()[0])
        raise BadFeatures(
            f"stream '{stream}' has a feature that is not finite at sample '{ids[row]}'",
            hint="look at that sample and at the backbone's preprocessing; remove the sample to go on",
        )
