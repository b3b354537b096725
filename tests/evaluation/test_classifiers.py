"""Classifiers of all labels at once: their inputs, that they learn, and that nothing else changes."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

import sparc.evaluation.classifiers
from sparc.core.codes import Codes
from sparc.core.space import LatentSpace
from sparc.evaluation.classifiers import (
    Split,
    average_precision,
    classify,
    learn,
    logits,
    precision,
    read,
    readings,
    scale,
)
from sparc.evaluation.encoding import encode
from sparc.evaluation.probes import probes

N = 240
TRAIN, TEST = torch.arange(0, N, 2), torch.arange(1, N, 2)
SPLIT = Split(TRAIN, TEST)


@pytest.fixture
def few_steps(monkeypatch):
    """Train for a few steps only, enough to tell two results apart."""
    monkeypatch.setattr(sparc.evaluation.classifiers, "STEPS", 3)
    monkeypatch.setattr(sparc.evaluation.classifiers, "EPOCHS", 1)


@pytest.fixture
def labelled():
    """Samples in two streams, and three labels independent of the features."""
    generator = torch.Generator().manual_seed(0)
    features = {name: torch.randn(N, width, generator=generator) for name, width in (("a", 6), ("b", 4))}
    space = LatentSpace({"a": 6, "b": 4}, 32, 4, seed=1)
    labels = csr_array((torch.rand(N, 3, generator=generator) < 0.3).numpy().astype(float))
    return encode(space, features), labels


def random_codes(n_samples, n_latents=12, k=3):
    generator = torch.Generator().manual_seed(2)
    values, indices = torch.rand(n_samples, n_latents, generator=generator).topk(k)
    return Codes(indices, torch.relu(values - 0.6), n_latents)


# What is learned


@pytest.mark.parametrize("hidden", [(), (512,)])
def test_labels_that_features_tell_are_found_and_in_noise_no_more_than_by_chance(hidden):
    generator = torch.Generator().manual_seed(3)
    has = torch.rand(800, 2, generator=generator) < torch.tensor([0.2, 0.4])
    noise = torch.randn(800, 64, generator=generator)
    telling = noise + 2 * has.float() @ torch.randn(2, 64, generator=generator)
    assert precision(telling, has.numpy(), 400, hidden, seed=0) == pytest.approx(1, abs=1e-3)
    chance = has[400:].float().mean().item()
    assert precision(noise, has.numpy(), 400, hidden, seed=0) == pytest.approx(chance, abs=0.06)


def test_a_hidden_layer_finds_what_a_linear_classifier_cannot():
    points = torch.randn(1200, 2, generator=torch.Generator().manual_seed(4))
    has = points[:, :1] * points[:, 1:] > 0
    linear, mlp = (precision(points, has.numpy(), 600, hidden, seed=0) for hidden in ((), (512,)))
    assert linear < 0.7
    assert mlp > 0.98


@pytest.mark.parametrize("hidden", [(), (8,)])
def test_codes_are_classified_as_the_dense_features_that_they_stand_for(hidden):
    codes = random_codes(200)
    has = codes.to_dense()[:, :2] > 0.2
    layers = learn(codes, has, hidden, seed=0)
    by_dense = learn(codes.to_dense(), has, hidden, seed=0)
    for (weight, bias), (expected_weight, expected_bias) in zip(layers, by_dense, strict=True):
        assert torch.allclose(weight, expected_weight, atol=1e-5)
        assert torch.allclose(bias, expected_bias, atol=1e-5)
    assert torch.allclose(logits(layers, codes), logits(layers, codes.to_dense()), atol=1e-5)
    assert layers[0][0].abs().sum() > 0.1


def test_a_linear_classifier_is_what_adamw_makes_of_the_mean_log_loss():
    generator = torch.Generator().manual_seed(6)
    inputs, has = torch.randn(50, 4, generator=generator), torch.rand(50, 2, generator=generator) < 0.3
    model = torch.nn.Linear(4, 2)
    with torch.no_grad():
        model.weight.zero_()
        model.bias.copy_(torch.logit(has.float().mean(dim=0)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    for _ in range(150):
        optimizer.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(model(inputs), has.float()).backward()
        optimizer.step()
    ((weight, bias),) = learn(inputs, has, (), seed=0)
    assert torch.allclose(weight, model.weight.T, atol=1e-5)
    assert torch.allclose(bias, model.bias, atol=1e-5)


def test_a_label_starts_at_its_log_odds(monkeypatch):
    monkeypatch.setattr(sparc.evaluation.classifiers, "STEPS", 0)
    monkeypatch.setattr(sparc.evaluation.classifiers, "EPOCHS", 0)
    has = torch.arange(40).unsqueeze(1) < torch.tensor([10, 32])
    found = logits(learn(torch.randn(40, 3), has, (8,), seed=0), torch.randn(5, 3))
    assert torch.allclose(found, torch.tensor([1 / 3, 4.0]).log().expand(5, 2))


def test_few_samples_are_passed_over_more_often_than_many(monkeypatch):
    taken = []

    class Counted(torch.optim.AdamW):
        def step(self, closure=None):
            taken[-1] += 1
            return super().step(closure)

    monkeypatch.setattr(torch.optim, "AdamW", Counted)
    monkeypatch.setattr(sparc.evaluation.classifiers, "BATCH", 10)
    for n_samples in (10, 20, 991):
        taken.append(0)
        learn(torch.zeros(n_samples, 1), torch.arange(n_samples).unsqueeze(1) < 5, (), seed=0)
    # 150 passes in one batch, 75 in two, 10 in a hundred.
    assert taken == [150, 150, 1000]


def test_average_precision_is_the_mean_precision_at_each_hit():
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.3]], dtype=np.float32)
    has = np.array([[True, False], [False, False], [True, True]])
    # Label 0 is hit at ranks 1 and 3, label 1 at rank 1.
    assert average_precision(scores, has) == pytest.approx(((1 / 1 + 2 / 3) / 2 + 1) / 2)


# What it is learned from


def test_features_are_standardised_by_the_training_part():
    above = torch.nextafter(torch.tensor(0.3), torch.tensor(1.0)).item()  # varies by rounding alone
    inputs = torch.tensor([[1.0, 0.3], [3.0, above], [100.0, 0.4]])
    assert torch.allclose(scale(inputs, 2), torch.tensor([[-1.0, 0.0], [1.0, 0.0], [98.0, 0.0]]))


def test_neither_the_size_of_features_nor_an_outlier_in_the_test_part_matters():
    generator = torch.Generator().manual_seed(5)
    has = torch.rand(400, 1, generator=generator) < 0.4
    telling = torch.randn(400, 64, generator=generator) + 2 * has.float() @ torch.randn(1, 64, generator=generator)
    telling[-1] = 1e12
    assert precision(1e-10 * telling, has.numpy(), 200, (), seed=0) > 0.95


def test_latents_are_divided_by_the_size_of_their_activations_in_training():
    indices = torch.tensor([[0, 1], [0, 2], [0, 1], [1, 3]])
    values = torch.tensor([[3.0, 2.0], [0.0, 0.0], [1.0, 0.0], [4.0, 5.0]])
    # Training is the first three: latent 0 is active at 3 and 1, latent 1 at 2, the others never. Three activations of
    # twelve make the mean square 1 / 4 of what it shall be.
    found = scale(Codes(indices, values, 4), 3).to_dense()
    rms = 5**0.5
    expected = 2 * torch.tensor([[3 / rms, 1, 0, 0], [0, 0, 0, 0], [1 / rms, 0, 0, 0], [0, 2, 0, 0]])
    assert torch.allclose(found, expected)
    assert found[:3].square().mean() == pytest.approx(1)


def test_codes_without_any_activation_stay_silent():
    found = scale(Codes(torch.tensor([[0], [1]]), torch.tensor([[0.0], [2.0]]), 2), 1)
    assert found.to_dense().tolist() == [[0, 0], [0, 0]]


def test_each_stream_is_read_raw_as_a_code_and_as_rebuilt_from_every_stream(labelled):
    encodings, _ = labelled
    rows = torch.tensor([5, 3, 200])
    found = {tuple(reading): read(encodings, rows, reading) for reading in readings("ab")}
    assert list(found) == [
        ("raw", "a", "a"),
        ("raw", "b", "b"),
        ("latents", "a", "a"),
        ("latents", "b", "b"),
        ("reconstruction", "a", "a"),
        ("reconstruction", "b", "b"),
        ("cross-reconstruction", "a", "b"),
        ("cross-reconstruction", "b", "a"),
    ]
    space, solo = encodings.space, encodings.solo
    batch = space.normalize(encodings.features).features
    assert torch.equal(found["raw", "b", "b"], batch["b"][rows])
    assert torch.equal(found["latents", "a", "a"].to_dense(), solo["a"][rows].to_dense())
    with torch.no_grad():
        rebuilt = space.reconstruct(solo)
    assert torch.allclose(found["reconstruction", "b", "b"], rebuilt["b"]["b"][rows], atol=1e-6)
    assert torch.allclose(found["cross-reconstruction", "a", "b"], rebuilt["a"]["b"][rows], atol=1e-6)


def test_reconstructions_are_the_same_however_many_at_once(labelled, monkeypatch):
    encodings, _ = labelled
    whole = read(encodings, TRAIN, readings("ab")[-1])
    monkeypatch.setattr("sparc.evaluation.encoding.CHUNK", 7)
    pieces = read(encodings, TRAIN, readings("ab")[-1])
    assert torch.allclose(pieces, whole, atol=1e-6)


# What it leaves alone


@pytest.mark.usefixtures("few_steps")
def test_the_same_seed_gives_the_same_numbers_and_another_one_others(labelled):
    first, again, other = (classify(*labelled, SPLIT, seed) for seed in (0, 0, 1))
    assert first == again
    assert [found.mlp for found in first] != [found.mlp for found in other]
    assert len({found.linear for found in first}) == len(first)


@pytest.mark.usefixtures("few_steps")
def test_neither_the_space_nor_anybodys_random_numbers_are_touched(labelled):
    encodings, labels = labelled
    space, solo = encodings.space, encodings.solo
    weights = {name: tensor.clone() for name, tensor in space.state_dict().items()}
    values = solo["a"].values.clone()
    state = torch.get_rng_state()
    classify(encodings, labels, SPLIT, seed=0)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in space.state_dict().items())
    assert all(parameter.grad is None for parameter in space.parameters())
    assert torch.equal(solo["a"].values, values)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.usefixtures("few_steps")
def test_labels_of_the_test_part_are_not_seen(labelled):
    encodings, _ = labelled
    features = encodings.features
    telling = features["a"][:, :1] > 0
    features["a"][TEST, 0] *= -1  # the feature now tells the opposite
    found = classify(encodings, csr_array(telling.numpy().astype(float)), SPLIT, seed=0)
    assert found[0].linear < telling[TEST].float().mean()


@pytest.mark.usefixtures("few_steps")
def test_probes_hold_the_classifiers_where_they_are_asked_for(labelled):
    encodings, labels = labelled
    groups = [str(row) for row in range(N)]
    encodings.features["b"][:5] = 0
    encodings = encode(encodings.space, encodings.features)
    found = probes(encodings, labels, groups, classifiers=True, seed=0)
    assert found.train + found.test == N - 5
    assert len(found.classifiers) == 8
    assert all(0 < value <= 1 for entry in found.classifiers for value in (entry.linear, entry.mlp))
    alone = probes(encodings, labels, groups, classifiers=False, seed=0)
    assert alone == found.model_copy(update={"classifiers": ()})
