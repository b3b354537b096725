"""Names of latents by the paper's rule, worked by hand and by loops over samples."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array

from sparc.core.codes import Codes
from sparc.evaluation import HeldOut, evaluate
from sparc.evaluation.purity import names_by_purity, purity_concepts
from sparc.plugins.contracts import Taxonomy
from tests.evaluation.conftest import multi_hot

PETS = Taxonomy({"animal": (), "cat": ("animal",), "dog": ("animal",), "car": (), "bird": ("animal",)})


def codes(values_NL):
    values = torch.as_tensor(np.asarray(values_NL, dtype=np.float32))
    return Codes(torch.arange(values.shape[1]).expand(values.shape), values, values.shape[1])


def named(values_N, labels):
    """Name one latent, given its activation and the labels of each sample."""
    (label,), (share,) = names_by_purity(codes(np.asarray(values_N)[:, None]), multi_hot(labels, PETS))
    return None if label < 0 else PETS.labels[label], share


def falling(count):
    """Activations of samples, the first the strongest."""
    return np.arange(count, 0, -1)


def kinds(**counts):
    return [{name} for name, count in counts.items() for _ in range(count)]


def test_a_latent_is_named_after_the_label_that_3_in_10_of_its_50_strongest_samples_have():
    # 15 of the strongest 50 are cats. Of all 60, 24 are dogs.
    strongest, weaker = kinds(cat=15, dog=14, car=14, bird=7), kinds(dog=10)
    assert named(falling(60), strongest + weaker) == ("cat", 0.3)
    assert named(falling(60)[::-1], (strongest + weaker)[::-1]) == ("cat", 0.3)
    # The same with one cat fewer: dogs, cats and cars are 14 of 50 each.
    assert named(falling(60), kinds(cat=14, dog=14, car=14, bird=8) + weaker) == (None, 0.28)


def test_samples_without_labels_and_inactive_samples_do_not_count():
    # Ten unlabelled samples are the strongest; then 3 cats, 2 of each other kind, and 100 cars that are inactive.
    labels = [set()] * 10 + kinds(cat=3, dog=2, bird=2, animal=2, car=1) + kinds(car=100)
    values = np.concatenate([falling(20), np.zeros(100)])
    assert named(values, labels) == ("cat", 0.3)


def test_ancestors_do_not_count_and_a_sample_counts_for_each_of_its_labels():
    assert named(falling(4), [{"cat"}, {"dog"}, {"dog"}, {"bird"}]) == ("dog", 0.5)  # though all are animals
    assert named(falling(2), [{"cat", "dog"}, {"dog", "bird"}]) == ("dog", 1)


def test_ties_go_to_the_first_label_and_to_the_first_sample():
    assert named(falling(4), kinds(dog=2, cat=2)) == ("cat", 0.5)
    assert named(np.ones(100), kinds(dog=50, cat=50)) == ("dog", 1)


def test_a_latent_that_no_labelled_sample_activates_has_no_name():
    assert named([1.0, 0.0], [set(), {"cat"}]) == (None, 0)
    assert named([1.0, 2.0], [set(), set()]) == (None, 0)


def test_each_stream_has_its_own_names_and_frequent_labels_show_in_the_lift():
    labels = kinds(cat=10, dog=10, car=20)
    cats, dogs, cars = (np.array([{name} == one for one in labels]) for name in ("cat", "dog", "car"))
    first = codes(np.stack([cats, dogs, cars | dogs, np.zeros(40)], axis=1))
    second = codes(np.stack([cats, cats, np.zeros(40), np.zeros(40)], axis=1))
    found = purity_concepts({"a": first, "b": second}, multi_hot(labels, PETS))
    assert found.agreed == 1  # the cat; no name in both streams is no agreement
    a, b = found.streams["a"], found.streams["b"]
    # cat 10/10, dog 10/10, car 20/30; their frequencies are 1/4, 1/4, 1/2.
    assert (a.named, a.taken, a.effective) == (3, 3, pytest.approx(3))
    assert a.purity == pytest.approx((1 + 1 + 2 / 3) / 3)
    assert a.lift == pytest.approx((4 + 4 + 4 / 3) / 3)
    assert (b.named, b.taken, b.effective, b.purity, b.lift) == (2, 1, pytest.approx(1), 1, 4)


def test_a_stream_without_names_has_no_purity():
    found = purity_concepts({"a": codes(np.zeros((3, 2)))}, multi_hot(kinds(cat=3), PETS))
    assert (found.agreed, found.streams["a"].named, found.streams["a"].purity, found.streams["a"].lift) == (
        *(0, 0, None),
        None,
    )


@given(st.integers(0, 2**32 - 1), st.integers(1, 130), st.integers(1, 5))
def test_names_are_those_of_loops_over_samples(seed, n_samples, n_labels):
    generator = np.random.default_rng(seed)
    values_NL = np.maximum(generator.integers(-3, 6, (n_samples, 4)), 0)
    labels_NC = generator.random((n_samples, n_labels)) < 0.4
    expected = []
    for values_N in values_NL.T:
        rows = [row for row in range(n_samples) if values_N[row] > 0 and labels_NC[row].any()]
        rows = sorted(rows, key=lambda row: (-values_N[row], row))[:50]
        counts = [sum(bool(labels_NC[row, label]) for row in rows) for label in range(n_labels)]
        best = counts.index(max(counts))
        expected.append(best if rows and 10 * counts[best] >= 3 * len(rows) else -1)
    # Codes keep latents in any order, and labels may be stored as zeros.
    stored = csr_array((np.ones(labels_NC.size), np.indices(labels_NC.shape).reshape(2, -1)), labels_NC.shape)
    stored.data = labels_NC.ravel().astype(float)
    assert names_by_purity(codes(values_NL), stored)[0].tolist() == expected


def test_the_report_has_the_names_of_joint_codes_and_the_table_those_by_enrichment(random_space, held):
    space, samples = random_space(), HeldOut(held.features, held.groups, held.matrix, held.taxonomy)
    by_purity, by_enrichment = (evaluate(space, samples, rule=rule) for rule in ("purity", "enrichment"))
    joint = space.encode(held.features)
    assert by_purity.report.concepts == purity_concepts(joint, held.matrix)
    assert by_purity.report.concepts.streams["a"].named > 0
    assert by_purity.latents == by_enrichment.latents
    rest = {"concepts": None}
    assert by_purity.report.model_copy(update=rest) == by_enrichment.report.model_copy(update=rest)
