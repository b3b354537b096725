"""Attached streams in the selection: they are never guessed, and let founding streams be guessed."""

import itertools

import pytest
import torch

from sparc import SharedLatentSpace, SpaceConfig
from sparc.core.completion import Completion
from sparc.core.moments import Moments
from sparc.core.newcomer import RIDGES, Newcomer, fit_newcomer
from sparc.core.space import Batch
from sparc.errors import InvalidConfig
from tests.core.test_completion import conditional, covariance

WIDTHS = {"a": 5, "b": 4, "c": 3}
"""The streams a and b are founding, and c is attached."""
FOUNDING = {"a": 5, "b": 4}
SEGMENTS = {"a": slice(0, 5), "b": slice(5, 9)}
SUBSETS = [subset for count in (1, 2, 3) for subset in itertools.combinations(WIDTHS, count)]


def features(count=6, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(count, width, dtype=torch.float64, generator=generator) for name, width in WIDTHS.items()}


def fitted(ridge):
    """The completion of Gaussian streams a and b of known covariance, with c attached; covariance and mean of all."""
    C, mean = covariance()
    moments = Moments(WIDTHS)
    moments.counts += 1
    moments.sums += mean
    moments.products += C + torch.outer(mean, mean)
    founding = Completion(FOUNDING, mean[:9], torch.linalg.cholesky(C[:9, :9]).T.contiguous(), ridge)
    newcomer = fit_newcomer(founding, moments, moments, "c")
    newcomer.ridge = ridge
    return founding.with_newcomers({"c": newcomer}), C, mean


@pytest.mark.parametrize("present", [subset for subset in SUBSETS if set(subset) & {"c"} and len(subset) < 3])
def test_the_guess_of_founding_streams_is_the_conditional_expectation_from_a_newcomer_too(present):
    completion, C, mean = fitted(1e-12)
    x = {name: rows for name, rows in features().items() if name in present}
    found, expected = completion.guess(x), conditional(C, mean, x, 1e-12)
    assert set(found) == set(expected) == {"a", "b"} - set(present)
    for name, rows in expected.items():
        torch.testing.assert_close(found[name], rows, atol=1e-6, rtol=1e-6)


def test_a_newcomer_is_never_guessed():
    completion, *_ = fitted(0.1)
    assert set(completion.guess({"a": features()["a"]})) == {"b"}
    assert completion.guess({name: rows for name, rows in features().items() if name != "c"}) == {}


def space_with(completion, widths=WIDTHS, attached=("c",)):
    config = SpaceConfig(streams=widths, n_latents=40, k=4, normalization="none", attached=attached)
    space = SharedLatentSpace(config, seed=3)
    with torch.no_grad():
        for parameter in space.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(4))
    space.completion = completion
    return space.double()


@pytest.mark.parametrize("present", SUBSETS)
def test_present_streams_and_guessed_founding_ones_select_and_absent_newcomers_do_not(present):
    """Loops over samples and latents; the guesses are those of the covariance with the newcomer's own columns."""
    completion, C, mean = fitted(1e-12)
    space = space_with(completion)
    x = {name: rows for name, rows in features().items() if name in present}
    found = space.encode(x)
    guessed = {name: rows for name, rows in conditional(C, mean, x, 1e-12).items() if name != "c"}
    h = {
        name: (rows - space.pre_bias[space.segments[name]]) @ space.encoder(name)[0].T + space.encoder(name)[1]
        for name, rows in {**x, **guessed}.items()
    }
    for row in range(6):
        score = sum(logits[row] for logits in h.values())
        kept = set(score.argsort(descending=True)[:4].tolist())
        for name in present:
            assert set(found[name].indices[row].tolist()) == kept
            dense = found[name].to_dense()[row]
            for latent in kept:
                assert dense[latent].item() == pytest.approx(max(0.0, h[name][row, latent].item()), abs=1e-6)
    assert set(found[present[0]].translations) == {"a", "b"} - set(present)


def test_two_newcomers_have_own_rows_apart():
    completion, *_ = fitted(0.1)
    two = completion.with_newcomers({"c": completion.newcomers["c"], "d": completion.newcomers["c"]})
    c, zeros = completion.newcomers["c"], torch.zeros(3, 3, dtype=torch.float64)
    F = torch.cat(
        [
            torch.cat([c.common, c.common], dim=1),
            torch.cat([c.own, zeros], dim=1),
            torch.cat([zeros, c.own], dim=1),
        ]
    )
    expected = torch.linalg.solve(F @ F.T + 0.1 * torch.eye(len(F), dtype=F.dtype), F)[:9]
    torch.testing.assert_close(two.loadings(["c", "d"]), expected)
    assert torch.equal(two.loadings(["d"]), completion.loadings(["c"]))


def test_a_newcomer_of_a_completion_without_directions_lets_nothing_be_guessed():
    founding = Completion(FOUNDING, torch.arange(9.0), torch.zeros(0, 9), 1.0)
    moments = Moments(WIDTHS)
    moments.counts += 1
    moments.products += torch.eye(12)
    completion = founding.with_newcomers({"c": fit_newcomer(founding, moments, moments, "c")})
    assert torch.equal(completion.guess({"c": torch.ones(2, 3)})["a"], torch.arange(5.0).expand(2, 5))


@pytest.mark.parametrize("noise", [0.0, 0.3, 3.0])
def test_the_ridge_of_a_newcomer_is_the_one_that_guesses_best_on_held_out_samples(noise):
    """The measure is computed from the samples themselves, for each candidate."""
    generator = torch.Generator().manual_seed(2)
    cause = torch.randn(90, 2, dtype=torch.float64, generator=generator)
    x = {
        name: cause @ torch.randn(2, width, dtype=torch.float64, generator=torch.Generator().manual_seed(width))
        + noise * torch.randn(90, width, dtype=torch.float64, generator=generator)
        for name, width in WIDTHS.items()
    }
    parts = [{name: rows[:30] for name, rows in x.items()}, {name: rows[30:] for name, rows in x.items()}]
    fit, held_out = (Moments(WIDTHS) for _ in parts)
    for moments, some in zip((fit, held_out), parts, strict=True):
        moments.add(Batch(some, {name: torch.ones(len(rows), dtype=torch.bool) for name, rows in some.items()}))
    C = fit.covariance(fit.mean)[:9, :9] + 1e-9 * torch.eye(9)
    founding = Completion(FOUNDING, fit.mean[:9], torch.linalg.cholesky(C).T.contiguous(), 1e-3)
    found = fit_newcomer(founding, fit, held_out, "c")
    fitted_alone = fit_newcomer(founding, fit, Moments(WIDTHS), "c")
    variance = (fitted_alone.common.square().sum() + fitted_alone.own.square().sum()).item()

    def unexplained(ridge):
        fitted_alone.ridge = ridge
        guess = founding.with_newcomers({"c": fitted_alone}).guess({"c": parts[1]["c"]})
        return sum(
            (
                (guess[name] - parts[1][name]).square().sum()
                / (parts[1][name] - fit.mean[SEGMENTS[name]]).square().sum()
            ).item()
            for name in FOUNDING
        )

    best = min(RIDGES, key=lambda relative: unexplained(relative * variance))
    assert found.ridge == pytest.approx(best * variance)


def test_a_ridge_of_its_own_is_that_of_the_founding_streams_for_scaled_features():
    completion, *_ = fitted(0.1)
    one = completion.newcomers["c"]
    own = completion.with_newcomers({"c": Newcomer(one.mean, one.common, one.own, 0.4)})
    scaled = completion.with_newcomers({"c": Newcomer(one.mean / 2, one.common / 2, one.own / 2, 0.1)})
    x = features()
    torch.testing.assert_close(own.guess({"c": x["c"]})["a"], scaled.guess({"c": x["c"] / 2})["a"])
    found, expected = (some.guess({"a": x["a"], "c": rows}) for some, rows in ((own, x["c"]), (scaled, x["c"] / 2)))
    torch.testing.assert_close(found["b"], expected["b"])


def test_without_a_stream_the_covariances_of_the_others_stay():
    completion, *_ = fitted(0.1)
    without = completion.without("a")
    assert (without.streams, without.attached) == ({"b": 4}, ("c",))
    assert torch.equal(without.factor, completion.factor[:, 5:])
    assert torch.equal(without.mean, completion.mean[5:])
    assert torch.equal(without.newcomers["c"].common, completion.newcomers["c"].common)
    assert completion.without("c").attached == ()
    assert torch.equal(completion.without("c").factor, completion.factor)


@pytest.mark.parametrize("attached", [("a",), ("c", "b"), ("b", "c", "a"), ("a", "b", "c"), ("d",)])
def test_attached_streams_are_the_last_ones_and_not_all(attached):
    with pytest.raises(InvalidConfig, match="attached: expected the last streams, but not all, of a, b, c"):
        SpaceConfig(streams=WIDTHS, n_latents=8, k=2, attached=attached)
    assert SpaceConfig(streams=WIDTHS, n_latents=8, k=2, attached=("b", "c")).founding == {"a": 5}


def test_a_newcomer_moves_with_the_completion():
    one = Newcomer(torch.zeros(3), torch.zeros(2, 3), torch.zeros(1, 3), 0.1)
    completion = Completion(FOUNDING, torch.zeros(9), torch.zeros(2, 9), 1.0, {"with.dots": one})
    assert completion.double().newcomers["with.dots"].common.dtype == torch.float64


@pytest.mark.parametrize("alike", ["one value", "rounding errors"])
def test_a_newcomer_that_never_changes_guesses_nothing(alike):
    """Its variance is rounding error, which no ridge may be relative to."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 12, dtype=torch.float64, generator=generator)
    x[:, 9:] = 0.3
    if alike == "rounding errors":
        x[:, 9:] += 1e-9 * torch.randn(200, 3, dtype=torch.float64, generator=generator)
    moments = Moments(WIDTHS)
    moments.add(
        Batch({"a": x[:, :5], "b": x[:, 5:9], "c": x[:, 9:]}, dict.fromkeys(WIDTHS, torch.ones(200, dtype=torch.bool)))
    )
    covariance_TT = moments.covariance(moments.mean)
    founding = Completion(FOUNDING, moments.mean[:9], torch.linalg.cholesky(covariance_TT[:9, :9]).T.contiguous(), 0.1)
    completion = founding.with_newcomers({"c": fit_newcomer(founding, moments, moments, "c")})
    assert completion.newcomers["c"].ridge == 0.1
    guess = completion.guess({"c": x[:, 9:] + 5})["a"]
    torch.testing.assert_close(guess, moments.mean[:5].expand_as(guess))
