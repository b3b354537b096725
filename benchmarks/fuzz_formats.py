"""Valid small files of every format that sparc reads, which of them to change, and how to read the whole of them."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from fuzz_datasets import DATASETS, Format
from fuzz_mutations import mutate_zip
from safetensors.torch import save_file
from scipy.sparse import csr_array

import sparc
from sparc.config import RunConfig, validated
from sparc.core.completion import Completion
from sparc.evaluation import HeldOut, evaluate
from sparc.evaluation.report import EvaluationFile
from sparc.explorer.overview import curves, measures
from sparc.explorer.site import check_replaceable, is_made_of
from sparc.explorer.statements import write_statement
from sparc.index.inverted import InvertedIndex, strongest
from sparc.interchange.feature_files import open_source
from sparc.interchange.import_checkpoint import read_research_checkpoint
from sparc.plugins import read_weights
from sparc.session import read_options
from sparc.storage.checkpoint import SharedLatentSpace
from sparc.storage.index_file import read_index, write_index
from sparc.storage.latent_names import read_latent_names
from sparc.storage.manifest import Manifest, PatchTokens, Shard, digest_ids, write_manifest
from sparc.storage.provenance import read_provenance
from sparc.storage.run import Run
from sparc.storage.store import (
    ShardContent,
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
from sparc.training.state import Progress, best_state, load_state, save_state

IDS = [f"sample {number}" for number in range(12)]
ROWS = np.random.default_rng(0).standard_normal((12, 5)).astype(np.float32)


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


def make_store(folder: Path) -> None:
    """Write a stream with features of patches."""
    shards, tokens = [], []
    for number in range(3):
        some = slice(number * 4, number * 4 + 4)
        content = ShardContent(torch.from_numpy(ROWS[some]), IDS[some], folder="train/a-0123456789ab")
        write_shard(shard_path(folder, number), content, stream="a")
        patches = torch.from_numpy(ROWS[some]).reshape(4, 1, 5).repeat(1, 6, 1)
        write_shard(tokens_path(folder, number), content._replace(features=patches), stream="a", key="tokens")
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
        "command": ["sparc", "train"],
        "started": "2026-01-31T12:00:00+0000",
        "seed": 0,
        "device": "cpu",
        "platform": "Linux",
        "versions": {"torch": "2"},
        "random_weights": [],
        "samples": 100,
        "streams": {"a": {"backbone": "synthetic", "params": {"x": 1}, "weights": "w"}},
        "features": {"a": ["0", "1"]},
        "options": {"dataset": "openmoji", "stream": ["synthetic"], "k": 4},
    }
    (folder / "provenance.json").write_text(json.dumps(content))
    header = "latent,samples a,cofiring,name,depth,purity,lift,confirmed\n"
    (folder / "latents.csv").write_text(header + "0,3,0.5,cat,1,0.5,2.0,True\n1,4,,,,,,False\n")


def read_run(folder: Path) -> None:
    """Read the files of a run besides its space."""
    Run.open(folder).provenance()
    list(read_provenance(folder / "provenance.json").options.streams)
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


def make_index(folder: Path) -> None:
    """Write the index of a search."""
    dense = np.maximum(np.random.default_rng(2).standard_normal((12, 5)), 0).astype(np.float32)
    index = InvertedIndex.build([csr_array(dense)], np.ones(12, bool), np.arange(12))
    write_index(folder / "codes-0.safetensors", {name: torch.from_numpy(one) for name, one in vars(index).items()})


def read_search(folder: Path) -> None:
    """Read an index as a search does, and search it; what is no index is made again, which is no error."""
    found = read_index(folder / "codes-0.safetensors")
    if found is None or len(found["starts"]) != 6:
        return
    index = InvertedIndex(**{name: one.numpy() for name, one in found.items()})
    latents, activations = np.arange(5), np.ones(5, np.float32)
    if not index.is_whole(latents):
        return
    for number in strongest(index.cosines(latents, activations), 3).tolist():
        index.shared(number, latents, activations)
    index.percentiles(latents, activations)


def make_site(folder: Path) -> None:
    """Write what `sparc explore` reads of a run, and of the site that it made before."""
    space = SharedLatentSpace(sparc.SpaceConfig(streams={"a": 6, "b": 4}, n_latents=16, k=2), seed=1)
    features = {name: torch.randn(24, width) for name, width in space.streams.items()}
    report = evaluate(space, HeldOut(features, [str(number) for number in range(24)])).report
    EvaluationFile(dataset="toy", split="test", random_weights=(), report=report).write(folder / "evaluation.json")
    lines = [{"step": step, "epoch": step / 9, "loss": 0.5, "self/a->a": 0.1, "aux/a": 0.2} for step in (3, 6, 9)]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    make_run(folder)
    (folder / "explore" / "data").mkdir(parents=True)
    (folder / "explore" / "data" / "run.js").write_text('statement("run",{"format":1,"made_of":"0123456789abcdef"});')


def read_site(folder: Path) -> None:
    """Read it, and write the statement of the page's first view."""
    is_made_of(folder / "explore", "0123456789abcdef")
    check_replaceable(folder / "explore")
    found, _ = curves(folder / "metrics.jsonl")
    read_latent_names(folder / "latents.csv")
    report = EvaluationFile.read(folder / "evaluation.json").report
    write_statement(folder / "explore" / "data", "run", {"curves": found, "measures": measures(report)})


def make_state(folder: Path) -> None:
    """Write two checkpoints of an interrupted training."""
    for step in (3, 6):
        tensors = {"space.x": torch.ones(5, 3), "norms": torch.ones(2), "count": torch.arange(4)}
        save_state(Run(folder), tensors, Progress(step, step, 1 / step), keep=2)


def read_state(folder: Path) -> None:
    """Read the newest whole one, and which is the best."""
    run = Run(folder)
    best_state(run.states())
    load_state(run, lambda tensors, progress: [one.sum() for one in tensors.values()] and None, lambda *_: None)


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
        lambda to: np.savez(to / "x.npz", features=ROWS, ids=np.array(IDS)),
        partial(read_features, "x.npz"),
        mutate=mutate_zip,
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
    "weights-pt": Format(
        lambda to: write_pt(to, WEIGHTS), lambda at: read_weights(at / "x.pt") and None, mutate=mutate_zip
    ),
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
        make_store,
        lambda at: [read_shard(shard_path(at, n), checked=True) for n in range(3)] and None,
        "shard-*.safetensors",
    ),
    "space": Format(make_space, read_space),
    "run": Format(make_run, read_run),
    "index": Format(make_index, read_search),
    "site": Format(make_site, read_site),
    "state": Format(make_state, read_state),
    "toml": Format(
        lambda to: (to / "run.toml").write_text(TOML) and None,
        lambda at: validated(RunConfig, read_options(at / "run.toml")) and None,
    ),
    **DATASETS,
}
