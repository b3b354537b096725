"""Features on disk. `docs/store-format.md` is normative; only this module and `manifest` read and write the store.

    <root>/<dataset>/<split>/<stream>-<fingerprint>/manifest.json
                                                    samples.json
                                                    shard-00000.safetensors ...

A shard is renamed into place once it is complete, and the manifest is written last. Samples that show the same image,
or have the same caption, share a row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sparc.core.space import present
from sparc.errors import BadFeatures, CorruptFile, MisalignedStreams, MissingData
from sparc.storage.manifest import SAMPLES, Manifest, Shard, digest_ids, how_to_remake, is_fingerprint, read_manifest
from sparc.storage.tensor_files import DIGEST, check_digest, write_tensors
from sparc.system.files import check_readable, read_json, sha256, write_atomically
from sparc.system.names import same_name
from sparc.system.refusals import reading

_FOLDER, _PART = "folder", "part-"
SHARD_ROWS = 1024
"""Rows per shard."""
FEATURES = "features"
TOKENS = "tokens"


def shard_path(directory: Path, number: int) -> Path:
    """Return the path of shard `number` of a stream."""
    return directory / f"shard-{number:05d}.safetensors"


def tokens_path(directory: Path, number: int) -> Path:
    """Return the path of the features of patches of shard `number`."""
    return directory / f"tokens-{number:05d}.safetensors"


def part_path(directory: Path, number: int, start: int, key: str = FEATURES) -> Path:
    """Return the path of rows of an incomplete shard `number`, from its row `start` on."""
    return directory / f"{_PART}{number:05d}-{start:05d}-{key}.safetensors"


def part_paths(directory: Path, number: int | None = None) -> list[Path]:
    """Return the paths of the rows of an incomplete shard, or of all."""
    return sorted(directory.glob(f"{_PART}{'*' if number is None else f'{number:05d}'}-*.safetensors"))


class ShardContent(NamedTuple):
    """Content of a shard file."""

    features: Tensor
    """(rows, width), or (rows, patches, width)."""
    ids: Sequence[str]
    """Id, for each row, of the first sample that has the row."""
    skipped: Sequence[str] = ()
    """Ids that could not be read; their rows are zero."""
    folder: str | None = None
    """End of the path of the folder that the shard was written for, such as `train/hog-0123456789ab`. It names the
    split, and by a digest the backbone with its parameters and weights. None if the shard does not say it."""


def write_shard(path: Path, content: ShardContent, *, stream: str, key: str = FEATURES) -> None:
    """Write a shard.

    With the key `tokens` the features are those of patches, (rows, patches, width).

    Raises:
        BadFeatures: a value is not finite; the message names stream and sample.
        StorageError: the disk is full; nothing is left behind.
    """
    check_finite(content.features, content.ids, stream)
    samples = json.dumps({"ids": list(content.ids), "skipped": list(content.skipped)}, ensure_ascii=False)
    tensors, metadata = {key: content.features.contiguous()}, {"samples": samples}
    if content.folder is not None:
        metadata[_FOLDER] = content.folder
    write_atomically(path, lambda temporary: write_tensors(temporary, tensors, metadata))


def read_shard(path: Path, *, key: str = FEATURES, checked: bool = False, sha: str | None = None) -> ShardContent:
    """Read a shard of features, or of `tokens`.

    checked: read the whole file, and refuse one whose content differs from its digest. A shard without a digest, which
        sparc wrote before version 0.2, must have the checksum `sha`.

    Raises MissingData, CorruptFile, or StorageError if the machine refuses to read it. All name the file.
    """
    try:
        check_readable(path)
        with reading(path), safe_open(path, framework="pt") as file:
            samples = json.loads(file.metadata()["samples"])
            ids, skipped = _texts(samples["ids"]), _texts(samples["skipped"])
            found = ShardContent(file.get_tensor(key), ids, skipped, file.metadata().get(_FOLDER))
            if found.features.ndim != (3 if key == TOKENS else 2) or len(found.ids) != len(found.features):
                raise ValueError(f"it holds {len(found.ids)} ids and features {tuple(found.features.shape)}")
            if checked and DIGEST in file.metadata():
                check_digest(path, {key: found.features}, file.metadata())
            elif checked and sha != sha256(path):
                raise ValueError("it has no digest")
            return found
    except FileNotFoundError as error:
        raise MissingData(f"a shard is missing: {path}", hint=how_to_remake(path.parent)) from error
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise _corrupt(path, str(error)) from error


def check_folder(path: Path, content: ShardContent) -> None:
    """Raise CorruptFile if a shard says that it was written for another folder than the one that it lies in.

    It is of another stream or split, whose ids and width may be the same.
    """
    place = same_name(f"/{path.parent.absolute().as_posix()}")  # some systems list names in another Unicode form
    if content.folder is not None and not place.endswith(same_name(f"/{content.folder}")):
        raise CorruptFile(
            f"{path} was written for the folder {content.folder}, so it is of another stream or split",
            hint=how_to_remake(path.parent),
        )


def check_place(path: Path, content: ShardContent) -> None:
    """Raise as `check_folder` if the shard lies in a store; elsewhere folders have names that their owners chose."""
    if is_fingerprint(path.absolute().parent.parent.parent.name):
        check_folder(path, content)


def _texts(found: Any) -> list[str]:
    """Return a list of texts. Raises ValueError for anything else."""
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise ValueError("its ids are no list of texts")
    return found


def write_samples(directory: Path, ids: Sequence[str], rows: NDArray[np.int64]) -> str:
    """Write the row of each sample in the shards, and return the file's checksum."""
    path = directory / SAMPLES
    text = json.dumps({"ids": list(ids), "rows": rows.tolist()}, ensure_ascii=False)
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return sha256(path)


def _read_samples(directory: Path, manifest: Manifest) -> tuple[list[str], Tensor]:
    """Return the sample ids and the row of each, (samples,). Raises MissingData or CorruptFile."""
    path = directory / SAMPLES
    try:
        if sha256(path) != manifest.samples_file_sha256:
            raise _corrupt(path, "its checksum differs from the manifest's")
    except FileNotFoundError as error:
        message = f"the list of a stream's samples is missing: {path}"
        raise MissingData(message, hint=how_to_remake(directory)) from error
    content = read_json(path, what="the list of a stream's samples")
    try:
        ids, rows = _texts(content["ids"]), torch.tensor(content["rows"], dtype=torch.int64)
    except (ValueError, TypeError, KeyError, RuntimeError, OverflowError) as error:
        raise _corrupt(path, f"expected lists of ids and of rows, found {type(error).__name__}") from error
    if digest_ids(ids) != manifest.samples_sha256:
        raise _corrupt(path, "its ids are not those of the manifest")
    if rows.shape != (len(ids),) or len(ids) != manifest.samples:
        raise _corrupt(path, f"expected {manifest.samples:,} samples, found {len(ids):,} ids and {rows.numel():,} rows")
    return ids, rows


def read_ids(directory: Path, manifest: Manifest) -> list[str]:
    """Return the sample ids of a stream, in order, without its features. Raises MissingData or CorruptFile."""
    return _read_samples(directory, manifest)[0]


def _corrupt(path: Path, reason: str) -> CorruptFile:
    return CorruptFile(f"{path} is truncated or altered: {reason}", hint=how_to_remake(path.parent))


@dataclass(frozen=True)
class FeatureStore:
    """Features of several streams of the same samples, memory-mapped from their files."""

    shards: dict[str, list[Tensor]]
    """Raw features by stream: consecutive shards, (rows, width) each."""
    rows: dict[str, Tensor]
    """Row of each sample by stream, (samples,)."""
    ids: tuple[str, ...]
    """Sample ids, in order."""
    manifests: dict[str, Manifest]

    def __len__(self) -> int:
        """Count the samples."""
        return len(self.ids)

    def __repr__(self) -> str:
        """Return one line with the streams, their widths, and the number of samples."""
        return f"{type(self).__name__}({self.widths}, {len(self):,} samples)"

    def in_memory(self) -> dict[str, Tensor]:
        """Copy all features into memory: raw, by stream, (samples, width)."""
        return {name: torch.cat(shards)[self.rows[name]] for name, shards in self.shards.items()}

    def some(self, samples: Tensor) -> dict[str, Tensor]:
        """Copy the features of some samples into memory: raw, by stream, (len(samples), width)."""
        found = {}
        for name, shards in self.shards.items():
            rows = self.rows[name][samples]
            starts = torch.tensor([0, *map(len, shards)]).cumsum(0)
            found[name] = torch.empty(len(rows), shards[0].shape[1], dtype=shards[0].dtype)
            for shard, low, high in zip(shards, starts[:-1].tolist(), starts[1:].tolist(), strict=True):
                own = (rows >= low) & (rows < high)
                found[name][own] = shard[rows[own] - low]
        return found

    @property
    def widths(self) -> dict[str, int]:
        """Width of each stream's features."""
        return {name: manifest.width for name, manifest in self.manifests.items()}

    @property
    def random_weights(self) -> list[str]:
        """Streams whose backbone had random weights."""
        return [name for name, manifest in self.manifests.items() if manifest.weights == "random"]

    def presence(self) -> dict[str, Tensor]:
        """Return per stream a mask of the samples that have it, (samples,); the rows of others are zero."""
        return {
            name: torch.cat([present(rows) for rows in shards])[self.rows[name]] for name, shards in self.shards.items()
        }

    def missing(self) -> dict[str, int]:
        """Count per stream the samples that lack it."""
        return {name: len(self) - int(mask.sum()) for name, mask in self.presence().items()}


def open_streams(directories: Mapping[str, Path]) -> FeatureStore:
    """Open streams of the same samples, and check every shard against its checksum.

    Raises:
        MissingData: a stream was not extracted, or a shard is gone.
        MisalignedStreams: the streams hold different samples.
        CorruptFile: a shard is truncated or altered.
        StorageError: the machine refuses to read a file.
        BadFeatures: a value is not finite; the message names stream and sample.
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
    """Features of patches, memory-mapped from their files."""

    grid: tuple[int, int]
    """Rows and columns of patches."""
    shards: list[Tensor]
    """Consecutive shards, (rows, patches, width) each."""
    rows: Tensor
    """Row of each sample, (samples,)."""


def open_patches(directory: Path) -> Patches:
    """Open the features of patches that `sparc extract --tokens patch` wrote, and check every shard.

    Raises MissingData if there are none, otherwise as `open_streams`.
    """
    manifest = read_manifest(directory)
    if manifest.tokens is None:
        raise MissingData(f"{directory} has no features of patches", hint="sparc extract --tokens patch")
    _, rows = _read_samples(directory, manifest)
    patches = manifest.tokens.grid[0] * manifest.tokens.grid[1]
    shards = [_listed(directory / shard.file, shard, TOKENS).features for shard in manifest.tokens.shards]
    for shard, features in zip(manifest.tokens.shards, shards, strict=True):
        if features.shape[1] != patches or features.shape[2] != shards[0].shape[2]:
            raise _corrupt(
                directory / shard.file,
                f"expected {patches} patches of width {shards[0].shape[2]}, found {tuple(features.shape[1:])}",
            )
    _check_rows(directory, rows, sum(map(len, shards)))
    return Patches(manifest.tokens.grid, shards, rows)


def _listed(path: Path, shard: Shard, key: str = FEATURES) -> ShardContent:
    """Read a shard that a manifest lists. Raises as `read_shard`, and CorruptFile if it is not what is listed."""
    found = read_shard(path, key=key)
    if sha256(path) != shard.sha256:
        raise _corrupt(path, "its checksum differs from the manifest's")
    check_place(path, found)
    if len(found.ids) != shard.rows:
        raise _corrupt(path, f"the manifest says {shard.rows:,} rows, it holds {len(found.ids):,}")
    return found


def _check_rows(directory: Path, rows: Tensor, count: int) -> None:
    """Raise CorruptFile if a sample's row is in none of the shards."""
    if len(rows) and not (int(rows.min()) >= 0 and int(rows.max()) < count):
        raise _corrupt(directory / SAMPLES, f"it names a row beyond the {count:,} rows of the shards")


def _read_stream(
    name: str, directory: Path, manifest: Manifest, sample_ids: Sequence[str], rows: Tensor
) -> list[Tensor]:
    parts: list[Tensor] = []
    ids: list[str] = []
    for shard in manifest.shards:
        path = directory / shard.file
        found = _listed(path, shard)
        features, shard_ids = found.features, found.ids
        dtype = str(features.dtype).removeprefix("torch.")
        if (features.shape[1], dtype) != (manifest.width, manifest.dtype):
            raise _corrupt(
                path,
                f"the manifest says width {manifest.width} and {manifest.dtype}, it holds width {features.shape[1]} "
                f"and {dtype}",
            )
        check_finite(features, shard_ids, name)
        parts.append(features)
        ids += shard_ids
    distinct, owners = np.unique(rows.numpy(), return_index=True)
    if distinct.tolist() != list(range(len(ids))) or [sample_ids[owner] for owner in owners] != ids:
        raise CorruptFile(
            f"the shards in {directory} do not hold the samples of their manifest",
            hint=how_to_remake(directory),
        )
    return parts


def check_finite(features: Tensor, ids: Sequence[str], stream: str) -> None:
    """Raise BadFeatures if a feature (n, D) of a stream is not finite; `ids` are those of the samples."""
    finite = features.isfinite().flatten(1).all(dim=1)
    if not finite.all():
        row = int((~finite).nonzero()[0])
        raise BadFeatures(
            f"stream '{stream}' has a feature that is not finite at sample '{ids[row]}'",
            hint="look at that sample and at the backbone's preprocessing, or remove the sample",
        )
