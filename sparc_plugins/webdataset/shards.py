"""Parameters of the dataset, and the tar files of each split that they choose."""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from pydantic import ByteSize, Field

from sparc.plugins import (
    FileCache,
    InvalidConfig,
    MissingData,
    Params,
    cache_dir,
    can_list,
    check_protocol,
    install,
    is_url,
    no_folder,
    reading,
    same_name,
)
from sparc_plugins.webdataset.remote import PATTERNS, RemoteFolder, RemoteShard, Shard

EXTRA = install("webdataset")
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")


class WebDatasetParams(Params):
    """Parameters of the dataset."""

    root: str
    """Folder of the shards, also set by `--data-root`: a path, or a URL such as `s3://bucket/prefix`."""
    train: str | None = None
    """Shards to train on, such as `train-{000..099}.tar` or `*.tar`; separate patterns by `::`. Default: train-*.tar,
    or without those all shards that are not in the split `test`."""
    test: str | None = None
    """Shards to evaluate on; default: test-*.tar, or without those a fraction `holdout` of the samples."""
    key: Literal["first-dot", "extension"] = "first-dot"
    """Part of a file's name that names its sample: all before the first dot, as in the webdataset library, or all
    before the extension, that is the longest extension of `image`, `caption` and `labels` that the name ends in."""
    image: str = "jpg;jpeg;png;webp"
    """Extensions of images, in order of preference. Empty for a set without images."""
    caption: str = "txt"
    """Extensions of captions, in order of preference; `json.FIELD` is a field of a JSON file. Empty for none."""
    labels: str | None = None
    """Extension of labels, such as `cls`: each line is one. Or `json.FIELD`: a text, a number, or a list of these."""
    holdout: float = Field(default=0.2, ge=0, le=1)
    """Fraction of the samples that is held out if there are no shards to evaluate on."""
    split_seed: int = 0
    """Seed of the draw of held-out samples."""
    digest: Literal["sample", "all"] = "sample"
    """Part of the shards that identifies them: a `sample` of their content, or `all` of it. The `sample` of shards
    behind a URL is their size with the checksum, the ETag or the time that the server gives."""
    bad_shards: Literal["error", "skip"] = Field(default="error", exclude=True)
    """Result of a shard that is missing, refused or truncated: an `error`, or `skip` it with a warning."""
    cache: ByteSize = Field(default=ByteSize(20 * 10**9), exclude=True)
    """Size of the cache of shards behind a URL, in `$SPARC_CACHE/remote`, such as `20GB`."""


def folder_of(params: WebDatasetParams) -> Path | RemoteFolder:
    """Return the folder of the shards. Raises MissingData if the package that reads such a URL is not installed."""
    if not is_url(params.root):
        return Path(params.root).expanduser()
    check_protocol(params.root)
    cache = FileCache(cache_dir("remote", "files"), params.cache)
    return RemoteFolder(params.root, cache, params.bad_shards == "skip")


def find_shards(params: WebDatasetParams) -> dict[str, list[Shard]]:
    """Return the shards of `train`, and of `test` if there are any, in the order of their patterns and names.

    Raises:
        MissingData: the library is not installed, or the folder or the shards of a pattern do not exist.
        InvalidConfig: a pattern is malformed, or a shard is in both splits.
        StorageError: the folder cannot be listed.
    """
    if find_spec("webdataset") is None:  # the library imports torch, which this check does not need
        raise MissingData("the package 'webdataset' is not installed", hint=EXTRA)
    folder = folder_of(params)
    if isinstance(folder, RemoteFolder):
        return _split(params, _remote_list(folder, params), lambda names: list(folder.matching(names)))
    listed = _listed(folder)
    shards: list[Shard] = [path for path in listed if path.suffix.lower() == ".tar" and not path.is_dir()]
    if not shards and not params.train:
        raise _no_shards(folder, listed)
    return _split(params, shards, lambda names: _matching(folder, names, skip=params.bad_shards == "skip"))


def _remote_list(folder: RemoteFolder, params: WebDatasetParams) -> list[Shard]:
    """Return the shards that the server lists; none if the parameters name all shards, or if it gives no list."""
    if params.train and (params.test or not can_list(folder.url)):
        return []
    try:
        return list(folder.tars())
    except MissingData:  # a user may have the right to read, and none to list
        if params.train:
            return []
        raise


def _split(
    params: WebDatasetParams, shards: Sequence[Shard], matching: Callable[[list[str]], list[Shard]]
) -> dict[str, list[Shard]]:
    """Return the shards of each split. Raises MissingData without shards to train on, InvalidConfig for one in both."""
    test = matching(_expanded(params.test)) if params.test else [one for one in shards if _begins(one, "test-")]
    used = set(test)
    others = [one for one in shards if one not in used]
    train = matching(_expanded(params.train)) if params.train else [one for one in others if _begins(one, "train-")]
    train = train or others
    if not train:
        raise MissingData(f"webdataset: {params.root} has no shards to train on", hint="expected *.tar; or set 'train'")
    if both := set(train) & used:
        raise InvalidConfig(
            f"webdataset: {min(map(str, both))} is in train and in test", hint="change 'train' or 'test'"
        )
    return {"train": train, "test": test} if test else {"train": train}


def _listed(root: Path) -> list[Path]:
    """Return the files and folders in a folder. Raises MissingData if it is none, StorageError."""
    with reading(root):
        if not root.is_dir():
            if root.is_file() and root.suffix.lower() == ".tar":
                hint = f"give the folder that holds it: --data-root {root.parent}"
                raise MissingData(f"webdataset: {root} is one shard, not a folder of shards", hint=hint)
            raise no_folder("webdataset", root)
        return sorted(path for path in root.iterdir() if not path.name.startswith("."))


def _begins(path: Shard, start: str) -> bool:
    return path.name.lower().startswith(start)


def _is_compressed(path: Path) -> bool:
    return path.name.lower().endswith(COMPRESSED)


def _no_shards(root: Path, listed: Sequence[Path]) -> MissingData:
    """Return the error for a folder without tar files, with what to do about those that are not plain or deeper."""
    message = f"webdataset: {root} has no shards to train on"
    if compressed := [path.name for path in listed if _is_compressed(path)]:
        hint = f"expected *.tar, found {some(compressed)}: decompress them, since sparc reads samples by their position"
    elif deeper := _in_folders(listed):
        hint = f"for the shards in sub-folders, such as {deeper[0]}, set train={Path(deeper[0]).parent}/*.tar"
    else:
        hint = "expected *.tar; or set 'train'"
    return MissingData(message, hint=hint)


def _in_folders(listed: Iterable[Path]) -> list[str]:
    """Return the tar files one folder further down, as paths relative to the root."""
    folders = [path for path in listed if path.is_dir()]
    found = (path for folder in folders for path in sorted(folder.glob("*.[tT][aA][rR]")))
    return [f"{path.parent.name}/{path.name}" for path in found if not path.name.startswith(".")]


def count_left_out(params: WebDatasetParams, found: Mapping[str, Sequence[Shard]]) -> None:
    """Warn about the tar files of the folder that are in no split, unless the user chose those to train on."""
    if params.train is not None:
        return
    used = {shard for shards in found.values() for shard in shards}
    folder = folder_of(params)
    compressed: list[str] = []
    deeper: list[str] = []
    if isinstance(folder, RemoteFolder):
        names = [shard.name for shard in folder.tars() if shard not in used]
    else:
        others = sorted(path for path in folder.iterdir() if path not in used and not path.name.startswith("."))
        names = [path.name for path in others if not path.is_dir() and path.suffix.lower() == ".tar"]
        compressed = [path.name for path in others if _is_compressed(path)]
        deeper = _in_folders(others)
    reasons = [
        *([f"{len(names)} not named train-* or test-* ({some(names)})"] if names else []),
        *([f"{len(compressed)} compressed ({some(compressed)})"] if compressed else []),
        *([f"{len(deeper)} in sub-folders ({some(deeper)})"] if deeper else []),
    ]
    if reasons:
        warnings.warn(
            f"webdataset: shards of {folder} that are not used: {'; '.join(reasons)}; 'train' and 'test' choose others",
            stacklevel=3,
        )


def some(names: Sequence[str]) -> str:
    """Return up to three names, with an ellipsis if there are more."""
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _expanded(patterns: str) -> list[str]:
    """Return the patterns that `::` and braces stand for. Raises InvalidConfig."""
    from webdataset.shardlists import expand_urls

    try:
        return list(expand_urls(patterns))
    except ValueError as error:  # unclosed braces
        raise InvalidConfig(f"webdataset: '{patterns}' is not a pattern: {error}", hint=PATTERNS) from error


def _matching(root: Path, patterns: Sequence[str], *, skip: bool) -> list[Shard]:
    found: dict[Shard, None] = {}
    missing = []
    for pattern in patterns:
        try:
            paths = _glob(root, pattern)
        except (ValueError, NotImplementedError) as error:  # an absolute path
            raise InvalidConfig(f"webdataset: '{pattern}' is not a pattern: {error}", hint=PATTERNS) from error
        if not paths and not skip:
            raise MissingData(f"webdataset: {root} has no {pattern}", hint=PATTERNS)
        if not paths:
            missing.append(pattern)
        found.update(dict.fromkeys(paths))
    if missing:
        warnings.warn(
            f"webdataset: {len(missing)} shards are left out, bad_shards=skip: {root} has no {some(missing)}",
            stacklevel=3,
        )
    return list(found)


def _glob(root: Path, pattern: str) -> list[Path]:
    """Return the files that match, whichever Unicode form their names have."""
    forms = {pattern, same_name(pattern), unicodedata.normalize("NFD", pattern)}
    paths = sorted({path for form in forms for path in root.glob(form)})
    # macOS puts a file of metadata, ._NAME, beside each file on a disk of another system.
    return [path for path in paths if not path.name.startswith("._") and not path.is_dir()]


def check_shards(shards: Iterable[Shard]) -> None:
    """Raise MissingData or StorageError for a shard that cannot be read, InvalidConfig for one beyond the cache."""
    for shard in shards:
        if isinstance(shard, RemoteShard):
            shard.cache.check(shard.file)
            continue
        try:
            with reading(shard):
                shard.stat()
        except FileNotFoundError as error:
            raise MissingData(
                f"{shard} does not exist, or is a link to a file that does not", hint="restore it"
            ) from error
