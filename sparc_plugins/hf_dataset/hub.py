"""A dataset on the Hugging Face Hub: repositories of CSV and JSON files are read as folders of such files are.

The library decides which files make the splits, as the repository's card or the names of the files say. sparc downloads
and reads them, since the library's readers guess types. All other repositories are read by the library.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from sparc.plugins import cache_dir, split_revision, write_atomically
from sparc_plugins.hf_dataset.choice import DATA, KINDS, card_of
from sparc_plugins.hf_dataset.commits import commit_of, connection
from sparc_plugins.hf_dataset.failures import sparc_error
from sparc_plugins.hf_dataset.folders import some, suffix_of, visible
from sparc_plugins.hf_dataset.params import HFParams
from sparc_plugins.hf_dataset.texts import TextFiles

PLACE = re.compile(r"hf://datasets/(?P<repo>[^@]+)@(?P<commit>[0-9a-f]{40})/(?P<name>.+)")
READERS = ("CsvConfig", "JsonConfig")
"""Configurations of the library's readers that sparc's take the place of."""
VERSION = 1
"""Part of the name of a note on splits. Raise it when the notes change."""


class HubFiles(NamedTuple):
    """Files of one split in a repository at a commit."""

    repo: str
    commit: str
    names: Sequence[str]
    separator: str | None
    classes: Mapping[str, Sequence[str]]

    def open(self, columns: Mapping[str, str], role: str) -> Any:
        """Download the files and return the used columns as a memory-mapped table. Raises as `TextFiles.open`."""
        from huggingface_hub import hf_hub_download

        paths = []
        try:
            for name in self.names:
                with connection(self.repo) as found:
                    fetch = partial(hf_hub_download, self.repo, name, repo_type="dataset", revision=self.commit)
                    paths.append(Path(fetch(local_files_only=not found)))
        except Exception as error:  # errors of the HTTP library pass through the hub's client
            raise sparc_error(error, self.repo, is_local=False) from error
        root = paths[0].parents[len(PurePosixPath(self.names[0]).parts) - 1]
        return TextFiles(root, paths, self.separator, self.classes).open(columns, role)


def load_repository(params: HFParams) -> dict[str, Any]:
    """Return all splits of a repository by name: files that are read as texts, or tables or streams of the library.

    Which files make the splits is noted in the cache for a time without a connection. The library's own errors pass.
    """
    import datasets

    repo, revision = split_revision(str(params.path), params.revision)
    commit = commit_of(repo, revision)
    if commit is not None and (noted := _note(repo, commit, params.name)).is_file():
        return _splits(json.loads(noted.read_bytes()))
    with connection(repo):
        builder: Any = datasets.load_dataset_builder(repo, params.name, revision=revision)
        return _loaded(params, repo, builder)


def _loaded(params: HFParams, repo: str, builder: Any) -> dict[str, Any]:
    if (content := _described(builder)) is not None:
        note = _note(repo, content["commit"], params.name)
        write_atomically(note, lambda path: path.write_text(json.dumps(content), encoding="utf-8"))
        return _splits(content)
    if params.streaming:
        return dict(builder.as_streaming_dataset())
    builder.download_and_prepare()
    return dict(builder.as_dataset())


def _note(repo: str, commit: str, name: str | None) -> Path:
    known = json.dumps([VERSION, repo, commit, name])
    return cache_dir("hf", f"{hashlib.sha256(known.encode()).hexdigest()[:16]}.splits")


def _splits(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the files of each split, and warn about tables that none uses."""
    repo, commit, left = content["repo"], content["commit"], content["left"]
    if left:
        warnings.warn(
            f"hf: {len(left)} files of {repo} are in no split and are not read: {some(left)}; a split is one format, "
            "named by file or folder",
            stacklevel=5,
        )
    return {
        split: HubFiles(repo, commit, names, content["separator"], content["classes"])
        for split, names in content["splits"].items()
    }


def _described(builder: Any) -> dict[str, Any] | None:
    """Return repository, commit, files and separator of a dataset of CSV and JSON files; None for any other."""
    if type(builder.config).__name__ not in READERS:
        return None
    splits: dict[str, list[str]] = {}
    places = set()
    for split, files in builder.config.data_files.items():
        for file in files:
            if (place := PLACE.fullmatch(file)) is None or _kind_of(place["name"]) not in ("csv", "lines", "json"):
                return None
            places.add((place["repo"], place["commit"]))
            splits.setdefault(str(split), []).append(place["name"])
    if len(places) != 1:
        return None
    (repo, commit), card = places.pop(), card_of(builder, {})
    if card.options:
        warnings.warn(
            f"hf: the card of {repo} says how to read its tables, {', '.join(card.options)}: the library 'datasets' "
            "reads them, and may turn texts such as 007 into numbers or times",
            stacklevel=4,
        )
        return None
    return {
        "repo": repo,
        "commit": commit,
        "splits": splits,
        "separator": card.separator,
        "classes": card.classes and dict(card.classes),
        "left": _left(repo, commit, {name for names in splits.values() for name in names}),
    }


def _kind_of(name: str) -> str | None:
    return KINDS.get(suffix_of(Path(name)))


def _left(repo: str, commit: str, used: set[str]) -> list[str]:
    """Return the tables and archives of a repository that no split uses."""
    from huggingface_hub import HfApi

    listed = HfApi().list_repo_files(repo, repo_type="dataset", revision=commit)
    seen = visible([Path(name) for name in listed], Path())
    names = [path.as_posix() for path in seen if suffix_of(path) in DATA and path.name != "taxonomy.json"]
    return [name for name in names if name not in used]
