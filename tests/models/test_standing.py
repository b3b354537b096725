"""Scores among those of held-out images."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparc.models.standing import standing

HUNDRED = torch.arange(1.0, 101.0)  # a typical score is 50, and 99 is strong


@pytest.mark.parametrize(
    ("score", "as_high", "strength", "words"),
    [
        (200.0, 0, 1.0, "seen here: 0 of 100 held-out images score as high"),
        (99.0, 2, 1.0, "seen here: 0.02 of held-out images score as high"),
        (97.0, 4, 47 / 49, "seen here: 0.04 of held-out images score as high"),
        (96.0, 5, 46 / 49, "unsure here: 0.05 of held-out images score as high"),  # by chance 6 in 101
        (60.0, 41, 10 / 49, "not seen here: 0.41 of held-out images score as high"),
        (40.0, 61, 0.0, "not seen here: 0.61 of held-out images score as high"),
        (0.0, 100, 0.0, "not seen here: the score is zero"),
    ],
)
def test_a_score_is_read_by_how_many_held_out_images_reach_it(score, as_high, strength, words):
    found = standing(score, HUNDRED)
    assert (found.as_high, found.words) == (as_high, words)
    assert found.percentile == pytest.approx(100 - as_high)
    assert found.chance == pytest.approx((as_high + 1) / 101)
    assert found.strength == pytest.approx(strength)


def test_a_latent_that_fires_in_one_image_of_many_is_strong_at_that_score():
    seldom = torch.tensor([0.0] * 999 + [2.0])
    assert standing(1.0, seldom).strength == pytest.approx(0.5)
    assert standing(2.0, seldom).words == "seen here: 0.001 of held-out images score as high"
    never = standing(0.1, torch.zeros(10))
    assert (never.strength, never.verdict) == (1.0, "unsure")  # ten images cannot say more: by chance 1 in 11


@given(st.lists(st.floats(-5, 5, width=32), min_size=1), st.floats(-5, 5, width=32))
def test_a_higher_score_never_stands_lower(scores, score):
    low, high = standing(score, torch.tensor(scores)), standing(score + 1, torch.tensor(scores))
    assert high.as_high <= low.as_high
    assert 0 <= low.strength <= high.strength <= 1
    assert low.as_high == sum(one >= score - 1e-5 * abs(score) for one in torch.tensor(scores).tolist())
