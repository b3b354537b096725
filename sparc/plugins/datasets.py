"""Helpers for dataset plugins: read a taxonomy file, hold samples out by name, store millions of texts compactly."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import overload

from sparc.errors import InvalidConfig, MissingData
from sparc.plugins.contracts import Taxonomy


def read_taxonomy(path: Path | None, used: Iterable[str]) -> Taxonomy:
    """Read a taxonomy file: a JSON object that maps each label to its parents. Without a file, all `used` are roots.

    Raises:
        MissingData: the file does not exist.
        InvalidConfig: the file is not a taxonomy, or lacks one of the labels in `used`.
    """
    if path is None:
        return Taxonomy(dict.fromkeys(sorted(set(used)), ()))
    try:
        taxonomy = Taxonomy(json.loads(path.read_text(encoding="utf-8-sig")))
    except FileNotFoundError as error:
        raise MissingData(f"no taxonomy at {path}", hint="check the path") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise InvalidConfig(
            f"{path} is not a taxonomy: {error}", hint='expected {"label": ["parent", ...], ...}, roots with []'
        ) from error
    if unknown := next((label for label in used if label not in taxonomy.parents), None):
        raise InvalidConfig(
            f"the label '{unknown}' is not in {path}", hint="add it there, with its parents; roots have []"
        )
    return taxonomy


def held_out(name: str, fraction: float, seed: int = 0) -> bool:
    """Return True if a sample or group is held out. The draw depends on its name alone, so adding others moves none."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


class Texts(Sequence[str]):
    """A read-only sequence of texts in one buffer: smaller than Python strings, and shared by forked workers."""

    def __init__(self, texts: Iterable[str]) -> None:
        import numpy as np

        # JSON can hold half of a surrogate pair, which UTF-8 cannot encode.
        pieces = [text.encode("utf-8", "replace") for text in texts]
        self._bytes = b"".join(pieces)
        self._bounds = np.cumsum([0, *map(len, pieces)])

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
