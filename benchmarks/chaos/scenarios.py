"""Scenarios of the campaign: a command, the command that recovers, and the files whose bytes must agree."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

DONE = ("already holds imported features", "already exists", "has a completion already")
"""Messages of a command whose work was done before it was killed."""
SHAPE = ("--n-latents", "32", "--k", "4", "--batch-size", "64", "--epochs", "1")
EXTRACTED = ("--dataset", "synthetic[samples=1500,held_out=200]", "--stream", "a=synthetic[width=24]")
SEEN = ("--dataset", "image-folder", "--data-root", "photos", "--stream", "vit=timm[model=test_vit,weights=random]")


@dataclass(frozen=True)
class Scenario:
    """A command in an empty folder, and what must be true after it was killed and recovered."""

    name: str
    command: Sequence[str]
    recover: Callable[[Path], Sequence[str]]
    """The command that a user runs after a kill, given the folder."""
    compared: Sequence[str]
    """Patterns of the files that must have the same bytes as without a kill."""
    needs: Sequence[Sequence[str]] = ()
    """Commands that make the folder, once."""
    twice: Sequence[str] = ("is in use by", "already exists", "already holds")
    """Messages that the second of two may end with, if it does not end as the first."""


def _again(command: Sequence[str]) -> Callable[[Path], Sequence[str]]:
    return lambda folder: command


def _train(command: Sequence[str], run: str) -> Callable[[Path], Sequence[str]]:
    """Resume a run that is begun; begin it again otherwise."""
    return lambda folder: ["train", "--resume", run] if (folder / run / "provenance.json").is_file() else list(command)


def scenarios() -> list[Scenario]:
    """Return all of them."""
    imports = ["import", "features", "--stream", "a=a.npz", "--stream", "b=b.npz", "--out", "imp"]
    train = ["train", "--features", "imp", *SHAPE, "--out", "run"]
    extract = ["extract", *EXTRACTED, "--store", "store"]
    ablate = ["ablate", "--features", "imp", *SHAPE, "--grid", "lambda=0,1", "--seeds", "1", "--out", "ab"]
    checkpoint = ["import", "checkpoint", "last.pth", "run_config.json", "--out", "paper"]
    attach = ["attach", "base", "--stream", "b", "--out", "wider"]
    base = ["train", "--features", "imp", "--stream", "a", *SHAPE, "--out", "base"]
    detach = ["detach", "run", "b", "--out", "less"]
    planted = ["train", *EXTRACTED, "--store", "store", *SHAPE, "--out", "run"]
    search = ["search", "run", "c0=1 c0.0=1", "--find", "text", "--store", "store", "--out", "found.html"]
    bare = [*train[:-1], "bare", "--completion", "none"]
    complete = ["complete", "bare", "--features", "imp"]
    fly = ["train", *EXTRACTED, "--store", "store", *SHAPE, "--on-the-fly", "--buffer", "300", "--out", "fly"]
    seen = ["train", *SEEN, "--store", "store", *SHAPE, "--out", "seen"]
    localize = [
        "localize",
        "seen",
        "--image",
        "photos/3.png",
        "--latent",
        "1",
        "--store",
        "store",
        "--out",
        "maps/map.png",
    ]
    encode = ["encode", "seen", "photos/3.png", "--store", "store"]
    folder = ["search", "seen", "photos/3.png", "--index", "album", "--store", "store", "--out", "found.png"]
    sheet = ["explore", "seen", "--sheet", "--store", "store", "--out", "sheet.png"]
    export = ["export", "run", "--format", "saelens", "--stream", "a", "--out", "sae"]
    space = ("model.safetensors", "config.json", "completion.safetensors")
    run = (*space, "metrics.jsonl", "evaluation.json", "evaluation/latents.csv")
    return [
        Scenario("import", imports, _again(imports), ("imp/**/*",)),
        Scenario("extract", extract, _again(extract), ("store/**/*",)),
        Scenario("train", train, _train(train, "run"), [f"run/{name}" for name in run], [imports]),
        Scenario(
            "evaluate",
            ["evaluate", "run"],
            _again(["evaluate", "run"]),
            [f"run/{name}" for name in run],
            [imports, train],
        ),
        Scenario(
            "ablate",
            ablate,
            _again(ablate),
            ("ab/results.*", *(f"ab/runs/*/*/{name}" for name in run)),
            [imports],
        ),
        Scenario("checkpoint", checkpoint, _again(checkpoint), [f"paper/{name}" for name in space]),
        Scenario("attach", attach, _train(attach, "wider"), [f"wider/{name}" for name in run], [imports, base]),
        Scenario("detach", detach, _again(detach), [f"less/{name}" for name in space], [imports, train]),
        Scenario(
            "complete",
            complete,
            _again(complete),
            [f"bare/{name}" for name in space],
            [imports, bare],
            ("is in use by", DONE[2]),
        ),
        Scenario("explore", ["explore", "run"], _again(["explore", "run"]), ("run/explore/**/*",), [imports, train]),
        Scenario("search", search, _again(search), ("store/**/*", "found.html"), [planted]),
        Scenario("export", export, _again(export), ("sae/*",), [imports, train]),
        Scenario("on-the-fly", fly, _train(fly, "fly"), ("store/**/*", *(f"fly/{name}" for name in run))),
        Scenario("localize", localize, _again(localize), ("store/**/*", "maps/*"), [seen]),
        Scenario("encode", encode, _again(encode), ("store/**/*",), [seen]),
        Scenario("folder", folder, _again(folder), ("store/**/*", "found.png"), [seen]),
        Scenario("sheet", sheet, _again(sheet), ("store/**/*", "sheet.png"), [seen]),
    ]


def write_sources(folder: Path) -> None:
    """Write the files that the commands read: features of two streams, images, and a checkpoint of the paper's code."""
    generator = np.random.default_rng(0)
    for name, count in (("photos", 40), ("album", 12)):
        (folder / name).mkdir()
        for number in range(count):
            pixels = generator.integers(0, 256, (3, 3, 3), np.uint8).repeat(16, 0).repeat(16, 1)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    rows = [f"{number}.png,photo {number},{'test' if number % 4 == 3 else 'train'}" for number in range(40)]
    (folder / "photos" / "samples.csv").write_text("\n".join(["image,caption,split", *rows]) + "\n")
    causes = np.maximum(generator.standard_normal((600, 6)), 0) + 0.1
    ids = np.array([f"s{number}" for number in range(600)])
    for name, width in (("a", 12), ("b", 8)):
        features = (causes @ generator.standard_normal((6, width))).astype("f4")
        np.savez(folder / f"{name}.npz", features=features, ids=ids)
    draw = torch.Generator().manual_seed(0)
    state = {}
    for name, width in (("a", 12), ("b", 8)):
        state |= {
            f"encoders.{name}.weight": torch.randn(16, width, generator=draw),
            f"decoders.{name}.weight": torch.randn(width, 16, generator=draw),
            f"pre_biases.{name}": torch.zeros(width),
            f"latent_biases.{name}": torch.zeros(16),
        }
    torch.save(state, folder / "last.pth")  # noqa: TID251  # the format of the paper's code
    (folder / "run_config.json").write_text(json.dumps({"args": {"n_latents": 16, "k": 4}}))
