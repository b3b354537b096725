"""What a training logs: metrics, speed, curves, and what trackers get; and how another process follows it."""

import importlib.util
import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import sparc
from sparc.cli.following import described, lines, wait_for_start
from sparc.config import SpaceConfig, TrainingConfig
from sparc.core.dead import ActivityCounters
from sparc.errors import InvalidConfig
from sparc.storage.checkpoint import SharedLatentSpace
from sparc.storage.run import Run
from sparc.storage.training_log import read_log
from sparc.system.locks import owned
from sparc.training.loader import FeaturesInMemory
from sparc.training.measuring import held_out_steps
from sparc.training.plots import draw_curves
from sparc.training.trainer import Hooks, train

SHAPE = SpaceConfig(streams={"a": 6, "b": 4}, n_latents=16, k=4)
CONFIG = TrainingConfig(epochs=12, batch_size=16, lr=0.01, dead_after=64, k_aux=4, seed=3)


def features(samples, seed=0):
    generator = torch.Generator().manual_seed(seed)
    causes = torch.rand(samples, 3, generator=generator)
    mixing = torch.Generator().manual_seed(9)
    widths = SHAPE.streams.items()
    return FeaturesInMemory({name: [causes @ torch.rand(3, width, generator=mixing) + 0.1] for name, width in widths})


def fit(path, held_out, config=CONFIG, stop=(), on_step=lambda step: None):
    """Train, with interruptions after these steps, and return the run."""
    run = Run.create(path)
    for last in (*stop, None):
        done = []

        def count(step, done=done):
            done.append(step.number)
            on_step(step)

        space = SharedLatentSpace(SHAPE, seed=3)
        hooks = Hooks(
            count, lambda last=last, done=done: last is not None and bool(done) and done[-1] >= last, held_out=held_out
        )
        assert train(space, config, features(80), run, hooks) == (last is None)
    return run


def test_held_out_losses_are_measured_each_epoch_or_after_twenty_steps_for_each_batch():
    config = TrainingConfig(batch_size=16)
    assert held_out_steps(5, config, features(16)) == 20  # one batch: every fourth epoch
    assert held_out_steps(5, config, features(17)) == 40  # two batches
    assert held_out_steps(7, config, features(1000)) == 84  # four batches at most: the first end of an epoch from 80 on
    assert held_out_steps(80, config, features(1000)) == 80
    assert held_out_steps(500, config, features(1000)) == 500
    rows = {name: torch.zeros(40, dtype=torch.int64) for name in SHAPE.streams}
    shared = FeaturesInMemory({name: [torch.ones(1, width)] for name, width in SHAPE.streams.items()}, rows)
    assert held_out_steps(5, config, shared) == 60  # samples that share a row count each


def test_the_log_holds_losses_held_out_losses_dead_latents_and_the_learning_rate(tmp_path, monkeypatch):
    monkeypatch.setattr("sparc.training.trainer.LOG_EVERY", 15)
    held_out, rates = features(20, seed=1), []
    run = fit(tmp_path / "run", held_out, on_step=lambda step: rates.append((step.number, step.rate, step.record)))
    records, damaged = read_log(run.metrics)
    assert damaged == 0
    terms = {"self/a", "self/b", "cross/a->b", "cross/b->a"}
    by_step = {record["step"]: record for record in records}
    assert sorted(by_step) == [15, 30, 40, 45, 60]
    for step, record in by_step.items():
        assert record["epoch"] == step / 5
        assert ({*terms, "loss", "dead/a", "dead/b", "lr"} <= record.keys()) == (step % 15 == 0)
        assert ({f"held-out/{name}" for name in (*terms, "loss")} <= record.keys()) == (step in (40, 60))
    assert by_step[60]["lr"] == 0.01
    whole, errors = sparc.load(run.path), []
    for some in (slice(0, 16), slice(16, 20)):  # the mean of two batches
        batch = whole.normalize({name: rows[0][some] for name, rows in held_out.shards.items()})
        x = batch.features["a"]
        with torch.no_grad():
            y = whole.decode(whole.encode_batch(batch)["a"], stream="a")
        errors.append(float(((y - x).square().sum(dim=1) / x.square().sum(dim=1)).mean()))
    assert by_step[60]["held-out/self/a"] == pytest.approx(sum(errors) / 2, rel=1e-4)
    speeds, _ = read_log(run.speed)
    assert [one["step"] for one in speeds] == [15, 30, 45, 60]
    assert all(one["samples_per_second"] > 0 for one in speeds)
    assert {step: rate for step, rate, _ in rates if rate is not None} == {
        one["step"]: one["samples_per_second"] for one in speeds
    }
    assert {step: record for step, _, record in rates if record} == by_step
    assert draw_curves(run) == run.path / "training.png"


def test_dead_latents_are_those_that_no_sample_has_activated_for_long(tmp_path, monkeypatch):
    monkeypatch.setattr("sparc.training.trainer.LOG_EVERY", 60)
    counters = []
    make = ActivityCounters.__init__

    def remembered(self, *args):
        make(self, *args)
        counters.append(self)

    monkeypatch.setattr(ActivityCounters, "__init__", remembered)
    run = fit(tmp_path / "run", None)
    (record,) = read_log(run.metrics)[0]
    since = counters[-1].samples_since_active
    assert [record["dead/a"], record["dead/b"]] == (since > 64).sum(dim=1).tolist()
    assert not any(name.startswith("held-out/") for name in record)


def test_an_interrupted_training_logs_the_same_metrics_and_its_speeds_once(tmp_path, monkeypatch):
    monkeypatch.setattr("sparc.training.trainer.LOG_EVERY", 15)
    held_out = features(20, seed=1)
    whole, parts = fit(tmp_path / "whole", held_out), fit(tmp_path / "parts", held_out, stop=(3, 39, 40, 41))
    assert parts.metrics.read_bytes() == whole.metrics.read_bytes()
    assert [one["step"] for one in read_log(parts.speed)[0]] == [15, 30, 45, 60]
    draw_curves(whole)
    draw_curves(parts)
    assert parts.curves.read_bytes() == whole.curves.read_bytes()
    assert draw_curves(Run(tmp_path)) is None


def arrays(samples=300):
    generator = np.random.default_rng(0)
    causes = generator.random((samples, 4))
    return {name: causes @ generator.standard_normal((4, width)) for name, width in (("a", 8), ("b", 6))}


OPTIONS = {"epochs": 60, "batch_size": 32, "n_latents": 16, "k": 4, "device": "cpu", "store": "store"}


@pytest.mark.slow
def test_tensorboard_reads_back_what_a_training_logged(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.chdir(tmp_path)
    run = Run(sparc.train(features=arrays(), track="tensorboard", **OPTIONS).path)
    events = EventAccumulator(str(run.path / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    records = read_log(run.metrics)[0]
    wanted = {}
    for record in records:
        for name, value in record.items():
            if name != "step":
                wanted.setdefault(name, []).append((record["step"], pytest.approx(value, rel=1e-6)))
    wanted["samples_per_second"] = [
        (one["step"], pytest.approx(one["samples_per_second"], rel=1e-6)) for one in read_log(run.speed)[0]
    ]
    tags = events.Tags()["scalars"]
    assert {tag: [(one.step, one.value) for one in events.Scalars(tag)] for tag in tags} == wanted


@pytest.fixture(scope="module")
def aside(tmp_path_factory):
    """A run that another process trained, and what this one said of it meanwhile."""
    folder = tmp_path_factory.mktemp("aside")
    program = "from tests.training.test_following import train_aside; train_aside()"
    places = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_PROJECT": "mine", "HOME": str(folder)}
    paths = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    command, variables = [sys.executable, "-c", program], {**os.environ, **places, "PYTHONPATH": paths}
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(command, env=variables, cwd=folder, stdout=output, stderr=output)
    run = Run(folder / "runs" / "imported")
    while not run.begun:
        assert process.poll() is None, (folder / "output").read_text()
        time.sleep(0.05)
    said = list(lines(run, run.provenance().options.epochs))
    assert process.wait(100) == 0, (folder / "output").read_text()
    return run, said


def train_aside():
    """Train in a process of its own; wandb starts a service that lives as long as the process."""
    tracker = "wandb" if importlib.util.find_spec("wandb") else None
    sparc.train(features=arrays(), track=tracker, **OPTIONS)


def wandb_records(content):
    """Yield the records of a file of wandb: LevelDB's log format, blocks of 32 KiB, after a header of seven bytes."""
    place, whole = 7, b""
    while place < len(content):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        length, kind = struct.unpack("<HB", content[place + 4 : place + 7])
        whole += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield whole
            whole = b""


@pytest.mark.slow
def test_wandb_gets_what_a_training_logged_without_a_server(aside):
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    (file,) = (aside[0].path / "wandb").glob("offline-run-*/*.wandb")
    found, project = {}, ""
    for data in wandb_records(file.read_bytes()):
        record = wandb_internal_pb2.Record.FromString(data)
        if record.HasField("run"):
            project = record.run.project
        if record.HasField("history"):
            items = {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
            found[items["_step"]] = items
    assert project == "mine"
    records = {record["step"]: record for record in read_log(aside[0].metrics)[0]}
    assert found.keys() == records.keys()
    for step, record in records.items():
        wanted = {name: value for name, value in record.items() if name != "step"}
        assert {name: found[step][name] for name in wanted} == wanted
    assert found[50]["samples_per_second"] > 0


def test_following_waits_while_a_training_is_prepared(tmp_path, capsys):
    run = Run(tmp_path / "run")

    def prepare():
        with owned(run.path, ""):
            held.set()
            time.sleep(0.7)
            (run.path / "provenance.json").write_text("{}")
            begun.set()
            over.wait()

    held, begun, over = threading.Event(), threading.Event(), threading.Event()
    preparing = threading.Thread(target=prepare)
    preparing.start()
    held.wait()
    wait_for_start(run)
    assert begun.is_set()
    assert "is being prepared" in capsys.readouterr().out
    over.set()
    preparing.join()
    wait_for_start(Run(tmp_path / "none"))  # nobody prepares it: there is nothing to wait for


@pytest.mark.slow
def test_a_training_is_followed_from_its_first_step_to_its_last(aside, sparc_here, monkeypatch):
    run, said = aside
    records = read_log(run.metrics)[0]
    assert [line.split("  ")[0] for line in said[:-1]] == [f"step {record['step']:,}" for record in records]
    assert said[-1] == f"the training is finished: sparc info {run.path}"
    assert sparc_here("info", run.path, "--follow").stdout.splitlines() == said

    weights = run.path / "model.safetensors"
    weights.rename(run.path / "aside")  # as if the training had been killed
    try:
        stopped = sparc_here("info", run.path, "--follow").stdout.splitlines()
        monkeypatch.setattr("sparc.cli.following.holder", lambda path: "somebody")
        before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores Ctrl-C
        threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
        ended = sparc_here("info", run.path, "--follow")
        signal.signal(signal.SIGINT, before)
    finally:
        (run.path / "aside").rename(weights)
    assert stopped[:-1] == said[:-1]
    assert stopped[-1] == f"no process trains this run; resume it with: sparc train --resume {run.path}"
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines() == said[:-1]


def test_a_tracker_that_is_not_installed_is_named_before_any_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None if name == "wandb" else found(name, *rest))
    with pytest.raises(InvalidConfig, match="--track wandb: the package wandb is not installed") as error:
        sparc.train(track="wandb")
    assert error.value.hint == "pip install 'sparc-sae[wandb]', or leave --track out"
    assert not list(tmp_path.iterdir())


def test_a_line_of_the_log_is_said_in_words():
    record = {"step": 1500, "epoch": 7.5, "loss": 0.5, "self/a": 0.25, "self/b": 0.75, "cross/a->b": 1.0, "lr": 0.1}
    assert described(record, 50, 12345.6) == (
        "step 1,500  epoch 7.5 of 50  loss 0.5000  self 0.5000  cross 1.0000  12,300 samples/s"
    )
    record = {
        "step": 2,
        "epoch": 1,
        "held-out/loss": 0.5,
        "held-out/self/a": 0.25,
        "dead/a": 3,
        "dead/b": 3,
        "skipped/self/a": 1,
    }
    assert described(record, 50, None) == (
        "step 2  epoch 1 of 50  dead 3  held out: loss 0.5000  self 0.2500  self/a was not finite: skipped"
    )
    assert described({"step": 2, "dead/a": 1, "dead/b": 4}, 9, None) == "step 2  epoch 0 of 9  dead 1 to 4"
