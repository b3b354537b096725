"""Training without a store: features arrive while the training runs, in an order that resuming repeats."""

import itertools
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import sparc
from sparc.config import validated
from sparc.config.options import RunConfig
from sparc.errors import Interrupted, InvalidConfig, MisalignedStreams, MissingData
from sparc.extraction.feeding import feed
from sparc.extraction.plan import Feed
from sparc.extraction.reading_order import BLOCK, ReadingOrder
from sparc.plugins.registry import discover
from sparc.session.data import Data
from sparc.session.listener import SILENT
from sparc.storage.run import Run

PLANTED = {
    "dataset": "synthetic[samples=900,held_out=100,categories=3,subcategories=2,leaves=2]",
    "stream": ["wide=synthetic[width=24]", "narrow=synthetic[width=16]"],
}
SHAPE = {"n_latents": 32, "k": 4, "batch_size": 32, "epochs": 3, "lr": 1e-3}
pytestmark = pytest.mark.usefixtures("quick")


def test_every_epoch_reads_each_sample_once_in_blocks_of_neighbours():
    n_samples = 3 * BLOCK + 40
    order = ReadingOrder(n_samples, seed=5)
    epochs = [[order[epoch * n_samples + place] for place in range(n_samples)] for epoch in range(2)]
    for one in epochs:
        assert sorted(one) == list(range(n_samples))
        assert (np.diff(one) == 1).sum() >= n_samples - 4
    assert epochs[0] != epochs[1]
    assert epochs[0] != [ReadingOrder(n_samples, seed=6)[place] for place in range(n_samples)]


def test_features_that_are_sent_are_those_of_the_store(tmp_path):
    stored = sparc.extract(**PLANTED, store=tmp_path / "store", store_dtype="float16").train
    config = validated(
        RunConfig, {"dataset": PLANTED["dataset"], "stream": PLANTED["stream"], "store-dtype": "float16"}
    )
    data = Data(config, discover(), listener=SILENT)
    jobs = data.on_device(list(data.jobs["train"].values()))
    first, following = [7, 850, 2], range(895, 1000)
    found = list(feed(jobs, Feed(seed=1, first=first, start=following.start, end=following.stop)))
    order = ReadingOrder(900, seed=1)
    samples = [order[place] for place in [*first, *following]]
    for name, rows in stored.in_memory().items():
        sent = torch.cat([piece[name] for piece in found])
        assert sent.dtype == torch.float16
        assert torch.equal(sent, rows[samples])


@pytest.mark.slow
def test_a_training_on_the_fly_resumes_to_the_same_bits_and_stores_held_out_features_alone(tmp_path, monkeypatch):
    options = {**PLANTED, **SHAPE, "on_the_fly": True, "buffer": 200, "store": tmp_path / "store"}
    whole = sparc.train(**options, out=tmp_path / "whole")
    assert [path.parent.name for path in (tmp_path / "store").rglob("manifest.json")] != []
    assert {path.parts[-3] for path in (tmp_path / "store").rglob("manifest.json")} == {"test"}
    assert Run(whole.path).provenance().samples == 900
    assert whole.report.joint.nmse["wide"]["wide"] < 0.9

    steps = itertools.count()

    class Listener(type(SILENT)):
        def step(self, step):
            if next(steps) == 40:
                signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted):
        sparc.train(**options, out=tmp_path / "cut", listener=Listener())
    resumed = sparc.train(resume=tmp_path / "cut")
    for name, tensor in whole.space.state_dict().items():
        assert torch.equal(tensor, resumed.space.state_dict()[name]), name
    content = [(tmp_path / run / name).read_bytes() for name in ("completion.safetensors",) for run in ("whole", "cut")]
    assert content[0] == content[1]

    shutil.copytree(tmp_path / "cut", tmp_path / "again")
    models = sparc.evaluate(tmp_path / "again")  # the run is like any other
    assert models.evaluation.report.samples == 100
    (tmp_path / "again" / "completion.safetensors").unlink()
    assert sparc.complete(tmp_path / "again").samples == 900  # whose features are stored now
    wider = sparc.attach(tmp_path / "cut", stream="third=synthetic[width=12,view=3]", out=tmp_path / "wider")
    assert [one.change for one in Run(wider.path).provenance().changes] == ["attached"]
    for old, new in zip(resumed.space.encoders, wider.space.encoders, strict=False):
        assert torch.equal(old, new)


@pytest.mark.parametrize(
    ("options", "variables", "message"),
    [
        ({"features": "somewhere"}, {}, "imported features are there already"),
        (PLANTED, {"WORLD_SIZE": "2", "RANK": "0"}, "expected one process, found several of torchrun"),
    ],
)
def test_what_excludes_it_is_said_before_any_work(options, variables, message, tmp_path, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidConfig, match=message):
        sparc.train(**options, on_the_fly=True)
    assert not list(tmp_path.iterdir())


def test_plans_and_ablations_which_need_stored_features_refuse_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidConfig, match="a plan measures trainings on stored features"):
        sparc.plan(**PLANTED, on_the_fly=True)
    with pytest.raises(InvalidConfig, match="an ablation trains many times on the same stored features"):
        sparc.ablate(**PLANTED, on_the_fly=True, grid={"k": [2, 4]})
    assert not list(tmp_path.iterdir())


def test_a_signal_to_the_whole_group_stops_a_training_that_extracts_on_the_fly_as_one_to_the_process(tmp_path):
    ended = []

    class Listener(type(SILENT)):
        def step(self, step):
            if not ended:
                children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
                workers = [int(pid) for pid in children.read_text(encoding="ascii").split()]
                ended.extend(pid for pid in workers if b"sparc.extraction" in Path(f"/proc/{pid}/cmdline").read_bytes())
                for pid in ended:
                    os.kill(pid, signal.SIGTERM)
                signal.raise_signal(signal.SIGTERM)
                time.sleep(0.3)

    options = {**PLANTED, **SHAPE, "on_the_fly": True, "buffer": 100, "store": tmp_path / "store"}
    with pytest.raises(Interrupted) as caught:
        sparc.train(**options, out=tmp_path / "run", listener=Listener())
    assert ended
    assert "resume=" in str(caught.value)
    assert sparc.train(resume=tmp_path / "run").path == tmp_path / "run"


def test_other_samples_or_a_completion_that_is_gone_do_not_continue_a_run(tmp_path):
    options = {**PLANTED, **SHAPE, "on_the_fly": True, "store": tmp_path / "store"}

    class Listener(type(SILENT)):
        def step(self, step):
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted):
        sparc.train(**options, out=tmp_path / "run", listener=Listener())
    (tmp_path / "run" / "completion.safetensors").unlink()
    with pytest.raises(
        MissingData, match=r"completion\.safetensors is missing, which this training wrote at its start"
    ):
        sparc.train(resume=tmp_path / "run")
    path = tmp_path / "run" / "provenance.json"
    path.write_text(path.read_text().replace("900", "901"))
    with pytest.raises(MisalignedStreams, match="the samples or the weights are not the ones"):
        sparc.train(resume=tmp_path / "run")
