"""Completion: missing streams are guessed by the conditional expectation, before the selection."""

import copy
import itertools

import pytest
import torch

from sparc import SharedLatentSpace, SpaceConfig
from sparc.core.codes import Codes
from sparc.core.completion import Completion
from sparc.core.completion_fit import fit_completion
from sparc.core.moments import Moments, moments_of
from sparc.core.space import Batch

WIDTHS = {"a": 5, "b": 4, "c": 3}


def covariance(seed=0):
    """A full covariance of all streams side by side, and a mean."""
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(12, 12, dtype=torch.float64, generator=generator)
    return root @ root.T / 12, torch.randn(12, dtype=torch.float64, generator=generator)


def completion_of(C, mean, ridge):
    return Completion(WIDTHS, mean, torch.linalg.cholesky(C).T, ridge)


def space_with(completion, *, k=4, selection="global", widths=WIDTHS, n_latents=40):
    config = SpaceConfig(streams=widths, n_latents=n_latents, k=k, selection=selection, normalization="none")
    space = SharedLatentSpace(config, seed=3)
    with torch.no_grad():
        space.pre_bias.copy_(0.1 * torch.randn(sum(widths.values()), generator=torch.Generator().manual_seed(4)))
        space.latent_bias.copy_(0.1 * torch.randn(space.latent_bias.shape, generator=torch.Generator().manual_seed(5)))
    space.completion = completion
    return space.double()


def features(count=7, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(count, width, dtype=torch.float64, generator=generator) for name, width in WIDTHS.items()}


def segments():
    return {"a": slice(0, 5), "b": slice(5, 9), "c": slice(9, 12)}


def conditional(C, mean, x, ridge):
    """E[x_t | x_P] of Gaussian features by the textbook, for every missing t."""
    at = segments()
    present = [index for name in WIDTHS if name in x for index in range(at[name].start, at[name].stop)]
    C_PP = C[present][:, present] + ridge * torch.eye(len(present), dtype=C.dtype)
    off = torch.cat([x[name] for name in WIDTHS if name in x], dim=1) - mean[present]
    return {
        name: mean[at[name]] + off @ torch.linalg.inv(C_PP) @ C[present][:, at[name]]
        for name in WIDTHS
        if name not in x
    }


SUBSETS = [subset for count in (1, 2) for subset in itertools.combinations(WIDTHS, count)]


@pytest.mark.parametrize("present", SUBSETS)
@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_the_guess_of_gaussian_features_is_the_conditional_expectation(present, ridge):
    C, mean = covariance()
    x = {name: rows for name, rows in features().items() if name in present}
    found = completion_of(C, mean, ridge).guess(x)
    expected = conditional(C, mean, x, ridge)
    assert set(found) == set(WIDTHS) - set(present)
    for name, rows in expected.items():
        torch.testing.assert_close(found[name], rows)


def oracle(space, C, mean, x, ridge):
    """Dense codes (B, L) of samples that all have exactly the streams of x, with loops over samples and latents."""
    guessed = conditional(C, mean, x, ridge)
    everything = {**x, **guessed}
    h = {
        name: (everything[name] - space.pre_bias[segment]) @ space.encoders[number].T + space.latent_bias[number]
        for number, (name, segment) in enumerate(segments().items())
    }
    codes, translated = {}, {}
    for name in x:
        codes[name], translated[name] = (
            torch.zeros_like(h[name]),
            {other: torch.zeros_like(h[name]) for other in guessed},
        )
        for row in range(len(h[name])):
            score = sum(h[other][row] for other in WIDTHS)
            for latent in score.argsort(descending=True)[: space.k]:
                known = h[name][row, latent].item()
                codes[name][row, latent] = max(0.0, known)
                for other in guessed:
                    translated[name][other][row, latent] = max(0.0, (known + h[other][row, latent].item()) / 2)
    return codes, translated


@pytest.mark.parametrize("present", SUBSETS)
def test_known_and_guessed_logits_select_and_decode_as_the_oracle_has_it(present):
    C, mean = covariance()
    space = space_with(completion_of(C, mean, 0.1))
    x = {name: rows for name, rows in features().items() if name in present}
    found = space.encode(x)
    codes, translated = oracle(space, C, mean, x, 0.1)
    decoded = space.reconstruct(found)
    for name in x:
        torch.testing.assert_close(found[name].to_dense().detach(), codes[name].detach())
        for target, segment in segments().items():
            z = codes[name] if target in x else translated[name][target]
            expected = z @ space.decoder[:, segment] + space.pre_bias[segment]
            torch.testing.assert_close(space.decode(found[name], target), expected)
            torch.testing.assert_close(decoded[name][target], expected)


def test_streams_that_are_encoded_with_missing_ones_share_their_latents():
    space = space_with(completion_of(*covariance(), 0.1))
    codes = space.encode({name: rows for name, rows in features().items() if name != "b"})
    assert codes["a"].indices is codes["c"].indices


def test_the_order_of_the_streams_does_not_matter():
    space = space_with(completion_of(*covariance(), 0.1))
    x = features()
    first, second = space.encode({"a": x["a"], "c": x["c"]}), space.encode({"c": x["c"], "a": x["a"]})
    for name in ("a", "c"):
        assert torch.equal(first[name].indices, second[name].indices)
        assert torch.equal(first[name].values, second[name].values)


def test_samples_that_lack_different_streams_are_encoded_as_if_each_were_alone():
    space = space_with(completion_of(*covariance(), 0.1))
    x = features(8)
    lacking = [(), ("b",), ("a", "b"), ("c",), ("a", "b", "c"), ("b",), ("a",), ("b", "c")]
    for row, names in enumerate(lacking):
        for name in names:
            x[name][row] = 0
    together = space.encode(x)
    for row, names in enumerate(lacking):
        present = [name for name in WIDTHS if name not in names]
        one = space.encode({name: x[name][row : row + 1] for name in present}) if present else {}
        for name in WIDTHS:
            found = together[name].to_dense()[row]
            expected = one[name].to_dense()[0] if name in present else torch.zeros_like(found)
            torch.testing.assert_close(found, expected)
            if name in present:
                for target in WIDTHS:
                    torch.testing.assert_close(
                        space.decode(together[name][row : row + 1], target), space.decode(one[name], target)
                    )


def test_a_stream_that_a_sample_lacks_and_one_that_is_not_given_are_the_same():
    space = space_with(completion_of(*covariance(), 0.1))
    x = features()
    given = space.encode({"a": x["a"], "b": torch.zeros_like(x["b"])})
    left_out = space.encode({"a": x["a"]})
    assert torch.equal(given["a"].indices, left_out["a"].indices)
    assert torch.equal(given["a"].values, left_out["a"].values)
    assert not given["b"].values.any()


def test_completion_of_nothing_missing_is_the_encoding_without_it_to_the_bit():
    plain, completed = space_with(None), space_with(completion_of(*covariance(), 0.1))
    for name, codes in plain.encode(features()).items():
        found = completed.encode(features())[name]
        assert torch.equal(found.indices, codes.indices)
        assert torch.equal(found.values, codes.values)


def test_complete_false_is_the_encoding_without_completion_to_the_bit():
    plain, completed = space_with(None), space_with(completion_of(*covariance(), 0.1))
    expected, found = (
        plain.encode({"b": features()["b"]})["b"],
        completed.encode({"b": features()["b"]}, complete=False)["b"],
    )
    assert torch.equal(found.indices, expected.indices)
    assert torch.equal(found.values, expected.values)
    assert not torch.equal(completed.encode({"b": features()["b"]})["b"].indices, expected.indices)


def test_a_space_with_local_selection_ignores_a_completion():
    plain, completed = (
        space_with(None, selection="local"),
        space_with(completion_of(*covariance(), 0.1), selection="local"),
    )
    expected, found = plain.encode({"b": features()["b"]})["b"], completed.encode({"b": features()["b"]})["b"]
    assert torch.equal(found.indices, expected.indices)
    assert torch.equal(found.values, expected.values)


def test_a_changed_parameter_is_seen_by_the_next_encoding():
    C, mean = covariance()
    space = space_with(completion_of(C, mean, 0.1))
    x = {"a": features()["a"]}
    space.encode(x)
    with torch.no_grad():
        space.encoders[1].mul_(-2)
    torch.testing.assert_close(
        space.encode(x)["a"].to_dense().detach(), oracle(space, C, mean, x, 0.1)[0]["a"].detach()
    )


def test_a_completed_code_is_differentiable_by_the_features():
    space = space_with(completion_of(*covariance(), 0.1))
    for present in SUBSETS:
        x = {name: rows.requires_grad_() for name, rows in features().items() if name in present}
        sum(codes.values.sum() for codes in space.encode(x).values()).backward()
        assert all(rows.grad is not None and rows.grad.any() for rows in x.values())


def test_an_encoding_with_gradients_may_follow_one_in_inference_mode():
    space = space_with(completion_of(*covariance(), 0.1))
    for present in SUBSETS:
        x = {name: rows for name, rows in features().items() if name in present}
        with torch.inference_mode():
            plain = space.encode(x)
        codes = space.encode(x)
        sum(one.values.sum() for one in codes.values()).backward()
        assert all(torch.equal(one.values, plain[name].values) for name, one in codes.items())


def test_a_space_that_was_made_in_inference_mode_encodes_and_sees_changes():
    x, ordinary = {"b": features()["b"]}, space_with(completion_of(*covariance(), 0.1))
    with torch.inference_mode():
        made = space_with(completion_of(*covariance(), 0.1))
        for _ in range(2):
            assert torch.equal(made.encode(x)["b"].values, ordinary.encode(x)["b"].values)
            for one in (made, ordinary):
                one.encoders[0].data.mul_(-2)
            ordinary.completion = completion_of(*covariance(), 0.1).double()


def drawn(count, *, independent=False, lacking=0.0, seed=0, noise=0.1):
    """Features (count, D) that three streams see of three common causes, or of causes of their own."""
    generator = torch.Generator().manual_seed(seed)
    cause = torch.randn(count, 3, generator=generator)
    x = {}
    for name, width in WIDTHS.items():
        own = torch.randn(count, 3, generator=generator) if independent else cause
        direction = torch.randn(3, width, generator=torch.Generator().manual_seed(len(name) + width))
        x[name] = own @ direction + noise * torch.randn(count, width, generator=generator) + width
        x[name][torch.rand(count, generator=generator) < lacking] = 0
    return x


def batches(x, size=100):
    space = SharedLatentSpace(SpaceConfig(streams=WIDTHS, n_latents=8, k=2, normalization="none"))
    for start in range(0, len(x["a"]), size):
        yield space.normalize({name: rows[start : start + size] for name, rows in x.items()})


def every_fifth(x):
    return torch.arange(len(next(iter(x.values())))) % 5 == 4


def fitted(x):
    return fit_completion(*moments_of(batches(x), WIDTHS, every_fifth(x)))


def test_moments_are_those_of_the_samples_in_any_batches():
    x = drawn(330)
    fit, held_out = moments_of(batches(x), WIDTHS, every_fifth(x))
    both = fit + held_out
    side_by_side = torch.cat(list(x.values()), dim=1).double()
    torch.testing.assert_close(both.mean, side_by_side.mean(dim=0))
    torch.testing.assert_close(both.covariance(both.mean), torch.cov(side_by_side.T, correction=0))
    assert held_out.counts.tolist() == [[66.0] * 3] * 3


def test_a_covariance_of_two_streams_is_that_of_the_samples_with_both():
    x = drawn(400, lacking=0.3)
    both = Moments(WIDTHS)
    for batch in batches(x):
        both.add(batch)
    there = {name: rows.any(dim=1) for name, rows in x.items()}
    mean = {name: x[name][there[name]].double().mean(dim=0) for name in WIDTHS}
    torch.testing.assert_close(both.mean, torch.cat(list(mean.values())))
    with_both = there["a"] & there["c"]
    a, c = (x[name][with_both].double() - mean[name] for name in ("a", "c"))
    torch.testing.assert_close(both.covariance(both.mean)[0:5, 9:12], a.T @ c / with_both.sum())
    assert both.counts[0, 2] == with_both.sum()


def test_streams_with_common_causes_are_guessed_well():
    completion, new = fitted(drawn(2000)), drawn(200, seed=9)
    for source, target in itertools.permutations(WIDTHS, 2):
        guess = completion.guess({source: new[source]})[target]
        spread = (new[target] - new[target].mean(dim=0)).square().sum()
        assert (guess - new[target]).square().sum() < 0.1 * spread


def test_of_independent_streams_the_guess_is_the_mean_and_codes_do_not_change():
    completion = fitted(drawn(2000, independent=True))
    new = drawn(50, independent=True, seed=9)
    assert completion.rank == 0
    for name, rows in completion.guess({"b": new["b"]}).items():
        torch.testing.assert_close(rows, completion.mean[segments()[name]].expand_as(rows))
    space = SharedLatentSpace(SpaceConfig(streams=WIDTHS, n_latents=40, k=4, normalization="none"), seed=3)
    with torch.no_grad():
        space.pre_bias.copy_(completion.mean)
    space.completion = completion
    plain, completed = space.encode({"b": new["b"]}, complete=False)["b"], space.encode({"b": new["b"]})["b"]
    assert torch.equal(plain.indices, completed.indices)
    torch.testing.assert_close(completed.values, plain.values)


def test_a_stream_without_samples_gives_no_guess_that_is_not_finite():
    x = drawn(200)
    x["c"].zero_()
    guess = fitted(x).guess({"a": x["a"]})
    assert guess["b"].isfinite().all()
    assert not guess["c"].any()


def test_samples_that_are_all_alike_give_the_mean():
    x = {name: torch.ones(64, width) for name, width in WIDTHS.items()}
    completion = fitted(x)
    assert completion.rank == 0
    assert all(torch.equal(rows, torch.ones_like(rows)) for rows in completion.guess({"a": x["a"]}).values())


def test_without_any_samples_nothing_is_guessed():
    empty = Moments(WIDTHS)
    assert not fit_completion(empty, Moments(WIDTHS)).guess({"a": torch.ones(2, 5)})["b"].any()


def test_a_batch_without_a_missing_stream_has_no_guess():
    batch = Batch(features(), {name: torch.ones(7, dtype=torch.bool) for name in WIDTHS})
    assert completion_of(*covariance(), 0.1).guess(batch.features) == {}


def test_features_that_are_nearly_always_zero_can_be_fitted():
    """The eigenvalues of such covariances are many times the same, and of very different sizes."""
    generator = torch.Generator().manual_seed(0)
    x = {name: torch.zeros(300, 200) for name in ("a", "b")}
    for rows in x.values():
        rows[:, :4] = torch.randn(300, 4, generator=generator) * torch.tensor([1.0, 1e-10, 1e-18, 1e-22])
    made = SharedLatentSpace(SpaceConfig(streams={"a": 200, "b": 200}, n_latents=8, k=2, normalization="none"))
    completion = fit_completion(*moments_of([made.normalize(x)], made.streams, every_fifth(x)))
    assert completion.guess({"a": x["a"]})["b"].isfinite().all()


def test_codes_are_copied_sliced_and_joined_with_their_translations():
    space = space_with(completion_of(*covariance(), 0.1))
    with torch.no_grad():
        codes = space.encode({"a": features()["a"]})["a"]
        for other in (copy.deepcopy(codes), codes[:], Codes.joined([codes[:3], codes[3:]])):
            torch.testing.assert_close(space.decode(other, "b"), space.decode(codes, "b"))


def test_a_part_of_the_codes_does_not_hold_the_features_of_the_rest():
    space = space_with(completion_of(*covariance(), 0.1))
    with torch.no_grad():
        some = space.encode({"a": features(500)["a"]})["a"][:2]
    assert all(x_BD.untyped_storage().nbytes() == 2 * 5 * 8 for x_BD in some.translations.known.values())


def test_a_buffer_that_is_used_again_does_not_change_codes():
    space = space_with(completion_of(*covariance(), 0.1))
    buffer = features()["a"].clone()
    with torch.no_grad():
        codes = space.encode({"a": buffer})["a"]
        expected = space.decode(codes, "b")
        buffer.mul_(-3)
        assert torch.equal(space.decode(codes, "b"), expected)


def test_gradients_flow_though_a_code_was_decoded_without_them_before():
    space = space_with(completion_of(*covariance(), 0.1))
    x = features()["a"].requires_grad_()
    codes = space.encode({"a": x})["a"]
    with torch.no_grad():
        space.decode(codes, "b")
    space.decode(codes, "b").sum().backward()
    assert x.grad.any()


def test_other_parameters_another_dtype_and_another_space_are_seen():
    C, mean = covariance()
    space, other = space_with(completion_of(C, mean, 0.1)), space_with(None)
    x = {"a": features()["a"]}
    with torch.no_grad():
        for encoder in other.encoders:
            encoder.neg_()
    space.encode(x)
    other.completion = space.completion
    torch.testing.assert_close(other.encode(x)["a"].to_dense(), oracle(other, C, mean, x, 0.1)[0]["a"])
    space.load_state_dict(other.state_dict(), assign=True)
    torch.testing.assert_close(space.encode(x)["a"].to_dense(), oracle(other, C, mean, x, 0.1)[0]["a"])
    space.float()
    assert space.encode(x)["a"].values.dtype == torch.float32
    space.double()
    assert space.encode(x)["a"].values.dtype == torch.float64


def test_codes_name_the_streams_that_were_missing():
    codes = space_with(completion_of(*covariance(), 0.1)).encode({"a": features()["a"]})["a"]
    assert set(codes.translations) == {"b", "c"}
    assert len(codes.translations) == 2
    assert "a" not in codes.translations
    assert codes.values_for("a") is codes.values
