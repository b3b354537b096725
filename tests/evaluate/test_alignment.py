"""Hierarchical Jaccard, live latents and L0, worked by hand."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from sparc.contracts import Taxonomy
from sparc.core.codes import Codes
from sparc.evaluate.alignment import hierarchical_jaccard, jaccard, lift_labels, liveness, mean_l0, shuffles
from sparc.evaluate.encoding import activity, encode_joint, encode_solo
from tests.evaluate.conftest import multi_hot

ANIMALS = Taxonomy({"animal": (), "cat": ("animal",), "dog": ("animal",), "car": ()})


def active(*rows):
    return csr_array(np.array(rows, dtype=float))


def codes(dense):
    """All latents of each sample as its code."""
    values = torch.tensor(dense, dtype=torch.float32)
    return Codes(torch.arange(values.shape[1]).expand(values.shape), values, values.shape[1])


def test_overlap_is_the_sum_of_minima_over_the_sum_of_maxima():
    labels = multi_hot([{"cat"}, {"cat", "dog"}, {"car"}], ANIMALS)
    found = jaccard({"a": active([1], [1], [0]), "b": active([0], [1], [1])}, labels)
    # Stream a: cat 2, dog 1. Stream b: cat 1, dog 1, car 1. Minima 1 + 1 + 0, maxima 2 + 1 + 1.
    assert found.all == pytest.approx(2 / 4)
    assert found.alive == pytest.approx(2 / 4)


def test_a_latent_without_two_live_streams_counts_zero_among_all_and_not_among_the_alive():
    labels = multi_hot([{"cat"}, {"dog"}], ANIMALS)
    # Latent 0 agrees, latent 1 lives in one stream only, latent 2 in none.
    found = jaccard({"a": active([1, 1, 0], [0, 0, 0]), "b": active([1, 0, 0], [0, 0, 0])}, labels)
    assert found.all == pytest.approx(1 / 3)
    assert found.alive == 1


def test_there_is_no_mean_over_alive_latents_where_none_is():
    found = jaccard({"a": active([1, 0]), "b": active([0, 1])}, multi_hot([{"cat"}], ANIMALS))
    assert (found.all, found.alive) == (0, None)


def test_a_latent_averages_over_the_pairs_of_streams_alive_in_it():
    labels = multi_hot([{"cat"}, {"dog"}, {"car"}], ANIMALS)
    streams = {"a": active([1], [0], [0]), "b": active([1], [1], [0]), "c": active([0], [0], [0])}
    assert jaccard(streams, labels).all == pytest.approx(1 / 2)  # a with b; c is dead, so no pair with it counts
    streams["c"] = active([0], [1], [0])
    assert jaccard(streams, labels).all == pytest.approx((1 / 2 + 0 + 1 / 2) / 3)


def test_how_strongly_a_latent_is_active_does_not_matter():
    weak, strong = codes([[0.001, 0.0]]), codes([[7.0, 0.0]])
    found = jaccard({"a": activity(weak), "b": activity(strong)}, multi_hot([{"cat"}], ANIMALS))
    assert found.alive == 1


def test_latents_of_unlabelled_samples_overlap_in_nothing():
    found = jaccard({"a": active([1]), "b": active([1])}, multi_hot([set()], ANIMALS))
    assert (found.all, found.alive) == (0, 0)


def test_labels_lift_to_their_ancestors_and_shallower_ones_stay():
    lifted = lift_labels(multi_hot([{"cat"}, {"car"}], ANIMALS), ANIMALS, 0).toarray()
    assert lifted.tolist() == [[1, 0, 0, 0], [0, 0, 0, 1]]
    labels = multi_hot([{"cat", "dog"}, {"car"}], ANIMALS)
    assert lift_labels(labels, ANIMALS, 1).toarray().tolist() == labels.toarray().tolist()


def test_two_labels_of_a_sample_under_one_ancestor_count_it_once():
    lifted = lift_labels(multi_hot([{"cat", "dog", "animal"}], ANIMALS), ANIMALS, 0).toarray()
    assert lifted.tolist() == [[1, 0, 0, 0]]


def test_a_zero_that_is_stored_is_no_label():
    stored = csr_array((np.array([0.0, 1.0]), (np.array([0, 0]), np.array([1, 3]))), shape=(1, 4))
    assert stored.nnz == 2
    assert lift_labels(stored, ANIMALS, 1).toarray().tolist() == [[0, 0, 0, 1]]


def test_a_label_with_several_parents_lifts_along_the_deepest():
    dag = Taxonomy({"thing": (), "toy": (), "machine": ("thing",), "robot": ("toy", "machine")})
    labels = multi_hot([{"robot"}], dag)
    assert [dag.labels[lift_labels(labels, dag, depth).indices[0]] for depth in range(3)] == [
        "thing",
        "machine",
        "robot",
    ]


def test_latents_are_alive_in_all_in_some_or_in_no_streams():
    a = codes([[1.0, 0.0, 1.0, 0.0], [0.0, 0.0, 1.0, 0.0]])
    b = codes([[0.0, 0.0, 2.0, 0.0], [0.0, 1e-6, 0.0, 0.0]])
    # Latent 2 in both; 0 in a only; 1 in b only, however little; 3 in none.
    assert liveness({"a": a, "b": b}, 4) == (1, 1, 2)


def test_l0_counts_active_latents_of_the_samples_that_have_the_stream():
    dense = codes([[1.0, 0.5, 0.0], [0.0, 0.0, 3.0], [0.0, 0.0, 0.0]])
    assert mean_l0(dense, torch.tensor([True, True, False])) == pytest.approx(3 / 2)
    assert mean_l0(dense, torch.tensor([True, True, True])) == pytest.approx(3 / 3)
    assert mean_l0(codes([[0.0, 0.0]]), torch.tensor([False])) == 0


def test_shuffling_leaves_the_first_stream_and_permutes_each_other_in_its_own_order():
    orders = shuffles(["a", "b", "c"], 50, seed=0)
    everybody = list(range(50))
    assert orders["a"].tolist() == everybody
    assert sorted(orders["b"].tolist()) == sorted(orders["c"].tolist()) == everybody
    assert len({tuple(order.tolist()) for order in orders.values()}) == 3


def test_shuffling_depends_on_the_seed_alone():
    first, again, other = (shuffles(["a", "b"], 50, seed)["b"].tolist() for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_the_null_keeps_what_a_stream_activates_and_breaks_the_pairs(plain_space):
    """Both streams see the same two features, so solo they agree fully; with pairs shuffled only by chance."""
    space = plain_space()
    kinds = torch.arange(200) % 2
    features = dict.fromkeys(("a", "b"), torch.eye(2)[kinds])
    labels = multi_hot([{"cat"} if kind == 0 else {"car"} for kind in kinds], ANIMALS)
    joint, solo = encode_joint(space, features), encode_solo(space, features)
    found = hierarchical_jaccard(space, features, joint, solo, labels, ANIMALS, seed=0)
    assert [row.depth for row in found] == [0, 1]
    for row in found:
        assert row.joint.alive == row.solo.alive == 1
        # Each latent: 100 of one label in a; in b about 50 and 50. Minima 50, maxima 100 + 50.
        assert row.solo_null.alive == pytest.approx(1 / 3, abs=0.08)


def test_the_joint_null_is_high_because_streams_share_their_latents(random_space, held):
    space = random_space()
    joint, solo = encode_joint(space, held.features), encode_solo(space, held.features)
    first = hierarchical_jaccard(space, held.features, joint, solo, held.matrix, held.taxonomy, seed=0)[-1]
    assert first.joint_null.alive > first.solo_null.alive
