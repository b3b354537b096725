"""Dataset `webdataset`: shards of the webdataset format, tar files in which a sample's files share a name.

The format is made for reading from front to back. Samples are asked for by number here, so the first opening reads the
headers of all shards and keeps in the cache where each image and caption lies; a later one reads that alone.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sparc.plugins import DatasetSpec, InvalidConfig, MissingData, Sample, Taxonomy, held_out, hookimpl, read_taxonomy
from sparc_plugins.webdataset.index import Texts, WebDatasetParams, column, content, find_shards, read_index, stamps

if TYPE_CHECKING:
    from PIL.Image import Image
    from scipy.sparse import csr_array

TAXONOMY = "taxonomy.json"
TRIED = 100
"""Samples that are read to see whether any of them has the caption that is asked for."""


class WebDataset:
    """One split of the dataset: samples in the order of the shards. No file stays open between two samples."""

    def __init__(self, params: WebDatasetParams, split: str) -> None:
        import numpy as np

        found = find_shards(params)
        self._shards = found.get(split, found["train"])
        self._index = read_index(self._shards, params)
        self._field = column(params.caption)[1]
        self._refuse_unknown_field(params.caption)
        self._rows = np.arange(len(self._index.keys))
        if "test" not in found:
            held_out = [held_out(key, params.holdout, params.split_seed) for key in Texts(self._index.keys)]
            self._rows = np.flatnonzero(np.array(held_out) == (split == "test"))
        if not len(self._rows):
            raise MissingData(
                f"webdataset: none of {len(self._index.keys)} samples is in the split '{split}'",
                hint="add samples; or name shards with 'test'; or change 'holdout'",
            )
        self.ids = self.groups = Texts(self._index.keys[self._rows])
        self.taxonomy: Taxonomy | None = None
        if params.labels:
            used = {name for shards in found.values() for name in Texts(read_index(shards, params).names)}
            file = Path(params.root).expanduser() / TAXONOMY
            self.taxonomy = read_taxonomy(file if file.is_file() else None, sorted(used))

    def _refuse_unknown_field(self, spec: str) -> None:
        """Stop where none of the first captions can be had: that is no matter of single samples."""
        tried = [place for place in self._index.places[:TRIED].tolist() if place[3] >= 0]
        if self._field and tried and all(self._caption(place) is None for place in tried):
            number, _, _, offset, size = tried[0]
            found = read(self._shards[number], offset, size)[:200].decode(errors="replace")
            raise InvalidConfig(
                f"webdataset: no text '{spec}' in the first {len(tried)} samples of {self._shards[number]}",
                hint=f"set 'caption' to json.FIELD; the first is {found}",
            )

    def __len__(self) -> int:
        """Count the samples."""
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:
        """Return a sample; its image stays closed. Image or caption may be missing. Raises MissingData."""
        place = self._index.places[self._rows[index]].tolist()
        number, offset, size = place[:3]
        opener = None if offset < 0 else partial(open_image, self._shards[number], offset, size)
        return Sample(self.ids[index], opener, self._caption(place))

    def _caption(self, place: Sequence[int]) -> str | None:
        """The caption, None where there is none that can be read: images go on without it."""
        number, _, _, offset, size = place
        if offset < 0:
            return None
        try:
            text = content(read(self._shards[number], offset, size), self._field)
        except ValueError:
            return None
        # Half of a surrogate pair can be written in JSON, but is no text.
        return text.encode("utf-8", "replace").decode() if isinstance(text, str) else None

    def labels(self) -> csr_array | None:
        """Multi-hot labels, columns as in the taxonomy; None without labels."""
        import numpy as np
        from scipy.sparse import csr_array

        if self.taxonomy is None:
            return None
        number_of = {label: number for number, label in enumerate(self.taxonomy.labels)}
        numbers = np.array([number_of[label] for label in Texts(self._index.names)], np.int64)
        ends = np.concatenate([[0], self._index.ends])
        ones, shape = np.ones(len(self._index.labels)), (len(self._index.keys), len(number_of))
        return csr_array(csr_array((ones, numbers[self._index.labels], ends), shape=shape)[self._rows])


def read(path: Path, offset: int, size: int) -> bytes:
    """Read a part of a shard. Raises MissingData where the shard has gone."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(size)
    except OSError as error:
        raise MissingData(f"{path} cannot be read: {error.strerror}", hint="put the shard back") from error


def open_image(path: Path, offset: int, size: int) -> Image:
    """Open an image in a shard. Raises MissingData; Pillow's errors where it is none."""
    from PIL import Image

    return Image.open(io.BytesIO(read(path, offset, size)))


def _identify(params: WebDatasetParams) -> str:
    """Digest of each shard's name, size and time, and of the taxonomy."""
    shards = find_shards(params)
    digest = hashlib.sha256(json.dumps([[split, stamps(part, params.root)] for split, part in shards.items()]).encode())
    taxonomy = Path(params.root).expanduser() / TAXONOMY
    if taxonomy.is_file():
        digest.update(taxonomy.read_bytes())
    return f"sha256:{digest.hexdigest()}"


@hookimpl
def sparc_datasets() -> list[DatasetSpec]:
    """Offer the dataset."""
    return [
        DatasetSpec(
            name="webdataset",
            open=WebDataset,
            params=WebDatasetParams,
            summary="tar shards of the webdataset format: train-*.tar, test-*.tar, or any *.tar",
            identify=_identify,
        )
    ]
