"""Which latents are worth showing: agreement between streams, confirmed names, and the samples that show them."""

import re

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

import sparc.explorer.meanings
from sparc.core.space import LatentSpace
from sparc.errors import InvalidConfig
from sparc.explorer.meanings import correlations, meanings, ranked, support
from sparc.storage.latent_names import LatentName


def activations(*columns):
    return csr_array(np.array(columns, dtype=np.float32).T)


@pytest.fixture
def space():
    """Streams `a` and `b` of width 4: a latent per feature, encoders and decoders the identity, one latent kept."""
    space = LatentSpace({"a": 4, "b": 4}, 4, 1, normalization="none")
    with torch.no_grad():
        for encoder in space.encoders:
            encoder.copy_(torch.eye(4))
    return space


@pytest.fixture
def features():
    """Ten cats, ten dogs, ten cars, told apart by the first three features of both streams, with growing strength."""
    strength = 1 + torch.arange(30).float() / 10
    rows = torch.eye(4)[torch.arange(30) // 10] * strength.unsqueeze(1)
    return {"a": rows, "b": rows * 2}


def name(label, purity=0.9, confirmed=True):
    return LatentName(label, depth=1, purity=purity, lift=3.0, confirmed=confirmed)


NAMES = {0: name("cat"), 1: name("dog"), 2: name("car")}


def all_there(active):
    return [np.ones(matrix.shape[0], dtype=bool) for matrix in active]


def test_agreement_is_the_correlation_of_activations_mean_over_pairs_of_streams():
    generator = np.random.default_rng(0)
    dense = [np.maximum(generator.normal(size=(40, 3)), 0) for _ in range(3)]
    dense[1][:, 0] = dense[0][:, 0] * 5
    active = [csr_array(matrix) for matrix in dense]
    for latent, found in enumerate(correlations(active, all_there(active))):
        a, b, c = (matrix[:, latent] for matrix in dense)
        expected = np.mean([np.corrcoef(one, other)[0, 1] for one, other in ((a, b), (a, c), (b, c))])
        assert found == pytest.approx(expected, rel=1e-9)


def test_samples_that_lack_a_stream_say_nothing_of_agreement():
    a = [1, 2, 3, 4, 5, 6, 0, 0, 0, 0]
    b = [6, 5, 4, 3, 2, 1, 0, 0, 0, 0]  # the last four lack b, so that both are 0 there is no agreement
    active = [activations(a), activations(b)]
    there = [np.ones(10, dtype=bool), np.arange(10) < 6]
    assert correlations(active, there)[0] == pytest.approx(-1)


def test_a_latent_is_supported_by_the_distinct_images_of_the_stream_that_has_fewest():
    a = activations([1, 1, 1, 1, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0])
    b = activations([1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1])
    assert support({"a": a, "b": b}, None).tolist() == [3, 5, 0]
    images = {"a": torch.tensor([0, 0, 1, 1, 2]), "b": torch.arange(5)}
    assert support({"a": a, "b": b}, images).tolist() == [2, 3, 0]


def test_a_latent_that_two_samples_support_ranks_after_those_that_five_support():
    """Two samples agree perfectly by chance: such a latent was called most telling."""
    agreement = np.array([1.0, 0.5, 0.9, 0.6, 1.0, 0.0, 0.7])
    assert ranked(agreement, np.array([2, 5, 3, 80, 1, 80, 6])) == [6, 3, 1, 2, 0]


def test_of_few_held_out_samples_the_best_latents_are_drawn_all_the_same(space, features):
    few = {name: rows[[0, 5, 9, 10, 19, 20, 29]] for name, rows in features.items()}
    assert [one.latent for one in meanings(space, few, {})] == [0, 1, 2]
    alone = {name: rows[[0, 10, 19, 20, 29]] for name, rows in features.items()}
    assert 0 not in [one.latent for one in meanings(space, alone, {})]
    (asked,) = meanings(space, alone, {}, latent=0)
    assert asked.correlation == pytest.approx(1)  # rare, but equal in both streams


def test_samples_of_one_image_take_one_place_among_those_that_activate_a_latent_most(space, features):
    images = {"a": torch.arange(30) // 2, "b": torch.arange(30)}  # two captions for each image
    (cats,) = meanings(space, features, {}, latent=0, shared=images)
    assert [row for row, _ in cats.top["a"]] == [9, 7, 5, 3, 1]
    assert [row for row, _ in cats.top["b"]] == [9, 8, 7, 6, 5, 4]


def test_a_latent_that_never_varies_agrees_with_nothing():
    """Many such latents, because rounding leaves some of them a small variance that is equal in both streams."""
    steady = [[level / 100] * 100 for level in range(1, 200)]
    active = [activations(*steady), activations(*steady)]
    assert not correlations(active, all_there(active)).any()


def test_latents_of_a_single_stream_rank_by_how_much_they_are_active():
    active = [activations([1] * 6 + [0], [2] * 6 + [0], [9, 0, 0, 0, 0, 0, 0])]
    assert np.argsort(-correlations(active, all_there(active))).tolist() == [1, 2, 0]


def test_a_latent_has_the_confirmed_name_that_is_stored_with_the_run(space, features):
    found = {meaning.latent: meaning for meaning in meanings(space, features, NAMES)}
    assert {latent: meaning.name for latent, meaning in found.items()} == NAMES
    assert all(meaning.correlation == pytest.approx(1) for meaning in found.values())


def test_a_name_that_is_not_confirmed_is_not_shown(space, features):
    doubted = {**NAMES, 1: name("dog", confirmed=False)}
    assert [meaning.name for meaning in meanings(space, features, doubted, latent=1)] == [None]
    assert {m.latent: m.name for m in meanings(space, features, doubted)} == {0: NAMES[0], 1: None, 2: NAMES[2]}


def test_there_is_at_most_one_latent_per_name_the_one_that_agrees_best(space, features):
    split = {name: rows.clone() for name, rows in features.items()}
    for rows in split.values():
        rows[5:10] = rows[5:10].roll(3, dims=1)  # half of the cats have a latent of their own
    split["b"][0:5, 0] = split["b"][0:5, 0].flip(0)
    found = meanings(space, split, {**NAMES, 3: name("cat")})
    assert sorted(m.name.label for m in found) == ["car", "cat", "dog"]
    assert next(m.latent for m in found if m.name.label == "cat") == 3


def test_latents_whose_name_is_not_confirmed_do_not_push_each_other_out(space, features):
    alike = dict.fromkeys(range(4), name("cat", confirmed=False))
    assert sorted(m.latent for m in meanings(space, features, alike)) == [0, 1, 2]


def test_at_most_as_many_are_found_as_asked_for_the_best_first(space, features):
    found = meanings(space, features, NAMES)
    assert len(found) == 3  # latent 3 is dead
    assert [m.correlation for m in found] == sorted((m.correlation for m in found), reverse=True)
    assert meanings(space, features, NAMES, count=2) == found[:2]


def test_without_names_latents_are_shown_bare_and_none_is_left_out(space, features):
    found = meanings(space, features, {})
    assert sorted(m.latent for m in found) == [0, 1, 2]
    assert {m.name for m in found} == {None}


def test_top_samples_are_those_that_activate_most_and_the_silent_are_not_among_them(space, features):
    (cat,) = meanings(space, features, NAMES, latent=0)
    assert [row for row, _ in cat.top["a"]] == [9, 8, 7, 6, 5, 4]
    assert [value for _, value in cat.top["b"]] == pytest.approx([2 * (1 + row / 10) for row in (9, 8, 7, 6, 5, 4)])
    (dead,) = meanings(space, features, NAMES, latent=3)
    assert dead.top == {"a": [], "b": []}


def test_each_stream_is_encoded_alone(space, features):
    """Encoded together, b would decide for a: samples that are cats in a would activate the latent of cars."""
    misled = {"a": features["a"], "b": features["b"].roll(2, dims=1) * 10}
    (cat,) = meanings(space, misled, NAMES, latent=0)
    assert all(row < 10 for row, _ in cat.top["a"])
    assert len(cat.top["a"]) == 6


def test_samples_are_encoded_alike_however_many_at_once(space, features, monkeypatch):
    together = meanings(space, features, NAMES)
    monkeypatch.setattr(sparc.explorer.meanings, "CHUNK", 7)
    assert meanings(space, features, NAMES) == together


def test_a_latent_that_is_not_there_is_an_error_that_says_which_are(space, features):
    for latent in (-1, 4):
        with pytest.raises(InvalidConfig, match=re.escape(f"expected 0 to 3, found {latent}")):
            meanings(space, features, NAMES, latent=latent)


def test_exploring_does_not_change_the_space(space, features):
    before = {name: tensor.clone() for name, tensor in space.state_dict().items()}
    meanings(space, features, NAMES)
    assert all(torch.equal(before[name], tensor) for name, tensor in space.state_dict().items())
