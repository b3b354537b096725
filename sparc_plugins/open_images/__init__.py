"""Dataset `open-images`: Open Images with captions from Localized Narratives, read from the official files."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sparc.plugins import (
    BadSample,
    DatasetSpec,
    InvalidConfig,
    MissingData,
    Params,
    Problems,
    Sample,
    Taxonomy,
    head_fault,
    hookimpl,
    identify_files,
    read_image,
    reading,
    same_name,
    sample_file,
)
from sparc_plugins.open_images.files import AGAIN, find_files
from sparc_plugins.open_images.labels import display, read_hierarchy, read_labels, read_names
from sparc_plugins.open_images.narratives import lines_of, read_narratives

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image
    from scipy.sparse import csr_array

__all__ = ["OpenImages", "OpenImagesParams", "read_hierarchy", "sample_file", "sparc_datasets"]


SUFFIXES = (b"jpg", b"jpeg", b"png", b"webp")


class OpenImagesParams(Params):
    """Parameters of the dataset."""

    root: str
    """Folder of the official files, also set by `--data-root`."""
    missing: Literal["error", "skip"] = "error"
    """Narratives without an image in the folder: `error` stops, `skip` leaves them out."""
    digest: Literal["sample", "all"] = "sample"
    """Part of the narratives' files that identifies them: a `sample` of their content, or `all` of it."""


@dataclass(frozen=True, eq=False)
class Ids(Sequence[str]):
    """A read-only sequence of ids, built on access: the image's id, and the narrative's number if there are numbers."""

    images: NDArray[np.bytes_]
    numbers: NDArray[np.int32] | None = None

    def __len__(self) -> int:
        """Return the number of ids."""
        return len(self.images)

    def __getitem__(self, index: Any) -> Any:
        """Return one id, or a list of ids for a slice."""
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        image = self.images[index].decode()
        return image if self.numbers is None else f"{image}#{self.numbers[index]}"


class OpenImages:
    """One split of the dataset, with a sample for each narrative. Narratives of one image form a group."""

    def __init__(self, params: OpenImagesParams, split: str) -> None:
        self.files = find_files(params.root, split)
        self.taxonomy: Taxonomy | None = None
        self._columns: dict[str, int] = {}
        if self.files.hierarchy is not None:
            hierarchy = read_hierarchy(self.files.hierarchy)
            self.taxonomy = display(hierarchy, read_names(self.files.names))
            self._columns = {mid: column for column, mid in enumerate(hierarchy.labels)}
        self._renamed: dict[str, str] = {}
        """File name of each image that is not called `<image id>.jpg`."""
        narratives = read_narratives(self.files.narratives, params.digest)
        if not len(narratives):
            raise MissingData(f"{self.files.narratives[0]} has no narratives", hint=AGAIN)
        _warn_of_captions(self.files.narratives, narratives.changed.tolist())
        numbers = narratives.numbers()
        present = self._present(narratives.images, params)
        self._narratives = narratives if present.all() else narratives.chosen(present)
        self.groups = Ids(self._narratives.images)
        self.ids = Ids(self._narratives.images, numbers[present])

    def _present(self, images: NDArray[np.bytes_], params: OpenImagesParams) -> NDArray[np.bool_]:
        """Return, for each narrative, whether its image file exists (True or False). Raises MissingData."""
        import numpy as np

        folder, split = self.files.images, self.files.split
        # List the folder once: checking millions of files one by one takes minutes, or hours on a network disk.
        with reading(folder):
            names = os.listdir(os.fsencode(folder))
        published = [name[:-4] for name in names if name.endswith(b".jpg")]
        if len(published) < len(names):
            self._renamed = _other_suffixes(names, published)
        if not all(map(bytes.isascii, published)):
            self._renamed.update(_other_forms(published, images, folder))
        listed = np.array(published + [os.fsencode(image) for image in self._renamed], np.bytes_)
        present = np.isin(images, listed)
        if present.all():
            return present
        lacking = f"{int((~present).sum())} of {len(images)} narratives of the split '{split}'"
        if params.missing == "error" or not present.any():
            some = ", ".join(f"{image.decode()}.jpg" for image in np.unique(images[~present])[:3].tolist())
            hint = "add the images, or leave those narratives out: --dataset 'open-images[missing=skip]'"
            rows = np.flatnonzero(~present).tolist()
            places = lines_of(self.files.narratives, rows[: Problems.MOST])
            details = [f"{place}: no {images[row].decode()}.jpg" for place, row in zip(places, rows, strict=False)]
            rest = len(rows) - len(details)
            raise MissingData(
                f"open-images: {lacking} have no image in {folder}, such as {some}",
                hint=hint,
                details=details + ([f"and {rest:,} more"] if rest else []),
            )
        warnings.warn(f"open-images: left out {lacking}, which have no image in {folder}", stacklevel=3)
        return present

    def __len__(self) -> int:
        """Return the number of samples, N."""
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        """Return one narrative, without opening its image."""
        image: str = self.groups[index]
        open_it = partial(open_image, self.files.images / self._renamed.get(image, f"{image}.jpg"))
        return Sample(self.ids[index], open_it, self._narratives.caption(index), image_id=image)

    def image_fault(self, index: int) -> BadSample | None:
        """Return why the image of a sample cannot be read: it is empty, or its header says so.

        Those that do not exist are an error before.
        """
        image: str = self.groups[index]
        path = os.path.join(self.files.images, self._renamed.get(image, f"{image}.jpg"))
        with contextlib.suppress(OSError):  # the extraction says more
            if os.stat(path).st_size == 0:
                hint = "download it again; or pass --skip-bad"
                return BadSample(f"the image of sample '{self.ids[index]}' is empty: {path}", hint=hint)
        return head_fault(path, f"the image of sample '{self.ids[index]}', {path},")

    def labels(self) -> csr_array | None:
        """Return the verified labels (N, labels) of the samples' images, columns as in the taxonomy.

        None without a hierarchy. Labels outside the hierarchy are left out: it has 600 of Open Images' 20,000.

        Raises:
            MissingData: the file with the labels of this split does not exist.
            InvalidConfig: the hierarchy has none of the labels.
        """
        import numpy as np

        if self.taxonomy is None or self.files.hierarchy is None:
            return None
        self.files.check_labels()
        images, image_of = np.unique(self._narratives.images, return_inverse=True)
        matrix, outside = read_labels(self.files.labels, images, self._columns)
        if outside and not matrix.nnz:
            raise InvalidConfig(
                f"{self.files.hierarchy} has none of the {outside} labels in {self.files.labels[0]}",
                hint="use both from one version of Open Images",
            )
        return matrix[image_of]


def _warn_of_captions(paths: Sequence[Path], changed: Sequence[int]) -> None:
    """Warn of captions that are null, and of those with half of a character."""
    where = f"{paths[0]}{f' and {len(paths) - 1} more' if len(paths) > 1 else ''}"
    nulls, halves = changed
    if nulls:
        warnings.warn(f"open-images: captions of {where} that are null, and are empty: {nulls}", stacklevel=4)
    if halves:
        message = f"captions of {where} with half of a character (a lone surrogate), which becomes '?': {halves}"
        warnings.warn(f"open-images: {message}", stacklevel=4)


def _other_forms(published: Sequence[bytes], images: NDArray[np.bytes_], folder: Path) -> dict[str, str]:
    """Return the names of `.jpg` files whose ids are of another Unicode form, by the form that is used.

    Raises InvalidConfig if two files have the id of one narrative.
    """
    stored = set(published)
    found: dict[str, str] = {}
    for image in map(os.fsdecode, published):
        if (same := same_name(image)) != image:
            if (same in found or os.fsencode(same) in stored) and os.fsencode(same) in images:
                message = f"{folder} has two files '{same}.jpg', whose names look the same"
                raise InvalidConfig(f"open-images: {message}", hint="rename one of them")
            found[same] = f"{image}.jpg"
    return found


def _other_suffixes(names: Iterable[bytes], published: Iterable[bytes]) -> dict[str, str]:
    """Return the names of image files with other suffixes than `.jpg`, by their ids, without those in `published`."""
    found: dict[bytes, bytes] = {}
    for name in sorted(name for name in names if not name.endswith(b".jpg") and not name.startswith(b".")):
        image, _, suffix = name.rpartition(b".")
        if suffix.lower() in SUFFIXES:
            found.setdefault(os.fsencode(same_name(os.fsdecode(image))), name)
    for image in found.keys() & set(published) if found else ():
        del found[image]
    return {os.fsdecode(image): os.fsdecode(name) for image, name in found.items()}


def open_image(path: Path) -> Image:
    """Open an image file. Raises BadSample if it does not exist."""
    try:
        return read_image(path)
    except FileNotFoundError as error:
        raise BadSample(f"image not found: {path}", hint="restore it; or pass --skip-bad") from error


def _is_image(name: str) -> bool:
    """Return False for the files that systems leave in folders, such as .DS_Store and Thumbs.db."""
    return not name.startswith(".") and os.fsencode(name.rpartition(".")[2].lower()) in SUFFIXES


def _identify(params: OpenImagesParams) -> str:
    """Return the digest of the narratives' names, sizes and content, and with missing=skip of the images' names.

    Labels are left out: features do not depend on them, so adding labels later must not invalidate features.
    """
    files = [find_files(params.root, split) for split in ("train", "test")]
    files[1].check_labels()
    narratives = {path for one in files for path in one.narratives}
    found = identify_files(Path(params.root).expanduser(), narratives, params.digest)
    if params.missing == "skip":
        names = [sorted(same_name(name) for name in os.listdir(one.images) if _is_image(name)) for one in files]
        found += f" images sha256:{hashlib.sha256(json.dumps(names).encode()).hexdigest()}"
    return found


@hookimpl
def sparc_datasets() -> list[DatasetSpec]:
    """Return the dataset."""
    return [
        DatasetSpec(
            name="open-images",
            open=OpenImages,
            params=OpenImagesParams,
            summary="Open Images with Localized Narratives: the official files in one folder",
            identify=_identify,
        )
    ]
