"""The distinct images or captions of a dataset. A stream computes each once, however many samples share it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparc.errors import InvalidConfig, MissingData, SparcError
from sparc.extraction.preprocessing import fault
from sparc.plugins.contracts import Dataset, Sample


@dataclass(frozen=True)
class Items:
    """The distinct items of a dataset, in the order in which they first appear; each has one row of features."""

    ids: list[str]
    """Ids of the samples."""
    rows: NDArray[np.int64]
    """Row of each sample, (samples,)."""
    owners: NDArray[np.int64]
    """First sample of each row, (rows,): the sample that is read."""

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.owners)


def distinct(dataset: Dataset, modality: str) -> Items:
    """Find the distinct images, by `Sample.image_id`, or the distinct captions. Opens no image.

    Raises:
        MissingData: the dataset has no samples.
        InvalidConfig: an id cannot be encoded as UTF-8.
        PluginError, StorageError, OutOfMemory: the dataset fails to return a sample, without opening its image.
    """
    if not len(dataset):
        raise MissingData("the dataset has no samples", hint="check its folder")
    first: dict[object, int] = {}
    rows = np.empty(len(dataset), np.int64)
    owners: list[int] = []
    for position in range(len(dataset)):
        row = first.setdefault(_key(_sample(dataset, position), modality, position), len(owners))
        if row == len(owners):
            owners.append(position)
        rows[position] = row
    ids = list(dataset.ids)
    try:
        "\n".join(ids).encode()
    except UnicodeEncodeError as error:
        raise InvalidConfig(f"a sample's id is not valid text: {error}", hint="give the samples other ids") from error
    return Items(ids, rows, np.array(owners, np.int64))


def _sample(dataset: Dataset, position: int) -> Sample:
    try:
        return dataset[position]
    except SparcError:
        raise
    except Exception as error:
        raise fault(error, f"read sample '{dataset.ids[position]}'") from error


def check_paired(dataset: Dataset, split: str) -> None:
    """Raise MissingData if no sample of a split has both an image and a caption. Opens no image.

    Stops at the first sample that has both.
    """
    images: list[str] = []
    captions: list[str] = []
    for position in range(len(dataset)):
        sample = _sample(dataset, position)
        has_caption = bool(sample.caption and sample.caption.strip())
        if sample.open_image is not None and has_caption:
            return
        if sample.open_image is not None:
            images.append(sample.id)
        elif has_caption:
            captions.append(sample.id)
    raise MissingData(
        f"none of the {len(dataset)} samples of the split '{split}' has both an image and a caption: "
        f"{len(images)} with an image{_first(images)}, {len(captions)} with a caption{_first(captions)}",
        hint="give an image and its caption one name, or check the dataset's parameters; or use streams of one kind",
    )


def _first(ids: list[str]) -> str:
    return f" ({', '.join(ids[:3])}{', ...' if len(ids) > 3 else ''})" if ids else ""


def _key(sample: Sample, modality: str, position: int) -> object:
    """Return a key that equal items share. An empty caption gets its own key, so that errors name its sample."""
    if modality == "image":
        return position if sample.image_id is None else sample.image_id
    caption = sample.caption or ""
    return (
        hashlib.blake2b(caption.encode(errors="surrogatepass"), digest_size=16).digest()
        if caption.strip()
        else position
    )
