"""Trainings by several processes, for `test_distributed`: python -m tests.training.ranks FOLDER

Importing torch takes seconds, so this process imports it once and forks the ranks. Each scenario leaves files.
"""

import importlib
import io
import json
import os
import shutil
import signal
import socket
import sys
import time
import traceback
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import torch

from sparc.cli import main as sparc
from sparc.config import SpaceConfig, TrainingConfig
from sparc.errors import BadFeatures
from sparc.storage.checkpoint import SharedLatentSpace
from sparc.storage.run import Run
from sparc.training import pulse, trainer
from sparc.training.distributed import joined
from sparc.training.loader import FeaturesInMemory
from sparc.training.sharding import SpaceShard
from sparc.training.trainer import Hooks, train

WIDTHS = {"a": 12, "b": 7, "c": 9}
CONFIG = TrainingConfig(
    epochs=4, batch_size=30, lr=2e-2, dead_after=40, k_aux=6, seed=5, stream_dropout=0.25, input_dropout=0.2
)
"""24 steps."""
PLAIN = CONFIG.model_copy(update={"stream_dropout": 0.0, "input_dropout": 0.0, "completion": "none"})
CASES = {
    "global": (SpaceConfig(streams=WIDTHS, n_latents=45, k=5), CONFIG),
    "local": (SpaceConfig(streams=WIDTHS, n_latents=45, k=5, selection="local", normalization="standard"), CONFIG),
    "plain": (SpaceConfig(streams=WIDTHS, n_latents=45, k=40), PLAIN),
}
"""In `plain` a shard has fewer latents than a sample keeps."""
MESHES = {(2, 1): ("global", "local"), (2, 2): ("local", "plain"), (4, 2): ("global",)}
"""Cases by the numbers of processes, and of shards of the latents."""
STEPS = 24


def features(dtype=torch.float64, like=None):
    """Three streams of 200 samples with the same hidden causes; each stream is missing in some samples."""
    draw = torch.Generator().manual_seed(0)
    causes = torch.randn(200, 4, generator=draw, dtype=torch.float64).relu()
    found = {}
    for name, width in WIDTHS.items():
        noise = 0.1 * torch.randn(200, width, generator=draw, dtype=torch.float64)
        rows = causes @ torch.randn(4, width, generator=draw, dtype=torch.float64) + noise
        rows[torch.rand(200, generator=draw) < 0.3] = 0
        found[name] = rows.to(dtype).split(60)
    return FeaturesInMemory(found)


def forked(size, work, folder, patience=60, all_end=False):
    """Run `work(rank)` in forked processes that find each other as those of torchrun do; return their exit codes.

    `all_end` kills the others when one has ended.
    """
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    children = []
    for rank in range(size):
        if (child := os.fork()) == 0:
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
            os.environ.update({name: str(value) for name, value in place.items()})
            os.environ.update({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)})
            code = 1
            try:
                work(rank)
                code = 0
            except SystemExit as ended:
                code = ended.code or 0
            except BaseException as error:
                said = getattr(error, "message", str(error))
                (folder / f"error-{rank}.json").write_text(json.dumps([type(error).__name__, said]))
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        children.append(child)
    codes, deadline = {}, time.monotonic() + patience
    while len(codes) < size:
        for child in set(children) - set(codes):
            found, status = os.waitpid(child, os.WNOHANG)
            if found:
                codes[child] = os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline or (all_end and codes):
            for child in set(children) - set(codes):
                os.kill(child, signal.SIGKILL)
        time.sleep(0.02)
    return [codes[child] for child in children]


def trained(path, case, ranks=None, shards=1, dtype=torch.float64, **hooks):
    """Train, or resume, a space of a case; return True if it was trained to the end."""
    shape, config = CASES[case]
    torch.set_default_dtype(dtype)
    space = SpaceShard(shape, ranks, seed=5) if shards > 1 else SharedLatentSpace(shape, seed=5)
    if ranks is None or ranks.leads:
        path.mkdir(parents=True, exist_ok=True)
    if ranks is not None:
        ranks.wait(f"made {path}")
    return train(space, config, features(dtype), Run(path), Hooks(**hooks), ranks)


def together(path, names, size, shards=1, dtype=torch.float64, **hooks):
    """Train some cases in forked processes."""

    def work(rank):
        with joined() as every:
            ranks = every.arranged(shards, "cpu")
            for name in names:
                assert trained(path / name, name, ranks, shards, dtype, **hooks) or hooks
                (path / name / f"sent-{rank}.json").write_text(json.dumps(ranks.traffic.sent))

    path.mkdir(parents=True, exist_ok=True)
    return forked(size, work, path)


def silent(folder, stopped, wait):
    """Stop a process as a machine that is gone; return the exit codes, and what the other one said."""

    def work(rank):
        os.dup2(os.open(folder / f"stderr-{rank}", os.O_CREAT | os.O_WRONLY), 2)
        pulse.BEAT, pulse.GRACE = 0.1, 2.0
        with joined() as ranks:
            if rank == stopped and wait:
                time.sleep(1.5)  # longer than the pulse's patience of a second
            ranks.any(False)
            if rank == stopped:
                os.kill(os.getpid(), signal.SIGSTOP)
            elif wait:
                ranks.wait("never")
            else:
                ranks.any(False)

    folder.mkdir()
    began = time.monotonic()
    codes = forked(2, work, folder, all_end=True)
    return codes, time.monotonic() - began, (folder / f"stderr-{1 - stopped}").read_text()


def after(steps, on=None):
    """Ask to stop after so many steps, in one rank or in all."""
    asked = iter(range(10**6))
    return lambda: next(asked) >= steps and on in (None, int(os.environ.get("RANK", 0)))


def fails(rank, steps, how):
    """A function that fails in one rank after some steps."""
    asked = iter(range(10**6))

    def watch():
        if next(asked) >= steps and os.environ.get("RANK") == str(rank):
            how()

    return watch


def refuse():
    raise BadFeatures("a file of this process is bad", hint="mend it")


def imported(folder):
    """A folder of imported features, and the options of a short training on them."""
    draw = np.random.default_rng(0)
    causes = np.maximum(draw.normal(size=(150, 4)), 0)
    for name in ("a", "b"):
        np.save(folder / f"{name}.npy", (causes @ draw.normal(size=(4, 8)) + 0.1).astype(np.float32))
    (folder / "ids.txt").write_text("\n".join(map(str, range(150))))
    labels = {str(row): [f"cause {most}"] for row, most in enumerate(causes.argmax(axis=1))}
    (folder / "labels.json").write_text(json.dumps(labels))
    streams = [word for name in ("a", "b") for word in ("--stream", f"{name}={folder / name}.npy")]
    places = ["--ids", folder / "ids.txt", "--labels", folder / "labels.json", "--out", folder / "features"]
    code, out, err = said(["import", "features", *streams, *places])
    assert code == 0, out + err
    shape = ["--n-latents", 32, "--k", 4, "--batch-size", 16, "--lr", 0.01, "--epochs", 30]
    return ["train", "--features", folder / "features", *shape]


def said(words):
    """Run a command in this process; return its exit code and what it printed."""
    out, err = io.StringIO(), io.StringIO()
    from sparc.cli import progress

    progress.console.file = out
    with redirect_stdout(out), redirect_stderr(err):
        try:
            sparc([*map(str, words)])
        except SystemExit as ended:
            return ended.code or 0, out.getvalue(), err.getvalue()
    return 0, out.getvalue(), err.getvalue()


def commands(folder, size, words):
    """Run a command in forked processes; return for each its exit code, output and errors."""

    def work(rank):
        (folder / f"said-{rank}.json").write_text(json.dumps(said(words)))

    forked(size, work, folder)
    return [json.loads((folder / f"said-{rank}.json").read_text()) for rank in range(size)]


def main(folder):
    """Do all that the tests look at."""
    torch.set_num_threads(1)
    for name in ("_dynamo", "distributed.checkpoint", "distributed.tensor"):
        importlib.import_module(f"torch.{name}")  # else each rank that has a shard takes seconds for it
    found = {}
    for name in CASES:
        trained(folder / "one" / name, name)
    for (size, shards), names in MESHES.items():
        found[f"{size}x{shards}"] = together(folder / f"{size}x{shards}", names, size, shards)
    trained(folder / "float32-one" / "plain", "plain", dtype=torch.float32)
    found["float32"] = together(folder / "float32", ["plain"], 2, 1, torch.float32)

    path = folder / "resumed"
    found["resumed"] = [
        *together(path, ["global"], 2, should_stop=after(7, on=1)),
        *together(path, ["global"], 4, 2, should_stop=after(9)),
    ]
    found["resumed states"] = [state.name for state in Run(path / "global").states()]
    shutil.copytree(path, folder / "damaged")
    trained(path / "global", "global")

    trainer.SAVE_SECONDS, trainer.SAVE_SHARE = 0.0, float("inf")  # a checkpoint after every step
    began = time.monotonic()
    kill = fails(1, 10, lambda: os.kill(os.getpid(), signal.SIGKILL))
    found["killed"] = together(folder / "killed", ["global"], 2, watch=kill)
    found["killed seconds"] = time.monotonic() - began
    found["killed states"] = [state.name for state in Run(folder / "killed" / "global").states()]
    found["refused"] = together(folder / "refused", ["global"], 2, watch=fails(1, 10, refuse))
    trainer.SAVE_SECONDS, trainer.SAVE_SHARE = 30.0, 0.05
    found["silent"] = {
        name: silent(folder / f"silent-{name}", *how)
        for name, how in {"wait": (1, True), "collective": (1, False), "first": (0, False)}.items()
    }

    torch.set_default_dtype(torch.float32)
    os.environ["SPARC_CACHE"] = str(folder / "cache")
    (folder / "commands").mkdir()
    os.chdir(folder / "commands")
    words = imported(folder / "commands")
    found["alone"] = said([*words, "--out", "alone"])
    found["command"] = commands(folder / "commands", 2, [*words, "--out", "two", "--shard-latents", 2])
    shutil.copytree("alone", "measured")
    found["measured"] = commands(folder / "commands", 3, ["evaluate", "measured"])
    found["measured alone"] = said(["evaluate", "alone"])
    found["wrong"] = commands(folder / "commands", 2, [*words, "--shard-latents", 3, "--out", "wrong"])
    found["stopped"] = commands(
        folder / "commands", 2, [*words, "--epochs", 10**6, "--max-time", "2s", "--out", "stop"]
    )
    (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
