"""What plugins of datasets share: taxonomies from a file, samples held out by their name, and texts by the million."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import overload

from sparc.errors import InvalidConfig, MissingData
from sparc.plugins.contracts import Taxonomy


def read_taxonomy(path: Path | None, used: Iterable[str]) -> Taxonomy:
    """Read a taxonomy: a JSON object, label to parents. Without a file all labels that are used are roots.

    Raises:
        MissingData: the file is not there.
        InvalidConfig: it is no taxonomy, or lacks a label that is used.
    """
    if path is None:
        return Taxonomy(dict.fromkeys(sorted(set(used)), ()))
    try:
        taxonomy = Taxonomy(json.loads(path.read_text(encoding="utf-8-sig")))
    except FileNotFoundError as error:
        raise MissingData(f"no taxonomy at {path}", hint="check the path") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise InvalidConfig(
            f"{path} is no taxonomy: {error}", hint='expected {"label": ["parent", ...], ...}, roots with []'
        ) from error
    if unknown := next((label for label in used if label not in taxonomy.parents), None):
        raise InvalidConfig(
            f"the label '{unknown}' is not in {path}", hint="add it there, with its parents; roots have []"
        )
    return taxonomy


def held_out(name: str, fraction: float, seed: int = 0) -> bool:
    """Whether a sample, or a group of them, is held out: drawn by its name alone, so that adding others moves none."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


class Texts(Sequence[str]):
    """Texts in one piece of memory, which takes less than strings, and which worker processes share."""

    def __init__(self, texts: Iterable[str]) -> None:
        import numpy as np

        # Half of a surrogate pair can be written in JSON, but is no text.
        pieces = [text.encode("utf-8", "replace") for text in texts]
        self._bytes = b"".join(pieces)
        self._bounds = np.cumsum([0, *map(len, pieces)])

    def __len__(self) -> int:
        """Count the texts."""
        return len(self._bounds) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        """Return one text, or a list of those in a slice."""
        if isinstance(index, slice):
            return [self[place] for place in range(len(self))[index]]
        place = range(len(self))[index]
        return self._bytes[self._bounds[place] : self._bounds[place + 1]].decode()
