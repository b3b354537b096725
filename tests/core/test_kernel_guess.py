"""Guesses by kernels: a stream alone tells of the others what no linear function of it does."""

import itertools
import math

import pytest
import torch

from sparc.core.completion import Completion
from sparc.core.completion_fit import completion_like, fit_completion
from sparc.core.kernel_fit import Sampled, fit_kernels
from sparc.core.kernel_guess import KernelGuess
from sparc.core.moments import moments_of
from sparc.core.newcomer import Newcomer
from sparc.core.space import Batch
from tests.core.test_completion import WIDTHS, completion_of, covariance, features, segments, space_with

EVERY = 4


def with_kernel(completion, stream="a", count=6, precision=0.3):
    generator = torch.Generator().manual_seed(2)
    landmarks = torch.randn(count, WIDTHS[stream], dtype=torch.float64, generator=generator)
    weights = torch.randn(count, completion.rank, dtype=torch.float64, generator=generator)
    return completion.with_kernels({stream: KernelGuess(landmarks, weights, precision)})


@pytest.fixture
def completion():
    return with_kernel(completion_of(*covariance(), 0.3))


def test_the_guess_of_a_stream_alone_is_a_sum_over_landmarks(completion):
    x = features()["a"]
    kernel = completion.kernels["a"]
    found = completion.guess({"a": x})
    assert set(found) == {"b", "c"}
    for name, guess in found.items():
        at = segments()[name]
        for row, sample in enumerate(x):
            expected = completion.mean[at].clone()
            for landmark, weights in zip(kernel.landmarks, kernel.weights, strict=True):
                near = math.exp(-0.3 * sum((one - other) ** 2 for one, other in zip(sample, landmark, strict=True)))
                expected += near * weights @ completion.factor[:, at]
            torch.testing.assert_close(guess[row], expected)


def test_guesses_are_linear_from_two_streams_from_a_stream_without_kernel_and_where_training_asks(completion):
    plain, x = completion_of(*covariance(), 0.3), features()
    for present in (("a", "b"), ("b",), ("b", "c")):
        known = {name: x[name] for name in present}
        for name, guess in completion.guess(known).items():
            assert torch.equal(guess, plain.guess(known)[name])
    linear = completion.guess({"a": x["a"]}, linear=True)
    for name, guess in linear.items():
        assert torch.equal(guess, plain.guess({"a": x["a"]})[name])
        assert not torch.allclose(guess, completion.guess({"a": x["a"]})[name])


def test_the_latents_of_a_stream_alone_are_those_of_its_logits_and_the_guessed_ones(completion):
    space, x = space_with(completion).requires_grad_(False), features()["a"]
    codes = space.encode({"a": x})["a"]
    guess = completion.guess({"a": x})
    own = space.centered("a", x) @ space.encoder("a")[0].T + space.encoder("a")[1]
    scores = own + sum(space.centered(t, g) @ space.encoder(t)[0].T + space.encoder(t)[1] for t, g in guess.items())
    for row in range(len(x)):
        kept = sorted(range(space.n_latents), key=lambda latent: -float(scores[row, latent]))[: space.k]
        assert sorted(codes.indices[row].tolist()) == sorted(kept)
        for place, latent in enumerate(codes.indices[row].tolist()):
            assert float(codes.values[row, place]) == pytest.approx(max(0.0, float(own[row, latent])), abs=1e-12)
    for t, g in guess.items():
        of_t = space.centered(t, g) @ space.encoder(t)[0].T + space.encoder(t)[1]
        expected = torch.relu((own + of_t) / 2).gather(1, codes.indices)
        torch.testing.assert_close(codes.values_for(t), expected)


def test_samples_that_have_all_streams_or_several_are_encoded_as_without_kernels(completion):
    plain, x = space_with(completion_of(*covariance(), 0.3)), features()
    space = space_with(completion)
    for present in (("a", "b", "c"), ("a", "c"), ("b",)):
        some = {name: x[name] for name in present}
        for name, codes in space.encode(some).items():
            assert torch.equal(codes.indices, plain.encode(some)[name].indices)
            assert torch.equal(codes.values, plain.encode(some)[name].values)


def test_a_kernel_stays_when_another_stream_leaves_or_joins_and_goes_with_its_own(completion):
    x = features()
    before = completion.guess({"a": x["a"]})
    left = completion.without("b")
    assert left.with_kernel == ("a",)
    torch.testing.assert_close(left.guess({"a": x["a"]})["c"], before["c"])
    assert completion.without("a").with_kernel == ()
    draw = torch.Generator().manual_seed(5)
    common = torch.randn(completion.rank, 2, dtype=torch.float64, generator=draw)
    joined = completion.with_newcomers({"d": Newcomer(torch.zeros(2), common, common[:1], 0.1)})
    assert all(torch.equal(guess, before[name]) for name, guess in joined.guess({"a": x["a"]}).items())


def fitted(a, b):
    """Fit to two streams; every fifth sample is held out."""
    batch = Batch({"a": a, "b": b}, dict.fromkeys("ab", torch.ones(len(a), dtype=torch.bool)))
    held_out = torch.arange(len(a)) % 5 == EVERY
    sampled = Sampled(held_out, ["a", "b"])
    own, others = moments_of(sampled.passing([batch]), {"a": a.shape[1], "b": b.shape[1]}, held_out)
    completion = fit_completion(own, others)
    return completion, fit_kernels(completion, completion_like(completion, own), sampled)


def test_a_kernel_guesses_what_no_linear_function_does():
    draw = torch.Generator().manual_seed(0)
    a = torch.randn(1500, 2, generator=draw)
    noise = 0.01 * torch.randn(1500, 3, generator=draw)
    b = torch.stack([a[:, 0].square(), a[:, 0] * a[:, 1], a[:, 1]], dim=1) + noise
    linear, both = fitted(a[:1000], b[:1000])
    assert "a" in both.with_kernel
    error = {
        name: float((one.guess({"a": a[1000:]})["b"] - b[1000:]).square().mean())
        for name, one in (("linear", linear), ("kernel", both))
    }
    assert error["kernel"] < 0.1 * error["linear"]


def test_linear_data_and_independent_streams_get_no_kernel():
    draw = torch.Generator().manual_seed(0)
    a, other = torch.randn(600, 3, generator=draw), torch.randn(600, 2, generator=draw)
    linear = a @ torch.randn(3, 2, generator=draw)
    for b in (linear + 0.1 * other, other):
        assert fitted(a, b)[1].with_kernel == ()


def test_the_weights_are_those_of_kernel_ridge_regression_where_all_samples_are_landmarks():
    draw = torch.Generator().manual_seed(0)
    a = torch.randn(60, 2, generator=draw, dtype=torch.float64)
    b = torch.stack([a[:, 0].square(), a[:, 1] ** 3], dim=1)
    _, completion = fitted(a, b)
    kernel = completion.kernels["a"]
    F, off = completion.factor.double(), torch.cat([a, b], dim=1) - completion.mean
    true = off @ torch.linalg.pinv(F)
    between = torch.exp(-kernel.precision * torch.cdist(a, a).square())
    ridges = [
        ridge
        for ridge in (0.003, 0.03, 0.3, 3.0)
        if torch.allclose(
            between @ torch.linalg.solve(between + ridge * torch.eye(60), true),
            kernel.coordinates(a.float()).double(),
            atol=1e-3,
        )
    ]
    assert len(ridges) == 1


def test_samples_that_lack_a_stream_are_left_out_of_the_fit():
    draw = torch.Generator().manual_seed(0)
    a, b = torch.randn(50, 2, generator=draw), torch.randn(50, 2, generator=draw)
    there = torch.arange(50) % 3 > 0
    batches = [
        Batch({"a": a[rows], "b": b[rows]}, {"a": torch.ones(25, dtype=torch.bool), "b": there[rows]})
        for rows in (slice(25), slice(25, 50))
    ]
    held_out = torch.arange(50) % 5 == EVERY
    sampled = Sampled(held_out, ["a", "b"])
    assert list(itertools.chain(sampled.passing(batches))) == batches
    assert torch.equal(sampled.features["a"], a[there])
    assert torch.equal(sampled.held_out, held_out[there])


def test_a_completion_of_zeros_has_the_shape_of_another(completion):
    empty = Completion.empty(WIDTHS, completion.shape)
    assert empty.shape == completion.shape
    assert empty.factor.shape == completion.factor.shape
    assert empty.kernels["a"].landmarks.shape == completion.kernels["a"].landmarks.shape
    assert empty.kernels["a"].weights.shape == completion.kernels["a"].weights.shape
