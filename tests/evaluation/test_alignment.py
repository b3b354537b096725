"""Hierarchical Jaccard and its intervals, worked by hand."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

import sparc.evaluation.alignment
from sparc.core.codes import Codes
from sparc.evaluation.alignment import Activity, bootstrap, hierarchical_jaccard, jaccard, shuffles
from sparc.evaluation.encoding import activity, encode
from sparc.evaluation.labels import levels, parts
from sparc.plugins.contracts import Taxonomy
from tests.evaluation.conftest import multi_hot

GROUPS = [str(row) for row in range(200)]
ANIMALS = Taxonomy({"animal": (), "cat": ("animal",), "dog": ("animal",), "car": ()})


def active(*rows):
    return csr_array(np.array(rows, dtype=float))


def overlap(streams, labels, depth=-1, present=None):
    """At the depth of the labels themselves."""
    draws = bootstrap([str(row) for row in range(len(labels))], seed=0)
    streams = Activity(streams, present or dict.fromkeys(streams, np.ones(len(labels), dtype=bool)))
    return jaccard(streams, levels(multi_hot(labels, ANIMALS), ANIMALS), draws)[depth]


def codes(dense):
    """Codes that keep all latents of each sample."""
    values = torch.tensor(dense, dtype=torch.float32)
    return Codes(torch.arange(values.shape[1]).expand(values.shape), values, values.shape[1])


def test_overlap_is_the_sum_of_minima_over_the_sum_of_maxima():
    found = overlap({"a": active([1], [1], [0]), "b": active([0], [1], [1])}, [{"cat"}, {"cat", "dog"}, {"car"}])
    # Stream a: cat 2, dog 1. Stream b: cat 1, dog 1, car 1. Minima 1 + 1 + 0, maxima 2 + 1 + 1.
    assert found.all == pytest.approx(2 / 4)
    assert found.alive == pytest.approx(2 / 4)


def test_a_latent_without_two_live_streams_counts_zero_among_all_and_not_among_the_alive():
    # Latent 0 agrees, latent 1 lives in one stream only, latent 2 in none.
    found = overlap({"a": active([1, 1, 0], [0, 0, 0]), "b": active([1, 0, 0], [0, 0, 0])}, [{"cat"}, {"dog"}])
    assert found.all == pytest.approx(1 / 3)
    assert found.alive == 1


def test_there_is_no_mean_over_alive_latents_where_none_is():
    found = overlap({"a": active([1, 0]), "b": active([0, 1])}, [{"cat"}])
    assert (found.all, found.alive, found.alive_interval) == (0, None, None)


def test_a_latent_averages_over_the_pairs_of_streams_alive_in_it():
    labels = [{"cat"}, {"dog"}, {"car"}]
    streams = {"a": active([1], [0], [0]), "b": active([1], [1], [0]), "c": active([0], [0], [0])}
    assert overlap(streams, labels).all == pytest.approx(1 / 2)  # a with b; c is dead, so no pair with it counts
    streams["c"] = active([0], [1], [0])
    assert overlap(streams, labels).all == pytest.approx((1 / 2 + 0 + 1 / 2) / 3)


def test_a_pair_of_streams_is_measured_on_the_samples_that_have_both():
    """A latent that is always active overlaps fully, however few samples have the second stream."""
    streams = {"a": active([1], [1], [1], [1]), "b": active([1], [0], [1], [0])}
    labels, half = [{"cat"}, {"cat"}, {"dog"}, {"dog"}], {"a": np.ones(4, bool), "b": np.array([1, 0, 1, 0], bool)}
    assert overlap(streams, labels, present=half).alive == 1
    assert overlap(streams, labels).alive == 1 / 2


@pytest.mark.parametrize("count", [15, 16])
def test_there_is_no_interval_of_fewer_than_sixteen_groups(count):
    streams = {name: active(*([[1], [0]] * 8)[:count]) for name in "ab"}
    found = overlap(streams, [{"cat"}] * count)
    assert found.all == 1
    assert (found.all_interval is None) == (found.alive_interval is None) == (count < 16)


def test_how_strongly_a_latent_is_active_does_not_matter():
    weak, strong = codes([[0.001, 0.0]]), codes([[7.0, 0.0]])
    found = overlap({"a": activity(weak), "b": activity(strong)}, [{"cat"}])
    assert found.alive == 1


def test_latents_of_unlabelled_samples_overlap_in_nothing():
    found = overlap({"a": active([1]), "b": active([1])}, [set()])
    assert (found.all, found.alive) == (0, 0)


def counted(labels, taxonomy, depth):
    """The labels that a depth counts, per sample."""
    matrix = multi_hot(labels, taxonomy)
    found = levels(matrix, taxonomy)
    less = [
        name
        for name, said, all_ in zip(taxonomy.labels, matrix.sum(0), found.lifted.sum(0), strict=True)
        if said < all_
    ]
    names = [*taxonomy.labels, *less]
    rows = found.columns.toarray() * found.counted[:, depth]
    return [sorted(names[column] for column in np.flatnonzero(row)) for row in rows]


def test_labels_lift_to_their_ancestors_and_shallower_ones_stay():
    assert counted([{"cat"}, {"car"}], ANIMALS, 0) == [["animal"], ["car"]]
    assert counted([{"cat", "dog"}, {"car"}], ANIMALS, 1) == [["cat", "dog"], ["car"]]


def test_two_labels_of_a_sample_under_one_ancestor_count_it_once():
    assert counted([{"cat", "dog", "animal"}], ANIMALS, 0) == [["animal"]]


def test_below_its_depth_a_label_counts_only_where_it_is_said_itself():
    assert counted([{"cat"}, {"animal"}], ANIMALS, 1) == [["cat"], ["animal"]]


def test_a_zero_that_is_stored_is_no_label():
    stored = csr_array((np.array([0.0, 1.0]), (np.array([0, 0]), np.array([1, 3]))), shape=(1, 4))
    assert stored.nnz == 2
    assert levels(stored, ANIMALS).lifted.toarray().tolist() == [[0, 0, 0, 1]]


def test_a_label_with_several_parents_lifts_along_the_deepest():
    dag = Taxonomy({"thing": (), "toy": (), "machine": ("thing",), "robot": ("toy", "machine")})
    assert [counted([{"robot"}], dag, depth) for depth in range(3)] == [[["thing"]], [["machine"]], [["robot"]]]


def test_parts_have_as_many_groups_each_and_split_none_in_any_order_of_the_samples():
    groups = [f"image {row // 3}" for row in range(300)]
    found = parts(groups, 32)
    assert set(np.bincount(found[::3], minlength=32)) == {3, 4}
    assert (found.reshape(100, 3) == found[::3, None]).all()
    backwards = parts(groups[::-1], 32)
    assert backwards[::-1].tolist() == found.tolist()


def test_every_replicate_has_half_of_the_parts_twice():
    draws = bootstrap([str(row) for row in range(100)], seed=0)
    assert (draws.weights[0] == 1).all()
    assert (draws.weights[1:].sum(axis=1) == 32).all()
    assert set(draws.weights[1:].ravel()) == {0, 2}
    assert (draws.weights[1:].mean(axis=0) > 0).all()


def test_the_interval_reaches_as_far_as_the_estimate_varies_from_sample_to_sample():
    """The overlap of a latent that is active at random in both streams, over many draws of 400 samples."""
    generator = np.random.default_rng(0)

    def draw():
        streams = {name: csr_array((generator.random((400, 40)) < 0.3).astype(np.float32)) for name in "ab"}
        labels = [{ANIMALS.labels[1 + generator.integers(3)]} for _ in range(400)]
        return overlap(streams, labels)

    found = [draw() for _ in range(40)]
    spread = np.std([one.all for one in found], ddof=1)
    reach = np.mean([(one.all_interval[1] - one.all_interval[0]) / 2 for one in found])
    assert reach == pytest.approx(2.04 * spread, rel=0.4)


def test_counts_are_the_same_however_many_latents_at_once(monkeypatch):
    generator = np.random.default_rng(1)
    streams = {name: csr_array((generator.random((60, 50)) < 0.2).astype(np.float32)) for name in "ab"}
    labels = [{ANIMALS.labels[generator.integers(4)]} for _ in range(60)]
    together = overlap(streams, labels)
    monkeypatch.setattr(sparc.evaluation.alignment, "COUNTS", 1)
    apart = overlap(streams, labels)
    assert apart.all == pytest.approx(together.all, rel=1e-12)
    assert apart.all_interval == pytest.approx(together.all_interval, rel=1e-9)


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
    """Both streams have the same two features: solo they agree fully, on shuffled pairs only by chance."""
    space = plain_space()
    kinds = torch.arange(200) % 2
    features = dict.fromkeys(("a", "b"), torch.eye(2)[kinds])
    labels = multi_hot([{"cat"} if kind == 0 else {"car"} for kind in kinds], ANIMALS)
    found = hierarchical_jaccard(encode(space, features), labels, ANIMALS, GROUPS[:200], seed=0)
    assert [row.depth for row in found] == [0, 1]
    for row in found:
        assert row.joint.alive == row.solo.alive == 1
        # Each latent: 100 of one label in a; in b about 50 and 50. Minima 50, maxima 100 + 50.
        assert row.solo_null.alive == pytest.approx(1 / 3, abs=0.08)


def test_the_joint_null_is_high_because_streams_share_their_latents(random_space, held):
    space = random_space()
    first = hierarchical_jaccard(encode(space, held.features), held.matrix, held.taxonomy, held.groups, 0)[-1]
    assert first.joint_null.alive > first.solo_null.alive
