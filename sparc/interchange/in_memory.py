"""Features, ids and labels in memory: arrays of NumPy and tensors of torch, on any device, become sources of an import.

`held` describes them; `sparc.interchange.import_features` writes them as it writes files.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sparc.errors import InvalidConfig
from sparc.interchange import SPLITS
from sparc.interchange.arrays import BLOCK_BYTES
from sparc.interchange.feature_files import Part, Source
from sparc.interchange.sample_ids import check_unique, clean, texts
from sparc.interchange.sample_labels import Labelling, check_matched, labelling, read_labels, spelled

_SHAPE = "one row for each sample: an array or a tensor of shape (samples, width)"


@dataclass(frozen=True)
class ArraySource(Source):
    """Features of N samples in memory."""

    array: Any = None
    """(N, d), an array of NumPy or a tensor."""

    def blocks(self, room: Path) -> Iterator[NDArray[Any]]:
        """Iterate over the features (rows, d), each row once, in order."""
        step = max(1, BLOCK_BYTES // (4 * self.width))
        for low in range(0, len(self.ids), step):
            some = self.array[low : low + step]
            if isinstance(some, torch.Tensor):  # NumPy has no bfloat16
                wide = some.dtype in (torch.float64, torch.float32)
                some = some.detach().to("cpu", None if wide else torch.float32).numpy()
            yield some

    def where(self, row: int) -> str:
        """Return where a row is, for errors."""
        return f"row {row} of {self.path}"

    def digest(self) -> str:
        """Return the checksum of the values, as float32."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        whole = hashlib.sha256()
        for block in self.blocks(Path()):
            with np.errstate(over="ignore"):  # such a row is not finite, which an error says
                whole.update(np.ascontiguousarray(block, np.float32).data)
        return whole.hexdigest()

    @property
    def advice(self) -> str:
        """Advice on rows that no sample should have."""
        return "leave such rows out of the array; ids by stream, ids={'a': [...], ...}, say which samples a stream has"


class Held(NamedTuple):
    """Arrays, ids, labels and split that a caller gave in memory."""

    sources: dict[str, ArraySource]
    labels: Labelling | None
    splits: dict[str, str] | None
    """Split by id; None if it is drawn."""

    def digest(self) -> str:
        """Return a checksum of everything that an import of it writes."""
        described = {
            "streams": {name: [source.digest(), source.width, source.ids] for name, source in self.sources.items()},
            "labels": None if self.labels is None else [self.labels.labels, self.labels.taxonomy.parents],
            "splits": self.splits,
        }
        return hashlib.sha256(json.dumps(described).encode()).hexdigest()


def held(
    features: Mapping[str, Any], *, ids: Any = None, labels: Any = None, taxonomy: Any = None, split: Any = None
) -> Held:
    """Describe features in memory, by stream, with the ids, the labels and the split of their samples.

    ids: one per row, the same for all streams, or a mapping of streams to ids. Without them the ids are the numbers of
        the rows, and all streams have the same number of rows. A stream may also map ids to vectors itself.
    labels: for each row a label, a list of labels or None; whole numbers are class numbers, a matrix of 0 and 1 has a
        column per label. Or a mapping of ids to labels, or the path of a file as `read_labels` reads it.
    taxonomy: a mapping of labels to their parents, or the path of such a file.
    split: `train` or `test` for each row, or a mapping of ids to them.

    Raises InvalidConfig, and MissingData and StorageError for files.
    """
    arrays = {name: _array(name, value) for name, value in features.items()}
    by_stream = _ids(features, arrays, ids)
    sources = {}
    for name, array in arrays.items():
        path, own = Path(f"features['{name}']"), by_stream[name]
        if len(own) != len(array):
            raise InvalidConfig(
                f"ids: expected one for each of the {len(array):,} rows of '{name}', found {len(own):,}",
                hint="streams of other samples take ids of their own: ids={'a': [...], 'b': [...]}",
            )
        check_unique(own, path)
        sources[name] = ArraySource(path, own, False, False, [Part(path, "", len(own), array.shape[1])], array)
    aligned = next(iter(by_stream.values())) if len({tuple(own) for own in by_stream.values()}) == 1 else None
    splits = None if split is None else _splits(_by_id("split", _listed(split), aligned), by_stream)
    if labels is None:
        if taxonomy is not None:
            raise InvalidConfig("taxonomy: expected labels too, found none", hint="give labels, or leave taxonomy out")
        return Held(sources, None, splits)
    if isinstance(labels, str | PurePath):
        found = read_labels(Path(labels).expanduser())
    else:
        given = _by_id("labels", _classes(labels), aligned)
        found = {one: _labels(one, value) for one, value in given.items()}
        if not any(found.values()):
            raise InvalidConfig("labels: expected labels, found none", hint="give some, or leave labels out")
    if not isinstance(taxonomy, Mapping | None):
        taxonomy = Path(taxonomy).expanduser()
    known = labelling(found, taxonomy)
    check_matched(found, (one for own in by_stream.values() for one in own), all_samples=False)
    return Held(sources, known, splits)


def _array(name: str, value: Any) -> Any:
    """Return the features of a stream as an array or a tensor (N, d) of real numbers. Raises InvalidConfig."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple) and value and all(isinstance(one, torch.Tensor) for one in value):
        value = _joined(name, value)
    if isinstance(value, torch.Tensor):
        if value.is_sparse or value.layout != torch.strided:
            raise InvalidConfig(
                f"features of '{name}': expected a dense tensor, found {value.layout}", hint="x.to_dense()"
            )
        real = not value.is_complex() and value.dtype != torch.bool and not value.is_quantized
    else:
        try:
            value = np.asarray(value)
        except ValueError as error:
            raise InvalidConfig(f"features of '{name}': expected rows of one width: {error}", hint=_SHAPE) from error
        real = value.dtype.kind in "fiu"
    if not real:
        raise InvalidConfig(f"features of '{name}': expected real numbers, found {value.dtype}", hint=_SHAPE)
    inner = [size for size in value.shape[1:] if size != 1]
    if value.ndim < 2 or len(inner) > 1 or 0 in value.shape:
        raise InvalidConfig(
            f"features of '{name}': expected shape (samples, width), found {tuple(value.shape)}",
            hint=f"{_SHAPE}, such as the mean over its tokens or patches",
        )
    return value.reshape(len(value), inner[0] if inner else 1)


def _joined(name: str, parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Join a list of vectors, or of batches."""
    try:
        return torch.stack(list(parts)) if parts[0].ndim == 1 else torch.cat(list(parts))
    except RuntimeError as error:
        raise InvalidConfig(
            f"features of '{name}': expected vectors or batches of one width: {str(error).splitlines()[0]}", hint=_SHAPE
        ) from error


def _ids(features: Mapping[str, Any], arrays: Mapping[str, Any], ids: Any) -> dict[str, list[str]]:
    """Return the ids of each stream. Raises InvalidConfig."""
    own = {name: value for name, value in features.items() if isinstance(value, Mapping)}
    given = ids if isinstance(ids, Mapping) else dict.fromkeys(arrays, ids)
    if unknown := [name for name in given if name not in arrays]:
        raise InvalidConfig(f"ids: no stream '{unknown[0]}'", hint=f"streams: {', '.join(arrays)}")
    if ids is not None and own:
        raise InvalidConfig(
            f"ids: features of '{next(iter(own))}' map ids to vectors, found ids too", hint="remove one of them"
        )
    found = {}
    for name, array in arrays.items():
        some = given.get(name)
        if name in own:
            some = list(own[name])
        elif some is None and (ids is not None or own):
            raise InvalidConfig(
                f"ids: found none for the stream '{name}'", hint="give ids for each stream, or for none"
            )
        if some is None:
            if len({len(one) for one in arrays.values()}) > 1:
                counts = ", ".join(f"{stream} {len(one):,}" for stream, one in arrays.items())
                raise InvalidConfig(
                    f"features: expected as many rows in each stream, since there are no ids, found {counts}",
                    hint="give ids for each stream: ids={'a': [...], 'b': [...]}",
                )
            some = range(len(array))
        found[name] = texts(_listed(some), Path(f"ids of '{name}'"))
    return found


def _listed(values: Any) -> Any:
    """Return a sequence as a list of Python objects; a mapping as it is. Raises InvalidConfig."""
    if isinstance(values, Mapping):
        return dict(values)
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    if isinstance(values, np.ndarray) or hasattr(values, "to_numpy"):
        values = np.asarray(values).tolist()
    if isinstance(values, str | bytes) or not hasattr(values, "__iter__"):
        raise InvalidConfig(f"expected a value for each row, found {values!r:.40}", hint="give a list")
    return list(values)


def _by_id(what: str, values: Any, ids: list[str] | None) -> dict[str, Any]:
    """Return values by id: of a mapping, or in the order of the rows. Raises InvalidConfig."""
    if isinstance(values, Mapping):
        return dict(zip(texts(values, Path(what)), values.values(), strict=True))
    if ids is None:
        raise InvalidConfig(
            f"{what}: expected a mapping of ids, since the streams have different samples, found a list",
            hint=f"{what}={{id: ..., ...}}",
        )
    if len(values) != len(ids):
        raise InvalidConfig(
            f"{what}: expected one for each of {len(ids):,} rows, found {len(values):,}",
            hint="give them in the order of the rows; None for a row without" if what == "labels" else "in their order",
        )
    return dict(zip(ids, values, strict=True))


def _splits(given: Mapping[str, Any], by_stream: Mapping[str, list[str]]) -> dict[str, str]:
    """Return the split of each sample. Raises InvalidConfig for another word than train and test, or for none."""
    found = {}
    for one in dict.fromkeys(one for own in by_stream.values() for one in own):
        if (said := given.get(one)) not in SPLITS:
            raise InvalidConfig(
                f"split: expected train or test for the sample '{one}', found {said!r:.40}",
                hint="leave samples of other splits out of the features",
            )
        found[one] = str(said)
    return found


def _classes(labels: Any) -> Any:
    """Return labels as a mapping or a list: class numbers as texts, rows of 0 and 1 as the numbers of their columns."""
    if isinstance(labels, torch.Tensor):
        labels = labels.detach().cpu().numpy()
    if not isinstance(labels, np.ndarray) or labels.dtype.kind == "O":
        return _listed(labels)
    if labels.ndim == 2 and labels.dtype.kind in "biuf":
        if not ((labels == 0) | (labels == 1)).all():
            raise InvalidConfig(
                f"labels: expected 0 and 1 in a matrix of a column per label, found {labels.max():g}",
                hint="a list of label names for each row works too",
            )
        return [[str(column) for column in np.flatnonzero(row)] for row in labels]
    if labels.ndim == 1 and labels.dtype.kind in "iubUS":
        return labels.tolist()
    raise InvalidConfig(
        f"labels: expected class numbers or names, one per row, found {labels.dtype} of shape {labels.shape}",
        hint="convert them, such as y.astype(int)",
    )


def _labels(one: str, value: Any) -> tuple[str, ...]:
    """Return the labels of a sample. Raises InvalidConfig."""
    if isinstance(value, np.ndarray | torch.Tensor):
        value = value.tolist()
    parts = value if isinstance(value, Sequence | set | frozenset) and not isinstance(value, str | bytes) else [value]
    found = []
    for part in parts:
        if part is None or (isinstance(part, float) and math.isnan(part)):
            continue
        if not isinstance(part, str | int | np.integer):
            raise InvalidConfig(
                f"labels: expected a name, a number or a list of them for '{one}', found {part!r:.40}",
                hint="labels=['cat', ['dog', 'grass'], None, ...]",
            )
        found.append(str(part))
    return spelled(clean(part) for part in found)
