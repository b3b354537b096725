"""Scenarios of the campaign: a command, the command that recovers, and the files whose bytes must agree."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

DONE = ("already holds imported features", "already exists", "has a completion already")
"""Messages of a command whose work was done before it was killed."""
SHAPE = ("--n-latents", "32", "--k", "4", "--batch-size", "64", "--epochs", "1")
EXTRACTED = ("--dataset", "synthetic[samples=1500,held_out=200]", "--stream", "a=synthetic[width=24]")


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
    ]


def write_sources(folder: Path) -> None:
    """Write the files that the commands read: features of two streams, and a checkpoint of the paper's code."""
    generator = np.random.default_rng(0)
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
