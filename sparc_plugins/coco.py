"""Dataset `coco`: MS-COCO's photographs with five captions each, 80 categories in 12 groups, and masks of objects.

The folder has the published layout: `annotations/captions_train2017.json`, `annotations/instances_train2017.json` and
`train2017/`, and the same for `val2017`, or for 2014. Captions are required. Without instances there are no labels.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from array import array
from collections.abc import Collection, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from sparc.plugins import (
    BadSample,
    CorruptFile,
    DatasetSpec,
    MissingData,
    Params,
    Sample,
    Taxonomy,
    Texts,
    hookimpl,
    sha256,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image
    from scipy.sparse import csr_array

PUBLISHED = {"train": "train", "test": "val"}
"""COCO's name of each split. Its own test split has no published captions."""
KINDS = {int: "a whole number", str: "a text", list: "a list"}
Kind = TypeVar("Kind", int, str, list[Any])
Record = dict[str, Any]


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
        raise MissingData(f"coco: no folder at {params.root}", hint="check --data-root")
    if not (path := _annotations_path(params, "captions", split)).is_file():
        hint = f"unzip annotations_trainval{params.year}.zip in {params.root}; COCO's years are 2014 and 2017"
        raise MissingData(f"coco: no file {path}, nor with .gz", hint=hint)
    return path


def read_annotations(path: Path, keys: Collection[str]) -> Any:
    """Read an annotation file, keeping only `keys` of each object. Raises CorruptFile."""

    def keep(record: Record) -> Record:
        # Filter while parsing: a file of 450 MB would take several GB as Python objects.
        kept = {key: record[key] for key in keys if key in record}
        if isinstance(outlines := kept.get("segmentation"), list):
            kept["segmentation"] = [array("d", polygon) for polygon in outlines]
        return kept

    opener: Any = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8-sig") as file:
            return json.load(file, object_hook=keep)
    except (ValueError, TypeError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _corrupt(path, f"expected COCO's JSON, found {error}") from error


def _corrupt(path: Path, message: str) -> CorruptFile:
    return CorruptFile(f"{path}: {message}", hint="download and unzip it again, or repair it")


def _records(content: Any, key: str, path: Path) -> list[Record]:
    records = content.get(key) if isinstance(content, dict) else None
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise _corrupt(path, f"expected an object with a list of objects '{key}', found {type(records).__name__}")
    return records


def _field(record: Record, key: str, kind: type[Kind], path: Path) -> Kind:
    value = record.get(key)
    if not isinstance(value, kind):
        raise _corrupt(path, f"expected {KINDS[kind]} '{key}', found {record!s:.100}")
    return value


def _by_id(content: Any, key: str, path: Path) -> dict[int, Record]:
    """Return images or categories by id, sorted by id, since another copy of the file may have another order."""
    found: dict[int, Record] = {}
    for record in _records(content, key, path):
        number = _field(record, "id", int, path)
        if number in found:
            raise _corrupt(path, f"expected unique ids in '{key}', found {number} twice")
        found[number] = record
    return dict(sorted(found.items()))


def read_captions(path: Path) -> tuple[dict[int, str], dict[int, list[str]]]:
    """Return file names and captions by image id. Captions are one line each, in file order. Raises CorruptFile."""
    content = read_annotations(path, ("images", "annotations", "id", "file_name", "image_id", "caption"))
    files = {image: _field(record, "file_name", str, path) for image, record in _by_id(content, "images", path).items()}
    captions: dict[int, list[str]] = {image: [] for image in files}
    for record in _records(content, "annotations", path):
        image = _field(record, "image_id", int, path)
        if image not in captions:
            raise _corrupt(path, f"expected captions of its own images, found {record!s:.100}")
        captions[image].append(" ".join(_field(record, "caption", str, path).split()))
    return files, captions


def choose_captions(captions: Sequence[str], image: int, params: CocoParams) -> list[tuple[str, str]]:
    """Return the samples of an image, each as (suffix of the image's id, caption). Blank captions make no sample."""
    written = [(f"#{number}", caption) for number, caption in enumerate(captions) if caption]
    if params.captions == "all" or not written:
        return written
    if params.captions == "joined":
        return [("", " ".join(caption for _, caption in written))]
    # The draw depends on the image alone, not on which other images exist.
    digest = hashlib.sha256(f"{params.caption_seed}:{image}".encode()).digest()
    drawn = int.from_bytes(digest[:8], "big") % len(written) if params.captions == "random" else 0
    return [("", written[drawn][1])]


def read_categories(content: Any, path: Path) -> tuple[Taxonomy, dict[int, int]]:
    """Return the taxonomy supercategory > category, and the column of each category. Raises CorruptFile.

    `person` is the only category of the supercategory `person`, so both are one label.
    """
    categories = _by_id(content, "categories", path)
    parents: dict[str, tuple[str, ...]] = {}
    for record in categories.values():
        name, above = _field(record, "name", str, path), _field(record, "supercategory", str, path)
        parents.setdefault(above, ())
        if name != above:
            parents[name] = (above,)
    try:
        taxonomy = Taxonomy(parents)
    except ValueError as error:
        raise _corrupt(path, f"expected categories below supercategories, found that {error}") from error
    return taxonomy, {number: taxonomy.labels.index(record["name"]) for number, record in categories.items()}


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
        files, captions = read_captions(path)
        chosen = [
            (image, f"{image:012d}{suffix}", caption)
            for image in files
            for suffix, caption in choose_captions(captions[image], image, params)
        ]
        if not chosen:
            raise MissingData(f"{path} has no image with a caption", hint="check that it is the right file")
        self._images = np.array([image for image, _, _ in chosen], dtype=np.int64)
        self.ids = Texts(name for _, name, _ in chosen)
        self.groups = Texts(f"{image:012d}" for image, _, _ in chosen)
        self._files = Texts(files[image] for image, _, _ in chosen)
        self._captions = Texts(caption for _, _, caption in chosen)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for worker processes, which need samples but neither labels nor outlines."""
        return {name: value for name, value in vars(self).items() if name not in ("_instances", "_outlines")}

    def __len__(self) -> int:
        """Return the number of samples, N."""
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        """Return one sample, without opening its image."""
        opener = partial(open_image, self._folder / self._files[index])
        return Sample(self.ids[index], opener, self._captions[index], image_id=self.groups[index])

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
        known, row_of_sample = np.unique(self._images, return_inverse=True)
        rows = np.searchsorted(known, images).clip(max=len(known) - 1)
        ours = known[rows] == images
        pairs = (rows[ours], columns[ours])
        present = csr_array((np.ones(ours.sum()), pairs), shape=(len(known), len(taxonomy.labels)))
        present.data[:] = 1  # an image may have several objects of a category
        return csr_array(present[row_of_sample])

    @cached_property
    def _instances(self) -> tuple[Taxonomy, NDArray[np.int64], NDArray[np.int64]] | None:
        """Taxonomy, and image and label column of each object. Read on first access."""
        import numpy as np

        if not (path := self._instances_path).is_file():
            return None
        keys = ("categories", "annotations", "id", "name", "supercategory", "image_id", "category_id")
        content = read_annotations(path, keys)
        taxonomy, columns = read_categories(content, path)
        pairs = array("q")
        for record in _records(content, "annotations", path):
            category = _field(record, "category_id", int, path)
            if category not in columns:
                raise _corrupt(path, f"expected one of its {len(columns)} categories, found {record!s:.100}")
            pairs.extend((_field(record, "image_id", int, path), columns[category]))
        images_columns = np.array(pairs, dtype=np.int64).reshape(-1, 2)
        return taxonomy, images_columns[:, 0], images_columns[:, 1]

    def masks(self, index: int) -> dict[str, NDArray[np.bool_]]:
        """Return a mask (H, W) for each category of an image, the union of its objects, on the pixels as stored.

        Raises MissingData without pycocotools or instances, and CorruptFile if an outline is malformed.
        """
        import numpy as np

        try:
            from pycocotools import mask as tools
        except ModuleNotFoundError as error:
            message = "coco: masks need pycocotools, which is not installed"
            raise MissingData(message, hint="pip install 'sparc-sae[coco]'") from error
        if self._instances is None:
            message = f"coco: masks need {self._instances_path}, which does not exist"
            raise MissingData(message, hint="unzip COCO's annotations again")
        taxonomy, images, columns = self._instances
        image, (sizes, outlines) = int(self._images[index]), self._outlines
        masks: dict[str, NDArray[np.bool_]] = {}
        for place in np.flatnonzero(images == image).tolist():
            label = taxonomy.labels[columns[place]]
            try:
                mask = draw_mask(tools, outlines[place], sizes.get(image))
            except (ValueError, TypeError, KeyError, OverflowError) as error:
                message = f"expected an outline in annotations[{place}], found {error}"
                raise _corrupt(self._instances_path, message) from error
            masks[label] = masks[label] | mask if label in masks else mask
        return masks

    @cached_property
    def _outlines(self) -> tuple[dict[int, list[int]], list[Any]]:
        """Height and width of each image, and the outline of each object. Read on first access."""
        path = self._instances_path
        keys = ("images", "annotations", "id", "height", "width", "segmentation", "counts", "size")
        content = read_annotations(path, keys)
        sizes = {
            image: [_field(record, key, int, path) for key in ("height", "width")]
            for image, record in _by_id(content, "images", path).items()
        }
        return sizes, [record.get("segmentation") for record in _records(content, "annotations", path)]


def draw_mask(tools: Any, outline: Any, size: list[int] | None) -> NDArray[np.bool_]:
    """Return the mask (H, W) of an outline, given as polygons or as runs of pixels.

    `tools` is `pycocotools.mask`. Raises ValueError, TypeError, KeyError or OverflowError if the outline is malformed.
    """
    import numpy as np

    if size is None:
        raise ValueError("one of an image that is not listed")
    if isinstance(outline, dict):
        if outline["size"] != size:
            raise ValueError(f"one of size {outline['size']} on an image of {size}")
        runs = [tools.frPyObjects(outline, *size) if isinstance(outline["counts"], list) else outline]
    elif isinstance(outline, list):
        # Fewer than three points have no area, and pycocotools would read four numbers as a box.
        polygons = [polygon for polygon in outline if len(polygon) >= 6]
        # pycocotools hangs on points that are much farther away.
        if not all(np.abs(polygon).max() < 1e6 for polygon in polygons):
            raise ValueError("a point that is far from any image")
        runs = tools.frPyObjects(polygons, *size) if polygons else []
    else:
        raise ValueError(f"{outline!r:.40}")
    return np.any(tools.decode(runs), axis=2) if runs else np.zeros(size, dtype=np.bool_)


def open_image(path: Path) -> Image:
    """Read an image without applying its EXIF rotation, since masks refer to the stored pixels. Raises BadSample."""
    from PIL import Image

    try:
        with Image.open(path) as image:  # closed even if it does not decode
            image.load()
            return image
    except FileNotFoundError as error:
        hint = f"unzip {path.parent.name}.zip again; or pass --skip-bad to continue without it"
        raise BadSample(f"image not found: {path}", hint=hint) from error


def _identify(params: CocoParams) -> str:
    """Return the digest of the captions. Features do not depend on labels, and the published images never change."""
    digests = [sha256(_captions_path(params, split)) for split in PUBLISHED]
    return f"sha256:{hashlib.sha256(' '.join(digests).encode()).hexdigest()}"


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
