"""`sparc plan` says what the commands then take, and leaves nothing."""

import numpy as np
import pytest

import sparc
from sparc.evaluation import HeldOut
from sparc.session.device_memory import training_bytes
from sparc.session.extrapolation import Sizes
from sparc.session.samples import few_held_out, some_held_out
from tests.conftest import fork_workers


@pytest.mark.slow
@pytest.mark.timeout(300)  # three processes import PyTorch
def test_a_plan_gives_the_disk_space_that_the_commands_then_take_and_leaves_nothing(tmp_path, monkeypatch):
    options = {"dataset": "synthetic[samples=900,held_out=80]", "store": tmp_path / "store", "out": tmp_path / "run"}
    options |= {"n_latents": 64, "k": 4, "batch_size": 64, "epochs": 5}
    options["stream"] = ["a=synthetic[width=48]", "b=synthetic[width=160]"]
    plan = sparc.plan(**options)
    assert not list(tmp_path.iterdir())
    assert (plan.samples, plan.held_out, plan.n_latents, plan.steps) == (900, 80, 64, 70)
    assert plan.lacking == ()
    for cost in (plan.extract, plan.train, plan.evaluate):
        assert cost.seconds > 0
        assert 10**8 < cost.memory < 4 * 10**9
    fork_workers(monkeypatch)
    sparc.train(**options)
    for folder, cost in (("store", plan.extract), ("run", plan.train)):
        taken = sum(path.stat().st_size for path in (tmp_path / folder).rglob("*") if path.is_file())
        assert cost.disk == pytest.approx(taken, rel=0.25)


def test_memory_on_a_gpu_is_that_of_parameters_moments_and_a_batch():
    config = sparc.RunConfig(n_latents=10, k=2, batch_size=3)
    parameters = 4 * (2 * 10 * 5 + 2 * 10 + 5)
    batch = 6 * 4 * 3 * 5 + 2 * 4 * 3 * 2 * 5 + 4 * 4 * 3 * 10
    assert training_bytes(config, {"a": 3, "b": 2}) == 3 * parameters + batch


@pytest.mark.parametrize(
    ("part", "seconds", "expected"),
    [
        ("codes", lambda n: 2 + 0.01 * n, 12),
        ("sharing", lambda n: 1 + 1e-6 * min(3000, 4 * n) ** 2, 10),
        ("retrieval: a → b", lambda n: 1 + 1e-5 * n * n, 11),
        ("probes: classifiers of raw, a", lambda n: 3 + 150 * n * 1e-4, 18),
    ],
)
def test_the_time_of_a_part_grows_as_its_work_does(part, seconds, expected):
    sizes = Sizes(HeldOut(features={}, groups=[str(number) for number in range(1000)]), 3000, 4)
    for count in (125, 250, 500):
        sizes.add(count, {part: seconds(count)}, 100 + count)
    assert sizes.seconds(classifiers=True) == pytest.approx(expected, rel=1e-2)
    assert sizes.seconds(classifiers=False) == pytest.approx(0 if "classifiers" in part else expected, rel=1e-2)
    assert sizes.memory() == 1100


def test_few_samples_are_evaluated_where_each_activates_many_latents():
    assert [few_held_out(16, 3), few_held_out(64, 2), few_held_out(1225, 2), few_held_out(10**6, 2)] == [256, 128, 8, 8]


def test_some_of_the_held_out_samples_keep_their_own_captions():
    import torch

    captions = [f"caption {number}" for number in range(10)]
    every = HeldOut({"a": torch.arange(10.0).unsqueeze(1)}, [str(n) for n in range(10)], captions=captions)
    some = some_held_out(every, 4)
    numbers = [int(value) for value in some.features["a"].squeeze(1)]
    assert numbers == [0, 3, 6, 9]
    assert list(some.captions) == [captions[number] for number in numbers]
    assert list(some.groups) == [str(number) for number in numbers]
    assert np.shape(some.features["a"]) == (4, 1)
