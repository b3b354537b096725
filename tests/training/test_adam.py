"""Adam by blocks of latents, one part of a gradient at a time; bfloat16 moments take half the memory."""

import weakref

import torch

from sparc.core.kernels import cache
from sparc.core.losses import LossWeights
from sparc.core.space import LatentSpace
from sparc.training.adam import Adam, _rounded_at_random
from sparc.training.gradients import TableGradient, gradients


def space_and_gradients():
    torch.manual_seed(0)
    space = LatentSpace({"a": 12, "b": 7}, n_latents=32, k=4)
    batch = space.normalize({"a": torch.randn(64, 12), "b": torch.randn(64, 7)})
    return space, gradients(space, batch, LossWeights(cross=1.0))


def test_the_mean_of_squares_follows_a_gradient_that_never_changes():
    """Rounding to nearest would stop it at a third, where a step is half a unit in bfloat16's last place."""
    space, same = space_and_gradients()
    adam = Adam(space, lr=0.0, state=torch.bfloat16)
    for _ in range(2000):
        adam.step(same)
    encoder = same.beyond_decoder(same.decoder.dots(space.decoder.detach())).encoders[0]
    expected = torch.cat([encoder.block(latents) for latents in encoder.blocks()])
    moment1, moment2 = (moment.float() for moment in adam.moments["encoders.0"])
    seen = expected.abs() > 1e-8
    means = moment1[seen] / expected[seen]
    squares = moment2[seen] / (expected[seen].square() * (1 - 0.999**2000))
    assert abs(means.mean() - 1) < 0.02
    assert abs(squares.mean() - 1) < 0.05
    assert squares.min() > 0.7
    assert squares.max() < 1.3


def test_steps_are_nearly_those_of_float32_moments():
    found = []
    for state in (None, torch.bfloat16):
        space, _ = space_and_gradients()
        before = space.decoder.detach().clone()
        adam = Adam(space, lr=0.01, state=state)
        torch.manual_seed(1)
        for _ in range(20):
            batch = space.normalize({"a": torch.randn(64, 12), "b": torch.randn(64, 7)})
            adam.step(gradients(space, batch, LossWeights(cross=1.0)))
        found.append(space.decoder.detach() - before)
    assert (found[1] - found[0]).norm() < 0.1 * found[0].norm()


def test_pieces_of_a_table_are_stepped_alike(monkeypatch):
    def stepped():
        space, same = space_and_gradients()
        adam = Adam(space, lr=0.01, state=torch.bfloat16)
        adam.step(same)
        return space.state_dict()

    whole = stepped()
    monkeypatch.setattr("sparc.training.adam.UNPACKED", 50)
    in_pieces = stepped()
    for name, tensor in whole.items():
        torch.testing.assert_close(in_pieces[name], tensor, rtol=1e-5, atol=1e-6)


def test_a_part_of_a_gradient_is_freed_before_the_next_is_computed(monkeypatch):
    """By hand: of 32 latents 190 numbers hold 10 of the decoder, 15 and 27 of the encoders: 4, 3 and 2 parts."""
    monkeypatch.setattr(cache, "BLOCK", 190)
    monkeypatch.setattr(cache, "FEWEST", 1)
    space, same = space_and_gradients()
    made, whole = [], TableGradient.block

    def block(gradient, latents):
        assert all(part() is None for part in made)
        part = whole(gradient, latents)
        made.append(weakref.ref(part))
        return part

    monkeypatch.setattr(TableGradient, "block", block)
    Adam(space, lr=0.01).step(same)
    assert len(made) == 4 + 3 + 2


def test_moments_take_half_the_memory():
    space, _ = space_and_gradients()
    sizes = [
        sum(moment.nbytes for moments in Adam(space, lr=0.1, state=state).moments.values() for moment in moments)
        for state in (None, torch.bfloat16)
    ]
    assert sizes[1] * 2 == sizes[0]


def test_rounding_keeps_nan_and_infinity():
    noise = torch.Generator().manual_seed(0)
    bits = torch.tensor([0x7FFFFFFF, 0x7F800001, 0x7FC00000, 0x7F800000], dtype=torch.int32)
    found = _rounded_at_random(bits.view(torch.float32), noise)
    assert found[:3].isnan().all()
    assert found[3] == float("inf")
