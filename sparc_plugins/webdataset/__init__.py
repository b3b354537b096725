"""Dataset `webdataset`: shards of the webdataset format, tar files in which a sample's files share a name.

The format is made for sequential reading, but sparc reads samples by number. The first opening therefore reads the
headers of all shards and caches the offset of each image and caption. Later openings read only this index.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sparc.plugins import (
    BadSample,
    CorruptFile,
    DatasetSpec,
    InvalidConfig,
    MissingData,
    Sample,
    Taxonomy,
    find_taxonomy,
    held_out,
    hookimpl,
    identify_files,
    no_image,
    read_taxonomy,
)
from sparc_plugins.webdataset.grouping import fields
from sparc_plugins.webdataset.index import EncodedTexts, content, read_index
from sparc_plugins.webdataset.remote import RemoteFolder, RemoteShard, Shard, identify_remote, opened, texts_of
from sparc_plugins.webdataset.shards import WebDatasetParams, check_shards, count_left_out, find_shards, folder_of

if TYPE_CHECKING:
    from PIL.Image import Image
    from scipy.sparse import csr_array

SHARDS_OF_TEXTS = 4
"""Number of remote shards whose captions are in memory."""
TRIED = 100
"""Number of samples that are read to check that captions can be read."""


@dataclass(frozen=True)
class UnreadableCaption(Sample):
    """A sample whose caption file holds no text. Its image is still usable."""

    reason: str = ""
    """Reason why there is no text."""

    def text(self) -> str:
        """Raise BadSample, with the reason."""
        raise BadSample(
            f"the caption of sample '{self.id}' cannot be read: {self.reason}",
            hint="write that file again, as UTF-8; or pass --skip-bad to train without it",
        )


class WebDataset:
    """One split of the dataset, in the order of the shards. No file stays open between two samples."""

    def __init__(self, params: WebDatasetParams, split: str) -> None:
        import numpy as np

        found = find_shards(params)
        count_left_out(params, found)
        self._shards = found.get(split, found["train"])
        self._index = read_index(self._shards, params)
        self._fields = fields(params.caption)
        self._texts: dict[int, dict[int, bytes]] = {}
        self._refuse_unreadable(params.caption)
        self._rows = np.arange(len(self._index.keys))
        if "test" not in found:
            drawn = [held_out(key, params.holdout, params.split_seed) for key in EncodedTexts(self._index.keys)]
            self._rows = np.flatnonzero(np.array(drawn) == (split == "test"))
        if not len(self._rows):
            raise MissingData(
                f"webdataset: none of {len(self._index.keys)} samples is in the split '{split}'",
                hint="add samples; or name shards with 'test'; or change 'holdout'",
            )
        self.ids = self.groups = EncodedTexts(self._index.keys[self._rows])
        self.taxonomy: Taxonomy | None = None
        if params.labels:
            used = {name for shards in found.values() for name in EncodedTexts(read_index(shards, params).names)}
            self.taxonomy = read_taxonomy(_taxonomy(folder_of(params)), sorted(used))

    def _refuse_unreadable(self, spec: str) -> None:
        """Raise InvalidConfig if none of the first samples has a caption that can be read."""
        tried = [place for place in self._index.places[:TRIED].tolist() if place[3] >= 0]
        if tried and all(isinstance(self._caption(place), _Fault) for place in tried):
            number, _, _, offset, size, _ = tried[0]
            start = self._written(number, offset, size)[:200].decode(errors="replace")
            where = f"the first {len(tried)} samples of {self._shards[number]}"
            raise InvalidConfig(
                f"webdataset: no text '{spec}' in {where}: {self._caption(tried[0])}",
                hint=f"set 'caption' to an extension or to json.FIELD; the first is {start}",
            )

    def __len__(self) -> int:
        """Return the number of samples, N."""
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:
        """Return one sample, without opening its image. Image or caption may be missing. Raises MissingData."""
        place = self._index.places[self._rows[index]].tolist()
        number, offset, size = place[:3]
        opener = None if offset < 0 else partial(open_image, self._shards[number], offset, size)
        caption = self._caption(place)
        if isinstance(caption, _Fault):
            return UnreadableCaption(self.ids[index], opener, reason=str(caption))
        return Sample(self.ids[index], opener, caption)

    def _caption(self, place: Sequence[int]) -> str | _Fault | None:
        """Return the caption, None if it is missing, or the reason why it is not readable."""
        number, _, _, offset, size, spec = place
        if offset < 0:
            return None
        try:
            text = content(self._written(number, offset, size), self._fields[spec])
        except ValueError as error:
            return _Fault(str(error))
        if not isinstance(text, str):
            found = "null, or no such field" if text is None else str(text)[:40]
            return _Fault(f"expected a text in the field '{self._fields[spec].json_field}', found {found}")
        # JSON can hold half of a surrogate pair, which UTF-8 cannot encode.
        return text.encode("utf-8", "replace").decode()

    def _written(self, number: int, offset: int, size: int) -> bytes:
        """Return the content of a caption's file. That of a remote shard does not need the shard any more."""
        import numpy as np

        shard = self._shards[number]
        if not isinstance(shard, RemoteShard):
            return read(shard, offset, size)
        if number not in self._texts:
            while len(self._texts) >= SHARDS_OF_TEXTS:
                self._texts.pop(next(iter(self._texts)))
            first, last = np.searchsorted(self._index.places[:, 0], [number, number + 1])
            places = self._index.places[first:last, 3:5]
            self._texts[number] = texts_of(shard, places[places[:, 0] >= 0].tolist())
        return self._texts[number][offset]

    def labels(self) -> csr_array | None:
        """Return multi-hot labels (N, labels), columns as in the taxonomy; None without labels."""
        import numpy as np
        from scipy.sparse import csr_array

        if self.taxonomy is None:
            return None
        number_of = {label: number for number, label in enumerate(self.taxonomy.labels)}
        numbers = np.array([number_of[label] for label in EncodedTexts(self._index.names)], np.int64)
        ends = np.concatenate([[0], self._index.ends])
        ones, shape = np.ones(len(self._index.labels)), (len(self._index.keys), len(number_of))
        return csr_array(csr_array((ones, numbers[self._index.labels], ends), shape=shape)[self._rows])


class _Fault(str):
    """Reason why a caption cannot be read."""


def read(path: Shard, offset: int, size: int) -> bytes:
    """Read a part of a shard. Raises MissingData or CorruptFile if it is gone or shorter than before, StorageError."""
    try:
        with opened(path) as file:
            file.seek(offset)
            data = file.read(size)
    except FileNotFoundError as error:
        raise MissingData(f"{path} does not exist any more", hint="restore the shard") from error
    if len(data) < size:
        raise CorruptFile(f"{path} has become shorter since it was opened", hint="run the same command again")
    return data


def open_image(path: Shard, offset: int, size: int) -> Image:
    """Open an image in a shard. Raises the errors of `read`, ValueError or Pillow's errors if it is not an image."""
    from PIL import Image, UnidentifiedImageError

    data = read(path, offset, size)
    try:
        return Image.open(io.BytesIO(data))
    except UnidentifiedImageError as error:
        fault = no_image("its file", data[:512])
        advice = (fault.hint or "").partition(";")[0]
        raise ValueError(f"{fault.message}; {advice}") from error  # the caller names the sample


def _identify(params: WebDatasetParams) -> str:
    """Return the digest of each shard's split, name, size and content, and of the taxonomy."""
    folder = folder_of(params)
    digest = hashlib.sha256()
    for split, shards in find_shards(params).items():
        check_shards(shards)
        if isinstance(folder, RemoteFolder):
            remote = [shard for shard in shards if isinstance(shard, RemoteShard)]
            found = identify_remote(folder.url, remote, whole=params.digest == "all")
        else:
            found = identify_files(folder, [shard for shard in shards if isinstance(shard, Path)], params.digest)
        digest.update(f"{split} {found}".encode())
        if params.bad_shards == "skip":  # the samples are those of the shards that could be read
            digest.update(read_index(shards, params).keys.tobytes())
    if (taxonomy := _taxonomy(folder)) is not None:
        digest.update(taxonomy.read_bytes())
    return f"sha256:{digest.hexdigest()}"


def _taxonomy(folder: Path | RemoteFolder) -> Path | None:
    return folder.taxonomy() if isinstance(folder, RemoteFolder) else find_taxonomy(folder)


@hookimpl
def sparc_datasets() -> list[DatasetSpec]:
    """Return the dataset."""
    return [
        DatasetSpec(
            name="webdataset",
            open=WebDataset,
            params=WebDatasetParams,
            summary="tar shards of the webdataset format: train-*.tar, test-*.tar, or any *.tar",
            identify=_identify,
        )
    ]
