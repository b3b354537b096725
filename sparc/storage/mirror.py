"""Features behind a URL, copied into the cache: a stream's manifest names its files and their checksums.

    $SPARC_CACHE/remote/stores/<digest of the URL>/...     a copy of the store, or of imported features

Nothing is listed but the names of imported streams, so that a web server will do. The manifest is written last: a copy
that has one is complete.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from sparc.errors import CorruptFile, IncompatibleFormat, InvalidConfig, MissingData
from sparc.storage.manifest import IMPORTING, MANIFEST, SAMPLES, STORE_FORMAT, Manifest, revoke_manifest
from sparc.system.cache import cache_dir
from sparc.system.files import remove_temporaries, sha256, write_atomically
from sparc.system.locks import LOCK, take
from sparc.system.refusals import writing
from sparc.system.remote import below, can_list, describe, download, list_folders, read_whole, shown


def mirror_of(url: str) -> Path:
    """Return the folder of the copy of a store, or of imported features. It may not exist yet."""
    return cache_dir("remote", "stores", hashlib.sha256(shown(url).encode()).hexdigest()[:16]).resolve()


def fetch_imported(url: str, streams: Sequence[str], splits: Sequence[str], beside: Sequence[str]) -> Path:
    """Copy imported features, those of `streams` or else all, and return their folder.

    `beside` are files that a split may have beside its streams.

    Raises:
        InvalidConfig: `streams` is empty and the server lists no folders.
        MissingData: there are no such features, or the import is not complete.
        CorruptFile, StorageError: as `fetch_stream`.
    """
    root = mirror_of(url)
    if not streams and not can_list(url):
        raise InvalidConfig(
            f"--features: {shown(url)} does not list its streams", hint="name them: --stream NAME, for each of them"
        )
    if _is_there(below(url, IMPORTING)):
        raise MissingData(f"the import in {shown(url)} is not complete", hint="copy it again when the import has ended")
    found = False
    for split in splits:
        inside = below(url, split)
        names = streams or _listed(inside)
        if not streams:
            _remove_others(root / split, names)
        for name in names:
            found = fetch_stream(below(inside, name), root / split / name) or found
        for name in beside:
            _fetch_beside(below(inside, name), root / split / name)
    if not found:
        raise MissingData(f"no imported features at {shown(url)}", hint="check the URL, and the right to read there")
    return root


def _listed(url: str) -> list[str]:
    """Return the streams of a split; none if there is no such split."""
    try:
        return list_folders(url)
    except MissingData:
        return []


def _remove_others(split: Path, names: Sequence[str]) -> None:
    """Remove the copies of streams that are not at the URL any more."""
    for folder in split.iterdir() if split.is_dir() else ():
        if folder.is_dir() and folder.name not in names:
            with writing(folder):
                shutil.rmtree(folder)


def fetch_stream(url: str, directory: Path) -> bool:
    """Copy a stream's features into `directory`, unless they are there; return False if the URL has no manifest.

    Raises:
        CorruptFile: a file is not what the manifest says.
        IncompatibleFormat: a newer sparc wrote it.
        MissingData: a file is gone.
        StorageError: the server does not answer, or the disk is full.
    """
    try:
        content = read_whole(describe(below(url, MANIFEST)))
    except MissingData:
        return False
    manifest = _parsed(content, url)
    path = directory / MANIFEST
    lock = take(directory / LOCK, patience=None)
    assert lock is not None
    try:
        if path.is_file() and path.read_bytes() == content:
            return True
        revoke_manifest(directory)
        remove_temporaries(directory)
        shards = [*manifest.shards, *(manifest.tokens.shards if manifest.tokens else ())]
        wanted = {SAMPLES: manifest.samples_file_sha256} | {shard.file: shard.sha256 for shard in shards}
        for name, checksum in wanted.items():
            _fetch(below(url, name), directory / name, checksum)
        write_atomically(path, lambda temporary: temporary.write_bytes(content))
    finally:
        lock.release()
    return True


def _fetch(url: str, path: Path, checksum: str) -> None:
    """Download a file unless it is there. Raises CorruptFile if its checksum is another one."""
    if path.is_file() and sha256(path) == checksum:
        return
    file = describe(url)

    def write(temporary: Path) -> None:
        download(file, temporary)
        if sha256(temporary) != checksum:
            raise CorruptFile(
                f"{file} is truncated or altered: its checksum differs from the manifest's",
                hint="copy the features there again",
            )

    write_atomically(path, write)


def _fetch_beside(url: str, path: Path) -> None:
    """Copy a small file; remove the copy of one that is not there."""
    try:
        content = read_whole(describe(url))
    except MissingData:
        path.unlink(missing_ok=True)
        return
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


def _is_there(url: str) -> bool:
    try:
        describe(url)
    except MissingData:
        return False
    return True


def _parsed(content: bytes, url: str) -> Manifest:
    try:
        found = json.loads(content)
        version = found.get("format_version") if isinstance(found, dict) else None
        if isinstance(version, int) and version > STORE_FORMAT:
            raise IncompatibleFormat(
                f"{shown(url)} has format version {version}, this sparc reads up to {STORE_FORMAT}",
                hint="upgrade: pip install -U sparc-sae",
            )
        return Manifest.model_validate(found)
    except (ValidationError, ValueError, RecursionError) as error:
        raise CorruptFile(
            f"{shown(below(url, MANIFEST))} is not a manifest", hint="copy the features there again"
        ) from error
