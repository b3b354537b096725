"""Files with an array for each sample, named by its id: `id`, `id/features` or `features/id`.

`file[id] = x` and `file[id + "/features"] = x` write them, and so does a dict in a dict. Such arrays together are named
by a pattern, in which `*` stands for the id: `*`, `*/features` or `features/*`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparc.interchange.arrays import Array, Arrays, block_rows

ALL = "*"
_NO_SAMPLES = {"features", "ids", "id", "indices", "mean", "std", "var", "min", "max", "scale", "weight", "bias"}
"""Names that are hardly ids of samples."""
_FLOAT = re.compile(r"(list of )?[<>=|]*(b?f|double|half)", re.IGNORECASE)


def find_samples(arrays: Arrays, key: str | None, default: str) -> str | None:
    """Return the pattern of arrays that each hold one sample, if a file has such arrays.

    They are those named `*/key` or `key/*`, and a key may be a pattern. Without a key, they may also be all arrays of
    the file, if all have one width, and their names leave no doubt that they are ids.
    """
    name = key or default
    patterns = [name] if ALL in name else [f"{ALL}/{name}", f"{name}/{ALL}"]
    found = [pattern for pattern in patterns if _are_rows(arrays, sample_names(arrays, pattern))]
    if found:
        return found[0] if len(found) == 1 else None
    return ALL if key is None and are_samples(arrays) and _are_ids(arrays) else None


def suggestion(arrays: Arrays) -> str | None:
    """Return a key for `find_samples`, with which arrays of a file would be read as samples."""
    names = [name for name in arrays if "/" in name]
    tails = dict.fromkeys(name.rpartition("/")[2] for name in names)
    heads = dict.fromkeys(name.partition("/")[0] for name in names)
    for some, pattern in sorted(((tails, "*/{}"), (heads, "{}/*")), key=lambda pair: len(pair[0])):
        if 2 * len(some) <= len(names):
            for one in some:
                if _are_rows(arrays, sample_names(arrays, pattern.format(one))):
                    return one
    return f"'{ALL}'" if are_samples(arrays) else None


def _are_ids(arrays: Arrays) -> bool:
    """Return whether arrays are unlikely to be something else than samples, and are in no group beside their ids."""
    floats = all(_FLOAT.match(array.dtype) for array in arrays.values())
    tails = {name.rpartition("/")[2].lower() for name in arrays}
    heads = {name.partition("/")[0] for name in arrays}
    return floats and not tails & _NO_SAMPLES and len(tails) == len(arrays) and len(heads) > 1


def sample_names(arrays: Arrays, pattern: str) -> list[str]:
    """Return the names of the arrays that a pattern stands for."""
    before, _, after = pattern.partition(ALL)
    least = len(before) + len(after)
    return [name for name in arrays if len(name) > least and name.startswith(before) and name.endswith(after)]


def sample_ids(names: Sequence[str], pattern: str) -> list[str]:
    """Return the ids in the names of arrays."""
    before, _, after = pattern.partition(ALL)
    return [name[len(before) : len(name) - len(after)] for name in names]


def are_samples(arrays: Arrays) -> bool:
    """Return whether each array of a file may be a sample."""
    return _are_rows(arrays, list(arrays))


def _are_rows(arrays: Arrays, names: Sequence[str]) -> bool:
    """Return whether at least two arrays are rows (d,) or (1, d) of one width above 1."""
    shapes = {arrays[name].shape for name in names}
    rows = all(len(shape) == 1 or (len(shape) == 2 and shape[0] == 1) for shape in shapes)
    real = all(arrays[name].kind == "real" for name in names)
    return len(names) > 1 and len(shapes) == 1 and rows and real and next(iter(shapes))[-1:] > (1,)


def joined(arrays: Arrays, names: Sequence[str]) -> Array:
    """Describe the rows as one array."""
    width = arrays[names[0]].shape[-1]

    def blocks(room: Path) -> Iterator[NDArray[Any]]:
        step = block_rows(width * 8)
        for low in range(0, len(names), step):
            some = (
                np.concatenate([part.ravel() for part in arrays[name].blocks(room)]) for name in names[low : low + step]
            )
            yield np.stack(list(some))

    return Array((len(names), width), arrays[names[0]].dtype, "real", blocks, list)
