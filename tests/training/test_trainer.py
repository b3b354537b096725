"""Training: the same seed gives the same bits, interrupted or not."""

import itertools
import json
import warnings

import pytest
import torch

from sparc.config import SpaceConfig, TrainingConfig
from sparc.core.losses import LossWeights, loss_terms, total
from sparc.errors import BadFeatures, CorruptFile, IncompatibleFormat, InvalidConfig, MissingData, StorageError
from sparc.storage.checkpoint import SharedLatentSpace, load
from sparc.storage.run import Run
from sparc.storage.space_config import config_content
from sparc.training.loader import FeaturesInMemory, batches
from sparc.training.trainer import Hooks, Training, train
from tests.runs import provenance

CONFIG = TrainingConfig(epochs=8, batch_size=32, lr=1e-2, dead_after=64, k_aux=4, seed=5)


@pytest.fixture
def features():
    """Two streams that see the same four hidden causes."""
    generator = torch.Generator().manual_seed(0)
    causes = torch.randn(200, 4, generator=generator).relu()
    return {name: causes @ torch.randn(4, width, generator=generator) for name, width in (("a", 12), ("b", 7))}


@pytest.fixture
def shape():
    return SpaceConfig(streams={"a": 12, "b": 7}, n_latents=32, k=4)


def shards(features):
    """In pieces, as a store has them."""
    return FeaturesInMemory({name: rows.split(60) for name, rows in features.items()})


def resume(run, features, shape, config=CONFIG, **kwargs):
    """Train a space drawn by the configuration's seed; return True if it was trained to the end."""
    return train(SharedLatentSpace(shape, seed=config.seed), config, shards(features), run, Hooks(**kwargs))


def fit(path, features, shape, config=CONFIG):
    space = SharedLatentSpace(shape, seed=config.seed)
    assert train(space, config, shards(features), Run.create(path))
    return space


def model_bytes(path):
    return (path / "model.safetensors").read_bytes()


def after(steps):
    """Ask to stop after so many steps."""
    asked = itertools.count()
    return lambda: next(asked) >= steps


def test_training_lowers_the_loss(tmp_path, features, shape):
    untrained = SharedLatentSpace(shape, seed=CONFIG.seed)
    trained = fit(tmp_path / "run", features, shape)

    def loss(space):
        batch = space.normalize(features)
        return total(loss_terms(space, batch, space.encode_batch(batch), LossWeights(cross=1.0))).item()

    assert loss(trained) < 0.5 * loss(untrained)


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(tmp_path, features, shape):
    for name, seed in (("one", 5), ("two", 5), ("other", 6)):
        fit(tmp_path / name, features, shape, CONFIG.model_copy(update={"seed": seed}))
    assert model_bytes(tmp_path / "one") == model_bytes(tmp_path / "two")
    assert model_bytes(tmp_path / "one") != model_bytes(tmp_path / "other")


@pytest.mark.parametrize(("normalization", "adam_state"), [("unit", "float32"), ("standard", "bfloat16")])
def test_interrupting_at_any_step_and_resuming_gives_the_same_bits(
    tmp_path, features, shape, normalization, adam_state
):
    shape = shape.model_copy(update={"normalization": normalization})
    config = CONFIG.model_copy(update={"adam_state": adam_state})
    fit(tmp_path / "whole", features, shape, config)
    for stop_at in ([0], [1, 2], [7, 30], [47]):
        path = tmp_path / f"stopped-{stop_at[0]}"
        Run.create(path)
        for stop in stop_at:
            assert not resume(Run(path), features, shape, config, should_stop=after(stop))
            assert not Run(path).finished
        assert resume(Run(path), features, shape, config)
        assert model_bytes(path) == model_bytes(tmp_path / "whole")
        assert not Run(path).states()


def test_resuming_makes_the_same_metrics(tmp_path, features, shape, monkeypatch):
    monkeypatch.setattr("sparc.training.trainer.LOG_EVERY", 5)
    fit(tmp_path / "whole", features, shape)
    run = Run.create(tmp_path / "killed")
    resume(run, features, shape, should_stop=after(13))
    run.log({"step": 15, "loss": -1.0})  # logged after the state was saved, before a kill
    with run.metrics.open("a") as file:
        file.write('{"step": 20, "lo')
    resume(run, features, shape)
    assert run.metrics.read_text() == Run(tmp_path / "whole").metrics.read_text()


def test_a_training_that_is_killed_before_its_first_save_logs_no_step_twice(tmp_path, features, shape, monkeypatch):
    monkeypatch.setattr("sparc.training.trainer.LOG_EVERY", 5)
    fit(tmp_path / "whole", features, shape)
    run = Run.create(tmp_path / "killed")
    run.log({"step": 5, "loss": -1.0})
    resume(run, features, shape)
    assert run.metrics.read_text() == Run(tmp_path / "whole").metrics.read_text()


def test_a_training_that_is_killed_goes_on_from_its_last_save_to_the_same_bits(tmp_path, features, shape, monkeypatch):
    class Killed(BaseException):
        pass

    def kill_at_20(step):
        if step.number == 20:
            raise Killed

    monkeypatch.setattr("sparc.training.trainer.SAVE_SECONDS", 0.0)
    monkeypatch.setattr("sparc.training.trainer.SAVE_SHARE", float("inf"))
    fit(tmp_path / "whole", features, shape)
    run = Run.create(tmp_path / "killed")
    with pytest.raises(Killed):
        resume(run, features, shape, on_step=kill_at_20)
    steps = []
    resume(run, features, shape, on_step=lambda step: steps.append(step.number))
    assert steps[0] == 20  # the state of step 19 was the last that was saved
    assert model_bytes(tmp_path / "killed") == model_bytes(tmp_path / "whole")


def test_a_step_that_is_logged_has_the_mean_of_each_kind_of_term(tmp_path, features, shape, monkeypatch):
    monkeypatch.setattr("sparc.training.trainer.LOG_EVERY", 5)
    run, steps = Run.create(tmp_path / "run"), []
    resume(run, features, shape, CONFIG.model_copy(update={"dead_after": 32}), on_step=steps.append)
    assert [step.number for step in steps if step.losses] == [*range(5, 48, 5), 48]
    logged = json.loads(run.metrics.read_text().splitlines()[-1])
    losses = steps[-1].losses
    assert losses.record().items() <= logged.items()
    assert logged["lr"] == CONFIG.lr
    assert losses.means["self"] == (logged["self/a"] + logged["self/b"]) / 2
    assert losses.means["cross"] == (logged["cross/a->b"] + logged["cross/b->a"]) / 2
    auxs = [value for name, value in logged.items() if name.startswith("aux/")]
    assert losses.means["aux"] == sum(auxs) / len(auxs)


def test_standard_normalization_is_measured_on_the_training_samples(tmp_path, features, shape):
    space = fit(tmp_path / "run", features, shape.model_copy(update={"normalization": "standard"}))
    there = features["a"].any(dim=1)
    torch.testing.assert_close(space.center[:12], features["a"][there].mean(dim=0))


def test_the_settings_of_the_training_are_kept_beside_the_space(tmp_path, features, shape):
    fit(tmp_path / "run", features, shape)
    assert (
        json.loads((tmp_path / "run" / "config.json").read_text())["training"]
        == config_content(shape, CONFIG)["training"]
    )


def test_the_seed_alone_decides_the_order_of_samples():
    orders = [torch.cat(list(batches(20, TrainingConfig(epochs=1, batch_size=10, seed=seed)))) for seed in (3, 3, 4)]
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])


def test_the_seed_alone_decides_the_initial_weights(shape):
    first, again, other = (SharedLatentSpace(shape, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first.decoder, again.decoder)
    assert not torch.equal(first.decoder, other.decoder)


def test_a_space_that_cannot_be_saved_leaves_the_old_one_whole(tmp_path, shape):
    import resource
    import signal

    SharedLatentSpace(shape, seed=1).save_pretrained(tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limit[1]))
    try:
        with pytest.raises(StorageError):
            SharedLatentSpace(shape.model_copy(update={"n_latents": 256})).save_pretrained(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, ignored)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_metrics_on_a_full_disk_and_a_run_in_a_file_are_errors_of_storage(tmp_path):
    run = Run.create(tmp_path / "run")
    run.metrics.symlink_to("/dev/full")
    with pytest.raises(StorageError, match="no space left"):
        run.log({"step": 1})
    with pytest.raises(StorageError, match="Not a directory"):
        Run.create(tmp_path / "run" / "metrics.jsonl" / "x")


def test_dead_latents_get_an_aux_term(tmp_path, features, shape):
    fit(tmp_path / "run", features, shape, CONFIG.model_copy(update={"dead_after": 32}))
    logged = [json.loads(line) for line in Run(tmp_path / "run").metrics.read_text().splitlines()]
    assert any(name.startswith("aux/") for name in logged[-1])


def test_every_epoch_sees_each_sample_once_in_another_order():
    config = TrainingConfig(epochs=3, batch_size=10)
    seen = list(batches(20, config))
    assert len(seen) == 6
    epochs = [torch.cat(seen[start : start + 2]) for start in (0, 2, 4)]
    assert all(sorted(epoch.tolist()) == list(range(20)) for epoch in epochs)
    assert not torch.equal(epochs[0], epochs[1])
    assert all(torch.equal(a, b) for a, b in zip(seen[3:], batches(20, config, start=3), strict=True))


def test_fewer_samples_than_a_batch_are_one_batch():
    assert [len(rows) for rows in batches(7, TrainingConfig(epochs=2, batch_size=10))] == [7, 7]


def test_one_stream_is_a_plain_sparse_autoencoder(tmp_path, features):
    space = fit(tmp_path / "run", {"a": features["a"]}, SpaceConfig(streams={"a": 12}, n_latents=32, k=4))
    assert list(space.encode({"a": features["a"]})) == ["a"]
    assert json.loads(Run(tmp_path / "run").metrics.read_text().splitlines()[-1])["self/a"] < 0.5


def test_samples_that_lack_a_stream_are_trained_on_with_the_other(tmp_path, features, shape):
    features["a"][::3] = 0
    space = fit(tmp_path / "run", features, shape)
    codes = space.encode(features)
    assert (codes["a"].values[::3] == 0).all()
    assert (codes["b"].values[::3] > 0).any(dim=1).float().mean() > 0.9


def test_the_decoder_that_is_saved_is_on_unit_norm(tmp_path, features, shape):
    fit(tmp_path / "run", features, shape)
    decoder = load(tmp_path / "run").decoder
    torch.testing.assert_close(decoder[:, :12].norm(dim=1), torch.ones(32))
    torch.testing.assert_close(decoder[:, 12:].norm(dim=1), torch.ones(32))


def test_a_loss_that_is_not_finite_stops_with_step_and_term(tmp_path, features, shape, monkeypatch):
    monkeypatch.setattr("sparc.training.trainer.LOG_EVERY", 1)
    space = SharedLatentSpace(shape)
    with torch.no_grad():
        space.decoder.fill_(float("inf"))
    with pytest.raises(BadFeatures, match=r"the loss term 'self/a' is (nan|inf) at step 1"):
        train(space, CONFIG, shards(features), Run.create(tmp_path / "run"))


def test_weights_that_are_not_finite_are_never_saved(tmp_path, features, shape):
    """The loss tells of them a step later, which an interruption and the last step do not wait for."""
    diverging = CONFIG.model_copy(update={"lr": 1e38, "epochs": 1, "batch_size": 200})
    run = Run.create(tmp_path / "one-step")
    with pytest.raises(BadFeatures, match=r"the parameter '.*' is not finite after step 1"):
        resume(run, features, shape, diverging)
    assert not run.finished

    run = Run.create(tmp_path / "stopped")
    many = diverging.model_copy(update={"epochs": 9})
    with pytest.raises(BadFeatures, match=r"the parameter '.*' is not finite after step 1"):
        resume(run, features, shape, many, should_stop=after(1))
    assert not run.states()


UNPREPARED = CONFIG.model_copy(update={"completion": "none", "pre_bias": "zeros"})
"""Reads no features before the first step, as if they were changed after the training began."""


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_a_flipped_bit_falls_back_to_the_checkpoint_before_and_ends_in_the_same_bits(
    tmp_path, features, shape, monkeypatch
):
    """Bits are flipped in a weight, in a moment and in the header; a file is cut, and one is a folder."""
    monkeypatch.setattr("sparc.training.trainer.LOG_EVERY", 5)
    fit(tmp_path / "whole", features, shape)
    for number, damage in enumerate(
        (
            lambda path: flip(path, -5),
            lambda path: flip(path, -(path.stat().st_size // 2)),
            lambda path: flip(path, 60),
            lambda path: path.write_bytes(path.read_bytes()[:-100]),
            lambda path: (path.unlink(), path.mkdir()),
        )
    ):
        run = Run.create(tmp_path / f"damaged-{number}")
        for stop in (7, 6):
            resume(run, features, shape, should_stop=after(stop))
        newest, before = run.states()
        assert (newest.name, before.name) == ("step-000000000013.safetensors", "step-000000000007.safetensors")
        damage(newest)
        steps = []
        with pytest.warns(UserWarning, match=r"step-000000000013.* resumes from the one before, of step 7"):
            resume(run, features, shape, on_step=lambda step: steps.append(step.number))  # noqa: B023
        assert steps[0] == 8
        assert model_bytes(run.path) == model_bytes(tmp_path / "whole")
        assert run.metrics.read_bytes() == Run(tmp_path / "whole").metrics.read_bytes()


def test_a_training_without_a_whole_checkpoint_says_so_and_changes_nothing(tmp_path, features, shape):
    run = Run.create(tmp_path / "run")
    resume(run, features, shape, should_stop=after(3))
    (path,) = run.states()
    path.write_bytes(damaged := path.read_bytes()[:-100])
    with pytest.raises(CorruptFile, match=r"all 1 checkpoints are truncated .*step-000000000003") as error:
        resume(run, features, shape)
    assert "train" in error.value.hint
    assert path.read_bytes() == damaged


def test_the_last_checkpoints_are_kept_and_the_best_by_held_out_loss_is_marked(tmp_path, features, shape, monkeypatch):
    """After the sixth checkpoint the held-out samples are others, on which the loss is larger."""
    run, held_out = Run.create(tmp_path / "run"), shards({name: rows[:64] for name, rows in features.items()})
    worse = shards({name: rows[:64].flip(0).abs() * 9 + 5 for name, rows in features.items()})
    training = Training(SharedLatentSpace(shape, seed=5), CONFIG)
    losses = {}
    for number in range(10):
        training.advance(training.space.normalize({name: rows[:32] for name, rows in features.items()}))
        training.save(run, held_out if number < 6 else worse)
        losses[number + 1] = training.loss_on(held_out if number < 6 else worse)
    best = min(losses, key=losses.__getitem__)
    assert best <= 6
    assert [path.name for path in run.states()] == [f"step-{step:012d}.safetensors" for step in (10, 9, best)]
    assert json.loads(run.best.read_text()) == {"step": best, "held_out_loss": losses[best]}


def test_the_loss_of_a_checkpoint_is_that_of_the_definition(tmp_path, features, shape):
    training = Training(SharedLatentSpace(shape, seed=5), CONFIG)
    batch = training.space.normalize(features)
    per_batch = [
        total(loss_terms(training.space, some, training.space.encode_batch(some), LossWeights(cross=1.0))).item()
        for low in range(0, 128, 32)
        if (some := training.space.normalize({name: rows[low : low + 32] for name, rows in features.items()}))
    ]
    assert training.loss_on(shards(features)) == pytest.approx(sum(per_batch) / 4)
    assert len(batch.features["a"]) == 200


def test_damaged_lines_of_the_log_are_dropped_with_a_warning_and_block_nothing(tmp_path, features, shape, monkeypatch):
    monkeypatch.setattr("sparc.training.trainer.LOG_EVERY", 2)
    fit(tmp_path / "whole", features, shape)
    lines = Run(tmp_path / "whole").metrics.read_bytes().splitlines(keepends=True)
    for number, damage in enumerate(
        (b"[1, 2]\n", b"\xff\xfe\x00\n", b'{"step": "4"}\n', b"{\n", b"null\n", b"[" * 9999 + b"\n")
    ):
        run = Run.create(tmp_path / f"damaged-{number}")
        resume(run, features, shape, should_stop=after(20))
        logged = run.metrics.read_bytes().splitlines(keepends=True)
        run.metrics.write_bytes(b"".join([*logged[:3], damage, *logged[4:]]))
        with pytest.warns(UserWarning, match=r"metrics\.jsonl: 1 damaged lines are dropped, the first is line 4"):
            resume(run, features, shape)
        assert run.metrics.read_bytes() == b"".join([*lines[:3], *lines[4:]])
        assert model_bytes(run.path) == model_bytes(tmp_path / "whole")


def test_a_feature_that_is_not_finite_is_named_at_its_step_and_the_weights_stay_as_before(tmp_path, features, shape):
    """The sample of the fourth batch of the first epoch is read in step 4, long before a loss is logged."""
    sample = int(torch.cat(list(itertools.islice(batches(200, CONFIG), 4)))[100])
    wrong = {name: rows.clone() for name, rows in features.items()}
    wrong["b"][sample, 2] = float("nan")
    run = Run.create(tmp_path / "run")
    with pytest.raises(BadFeatures) as error:
        resume(run, wrong, shape, UNPREPARED)
    assert "is nan at step 4: stream 'b' has the feature nan at sample number" in error.value.message
    assert error.value.message.endswith(f"sample number {sample}")
    assert "resume" in error.value.hint


def test_a_step_that_is_not_finite_is_skipped_logged_and_survives_an_interruption(tmp_path, features, shape):
    wrong = {name: rows.clone() for name, rows in features.items()}
    wrong["a"][11] = float("inf")
    config = UNPREPARED.model_copy(update={"on_nan": "skip"})
    first = r"step \d+ is skipped: .* stream 'a' has the feature inf at sample number 11"
    with pytest.warns(UserWarning, match=r"\d of \d+ steps were skipped"), pytest.warns(UserWarning, match=first):
        fit(tmp_path / "whole", wrong, shape, config)
    records = [json.loads(line) for line in Run(tmp_path / "whole").metrics.read_text().splitlines()]
    skipped = [record["step"] for record in records if any(name.startswith("skipped/") for name in record)]
    seen = [step for step, rows in enumerate(batches(200, config), 1) if 11 in rows]
    assert skipped == seen
    assert len(seen) >= 6
    run = Run.create(tmp_path / "parts")
    for stop in (seen[0] + 1, 9, 99):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            resume(run, wrong, shape, config, should_stop=after(stop))
    assert model_bytes(run.path) == model_bytes(tmp_path / "whole")
    assert run.metrics.read_bytes() == Run(tmp_path / "whole").metrics.read_bytes()


def test_a_training_of_which_no_step_is_finite_stops_though_it_may_skip(tmp_path, features, shape):
    wrong = {name: torch.full_like(rows, float("nan")) for name, rows in features.items()}
    config = UNPREPARED.model_copy(update={"on_nan": "skip", "epochs": 90})
    with pytest.warns(UserWarning, match="is skipped"), pytest.raises(BadFeatures, match="at step 20"):
        fit(tmp_path / "run", wrong, shape, config)


def test_a_norm_that_stands_out_is_logged_and_no_other(tmp_path, features, shape, monkeypatch):
    monkeypatch.setattr("sparc.training.trainer.LOG_EVERY", 5)
    odd = {name: rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-3) for name, rows in features.items()}
    odd["b"][17] *= 1000
    fit(tmp_path / "run", odd, shape)
    records = [json.loads(line) for line in Run(tmp_path / "run").metrics.read_text().splitlines()]
    seen = {-(-step // 5) * 5 for step, rows in enumerate(batches(200, CONFIG), 1) if 17 in rows}
    found = {
        record["step"]: record["outlier/feature_norm/b"] for record in records if "outlier/feature_norm/b" in record
    }
    assert set(found) == {min(step, 48) for step in seen}
    assert all(value == pytest.approx(1000, rel=1e-3) for value in found.values())
    assert not any("outlier/feature_norm/a" in record for record in records)


def test_a_full_disk_keeps_the_last_saved_state(tmp_path, features, shape):
    run = Run.create(tmp_path / "run")
    training = Training(SharedLatentSpace(shape), CONFIG)
    training.advance(training.space.normalize(features))
    training.save(run)
    before = {path: path.read_bytes() for path in run.states()}
    import resource
    import signal

    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
    try:
        training.advance(training.space.normalize(features))
        with pytest.raises(StorageError):
            training.save(run)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, ignored)
    assert {path: path.read_bytes() for path in run.states()} == before


def test_a_loaded_space_encodes_as_the_trained_one(tmp_path, features, shape):
    space = fit(tmp_path / "run", features, shape)
    for loaded in (load(tmp_path / "run"), SharedLatentSpace.from_pretrained(tmp_path / "run")):
        assert loaded.streams == {"a": 12, "b": 7}
        assert not loaded.training
        expected, found = (s.encode(features)["b"].to_dense() for s in (space, loaded))
        assert torch.equal(expected, found)
    loaded.save_pretrained(tmp_path / "copy")
    assert model_bytes(tmp_path / "copy") == model_bytes(tmp_path / "run")


def test_a_hub_checkpoint_loads_from_the_local_cache(tmp_path, features, shape):
    """The layout that the hub's own client keeps: refs name a commit, snapshots hold its files."""
    import subprocess
    import sys

    repo = tmp_path / "hub" / "models--lab--space"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("c0ffee")
    fit(tmp_path / "run", features, shape).save_pretrained(repo / "snapshots" / "c0ffee")
    code = "import sparc; print(sparc.load('lab/space').streams)"
    variables = {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1", "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "{'a': 12, 'b': 7}"


def test_checkpoints_that_cannot_be_read_say_why(tmp_path, features, shape, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    path = tmp_path / "run"
    fit(path, features, shape)
    with pytest.raises(MissingData, match="no checkpoint at 'runs/nothing'"):
        load("runs/nothing")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "format_version": 2}))
    with pytest.raises(IncompatibleFormat, match="format version 2, this sparc reads up to 1") as error:
        load(path)
    assert "pip install -U sparc-sae" in error.value.hint
    (path / "config.json").write_text(json.dumps({**config, "space": {**config["space"], "k": 999}}))
    with pytest.raises(CorruptFile, match="k: expected at most n-latents, 32, found 999"):
        load(path)
    (path / "config.json").write_text(json.dumps({**config, "space": {**config["space"], "n_latents": 64}}))
    with pytest.raises(CorruptFile, match="does not fit"):
        load(path)
    (path / "config.json").write_text(json.dumps(config))
    (path / "model.safetensors").write_bytes(model_bytes(path)[:-10])
    with pytest.raises(CorruptFile, match="truncated"):
        load(path)
    (path / "model.safetensors").unlink()
    with pytest.raises(MissingData, match=r"has no model.safetensors") as error:
        load(path)
    assert "sparc train --resume" in error.value.hint


def test_of_a_run_that_is_not_finished_there_is_no_space_to_load(tmp_path):
    run = Run.create(tmp_path / "run")
    run.write_provenance(provenance())
    with pytest.raises(MissingData, match="run is not finished") as error:
        load(run.path)
    assert "sparc train --resume" in error.value.hint


def test_a_space_is_not_saved_over_a_run(tmp_path, features, shape):
    space = fit(tmp_path / "run", features, shape)
    Run(tmp_path / "run").write_provenance(provenance())
    before = model_bytes(tmp_path / "run")
    with pytest.raises(InvalidConfig, match="never overwritten"):
        SharedLatentSpace(shape, seed=9).save_pretrained(tmp_path / "run")
    assert model_bytes(tmp_path / "run") == before
    space.save_pretrained(tmp_path / "other")
    space.save_pretrained(tmp_path / "other")  # which is no run


def test_a_device_that_is_not_there_is_said(tmp_path, features, shape):
    fit(tmp_path / "run", features, shape)
    with pytest.raises(InvalidConfig, match="the device 'gpu' is not available"):
        load(tmp_path / "run", device="gpu")


def test_a_run_is_never_overwritten(tmp_path, features, shape):
    fit(tmp_path / "run", features, shape)
    with pytest.raises(InvalidConfig, match="never overwritten"):
        Run.create(tmp_path / "run")
    assert Run.next_free(tmp_path, "run") == tmp_path / "run-2"
