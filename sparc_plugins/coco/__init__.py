"""Dataset `coco`: MS-COCO's photographs with five captions each, 80 categories in 12 groups, and masks of objects.

The folder has the published layout: `annotations/captions_train2017.json`, `annotations/instances_train2017.json` and
`train2017/`, and the same for `val2017`, or for 2014. Captions are required. Without instances there are no labels.
Other data in this format are read too. annotations.py reads the files, and outlines.py draws the masks.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import warnings
from collections.abc import Collection, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sparc.plugins import (
    BadSample,
    DatasetSpec,
    MissingData,
    Params,
    Sample,
    Taxonomy,
    Texts,
    cache_dir,
    cache_key,
    find_path,
    head_fault,
    hookimpl,
    install,
    no_folder,
    read_image,
    reading,
    sample_file,
    sha256,
    upright_masks,
    write_atomically,
)
from sparc_plugins.coco.annotations import (
    Pictured,
    corrupt,
    read_captions,
    read_categories,
    read_instances,
    read_outlines,
)
from sparc_plugins.coco.outlines import draw_mask

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image
    from scipy.sparse import csr_array

__all__ = ["Coco", "CocoParams", "read_captions", "read_categories", "sample_file", "sparc_datasets"]

PUBLISHED = {"train": "train", "test": "val"}
"""COCO's name of each split. Its own test split has no published captions."""
LARGE = 1 << 22
"""Bytes from which the cache remembers that a file was checked."""
CHECK_VERSION = 2
"""Part of what the cache remembers a check by. Raise it when the check changes."""
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
NO_FILE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG}


class CocoParams(Params):
    """Parameters of the dataset."""

    root: str
    """Folder with `annotations` and the folders of images, also set by `--data-root`."""
    year: int = 2017
    """2017 or 2014."""
    captions: Literal["first", "all", "joined", "random"] = "first"
    """Caption of an image with several: `first`, `all` (a sample for each), `joined` to one text, or a `random` one."""
    caption_seed: int = 0
    """Random seed for `captions=random`."""


def _annotations_path(params: CocoParams, kind: str, split: str) -> Path:
    """Return the path of an annotation file, or of its .gz copy if only that exists."""
    plain = Path(params.root).expanduser() / "annotations" / f"{kind}_{PUBLISHED[split]}{params.year}.json"
    compressed = plain.with_suffix(".json.gz")
    return compressed if compressed.is_file() and not plain.is_file() else plain


def _captions_path(params: CocoParams, split: str) -> Path:
    if not Path(params.root).expanduser().is_dir():
        raise no_folder("coco", Path(params.root).expanduser())
    if not (path := _annotations_path(params, "captions", split)).is_file():
        hint = f"unzip annotations_trainval{params.year}.zip in {params.root}; COCO's years are 2014 and 2017"
        raise MissingData(f"coco: no file {path}, nor with .gz", hint=hint)
    return path


def choose_captions(captions: Sequence[str], image: str, params: CocoParams) -> list[tuple[str, str]]:
    """Return the samples of an image, each as (suffix of the image's id, caption). Blank captions make no sample."""
    if params.captions == "first" and captions and captions[0]:
        return [("", captions[0])]
    written = [(f"#{number}", caption) for number, caption in enumerate(captions) if caption]
    if params.captions == "all" or not written:
        return written
    if params.captions == "joined":
        return [("", " ".join(caption for _, caption in written))]
    # The draw depends on the image alone, not on which other images exist.
    digest = hashlib.sha256(f"{params.caption_seed}:{image}".encode()).digest()
    drawn = int.from_bytes(digest[:8], "big") % len(written) if params.captions == "random" else 0
    return [("", written[drawn][1])]


class Coco:
    """One split: images with a caption, in order of their ids. A crowd counts as its category."""

    def __init__(self, params: CocoParams, split: str) -> None:
        import numpy as np

        path = _captions_path(params, split)
        self._instances_path = _annotations_path(params, "instances", split)
        self._folder = Path(params.root).expanduser() / f"{PUBLISHED[split]}{params.year}"
        if not self._folder.is_dir():
            hint = f"unzip {self._folder.name}.zip in {params.root}"
            raise MissingData(f"coco: no folder of images at {self._folder}", hint=hint)
        images = read_captions(path)
        chosen = [
            (place, picture, suffix, caption)
            for place, (image, picture) in enumerate(images.items())
            for suffix, caption in choose_captions(picture.captions, image, params)
        ]
        if not chosen:
            raise MissingData(f"{path} has no image with a caption", hint="check that it is the right file")
        _warn_of_captions(path, images.values())
        self._compare({picture.file for picture in images.values()}, path)
        self._keys = Texts(images)
        """The file's id of each image."""
        self._images = np.array([place for place, _, _, _ in chosen], dtype=np.int64)
        """Place in `_keys` of each sample's image."""
        self.ids = Texts(f"{picture.name}{suffix}" for _, picture, suffix, _ in chosen)
        self.groups = Texts(picture.name for _, picture, _, _ in chosen)
        self._files = Texts(picture.file for _, picture, _, _ in chosen)
        self._captions = Texts(caption for _, _, _, caption in chosen)

    def _compare(self, files: set[str], path: Path) -> None:
        """Note listed images that do not exist, and warn of images that are not listed."""
        # List the folder once: checking files one by one takes minutes on a network disk.
        with reading(self._folder):
            stored = set(os.listdir(self._folder))
        found = {name: find_image(self._folder, name) for name in files - stored}
        self._missing = {name for name, place in found.items() if not os.path.isfile(place)}
        others = stored - files - {place.name for place in found.values()}
        unlisted = sorted(name for name in others if name.lower().endswith(SUFFIXES) and not name.startswith("."))
        if unlisted:
            message = f"{len(unlisted)} images in {self._folder} are not listed in {path.name}, such as "
            warnings.warn(f"coco: {message}{_some(unlisted)}", stacklevel=1)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for worker processes, which need samples but neither labels nor outlines."""
        return {name: value for name, value in vars(self).items() if name not in ("_instances", "_outlines")}

    def __len__(self) -> int:
        """Return the number of samples, N."""
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        """Return one sample, without opening its image."""
        opener = partial(open_image, self._folder, self._files[index])
        return Sample(self.ids[index], opener, self._captions[index], image_id=self.groups[index])

    def image_fault(self, index: int) -> BadSample | None:
        """Return why the image of a sample cannot be read: it does not exist, is empty, or its header says so."""
        name = self._files[index]
        if self._missing and name in self._missing:
            how = "download it" if "://" in name else f"unzip {self._folder.name}.zip again"
            hint = f"{how}; or pass --skip-bad to continue without it"
            return BadSample(f"image of sample '{self.ids[index]}' not found: {self._folder / name}", hint=hint)
        place = os.path.join(self._folder, name)
        with contextlib.suppress(OSError):  # found under another spelling; or the extraction says more
            if os.stat(place).st_size == 0:
                hint = f"unzip {self._folder.name}.zip again; or pass --skip-bad to continue without it"
                return BadSample(f"the image of sample '{self.ids[index]}' is empty: {place}", hint=hint)
        return head_fault(place, f"the image of sample '{self.ids[index]}', {place},")

    @property
    def taxonomy(self) -> Taxonomy | None:
        """Supercategories and categories; None without instances. Raises CorruptFile."""
        return self._instances[0] if self._instances else None

    def labels(self) -> csr_array | None:
        """Return multi-hot labels (N, labels), the categories on each image; None without instances.

        Raises CorruptFile.
        """
        import numpy as np
        from scipy.sparse import csr_array

        if self._instances is None:
            return None
        taxonomy, images, columns = self._instances
        ours = images >= 0
        pairs = (images[ours], columns[ours])
        present = csr_array((np.ones(ours.sum()), pairs), shape=(len(self._keys), len(taxonomy.labels)))
        present.data[:] = 1  # an image may have several objects of a category
        return csr_array(present[self._images])

    @cached_property
    def _instances(self) -> tuple[Taxonomy, NDArray[np.int64], NDArray[np.int64]] | None:
        """Taxonomy, and place of the image (-1 if it has no captions) and label column of each object."""
        import numpy as np

        if not self._instances_path.is_file():
            return None
        taxonomy, images, columns = read_instances(self._instances_path)
        place_of = {image: place for place, image in enumerate(self._keys)}
        return taxonomy, np.array([place_of.get(image, -1) for image in images], dtype=np.int64), columns

    def masks(self, index: int) -> dict[str, NDArray[np.bool_]]:
        """Return a mask (H, W) for each category of an image, the union of its objects, turned as the image is.

        Raises MissingData without pycocotools or instances, and CorruptFile if an outline is malformed.
        """
        import numpy as np

        try:
            from pycocotools import mask as tools
        except ModuleNotFoundError as error:
            message = "coco: masks need pycocotools, which is not installed"
            raise MissingData(message, hint=install("coco")) from error
        if self._instances is None:
            message = f"coco: masks need {self._instances_path}, which does not exist"
            raise MissingData(message, hint="unzip COCO's annotations again")
        taxonomy, images, columns = self._instances
        image, (sizes, outlines) = int(self._images[index]), self._outlines
        size = sizes.get(self._keys[image])
        masks: dict[str, NDArray[np.bool_]] = {}
        for place in np.flatnonzero(images == image).tolist():
            label = taxonomy.labels[columns[place]]
            try:
                mask = draw_mask(tools, outlines[place], size)
            except (ValueError, TypeError, KeyError, OverflowError) as error:
                message = f"expected an outline in annotations[{place}], found {error}"
                raise corrupt(self._instances_path, message) from error
            masks[label] = masks[label] | mask if label in masks else mask
        return upright_masks(masks, find_image(self._folder, self._files[index]))

    @cached_property
    def _outlines(self) -> tuple[dict[str, list[int]], list[Any]]:
        """Height and width of each image, and the outline of each object. Read on first access."""
        return read_outlines(self._instances_path)


def _warn_of_captions(path: Path, images: Collection[Pictured]) -> None:
    """Warn of images and captions that are left out since there is no text, and of texts that change."""
    without = [picture.file for picture in images if not any(picture.captions)]
    blank = sum(picture.captions.count("") for picture in images)
    if without:
        message = f"coco: left out images without a caption in {path}: {len(without)}, such as {_some(without)}"
        warnings.warn(message, stacklevel=1)
    if blank:
        warnings.warn(f"coco: left out blank captions in {path}: {blank}", stacklevel=1)
    foreign = (caption for picture in images for caption in picture.captions if not caption.isascii())
    if halves := sum(map(_is_broken, foreign)):
        message = f"captions in {path} with half of a character (a lone surrogate), which becomes '?': {halves}"
        warnings.warn(f"coco: {message}", stacklevel=1)


def _is_broken(text: str) -> bool:
    return text.encode("utf-8", "replace").decode() != text


def _some(names: Sequence[str]) -> str:
    return ", ".join(f"{name:.80}" for name in names[:3])


def find_image(folder: Path, name: str) -> Path:
    r"""Return the path of an image, also if its name is of another Unicode form, has `\`, or begins at the root."""
    name = name.replace("\\", "/")
    found = find_path(folder, name)
    beside = found if os.path.isfile(found) else find_path(folder.parent, name)
    return beside if os.path.isfile(beside) else found


def open_image(folder: Path, name: str) -> Image:
    """Read an image. Raises BadSample."""
    try:
        try:
            return read_image(os.path.join(folder, name))
        except FileNotFoundError:
            return read_image(find_image(folder, name))
    except OSError as error:
        if error.errno not in NO_FILE:
            raise
        hint = f"unzip {folder.name}.zip again; or pass --skip-bad to continue without it"
        raise BadSample(f"image not found: {folder / name}", hint=hint) from error


def _identify(params: CocoParams) -> str:
    """Return the digest of the captions. Features do not depend on labels, and the published images never change.

    The instances of the held-out images are checked here, since an evaluation, after hours of work, is what reads them.
    """
    digests = [sha256(_captions_path(params, split)) for split in PUBLISHED]
    _check(_annotations_path(params, "instances", "test"))
    return f"sha256:{hashlib.sha256(' '.join(digests).encode()).hexdigest()}"


def _check(path: Path) -> None:
    """Read an instances file if it exists, once as long as it does not change. Raises CorruptFile."""
    if not path.is_file():
        return
    if path.stat().st_size < LARGE:
        read_instances(path)
        return
    checked = cache_dir("coco", f"{path.name}-{cache_key([path], 'sample', CHECK_VERSION)[:32]}.checked")
    if not checked.is_file():
        read_instances(path)
        write_atomically(checked, Path.touch)


@hookimpl
def sparc_datasets() -> list[DatasetSpec]:
    """Return the dataset."""
    return [
        DatasetSpec(
            name="coco",
            open=Coco,
            params=CocoParams,
            summary="MS-COCO as published: photographs, captions, 80 categories and their masks",
            identify=_identify,
        )
    ]
