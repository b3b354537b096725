"""NMSE and R^2, worked by hand."""

import pytest
import torch

from sparc.evaluation.encoding import encode_joint, encode_solo
from sparc.evaluation.reconstruction import reconstruction


def test_nmse_is_the_mean_of_relative_errors_and_r2_relates_their_sum_to_the_spread(plain_space):
    features = {"a": torch.tensor([[3.0, 1.0], [0.0, 2.0], [1.0, 0.0]]), "b": torch.tensor([[4.0, 0.0]] * 3)}
    space = plain_space()
    nmse, r2 = reconstruction(space, features, encode_solo(space, features))
    # One latent is kept, so (3, 1) comes back as (3, 0): error 1 of 10; the others exactly.
    assert nmse["a"]["a"] == pytest.approx((1 / 10 + 0 + 0) / 3)
    # Mean (4/3, 1). Squared distances 25/9 + 0, 16/9 + 1, 1/9 + 1.
    assert r2["a"]["a"] == pytest.approx(1 - 1 / (42 / 9 + 2))
    # a's codes as b: (3, 0), (0, 2), (1, 0) for (4, 0): errors 1, 20, 9, each of 16.
    assert nmse["a"]["b"] == pytest.approx((1 + 20 + 9) / 16 / 3)
    assert r2["a"]["b"] is None  # b never varies, so there is nothing to explain


def test_joint_codes_are_of_the_latents_that_the_streams_chose_together(plain_space):
    features = {"a": torch.tensor([[3.0, 1.0]]), "b": torch.tensor([[0.0, 5.0]])}
    space = plain_space()
    solo, _ = reconstruction(space, features, encode_solo(space, features))
    joint, _ = reconstruction(space, features, encode_joint(space, features))
    assert solo["a"]["a"] == pytest.approx(1 / 10)  # latent 0: (3, 0)
    assert joint["a"]["a"] == pytest.approx(9 / 10)  # latent 1, where b is stronger: (0, 1)
    assert joint["a"]["b"] == pytest.approx(16 / 25)  # (0, 1) for (0, 5)
    assert joint["b"]["b"] == pytest.approx(0)


def test_rows_count_only_where_source_and_target_exist(plain_space):
    a = torch.tensor([[3.0, 1.0], [0.0, 0.0], [0.0, 2.0]])
    b = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    features = {"a": a, "b": b}
    space = plain_space()
    nmse, _ = reconstruction(space, features, encode_solo(space, features))
    assert nmse["a"]["a"] == pytest.approx((1 / 10 + 0) / 2)
    assert nmse["a"]["b"] == pytest.approx(1)  # row 2 alone: (0, 2) for (0, 1)
    assert nmse["b"]["a"] == pytest.approx(1 / 4)  # row 2 alone: (0, 1) for (0, 2)
    assert nmse["b"]["b"] == pytest.approx(0)


def test_streams_that_no_sample_has_both_of_have_no_number(plain_space):
    features = {"a": torch.tensor([[1.0, 0.0], [0.0, 0.0]]), "b": torch.tensor([[0.0, 0.0], [1.0, 0.0]])}
    space = plain_space()
    nmse, r2 = reconstruction(space, features, encode_solo(space, features))
    assert nmse["a"]["b"] is None
    assert r2["a"]["b"] is None


def test_long_sums_keep_their_digits(plain_space):
    """A row of 2**13, and 4,000 rows of 1 that alone have errors: in float32, 2**26 + 1 loses the 1."""
    features = {"a": torch.tensor([[2.0**13, 0.0]] + [[0.0, 1.0]] * 4000)}
    space = plain_space(names=("a",))
    with torch.no_grad():
        space.decoder[0] = 0  # latent 0 rebuilds nothing
        space.decoder[1] = torch.tensor([0.0, 2.0])
    _, r2 = reconstruction(space, features, encode_solo(space, features))
    n = 4001
    spread = 2.0**26 * (1 - 1 / n) + 4000 * (1 - 4000 / n)
    assert 1 - r2["a"]["a"] == pytest.approx((2.0**26 + 4000) / spread, rel=1e-12)
