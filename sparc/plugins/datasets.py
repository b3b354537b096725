"""Helpers for dataset plugins: read a taxonomy file, hold samples out by name, store millions of texts compactly."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, overload

from sparc.errors import InvalidConfig, MissingData
from sparc.plugins.contracts import Taxonomy
from sparc.system.names import same_name
from sparc.system.nearby import meant
from sparc.system.refusals import reading
from sparc.system.texts import read_text

TAXONOMY = "taxonomy.json"
_OF_A_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://?[^/]")
"""Start of a URL, also as a path, which has one slash less."""
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".tbz2", ".xz", ".txz", ".zst", ".7z", ".rar")
"""Endings of the names of archives and compressed files."""


def read_taxonomy(path: Path | None, used: Iterable[str]) -> Taxonomy:
    """Read a taxonomy file: a JSON object that maps each label to its parents. Without a file, all `used` are roots.

    Raises:
        MissingData: the file does not exist.
        InvalidConfig: the file is not a taxonomy, or lacks one of the labels in `used`.
        StorageError: the machine refuses to read the file.
    """
    if path is None:
        return Taxonomy(dict.fromkeys(sorted(set(used)), ()))
    try:
        content = json.loads(read_text(path), object_pairs_hook=_unique)
    except FileNotFoundError as error:
        raise MissingData(f"no taxonomy at {path}", hint=meant(path, "check the path", folder=False)) from error
    except (ValueError, RecursionError) as error:
        raise _no_taxonomy(path, error) from error
    return taxonomy_of(content, used, path)


def taxonomy_of(content: Any, used: Iterable[str], source: Path | str) -> Taxonomy:
    """Return the taxonomy in an object that maps each label to its parents; `source` names it in errors.

    Raises InvalidConfig if it is no taxonomy, or lacks one of the labels in `used`.
    """
    wanted = set(used)
    spelled = {same_name(label): label for label in wanted}
    try:
        parents = _parents(content)
        # Labels are spelled as the samples spell them, since Unicode has two forms of many letters.
        taxonomy = Taxonomy(
            {spelled.get(label, label): [spelled.get(above, above) for above in parents[label]] for label in parents}
        )
    except ValueError as error:
        raise _no_taxonomy(source, error) from error
    if unknown := sorted(wanted.difference(taxonomy.parents)):
        more = f", nor are {len(unknown) - 1} others" if len(unknown) > 1 else ""
        raise InvalidConfig(
            f"the label '{unknown[0]}' is not in {source}{more}", hint="add it there, with its parents; roots have []"
        )
    return taxonomy


def _no_taxonomy(source: Path | str, error: Exception) -> InvalidConfig:
    return InvalidConfig(
        f"{source} is not a taxonomy: {error}", hint='expected {"label": ["parent", ...], ...}, roots with []'
    )


def find_taxonomy(folder: Path) -> Path | None:
    """Return the file `taxonomy.json` of a folder, in any case of its name; None without it.

    Raises InvalidConfig if there are several and none is called `taxonomy.json`, and StorageError.
    """
    exact = folder / TAXONOMY
    if exact.is_file():
        return exact
    with reading(folder):
        named = [name for name in os.listdir(folder) if name.casefold() == TAXONOMY]
        alike = sorted(path for name in named if not (path := folder / name).is_dir())
    if len(alike) > 1:
        names = " and ".join(path.name for path in alike)
        raise InvalidConfig(f"{folder} has {names}", hint=f"call the one to read {TAXONOMY}")
    return alike[0] if alike else None


def no_folder(dataset: str, root: Path) -> MissingData:
    """Return the error for a data root that is no folder: a file, such as an archive, or nothing at all."""
    if _OF_A_URL.match(str(root)) and not root.exists():
        hint = "copy it to a disk; of URLs, only the dataset 'webdataset' reads shards"
        return MissingData(f"{dataset}: expected a folder on this machine, found the URL {root}", hint=hint)
    if not root.is_file():
        return MissingData(f"{dataset}: no folder at {root}", hint=meant(root, "check --data-root", folder=True))
    if root.name.lower().endswith(ARCHIVES):
        hint = "it is an archive: unpack it, and give the folder that it makes"
    else:
        hint = f"give the folder that holds it: --data-root {root.parent}"
    return MissingData(f"{dataset}: {root} is a file, not a folder", hint=hint)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the pairs of a JSON object as a dict by composed names. Raises ValueError if a name comes twice."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        label = same_name(name)
        if label in found:
            raise ValueError(f"it has the label '{name}' twice")
        found[label] = value
    return found


def _parents(content: Any) -> dict[str, list[str]]:
    """Check that a JSON value maps labels to lists of labels, and return it. Raises ValueError."""
    if not isinstance(content, dict):
        raise ValueError(f"expected an object, found {type(content).__name__}")
    for label, above in content.items():
        if not isinstance(label, str):
            raise ValueError(f"it has {label!r:.40} where a label is expected")
        if isinstance(above, str):
            raise ValueError(f"label '{label}' has the text '{above}' where a list of parents is expected")
        if not isinstance(above, list) or not all(isinstance(parent, str) for parent in above):
            raise ValueError(f"label '{label}' has {above!r:.60} where a list of parents is expected")
    return {label: [same_name(parent) for parent in above] for label, above in content.items()}


def held_out(name: str, fraction: float, seed: int = 0) -> bool:
    """Return True if a sample or group is held out. The draw depends on its name alone, so adding others moves none."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


class Texts(Sequence[str]):
    """A read-only sequence of texts in one buffer: smaller than Python strings, and shared by forked workers."""

    def __init__(self, texts: Iterable[str]) -> None:
        import numpy as np

        whole = list(texts)
        joined = "".join(whole)
        # JSON can hold half of a surrogate pair, which UTF-8 cannot encode.
        pieces = whole if joined.isascii() else [text.encode("utf-8", "replace") for text in whole]
        self._bytes = joined.encode("utf-8", "replace")
        self._bounds = np.zeros(len(pieces) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, pieces), np.int64, len(pieces)), out=self._bounds[1:])

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self._bounds) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        """Return one text, or a list of texts for a slice."""
        if isinstance(index, slice):
            return [self[place] for place in range(len(self))[index]]
        place = range(len(self))[index]
        return self._bytes[self._bounds[place] : self._bounds[place + 1]].decode()
