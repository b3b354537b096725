"""Read datasets of HDF5 files, each chunk once.

HDF5 decompresses a whole chunk for any part of it, so blocks consist of whole chunks. If a row of chunks is too large
for the memory, because chunks are long columns, columns are first copied into files that hold them side by side.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparc.errors import MissingData, StorageError, install
from sparc.interchange.arrays import BLOCK_BYTES, TEMPORARY, Array, Arrays, block_rows, kind_of, table, wrong_rows
from sparc.system.memory import resident_bytes
from sparc.system.processes import within
from sparc.system.refusals import writing

SECONDS, TEXTS_PER_SECOND = 10, 10_000
"""Time to read texts: at least so many seconds, and so many texts in each."""
NUMBERS_PER_SECOND = 5_000_000
LISTS_BYTES = 16 * BLOCK_BYTES
"""Memory to read a block of lists: each is an array of its own, and they are put side by side."""
MOST_NAMES = 1000
"""Most names of a group, of which links give it more than one."""
BAND_BYTES = 8 * BLOCK_BYTES
"""Size up to which a row of chunks is read into memory."""


@contextlib.contextmanager
def open_hdf5(path: Path) -> Iterator[Arrays]:
    """Open the datasets of an HDF5 file, those in groups as `group/name`."""
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise MissingData("reading HDF5 needs h5py", hint=install("hdf5")) from error
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        if "already open" not in str(error):
            raise
        raise StorageError(
            f"cannot read {path}: it is marked as open for writing",
            hint=f"wait until its writer is done; if the writer was killed: h5clear -s {path}, and check the content",
        ) from error
    with file:
        found: dict[str, Array] = {}
        # Links to other files, and several links to one dataset, count as names too: `visititems` leaves them out.
        _visit(file["/"], "", found, {file["/"].id}, Counter())
        yield found


def _visit(group: Any, prefix: str, found: dict[str, Array], above: set[Any], visits: Counter[Any]) -> None:
    import h5py

    visits[group.id] += 1
    if visits[group.id] > MOST_NAMES:  # groups that hold each other in many ways have names without end
        raise ValueError(f"the group '{group.name}' has more than {MOST_NAMES} names")
    for name in group:
        with contextlib.suppress(KeyError):  # a link that leads nowhere
            item = group[name]
            if isinstance(item, h5py.Dataset):
                found[prefix + name] = _dataset(item)
            elif isinstance(item, h5py.Group) and item.id not in above:
                _visit(item, f"{prefix}{name}/", found, {*above, item.id}, visits)


def _dataset(dataset: Any) -> Array:
    import h5py

    shape = tuple(dataset.shape or ())
    path, name = Path(dataset.file.filename), dataset.name.lstrip("/")
    if dataset.dtype.names:
        hint = (
            f"t = h5py.File('{path.name}')['{name}'][:]; np.savez('features.npz', features=t['FEATURES'], ids=t['IDS'])"
        )
        return table(path, name, dataset.dtype, shape, hint=hint)
    inner = h5py.check_vlen_dtype(dataset.dtype)
    if isinstance(inner, np.dtype) and len(shape) == 1 and shape[0] and kind_of(inner) == "real":
        return _lists(dataset, path, inner)
    room = dataset.dtype.itemsize * math.prod(shape) if _in_long_chunks(dataset) else 0
    kind = kind_of(dataset.dtype)
    return Array(shape, str(dataset.dtype), kind, partial(_blocks, dataset), lambda: _values(dataset), room=room)


def _in_long_chunks(dataset: Any) -> bool:
    """Return whether a row of chunks is too large for the memory."""
    if not dataset.chunks or dataset.ndim != 2:
        return False
    count, width = dataset.shape
    return bool(min(dataset.chunks[0], count) * width * dataset.dtype.itemsize > BAND_BYTES)


def _lists(dataset: Any, path: Path, inner: np.dtype[Any]) -> Array:
    """Describe a dataset of lists (`vlen`), which must all be as long as the first.

    They lie in a heap, as texts do, so a process of its own reads them: a damaged heap can take time or memory without
    end.
    """
    _check_filters(dataset)
    count, width = dataset.shape[0], _within(SECONDS, lambda: len(dataset[0]))

    def blocks(room: Path) -> Iterator[NDArray[Any]]:
        rows = block_rows(max(1, width) * inner.itemsize)
        with tempfile.TemporaryDirectory(dir=room, prefix=TEMPORARY) as folder:
            copied = Path(folder) / "lists"
            for low in range(0, count, rows):
                high = min(low + rows, count)

                def copy(some: slice = slice(low, high)) -> tuple[int, int] | None:
                    """Copy some lists into a file; return the place and the length of the first of another length."""
                    lists = dataset[some]
                    lengths = np.fromiter(map(len, lists), np.int64, len(lists))
                    if (lengths != width).any():
                        place = int((lengths != width).argmax())
                        return place, int(lengths[place])
                    np.stack(lists).tofile(copied)
                    return None

                seconds = SECONDS + (high - low) / TEXTS_PER_SECOND + (high - low) * width / NUMBERS_PER_SECOND
                with writing(copied):
                    wrong = _within(seconds, copy)
                if wrong is not None:
                    raise wrong_rows(
                        path,
                        low + wrong[0],
                        f"{width} numbers in '{dataset.name.lstrip('/')}'",
                        str(wrong[1]),
                        "every row needs as many numbers as the first; leave out samples that have no features",
                    )
                yield np.fromfile(copied, inner).reshape(high - low, width)

    return Array((count, width), str(inner), "real", blocks, lambda: _values(dataset))


def _within(seconds: float, function: Callable[[], Any]) -> Any:
    """Return the result of a function from a process that may take so long, and LISTS_BYTES of memory more than now.

    Raises ValueError if it takes more, or crashes.
    """

    def limited() -> Any:
        if hasattr(os, "fork"):  # else `within` runs it in this process
            import resource

            most = resident_bytes(virtual=True) + LISTS_BYTES
            _, hard = resource.getrlimit(resource.RLIMIT_AS)
            resource.setrlimit(resource.RLIMIT_AS, (most if hard < 0 else min(most, hard), hard))
        return function()

    try:
        return within(seconds, limited)
    except TimeoutError as error:
        raise ValueError(f"{error}, as of a damaged file") from error


def _values(dataset: Any) -> list[Any]:
    import h5py

    _check_filters(dataset)
    text = h5py.check_string_dtype(dataset.dtype)
    if text is None or text.length is not None:
        return list(np.asarray(dataset[()]).tolist())
    # HDF5 keeps texts of any length in a heap, and never ends reading a damaged one.
    try:
        found = within(SECONDS + dataset.size / TEXTS_PER_SECOND, lambda: _texts(dataset))
    except TimeoutError as error:
        raise ValueError(f"{error}, as of a damaged file") from error
    return [one.encode("utf-8", "surrogateescape") for one in found] if dataset.shape else found


def _texts(dataset: Any) -> Any:
    """Return texts, with bytes that are no UTF-8 as lone surrogates."""
    found = dataset[()]
    return [one.decode("utf-8", "surrogateescape") for one in found.ravel()] if dataset.shape else []


def _check_filters(dataset: Any) -> None:
    """Raise MissingData if a compression is not installed. The package hdf5plugin brings many."""
    import h5py

    properties = dataset.id.get_create_plist()
    filters = [properties.get_filter(number) for number in range(properties.get_nfilters())]
    if any(not h5py.h5z.filter_avail(code) for code, *_ in filters):
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module("hdf5plugin")  # registers its filters
    for code, _, _, name in filters:
        if not h5py.h5z.filter_avail(code):
            raise MissingData(
                f"{dataset.file.filename}: '{dataset.name}' is compressed with a filter that HDF5 lacks, {code} "
                f"({name.decode(errors='replace')})",
                hint="pip install hdf5plugin, or write the file again with compression='gzip'",
            )


def _blocks(dataset: Any, room: Path) -> Iterator[NDArray[Any]]:
    """Iterate over rows in blocks of whole chunks."""
    _check_filters(dataset)
    count, size = dataset.shape[0], dataset.dtype.itemsize * int(np.prod(dataset.shape[1:]))
    high = (dataset.chunks or (1,))[0]
    if _in_long_chunks(dataset):
        yield from _from_columns(dataset, room)
        return
    rows = max(1, block_rows(size) // high) * high
    for low in range(0, count, rows):
        yield dataset[low : low + rows]


def _from_columns(dataset: Any, room: Path) -> Iterator[NDArray[Any]]:
    """Iterate over rows of a dataset with long chunks: copy bands of columns into files, read them side by side."""
    (count, width), itemsize = dataset.shape, dataset.dtype.itemsize
    high = dataset.chunks[1]
    columns = max(1, BAND_BYTES // (count * itemsize) // high) * high
    with tempfile.TemporaryDirectory(dir=room, prefix=TEMPORARY) as folder:
        bands = []
        for low in range(0, width, columns):
            band = dataset[:, low : low + columns]
            path = Path(folder) / str(low)
            with writing(path):
                band.tofile(path)
            bands.append((path, band.shape[1]))
            del band
        rows = block_rows(width * itemsize)
        for low in range(0, count, rows):
            some = min(rows, count - low)
            yield np.concatenate(
                [
                    np.fromfile(path, dataset.dtype, some * wide, offset=low * wide * itemsize).reshape(some, wide)
                    for path, wide in bands
                ],
                axis=1,
            )
