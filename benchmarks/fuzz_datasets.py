"""Valid small datasets and images of all kinds, and how to read the whole of them."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fuzz_mutations import mutate_tar
from PIL import Image

import sparc
from sparc.plugins import Sample, read_image
from sparc.plugins.images import ImageLimits, limit_images
from sparc.plugins.registry import discover

REGISTRY = discover()


@dataclass(frozen=True)
class Format:
    """Two functions: one writes valid files into a folder, the other reads the whole of them."""

    make: Callable[[Path], None]
    read: Callable[[Path], None]
    mutated: str = "*"
    """Pattern of the files that are mutated."""
    mutate: Callable[[Path, Random], None] | None = None
    """Mutates what is inside a container, besides its bytes."""


TURNED = ("JPEG", "PNG", "WEBP")
"""Formats whose images get an EXIF orientation."""


def picture(form: str, mode: str = "RGB", size: tuple[int, int] = (16, 12)) -> bytes:
    """Return an image as the bytes of a file."""
    file = io.BytesIO()
    noise = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), np.uint8)
    image = Image.fromarray(noise).convert("L" if mode in ("I;16", "F", "I") else mode)
    if mode in ("I;16", "F", "I"):
        kinds = {"I;16": np.uint16, "F": np.float32, "I": np.int32}
        image = Image.fromarray(np.asarray(image).astype(kinds[mode]) * 11)
    exif = Image.Exif()
    exif[274], exif[270] = 6, "a description"  # orientation
    image.save(file, form, **({"exif": exif.tobytes()} if form in TURNED else {}))
    return file.getvalue()


IMAGES = {
    "png": ("PNG", "RGB"), "palette.png": ("PNG", "P"), "deep.png": ("PNG", "I;16"), "jpg": ("JPEG", "RGB"),
    "cmyk.jpg": ("JPEG", "CMYK"), "gif": ("GIF", "P"), "webp": ("WEBP", "RGB"), "bmp": ("BMP", "RGB"),
    "tif": ("TIFF", "RGB"), "deep.tif": ("TIFF", "I;16"), "float.tif": ("TIFF", "F"), "int.tif": ("TIFF", "I"),
    "ico": ("ICO", "RGBA"), "jp2": ("JPEG2000", "RGB"), "tga": ("TGA", "RGB"), "ppm": ("PPM", "RGB"),
    "psd.eps": ("EPS", "RGB"), "pcx": ("PCX", "RGB"), "sgi": ("SGI", "RGB"), "dds": ("DDS", "RGB"),
}  # fmt: skip


def make_images(folder: Path) -> None:
    """Write an image of each kind."""
    for suffix, (form, mode) in IMAGES.items():
        (folder / f"x.{suffix}").write_bytes(picture(form, mode))


def read_images(folder: Path) -> None:
    """Read the images that differ from the valid ones. A sample that cannot be read is an error of its own."""
    limit_images(ImageLimits(pixels=4_000_000))
    beside = folder.with_name(f"{folder.name}-seed")
    for path in sorted(folder.glob("x.*")):
        if path.read_bytes() != (beside / path.name).read_bytes():
            Sample("s", partial(read_image, path)).image()


def whole(dataset: str, folder: Path) -> None:
    """Identify a dataset, open both splits, and read all of them. Each sample may be refused."""
    spec = REGISTRY.dataset(dataset)
    params = spec.params(root=str(folder))
    spec.identify(params)
    refused = None
    for split in spec.splits:
        opened = spec.open(params, split)
        opened.labels()
        for number in range(len(opened)):
            try:
                sample = opened[number]
                sample.text()
                sample.image()
                if hasattr(opened, "masks"):
                    opened.masks(number)
            except sparc.SparcError as error:
                refused = error
    if refused is not None:
        raise refused


def make_folder(kind: str, folder: Path) -> None:
    """Write an image folder with an index of a kind."""
    for number in range(6):
        (folder / f"{number}.png").write_bytes(picture("PNG"))
    rows = [
        {
            "image": f"{n}.png",
            "caption": f'a "cat", {n}',
            "id": f"i{n}",
            "labels": "cat;dog",
            "split": "train" if n % 2 else "test",
        }
        for n in range(6)
    ]
    with (folder / f"samples.{kind}").open("w", newline="") as file:
        if kind == "jsonl":
            file.writelines(json.dumps(row) + "\n" for row in rows)
        else:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if kind == "tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    (folder / "taxonomy.json").write_text(json.dumps({"any": [], "cat": ["any"], "dog": ["any"]}))


def make_coco(folder: Path) -> None:
    """Write MS-COCO's layout, with outlines of each kind."""
    (folder / "annotations").mkdir()
    for name in ("train2017", "val2017"):
        (folder / name).mkdir()
        for number in (1, 2, 3):
            (folder / name / f"{number}.jpg").write_bytes(picture("JPEG"))
        images = [{"id": n, "file_name": f"{n}.jpg", "height": 12, "width": 16} for n in (1, 2, 3)]
        captions = [{"image_id": n, "id": n, "caption": f"caption {n}"} for n in (1, 2, 3)]
        outlines = [
            [[1, 1, 9, 1, 9, 9, 1, 9]], {"size": [12, 16], "counts": [9, 3, 180]}, {"size": [12, 16], "counts": "93d5"},
        ]  # fmt: skip
        objects = [
            {"id": n, "image_id": n + 1, "category_id": 1 + n % 2, "segmentation": one, "iscrowd": 0, "area": 3.0}
            for n, one in enumerate(outlines)
        ]
        categories = [{"id": n, "name": f"c{n}", "supercategory": "s"} for n in (1, 2)]
        for kind, content in (
            ("captions", {"images": images, "annotations": captions}),
            ("instances", {"images": images, "annotations": objects, "categories": categories}),
        ):
            (folder / "annotations" / f"{kind}_{name}.json").write_text(json.dumps(content))


def make_open_images(folder: Path) -> None:
    """Write the official files of Open Images."""
    for split in ("train", "test"):
        (folder / split).mkdir()
        lines = []
        for number in range(3):
            name = f"{number:016x}"
            (folder / split / f"{name}.jpg").write_bytes(picture("JPEG"))
            record = {
                "dataset_id": split,
                "image_id": name,
                "annotator_id": 9,
                "caption": f"a \\u00e9 {number}",
                "traces": [[]],
            }
            lines.append(json.dumps(record))  # fmt: skip
        (folder / f"open_images_{split}_localized_narratives.jsonl").write_text("\n".join(lines) + "\n")
        labels = "ImageID,Source,LabelName,Confidence\n0000000000000000,verification,/m/dog,1\n"
        (folder / f"{split}-annotations-human-imagelabels-boxable.csv").write_text(labels)
    hierarchy = {"LabelName": "/m/0bl9f", "Subcategory": [{"LabelName": "/m/dog", "Part": [{"LabelName": "/m/tail"}]}]}
    (folder / "bbox_labels_600_hierarchy.json").write_text(json.dumps(hierarchy))
    (folder / "class-descriptions-boxable.csv").write_text("/m/dog,Dog\n/m/tail,Tail\n")


def make_tar(folder: Path) -> None:
    """Write two splits of tar shards."""
    for split in ("train", "test"):
        with tarfile.open(folder / f"{split}-000.tar", "w") as archive:
            for number in range(3):
                record = json.dumps({"labels": ["cat"], "id": number}).encode()
                for name, data in (
                    (f"{number}.jpg", picture("JPEG")), (f"{number}.txt", b"text"), (f"{number}.json", record),
                ):  # fmt: skip
                    info = tarfile.TarInfo(f"{split}/{name}")
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))


def make_hf(kind: str, folder: Path) -> None:
    """Write a local dataset for the Hugging Face library."""
    for split in ("train", "test"):
        images = [{"bytes": picture("JPEG"), "path": None} for _ in range(3)]
        captions = [f"caption {n}" for n in range(3)]
        if kind == "parquet":
            pq.write_table(pa.table({"image": images, "caption": captions}), folder / f"{split}.parquet")
        else:
            (folder / split).mkdir()
            for number in range(3):
                (folder / split / f"{number}.jpg").write_bytes(picture("JPEG"))
            lines = [json.dumps({"file_name": f"{n}.jpg", "caption": captions[n]}) for n in range(3)]
            (folder / split / "metadata.jsonl").write_text("\n".join(lines) + "\n")


DATASETS = {
    "images": Format(make_images, read_images),
    "folder-csv": Format(partial(make_folder, "csv"), partial(whole, "image-folder"), "*.[cj]*"),
    "folder-tsv": Format(partial(make_folder, "tsv"), partial(whole, "image-folder"), "*.tsv"),
    "folder-jsonl": Format(partial(make_folder, "jsonl"), partial(whole, "image-folder"), "*.j*"),
    "coco": Format(make_coco, partial(whole, "coco"), "*.json"),
    "open-images": Format(make_open_images, partial(whole, "open-images"), "*.[cj]s*"),
    "webdataset": Format(make_tar, partial(whole, "webdataset"), mutate=mutate_tar),
    "hf-parquet": Format(partial(make_hf, "parquet"), partial(whole, "hf")),
    "hf-folder": Format(partial(make_hf, "folder"), partial(whole, "hf"), "*.jsonl"),
}  # fmt: skip
