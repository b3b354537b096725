"""Trainings by several processes: the same result as by one, whatever they share, and whatever ends them."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed.checkpoint
from safetensors.torch import load_file

from sparc.config import RunConfig, TrainingConfig
from sparc.core.topk import EncoderProduct, select
from sparc.errors import InvalidConfig
from sparc.session.together import check_shares
from sparc.storage.checkpoint import SharedLatentSpace, load
from sparc.storage.run import Run
from sparc.training.distributed import Group, Rows
from sparc.training.loader import FeaturesInMemory, Loader
from sparc.training.merging import share_of
from sparc.training.sharding import own_part, shard_range
from sparc.training.trainer import Training
from tests.training.ranks import CASES, MESHES, STEPS, features

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(300)  # the first test waits for all that `tests.training.ranks` does


@pytest.fixture(scope="module")
def made(made_once):
    def make(folder):
        command = [sys.executable, "-m", "tests.training.ranks", str(folder)]
        variables = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
        done = subprocess.run(command, env=variables, cwd=ROOT, capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, done.stderr

    return made_once("ranks", make)


@pytest.fixture
def found(made):
    return json.loads((made / "found.json").read_text())


def weights(path):
    return load_file(path / "model.safetensors")


def assert_same_run(path, one, tolerance):
    ours, theirs = weights(path), weights(one)
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=0, atol=tolerance, msg=name)
    logs = [[json.loads(line) for line in (each / "metrics.jsonl").read_text().splitlines()] for each in (path, one)]
    for line, expected in zip(*logs, strict=True):
        assert line.keys() == expected.keys()
        assert line == pytest.approx(expected, rel=1e-9 if tolerance < 1e-8 else 1e-4)


def indices(path):
    """Latents that the samples keep, each stream encoded alone and all together."""
    space = load(path)
    raw = {name: torch.cat(rows).to(space.decoder) for name, rows in features().shards.items()}
    together = [code.indices.sort(dim=1).values for code in space.encode(raw, complete=False).values()]
    return torch.stack([*together, *(space.encode({name: raw[name]})[name].indices for name in raw)])


@pytest.mark.slow
@pytest.mark.parametrize(("mesh", "case"), [(mesh, case) for mesh, cases in MESHES.items() for case in cases])
def test_a_batch_that_processes_share_gives_the_weights_codes_and_losses_of_one_process(made, found, mesh, case):
    path, one = made / "x".join(map(str, mesh)) / case, made / "one" / case
    assert found[path.parent.name] == [0] * mesh[0]
    assert_same_run(path, one, 1e-9)
    assert torch.equal(indices(path), indices(one))
    last = json.loads((one / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["step"] == STEPS
    assert {"aux/a", "aux/b", "aux/c"} <= last.keys()  # AuxK is in what is compared
    assert last["loss"] < 0.75 * (1 + CASES[case][1].lambda_)


@pytest.mark.slow
def test_float32_agrees_up_to_rounding(made, found):
    assert found["float32"] == [0, 0]
    assert_same_run(made / "float32" / "plain", made / "float32-one" / "plain", 1e-3)


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes(made, found):
    assert found["resumed"] == [0] * 6
    # One rank asked to stop after 7 steps, and all stopped; later each rank after 9 more.
    assert found["resumed states"] == ["step-000000000016.shards", "step-000000000007.safetensors"]
    assert_same_run(made / "resumed" / "global", made / "one" / "global", 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["cut", "altered", "missing"])
def test_a_damaged_checkpoint_of_several_processes_is_skipped_with_a_warning(made, found, damage, tmp_path):
    run = Run(shutil.copytree(made / "damaged" / "global", tmp_path / "run"))
    file = next(run.states()[0].glob("*.safetensors"))
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(content[:-5] if damage == "cut" else content[:-5] + bytes([content[-5] ^ 1]) + content[-4:])
    shape, config = CASES["global"]
    training = Training(SharedLatentSpace(shape).double(), config)
    with pytest.warns(UserWarning, match=r"a checkpoint is damaged .*resumes from the one before, of step 7"):
        training.restore(run)
    assert training.step == 7


@pytest.mark.slow
def test_a_killed_process_ends_the_others_at_once_and_its_checkpoints_stay(made, found):
    assert found["killed"] == [1, -9]
    assert found["killed seconds"] < 60
    assert found["killed states"] == [f"step-{step:012d}.safetensors" for step in (10, 9)]
    kind, message = json.loads((made / "killed" / "error-0.json").read_text())
    assert kind == "ProcessLost"
    assert message.startswith("another process has ended: ")
    assert ".cc" not in message


@pytest.mark.slow
@pytest.mark.parametrize("where", ["wait", "collective", "first"])
def test_a_process_without_signs_of_life_ends_the_others_with_its_name(made, found, where):
    """The first process is in a wait or a collective; in `first` it is the one that is stopped, with the store."""
    codes, seconds, said = found["silent"][where]
    stopped = 0 if where == "first" else 1
    assert (codes[stopped], codes[1 - stopped]) == (-9, 1)
    assert seconds < 20
    who = "the key-value store of all processes" if where == "first" else f"process 1 on {socket.gethostname()}"
    if where == "wait":
        kind, message = json.loads((made / "silent-wait" / "error-0.json").read_text())
        assert kind == "ProcessLost"
    else:  # it is ended by force
        message = said.splitlines()[-2].removeprefix("error: ")
        assert said.splitlines()[-1].startswith("hint:  torchrun reports which one")
    assert message.startswith(who)
    assert message.endswith("for 1 s: a machine or its network is gone, or a process is stopped")


@pytest.mark.slow
def test_an_error_of_one_process_is_reported_by_that_one_alone(made, found):
    assert found["refused"] == [1, 1]
    errors = [json.loads((made / "refused" / f"error-{rank}.json").read_text()) for rank in (0, 1)]
    assert errors == [
        ["FailedElsewhere", "another process has failed"],
        ["BadFeatures", "a file of this process is bad"],
    ]


@pytest.mark.slow
def test_the_command_trains_the_same_run_and_only_its_first_process_prints(made, found):
    assert found["alone"][0] == 0, found["alone"]
    (code, said, errors), second = found["command"]
    assert (code, errors) == (0, "")
    assert second == [0, "", ""]
    assert "saved in two" in said
    runs = made / "commands"
    assert_same_run(runs / "two", runs / "alone", 1e-5)
    assert (runs / "two" / "evaluation.json").is_file()
    assert not (runs / "two" / "state").exists()


@pytest.mark.slow
def test_processes_that_share_an_evaluation_write_the_files_and_print_the_tables_of_one(made, found):
    (code, said, errors), *others = found["measured"]
    assert [code, errors, others] == [0, "", [[0, "", ""]] * 2]
    alone = found["measured alone"]
    assert alone[0] == 0
    tables = [
        [line for line in text.splitlines() if not re.search(r"\.\.\.|parts", line)]
        for text in (said.replace("measured", "alone"), alone[1])
    ]
    assert tables[0] == tables[1]
    assert len(tables[0]) > 20
    folder = made / "commands"
    for name in ("evaluation.json", "evaluation/latents.csv"):
        assert (folder / "measured" / name).read_bytes() == (folder / "alone" / name).read_bytes()
    measured = json.loads((folder / "alone" / "evaluation.json").read_text())["report"]
    assert measured["jaccard"]
    assert measured["retrieval"]


@pytest.mark.slow
def test_a_wrong_split_is_an_error_that_is_said_once_before_anything_is_made(made, found):
    assert [code for code, _, _ in found["wrong"]] == [1, 1]
    said = "".join(errors for _, _, errors in found["wrong"])
    assert said.splitlines() == [
        "error: --shard-latents: expected a divisor of the number of processes, 2, found 3",
        "hint:  torchrun --nproc-per-node N --no-python sparc train ... starts N processes",
    ]
    assert not (made / "commands" / "wrong").exists()


@pytest.mark.slow
def test_the_time_limit_stops_all_processes_with_a_checkpoint(made, found):
    (code, said, errors), second = found["stopped"]
    assert (code, errors) == (130, "")
    # The limit ends in one process first, and the others hear that they are to stop.
    why = r"(stopped|the time that --max-time 2s gave is up)"
    assert re.fullmatch(rf"{why}\. Resume it with: sparc train --resume stop", said.splitlines()[-1])
    assert second == [130, "", ""]
    assert list((made / "commands" / "stop" / "state").glob("step-*.safetensors"))


def test_the_rows_of_all_processes_are_the_batch_of_one():
    features = FeaturesInMemory({"a": [torch.arange(50.0).unsqueeze(1)]})
    config = TrainingConfig(epochs=2, batch_size=16)
    groups = [Group(number, 3, object()) for number in range(3)]
    parts = [Loader(features, config, rows=Rows.of(16, group).some) for group in groups]
    whole = Loader(features, config)
    for (*some,), batch in zip(zip(*parts, strict=True), whole, strict=True):
        assert [len(one["a"]) for one in some] == [5, 5, 6]
        assert torch.equal(torch.cat([one["a"] for one in some]), batch["a"])


def test_a_batch_smaller_than_the_number_of_processes_is_refused():
    with pytest.raises(InvalidConfig, match=r"--batch-size: expected at least one sample for each of 3 processes"):
        Rows.of(2, Group(0, 3))


class Together(Group):
    """A group whose other ranks' tensors are at hand."""

    def gathered(self, tensor, kind="other"):
        self.traffic.__dict__.setdefault("tensors", []).append(tensor)
        return torch.stack(self.traffic.others) if hasattr(self.traffic, "others") else torch.stack([tensor] * 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("k", [1, 5, 11])
def test_candidates_of_shards_give_the_latents_that_one_process_keeps_with_its_ties(dtype, k):
    draw = torch.Generator().manual_seed(k)
    # Few different values, so that most scores tie.
    inputs = torch.randint(-1, 2, (40, 3), generator=draw).to(dtype)
    inputs[7] = 0
    weight = torch.randint(-1, 2, (17, 3), generator=draw).to(dtype)
    there = torch.ones(40, dtype=torch.bool)

    def kept(some, count):
        product = EncoderProduct(inputs, weight[some], torch.zeros(some.stop - some.start, dtype=dtype), there)
        return select({"a": product}, count, shared=True)["a"]

    expected = kept(slice(0, 17), k).indices.sort(dim=1).values
    shards = [shard_range(17, number, 3) for number in range(3)]
    found = [kept(some, min(k, some.stop - some.start)) for some in shards]
    groups = [Together(number, 3, object()) for number in range(3)]
    sent = []
    for group, some, one in zip(groups, shards, found, strict=True):
        share_of(one.indices + some.start, [one.logits], k, group)
        sent += group.traffic.tensors
    chosen = torch.zeros(40, 17, dtype=torch.bool)
    for group, some, one in zip(groups, shards, found, strict=True):
        group.traffic.others = sent
        share = share_of(one.indices + some.start, [one.logits], k, group)
        numbers = (one.indices + some.start).gather(1, share.places)
        for sample in range(40):
            chosen[sample, numbers[sample, share.chosen[sample]]] = True
    assert torch.equal(chosen.nonzero()[:, 1].view(40, k), expected)


def test_shards_cover_the_latents_once_and_whole_tensors_are_cut_where_they_count_them():
    for count, size in ((17, 3), (16, 4), (8192, 8)):
        ranges = [shard_range(count, number, size) for number in range(size)]
        assert [latent for one in ranges for latent in range(one.start, one.stop)] == list(range(count))
    whole = {"adam.exp_avg.encoders.0": (6, 2), "space.latent_bias": (2, 6), "space.pre_bias": (6,), "norms": (6, 3)}
    cut = {name: tuple(own_part(name, torch.zeros(shape), slice(2, 4)).shape) for name, shape in whole.items()}
    assert cut == {**whole, "adam.exp_avg.encoders.0": (2, 2), "space.latent_bias": (2, 2)}


@pytest.mark.slow
def test_latents_are_not_split_on_a_pytorch_without_checkpoints_in_parts(made, found, monkeypatch):
    ranks = SimpleNamespace(size=2)
    config = RunConfig(shard_latents=2)
    check_shares(config, ranks)
    monkeypatch.delattr(torch.distributed.checkpoint, "HuggingFaceStorageWriter")
    with pytest.raises(
        InvalidConfig, match=r"expected PyTorch 2\.9 or later for checkpoints of --shard-latents, found "
    ):
        check_shares(config, ranks)
    check_shares(RunConfig(), ranks)
    shape, config = CASES["global"]
    with pytest.raises(InvalidConfig, match="expected PyTorch"):
        Training(SharedLatentSpace(shape).double(), config).restore(Run(made / "damaged" / "global"))
