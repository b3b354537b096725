"""Runs and imports survive what happens to processes and files: kills, alterations, limits of time, a second start."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import sparc
from sparc.errors import InUse, InvalidConfig, MisalignedStreams, MissingData, OutOfMemory
from sparc.extraction import JobOptions
from sparc.extraction import imported as plan_imported
from sparc.interchange.feature_files import open_source
from sparc.interchange.import_features import import_features
from sparc.session import Listener
from sparc.storage.run import Run
from sparc.system.locks import LOCK, owned

SHAPE = {"n_latents": 16, "k": 4, "batch_size": 16}


def sources(folder, **widths):
    """Open files of features of the same samples, by stream."""
    draw = np.random.default_rng(0)
    found = {}
    for name, width in widths.items():
        path = folder / f"{name}.npz"
        ids = np.array([f"s{number}" for number in range(200)])
        np.savez(path, features=draw.standard_normal((200, width)).astype("f4"), ids=ids)
        found[name] = open_source(path, None)
    return found


@pytest.fixture
def imported(tmp_path):
    """Imported features of two streams."""
    import_features(sources(tmp_path, a=12, b=8), tmp_path / "imp")
    return tmp_path / "imp"


ALTERED = """
import os, sys, warnings
from pathlib import Path
import sparc
from sparc.session import Listener, watching
from sparc.training import loader

warnings.simplefilter("ignore")
loader.READ_ROWS = 64
imp, shape = Path(sys.argv[1]), dict(n_latents=16, k=4, batch_size=16, epochs=20)
shard = imp / "train" / "b" / "shard-00000.safetensors"
whole = shard.read_bytes()

class Alter(Listener):
    def __init__(self, alter):
        self.alter = alter

    def step(self, step):
        if step.number == 15:
            self.alter()

def overwrite(place, content):
    with shard.open("r+b") as file:
        file.seek(place, os.SEEK_END)
        file.write(content)

def train(name, alter, every):
    watching.EVERY = every
    try:
        sparc.train(features=imp, **shape, out=name, listener=Alter(alter))
        print(name, "done", flush=True)
    except sparc.SparcError as error:
        print(name, type(error).__name__, error.message, flush=True)
    with shard.open("r+b") as file:
        file.write(whole)

train("touched", lambda: os.utime(shard, (1, 1)), 0.0)
train("flipped", lambda: overwrite(-4, b"\\x00\\x00\\x00\\x01"), 0.0)
train("nan", lambda: overwrite(-8 * 4, b"\\xff\\xff\\xff\\x7f"), 1e9)
train("cut", lambda: os.truncate(shard, 3000), 0.0)
train("bus", lambda: os.truncate(shard, 300), 1e9)
"""


def test_features_that_change_under_a_training_end_it_with_their_name(imported, tmp_path):
    """The last training is ended by SIGBUS, before the next look at the files."""
    command = [sys.executable, "-c", ALTERED, imported]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    shard = imported / "train" / "b" / "shard-00000.safetensors"
    touched, flipped, nan, cut = done.stdout.splitlines()
    assert touched == "touched done"
    assert flipped == f"flipped CorruptFile {shard} was altered while the training read it: it has other bytes"
    last = json.loads((imported / "train" / "b" / "samples.json").read_text())["ids"][-1]
    assert nan.startswith("nan BadFeatures the loss term '")
    assert nan.endswith(f"stream 'b' has the feature nan at sample '{last}'")
    assert cut.startswith(f"cut CorruptFile {shard} was altered while the training read it: it has 3,000 bytes instead")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-2].startswith(f"error: {shard} was altered while the training read it: it has 300")
    assert done.stderr.splitlines()[-1].startswith("hint:  remove ")


KILLED = """
import os, signal, sys
from pathlib import Path
from sparc.interchange import import_features as module
from sparc.interchange.feature_files import open_source

write, left = module.write_manifest, int(sys.argv[1])

def killing(directory, manifest):
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    write(directory, manifest)

module.write_manifest = killing
module.import_features({name: open_source(Path(f"{name}.npz"), None) for name in ("a", "b")}, Path("imp"))
"""


@pytest.mark.parametrize("manifests", [0, 3])
def test_an_import_that_is_killed_between_its_manifests_is_refused_by_training_and_starts_again(manifests, tmp_path):
    files = sources(tmp_path, a=12, b=8)
    done = subprocess.run([sys.executable, "-c", KILLED, str(manifests)], cwd=tmp_path, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL
    out = tmp_path / "imp"
    assert len(list(out.glob("*/*/manifest.json"))) == manifests
    with pytest.raises(MissingData, match=r"the import into .* was interrupted") as error:
        plan_imported(out, [], JobOptions())
    assert "starts again" in error.value.hint
    (out / "train" / "a" / "notes.txt").write_text("mine")
    import_features(files, out)
    import_features(files, tmp_path / "whole")
    assert (out / "train" / "a" / "notes.txt").read_text() == "mine"
    (out / "train" / "a" / "notes.txt").unlink()
    contents = [
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (out, tmp_path / "whole")
    ]
    assert contents[0] == contents[1]


def test_an_import_that_fails_leaves_nothing_and_one_at_work_is_not_disturbed(tmp_path):
    files = sources(tmp_path, a=12, b=8)
    broken = np.load(tmp_path / "b.npz")["features"]
    broken[150, 3] = np.nan
    np.savez(tmp_path / "b.npz", features=broken, ids=[f"s{number}" for number in range(200)])
    with pytest.raises(sparc.BadFeatures):
        import_features({"a": files["a"], "b": open_source(tmp_path / "b.npz", None)}, tmp_path / "imp")
    assert not (tmp_path / "imp").exists()
    with owned(tmp_path / "imp", ""), pytest.raises(InUse, match="in use by process"):
        import_features(files, tmp_path / "imp")


def test_a_stream_that_train_lacks_or_has_without_a_manifest_is_an_error_unless_streams_are_named(imported):
    (imported / "train" / "b" / "manifest.json").unlink()
    with pytest.raises(MissingData, match=r"the features of the stream 'b' in .*train/b are incomplete"):
        plan_imported(imported, [], JobOptions())
    for path in (imported / "train" / "b").iterdir():
        path.unlink()
    with pytest.raises(MisalignedStreams, match="the stream 'b' was imported as test and not as train"):
        plan_imported(imported, [], JobOptions())
    named = sparc.RunConfig(stream=["a"]).streams
    assert list(plan_imported(imported, named, JobOptions())["test"]) == ["a"]


def test_a_second_training_is_refused_at_once_and_unnamed_ones_take_the_next_name(imported, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with owned(tmp_path / "run", ""), pytest.raises(InUse, match=f"run is in use by process {os.getpid()}"):
        sparc.train(features=imported, **SHAPE, epochs=1, out="run")
    with owned(tmp_path / "runs" / "imported", ""):
        first = sparc.train(features=imported, **SHAPE, epochs=1)
    assert first.path.name == "imported-2"
    with owned(first.path, ""):
        with pytest.raises(InUse):
            sparc.evaluate(first.path)
        (first.path / "evaluation.json").unlink()
        with pytest.raises(InUse):
            sparc.train(resume=first.path)
    assert sparc.train(resume=first.path).report == first.report
    assert not list(tmp_path.rglob(f"{LOCK}*"))


class Slow(Listener):
    """Takes time for a step; remembers the steps."""

    def __init__(self, seconds):
        self.seconds, self.steps = seconds, []

    def step(self, step):
        self.steps.append(step.number)
        time.sleep(self.seconds)


def test_a_limit_of_time_stops_a_training_cleanly_and_resuming_ends_in_the_same_bits(imported, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGALRM)
    whole = sparc.train(features=imported, **SHAPE, epochs=10, out="whole")
    slow = Slow(0.1)
    with pytest.raises(sparc.Interrupted, match="the time that --max-time 1s gave is up; resume what is in parts"):
        sparc.train(features=imported, **SHAPE, epochs=10, out="parts", max_time="1s", listener=slow)
    run = Run(tmp_path / "parts")
    (state,) = run.states()
    assert state.name == f"step-{slow.steps[-1]:012d}.safetensors"
    assert 1 < slow.steps[-1] < 90
    assert json.loads(run.best.read_text())["step"] == slow.steps[-1]
    again = Slow(0)
    sparc.train(resume="parts", max_time="1h", listener=again)  # the limit of the first command is not that of this one
    assert again.steps[0] == slow.steps[-1] + 1
    for name in ("model.safetensors", "metrics.jsonl", "evaluation.json"):
        assert (run.path / name).read_bytes() == (whole.path / name).read_bytes()
    assert signal.getsignal(signal.SIGALRM) is before


@pytest.mark.parametrize("text", ["3", "h", "", "1.5h", "3 h", "h3", "-1h"])
def test_a_time_that_is_none_is_refused(text):
    with pytest.raises(InvalidConfig, match=r"max.time: expected a time such as 90s, 45m, 3h or 1d12h"):
        sparc.RunConfig(max_time=text)
    assert sparc.RunConfig(max_time="1d2h3m4s").seconds == 86400 + 2 * 3600 + 3 * 60 + 4


def test_a_space_that_fits_into_no_memory_is_refused_before_its_run_is_made(imported, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutOfMemory, match="a space of 100,000,000,000 latents and streams of width 20 takes"):
        sparc.train(features=imported, n_latents=100_000_000_000, k=4, out="run")
    assert not (tmp_path / "run").exists()
    sparc.train(features=imported, **SHAPE, epochs=1, out="run")


def test_what_a_killed_process_leaves_before_its_run_begins_is_in_nobodys_way(tmp_path):
    """An empty lock, temporary files, the space to attach to, and a space without weights."""
    run = tmp_path / "run"
    (run / "state" / "space").mkdir(parents=True)
    (run / LOCK).touch()
    for place in (".provenance.json.0123456789abcdef.tmp", "state/space/config.json", "state/space/.x.12.tmp"):
        (run / place).write_text("{")
    assert Run.next_free(tmp_path, "run") == run
    assert list(Run.create(run).path.iterdir()) in ([], [run / LOCK])
    (run / "state" / "mine").mkdir(parents=True)
    with pytest.raises(InvalidConfig, match="already exists"):
        Run.create(run)
    assert Run.next_free(tmp_path, "run") == tmp_path / "run-2"


def test_a_dry_run_takes_two_steps_of_everything_and_leaves_nothing(imported, tmp_path, sparc_here):
    before = sorted(tmp_path.rglob("*"))
    shape = ("--n-latents", 16, "--k", 4, "--batch-size", 16, "--epochs", 30)
    done = sparc_here("train", "--features", imported, *shape, "--out", "run", "--dry-run")
    assert done.returncode == 0, done.stderr
    train = len(json.loads((imported / "train" / "a" / "samples.json").read_text())["ids"])
    assert f"two steps on {train} samples worked; {train // 16 * 30:,} steps at" in done.stdout
    assert f"evaluating ({200 - train} held-out samples) worked" in done.stdout
    assert sorted(path for path in tmp_path.rglob("*") if path.name != "__pycache__") == before
    planted = ("--dataset", "synthetic[samples=300,held_out=60]", "--store", "store", "--k", 4, "--n-latents", 64)
    done = sparc_here("train", *planted, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "wide, middle, narrow" in done.stdout
    assert not (tmp_path / "store").exists()
    done = sparc_here("train", "--features", imported, *shape, "--lr", "1e38", "--dry-run")
    assert "is not finite after step 1" in done.stderr
