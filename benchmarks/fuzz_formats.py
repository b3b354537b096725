"""The formats that sparc reads: for each, how to write valid small files, which of them to mutate, and how to read them."""

from __future__ import annotations

import csv
import io
import json
import random
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from safetensors.torch import save_file

import sparc
from sparc.config import RunConfig, validated
from sparc.core.completion import Completion
from sparc.evaluation.report import EvaluationFile
from sparc.interchange.feature_files import open_source
from sparc.interchange.import_checkpoint import read_research_checkpoint
from sparc.plugins import Sample, read_image, read_weights
from sparc.plugins.images import ImageLimits, limit_images
from sparc.plugins.registry import discover
from sparc.session import read_options
from sparc.storage.checkpoint import SharedLatentSpace
from sparc.storage.latent_names import read_latent_names
from sparc.storage.manifest import Manifest, PatchTokens, Shard, digest_ids, write_manifest
from sparc.storage.provenance import read_provenance
from sparc.storage.run import Run
from sparc.storage.store import (
    open_patches,
    open_streams,
    read_shard,
    shard_path,
    tokens_path,
    write_samples,
    write_shard,
)
from sparc.system.files import sha256
from sparc.system.hub import parts_of

IDS = [f"sample {number}" for number in range(12)]
ROWS = np.random.default_rng(0).standard_normal((12, 5)).astype(np.float32)
REGISTRY = discover()


@dataclass(frozen=True)
class Format:
    """How to write valid files into a folder, and how to read the whole of them."""

    make: Callable[[Path], None]
    read: Callable[[Path], None]
    mutated: str = "*"
    """Pattern of the files that are mutated."""
    mutate: Callable[[Path, random.Random], None] | None = None
    """Mutates what is inside a container, besides its bytes."""


def read_features(name: str, folder: Path) -> None:
    """Read all rows of a file of features."""
    ids = folder / "ids.txt"
    source = open_source(folder / name, ids if ids.exists() else None)
    for block in source.blocks(folder):
        np.asarray(block, np.float32).sum()


def write_pt(folder: Path, content: object, name: str = "x.pt") -> None:
    """Write a file as other programs do."""
    torch.save(content, folder / name)  # noqa: TID251


def make_parquet(folder: Path) -> None:
    """Write a table of ids and lists."""
    pq.write_table(pa.table({"id": IDS, "features": ROWS.tolist()}), folder / "x.parquet")


def make_h5(folder: Path) -> None:
    """Write features in chunks, compressed, and ids."""
    with h5py.File(folder / "x.h5", "w") as file:
        file.create_dataset("features", data=ROWS, chunks=(4, 5), compression="gzip")
        file["ids"] = IDS


def make_parts(folder: Path) -> None:
    """Write a folder of parts with metadata, as clip-retrieval does."""
    for number in range(2):
        np.save(folder / f"x_{number}.npy", ROWS[number * 6 : number * 6 + 6])
        metadata = pa.table({"image_path": IDS[number * 6 : number * 6 + 6]})
        pq.write_table(metadata, folder / f"metadata_{number}.parquet")


def mutate_zip(path: Path, draw: random.Random) -> None:
    """Mutate one member of a zip file, whose checksum is then right."""
    from fuzz import mutate_bytes

    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    name = draw.choice(sorted(members))
    members[name] = mutate_bytes(members[name], draw)
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in members.items():
            archive.writestr(member, data)


def mutate_tar(path: Path, draw: random.Random) -> None:
    """Mutate one member of a tar file, or its header, whose checksum is then right."""
    from fuzz import NUMBERS, mutate_bytes

    with tarfile.open(path) as archive:
        members = [(info, archive.extractfile(info).read()) for info in archive]  # type: ignore[union-attr]
    chosen = draw.randrange(len(members))
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for number, (info, data) in enumerate(members):
            content = data
            if number == chosen:
                content = mutate_bytes(data, draw)
                info.type = draw.choice((info.type, info.type, tarfile.SYMTYPE, tarfile.LNKTYPE, b"g", b"S", b"L"))
                info.linkname = draw.choice(("", info.name, "../x", "/dev/zero"))
                info.name = draw.choice((info.name, "../../x.jpg", "/x.jpg", "a\n.jpg", "x" * 300 + ".jpg", ".jpg"))
                info.pax_headers = {"size": str(draw.choice(NUMBERS))} if draw.random() < 0.2 else {}
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def make_store(folder: Path) -> None:
    """Write a stream with features of patches."""
    shards, tokens = [], []
    for number in range(3):
        some = slice(number * 4, number * 4 + 4)
        write_shard(shard_path(folder, number), torch.from_numpy(ROWS[some]), IDS[some], stream="a")
        patches = torch.from_numpy(ROWS[some]).reshape(4, 1, 5).repeat(1, 6, 1)
        write_shard(tokens_path(folder, number), patches, IDS[some], stream="a", key="tokens")
        for paths, found in ((shard_path, shards), (tokens_path, tokens)):
            path = paths(folder, number)
            found.append(Shard(file=path.name, rows=4, sha256=sha256(path)))
    manifest = Manifest(
        backbone="a",
        params={"model": "m", "size": 4},
        weights="sha256:1",
        dataset="toy",
        split="train",
        width=5,
        dtype="float32",
        samples=12,
        samples_sha256=digest_ids(IDS),
        samples_file_sha256=write_samples(folder, IDS, np.arange(12)),
        shards=tuple(shards),
        tokens=PatchTokens(grid=(2, 3), shards=tuple(tokens)),
        versions={"torch": "2"},
    )
    write_manifest(folder, manifest)


def read_store(folder: Path) -> None:
    """Read all features of a stream, and of its patches."""
    open_streams({"a": folder}).in_memory()
    open_patches(folder)


def make_space(folder: Path) -> None:
    """Write a space with its completion and the files of a finished run."""
    space = SharedLatentSpace(sparc.SpaceConfig(streams={"a": 6, "b": 4}, n_latents=16, k=2), seed=1)
    space.completion = Completion(space.streams, torch.ones(10), torch.ones(3, 10), 0.5)
    space.save_pretrained(folder)


def read_space(folder: Path) -> None:
    """Load a space, and encode with it."""
    space = sparc.load(folder)
    space.encode({name: torch.ones(2, width) for name, width in list(space.streams.items())[:1]})


def make_run(folder: Path) -> None:
    """Write the files of a run besides its space."""
    content = {
        "command": ["sparc", "train"], "started": "2026-01-31T12:00:00+0000", "seed": 0, "device": "cpu",
        "platform": "Linux", "versions": {"torch": "2"}, "random_weights": [], "samples": 100,
        "streams": {"a": {"backbone": "synthetic", "params": {"x": 1}, "weights": "w"}},
        "features": {"a": ["0", "1"]}, "options": {"dataset": "openmoji", "stream": ["synthetic"], "k": 4},
    }  # fmt: skip
    (folder / "provenance.json").write_text(json.dumps(content))
    header = "latent,samples a,cofiring,name,depth,purity,lift,confirmed\n"
    (folder / "latents.csv").write_text(header + "0,3,0.5,cat,1,0.5,2.0,True\n1,4,,,,,,False\n")


def read_run(folder: Path) -> None:
    """Read the files of a run besides its space."""
    Run.open(folder).provenance()
    read_provenance(folder / "provenance.json").options.streams
    read_latent_names(folder / "latents.csv")
    if (folder / "evaluation.json").exists():
        EvaluationFile.read(folder / "evaluation.json")


def make_checkpoint(folder: Path) -> None:
    """Write a checkpoint of the paper's research code."""
    state = {}
    for stream, width in {"a": 5, "b": 3}.items():
        state |= {
            f"encoders.{stream}.weight": torch.ones(7, width),
            f"decoders.{stream}.weight": torch.ones(width, 7),
            f"pre_biases.{stream}": torch.ones(width),
            f"latent_biases.{stream}": torch.ones(7),
        }
    write_pt(folder, {"model": state, "epoch": 3}, "last.pth")
    args = {"n_latents": 7, "k": 2, "topk_type": "global", "lr": 0.1}
    (folder / "run_config.json").write_text(json.dumps({"args": args, "streams": ["a", "b"]}))


def picture(form: str, mode: str = "RGB", size: tuple[int, int] = (16, 12)) -> bytes:
    """Return an image as the bytes of a file."""
    file = io.BytesIO()
    noise = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), np.uint8)
    image = Image.fromarray(noise).convert("L" if mode in ("I;16", "F", "I") else mode)
    if mode in ("I;16", "F", "I"):
        kinds = {"I;16": np.uint16, "F": np.float32, "I": np.int32}
        image = Image.fromarray(np.asarray(image).astype(kinds[mode]) * 11)
    image.save(file, form)
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
    """Identify a dataset, open both splits, and read all of them. Samples that cannot be read are refused one by one."""
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
        {"image": f"{n}.png", "caption": f'a "cat", {n}', "id": f"i{n}", "labels": "cat;dog", "split": "train" if n % 2 else "test"}
        for n in range(6)
    ]  # fmt: skip
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


TOML = """
stream = ["dinov2", "a=clip-img[model=ViT-B-32]", { name = "timm", alias = "vit", model = "m" }]
dataset = "image-folder"
data-root = "photos"
n-latents = 64
k = 4
lambda = 0.5
skip-bad = true
"""
INDEX = {"metadata": {"total_size": 5}, "weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
WEIGHTS = {"a.weight": torch.ones(3, 2), "b.bias": torch.ones(4)}
FORMATS = {
    "npy": Format(
        lambda to: (np.save(to / "x.npy", ROWS), (to / "ids.txt").write_text("\n".join(IDS)))[0],
        partial(read_features, "x.npy"),
    ),
    "npz": Format(
        lambda to: np.savez(to / "x.npz", features=ROWS, ids=np.array(IDS)), partial(read_features, "x.npz"), mutate=mutate_zip
    ),
    "npz-compressed": Format(
        lambda to: np.savez_compressed(to / "x.npz", features=ROWS, ids=np.array(IDS)), partial(read_features, "x.npz")
    ),
    "h5": Format(make_h5, partial(read_features, "x.h5")),
    "parquet": Format(make_parquet, partial(read_features, "x.parquet")),
    "parts": Format(make_parts, partial(read_features, ".")),
    "pt": Format(
        lambda to: write_pt(to, {"features": torch.from_numpy(ROWS), "ids": IDS, "more": {"x": [1, 2.0, "a"]}}),
        partial(read_features, "x.pt"),
        mutate=mutate_zip,
    ),
    "safetensors": Format(
        lambda to: save_file({"features": torch.from_numpy(ROWS)}, to / "x.safetensors", {"ids": json.dumps(IDS)}),
        partial(read_features, "x.safetensors"),
    ),
    "weights-pt": Format(lambda to: write_pt(to, WEIGHTS), lambda at: read_weights(at / "x.pt") and None, mutate=mutate_zip),
    "weights-safetensors": Format(
        lambda to: save_file(WEIGHTS, to / "x.safetensors"), lambda at: read_weights(at / "x.safetensors") and None
    ),
    "weights-index": Format(
        lambda to: (to / "x.json").write_text(json.dumps(INDEX)) and None, lambda at: parts_of(at / "x.json") and None
    ),
    "checkpoint": Format(
        make_checkpoint,
        lambda at: read_research_checkpoint(at / "last.pth", at / "run_config.json") and None,
    ),
    "store": Format(make_store, read_store),
    "shard": Format(
        make_store, lambda at: [read_shard(shard_path(at, n), checked=True) for n in range(3)] and None, "shard-*.safetensors"
    ),
    "space": Format(make_space, read_space),
    "run": Format(make_run, read_run),
    "toml": Format(
        lambda to: (to / "run.toml").write_text(TOML) and None,
        lambda at: validated(RunConfig, read_options(at / "run.toml")) and None,
    ),
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
