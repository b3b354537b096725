"""Liveness, sharing and duplicates of latents, worked by hand."""

import math

import numpy as np
import pytest
import torch

from sparc.core.codes import Codes
from sparc.core.space import LatentSpace
from sparc.evaluation.report import Pattern
from sparc.evaluation.sharing import liveness, mean_l0, sharing, twins


def codes(dense):
    """Codes that keep all latents of each sample."""
    values = torch.tensor(dense, dtype=torch.float32)
    return Codes(torch.arange(values.shape[1]).expand(values.shape), values, values.shape[1])


def shared(dense, present=None, orders=None, space=None):
    """`sharing` of codes by stream, everything there, and as null the samples backwards in all but the first."""
    n_samples, n_latents = np.shape(next(iter(dense.values())))
    space = space or LatentSpace(dict.fromkeys(dense, 4), n_latents, 1)
    there = {name: torch.ones(n_samples, dtype=torch.bool) for name in dense} | (present or {})
    backwards = torch.arange(n_samples).flip(0)
    orders = orders or {name: backwards if place else backwards.flip(0) for place, name in enumerate(dense)}
    return sharing(space, {name: codes(rows) for name, rows in dense.items()}, there, orders)


def test_latents_are_alive_in_all_in_some_or_in_no_streams():
    a = codes([[1.0, 0.0, 1.0, 0.0], [0.0, 0.0, 1.0, 0.0]])
    b = codes([[0.0, 0.0, 2.0, 0.0], [0.0, 1e-6, 0.0, 0.0]])
    # Latent 2 in both; 0 in a only; 1 in b only, however little; 3 in none.
    found = liveness({"a": a, "b": b}, 4)
    assert (found.alive, found.dead, found.mixed) == (1, 1, 2)
    assert found.patterns == (Pattern(streams=("a",), latents=1), Pattern(streams=("b",), latents=1))
    assert found.dead_in == {"a": 2, "b": 2}


def test_the_most_frequent_pattern_comes_first():
    a, b, c = codes([[1.0, 0.0, 0.0]]), codes([[0.0, 1.0, 1.0]]), codes([[0.0, 1.0, 1.0]])
    found = liveness({"a": a, "b": b, "c": c}, 3)
    assert found.patterns == (Pattern(streams=("b", "c"), latents=2), Pattern(streams=("a",), latents=1))
    assert (found.alive, found.dead, found.mixed, found.dead_in) == (0, 0, 3, {"a": 2, "b": 1, "c": 1})


def test_l0_counts_active_latents_of_the_samples_that_have_the_stream():
    dense = codes([[1.0, 0.5, 0.0], [0.0, 0.0, 3.0], [0.0, 0.0, 0.0]])
    assert mean_l0(dense, torch.tensor([True, True, False])) == pytest.approx(3 / 2)
    assert mean_l0(dense, torch.tensor([True, True, True])) == pytest.approx(3 / 3)
    assert mean_l0(codes([[0.0, 0.0]]), torch.tensor([False])) == 0


def test_overlap_of_index_sets_is_a_mean_over_samples_that_have_both_streams():
    a = [[1.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]
    b = [[1.0, 0.0, 1.0], [0.0, 0.0, 9.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    present = {"b": torch.tensor([True, True, True, False])}
    found, _ = shared({"a": a, "b": b}, present)
    # Sample 0 shares 1 of 3, sample 1 1 of 1; sample 2 is silent in both, sample 3 lacks b.
    assert found.overlaps[0].overlap == pytest.approx((1 / 3 + 1) / 2)
    # Backwards sample 0 meets one that lacks b; 1 meets silence, 2 the latent that it lacks, 3 two it has one of.
    assert found.overlaps[0].null == pytest.approx((0 + 0 + 1 / 2) / 3)


def test_a_latent_fires_together_in_the_share_of_the_samples_that_activate_it_in_either():
    a = [[1.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 0.0]]
    b = [[1.0, 0.0], [0.0, 0.0], [1.0, 0.0], [0.0, 0.0]]
    found, latents = shared({"a": a, "b": b})
    assert latents.cofiring[0] == pytest.approx(1 / 3)
    assert math.isnan(latents.cofiring[1])
    assert found.cofiring == pytest.approx(1 / 3)
    assert found.cofiring_null == pytest.approx(1 / 3)  # backwards b is active in 1 and 3


def test_entropy_is_one_where_all_streams_activate_a_latent_alike_and_zero_where_one_does():
    a = [[1.0, 1.0, 0.0, 1.0], [1.0, 1.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]]
    b = [[1.0, 0.0, 0.0, 1.0], [1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 1.0]]
    found, latents = shared({"a": a, "b": b})
    quarter = -(1 / 4 * math.log(1 / 4) + 3 / 4 * math.log(3 / 4)) / math.log(2)
    assert latents.entropy[[0, 1, 3]] == pytest.approx([1, 0, quarter])
    assert math.isnan(latents.entropy[2])
    assert found.entropy == pytest.approx((1 + 0 + quarter) / 3)


def test_entropy_is_of_rates_so_that_a_stream_that_few_samples_have_counts_as_much():
    a, b = [[1.0], [1.0], [0.0], [0.0]], [[1.0], [0.0], [0.0], [0.0]]
    found, _ = shared({"a": a, "b": b}, {"b": torch.tensor([True, False, True, False])})
    assert found.entropy == pytest.approx(1)


def test_latents_are_shared_of_one_stream_or_dead():
    a, b, c = [[1.0, 1.0, 0.0, 0.0]], [[1.0, 0.0, 1.0, 0.0]], [[0.0, 0.0, 0.0, 0.0]]
    found, latents = shared({"a": a, "b": b, "c": c})
    assert (found.shared, found.only, found.dead) == (1, {"a": 1, "b": 1, "c": 0}, 1)
    assert {name: fires.tolist() for name, fires in latents.fires.items()} == {
        "a": [1, 1, 0, 0],
        "b": [1, 0, 1, 0],
        "c": [0, 0, 0, 0],
    }


def test_a_duplicate_has_nearly_the_same_decoder_in_all_streams_and_is_not_dead():
    space = LatentSpace({"a": 2, "b": 2}, 4, 1)
    with torch.no_grad():
        space.decoder.copy_(
            torch.tensor([[1.0, 0, 1, 0], [1, 0.1, 1, 0], [1, 0, 0, 1], [1, 0, 1, 0]])  # 2 is like 0 in a alone
        )
    twin, likeness = twins(space, np.array([True, True, True, False]))
    assert twin.tolist() == [1, 0, 0, -1]
    assert likeness[0] == pytest.approx(2 / math.sqrt(2 * 2.01))
    assert likeness[2] == pytest.approx(1 / 2)
    active = [[1.0, 1.0, 1.0, 0.0]]
    found, _ = shared({"a": active, "b": active}, space=space)
    assert found.duplicates == 2


def test_latents_are_compared_alike_however_many_at_once(monkeypatch):
    space = LatentSpace({"a": 6, "b": 5}, 50, 1)
    alive = np.arange(50) % 7 != 0
    together = twins(space, alive)
    monkeypatch.setattr("sparc.evaluation.sharing.COMPARED_LATENTS", 8)
    apart = twins(space, alive)
    assert together[0].tolist() == apart[0].tolist()
    assert together[1] == pytest.approx(apart[1], rel=1e-6, nan_ok=True)


def test_identical_streams_share_everything():
    dense = (torch.rand(30, 8, generator=torch.Generator().manual_seed(0)) > 0.6).float().tolist()
    found, _ = shared({"a": dense, "b": dense, "c": dense})
    assert {pair.overlap for pair in found.overlaps} == {1}
    assert (found.cofiring, found.entropy) == (1, pytest.approx(1))
    assert found.shared + found.dead == 8
    assert all(pair.null < 0.6 for pair in found.overlaps if pair.first == "a")


def test_a_single_stream_shares_with_nobody():
    found, latents = shared({"a": [[1.0, 0.0]]})
    assert (found.overlaps, found.cofiring, found.entropy, found.shared) == ((), None, None, 0)
    assert latents.fires["a"].tolist() == [1, 0]
