"""One latent per label: the fit against scikit-learn, the rest worked by hand."""

import math
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csc_array, csr_array
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.metrics import log_loss as by_scikit_learn

import sparc.evaluation.probes
from sparc.core.codes import Codes
from sparc.core.space import LatentSpace
from sparc.evaluation.encoding import Encodings
from sparc.evaluation.probes import (
    best_correlated,
    chance_precision,
    fit,
    in_test,
    log_loss,
    probes,
    regressions,
    single_latent,
)
from sparc.plugins.datasets import held_out

LN2 = math.log(2)


def codes(dense):
    """Codes that keep all latents of each sample."""
    values = torch.as_tensor(dense, dtype=torch.float64)
    return Codes(torch.arange(values.shape[1]).expand(values.shape), values, values.shape[1])


def sparse_activations(generator, n_samples, n_latents, share=0.3):
    active = generator.random((n_samples, n_latents)) < share
    return active * generator.gamma(2.0, size=(n_samples, n_latents))


def reference(activation, has):
    """scikit-learn's fit, exactly enough: slope and intercept."""
    model = LogisticRegression(C=1.0, class_weight="balanced", solver="newton-cholesky", tol=1e-12, max_iter=1000)
    model.fit(activation[:, None], has)
    return model.coef_[0, 0], model.intercept_[0]


def fit_all(activations, has):
    samples = regressions(csc_array(activations), np.arange(activations.shape[1]), has)
    return samples, fit(samples, ridge=1 / len(has))


def softplus(margin):
    return math.log1p(math.exp(margin))


# The fit


def test_a_fit_is_the_balanced_logistic_regression_of_scikit_learn():
    generator = np.random.default_rng(0)
    has = generator.random(300) < 0.1
    activations = sparse_activations(generator, 300, 6)
    activations[:, 0] += has  # with the label never 0
    activations[:, 1] *= ~has  # with the label always 0
    activations[:, 2] += 0.5  # active in every sample
    samples, lines = fit_all(activations, has)
    for latent in range(6):
        slope, intercept = reference(activations[:, latent], has)
        assert lines[:, latent] == pytest.approx([slope, intercept], abs=1e-6)
        probability = expit(slope * activations[:, latent] + intercept)
        weight = np.where(has, 1 / has.sum(), 1 / (~has).sum())
        expected = by_scikit_learn(has, probability, sample_weight=weight)
        assert log_loss(samples, lines)[latent] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("n_samples", [20, 20_000])
def test_classes_that_can_be_told_apart_have_a_finite_fit_too(n_samples):
    has = np.arange(n_samples) % 10 == 0
    activation = has * np.random.default_rng(1).uniform(0.5, 1.5, n_samples)
    samples, lines = fit_all(activation[:, None], has)
    assert lines[:, 0] == pytest.approx(reference(activation, has), rel=1e-5)
    assert log_loss(samples, lines)[0] < 10 / n_samples**0.5


def test_a_step_that_overshoots_is_taken_back():
    """Three close activations, the largest with the label: plain Newton steps diverge."""
    has = np.arange(103) == 0
    activation = np.concatenate([[1.09, 1.06, 0.79], np.zeros(100)])
    samples = regressions(csc_array(activation[:, None]), np.array([0]), has)
    ((slope,), (intercept,)) = fit(samples, ridge=1e-9)
    wrong = expit(np.where(has, -1, 1) * (slope * activation + intercept))
    pull = np.where(has, -1 / 2, 1 / 2 / 102) * wrong
    assert pull.sum() == pytest.approx(0, abs=1e-9)
    assert (pull * activation).sum() + 1e-9 * slope == pytest.approx(0, abs=1e-9)


def test_a_latent_that_is_never_active_says_nothing():
    has = np.arange(30) < 4
    samples, lines = fit_all(np.column_stack([np.zeros(30), has * 1.0, np.zeros(30)]), has)
    assert lines[:, [0, 2]].tolist() == [[0, 0], [0, 0]]
    assert log_loss(samples, lines)[[0, 2]] == pytest.approx(LN2)


def test_log_loss_gives_each_class_half():
    activation = np.array([2.0, 0, 0, 0, 1])
    samples = regressions(csc_array(activation[:, None]), np.array([0]), np.array([True, True, False, False, False]))
    # Log-odds are the activation less 1: 1 and -1 with the label, -1, -1 and 0 without it.
    with_it = (softplus(-1) + softplus(1)) / 2
    without_it = (softplus(-1) + softplus(-1) + softplus(0)) / 3
    found = log_loss(samples, np.array([[1.0], [-1.0]]))
    assert found == pytest.approx([(with_it + without_it) / 2])


# The choice


def halves(n_samples):
    train = np.arange(n_samples) < n_samples // 2
    return train, ~train


def column(has):
    return csr_array(np.asarray(has, dtype=float)[:, None])


def test_a_latent_that_tells_a_label_has_almost_no_loss():
    has = np.arange(4000) % 4 == 0
    noise = sparse_activations(np.random.default_rng(2), 4000, 20)
    noise[:, 13] = has * (1 + noise[:, 13])
    assert single_latent(csr_array(noise), column(has), *halves(4000)) < 0.04


def test_latents_that_tell_nothing_leave_ln_2():
    has = np.arange(800) % 4 == 0
    activations = np.zeros((800, 3))
    # Active in half of the samples with the label and in half of those without it, in both parts.
    activations[np.arange(800) % 8 < 4, 1] = 1.0
    assert single_latent(csr_array(activations), column(has), *halves(800)) == pytest.approx(LN2, abs=1e-12)


def test_the_whole_is_scikit_learns_fit_of_the_latent_that_it_fits_best():
    generator = np.random.default_rng(3)
    labels = generator.random((400, 3)) < [0.1, 0.3, 0.6]
    activations = sparse_activations(generator, 400, 24)
    activations[:, 20:23] *= np.where(labels, 3, 1)
    train, test = halves(400)
    losses = []
    for has in labels.T:
        fits = []
        for activation in activations.T:
            seen = activation[train]
            scaled = activation / np.sqrt((seen[seen > 0] ** 2).mean())
            slope, intercept = reference(scaled[train], has[train])
            probability = expit(slope * scaled + intercept)

            def loss(part, has=has, probability=probability):
                weight = np.where(has, 1 / has[part].sum(), 1 / (~has)[part].sum())
                return by_scikit_learn(has[part], probability[part], sample_weight=weight[part])

            fits.append((loss(train), loss(test)))
        losses.append(min(fits)[1])
    found = single_latent(csr_array(activations), csr_array(labels.astype(float)), train, test)
    assert found == pytest.approx(np.mean(losses), abs=1e-6)


def test_the_choice_does_not_look_at_the_test_part():
    """Latent 0 tells the label in the training part only, latent 1 in the test part only: latent 0 is chosen."""
    has = np.arange(200) % 2 == 0
    train, test = halves(200)
    activations = np.stack([has & train, has & test], axis=1) * 1.0
    slope, intercept = reference(activations[train, 0], has[train])
    assert slope > 1
    # In the test latent 0 is 0, so every sample has the log-odds of the intercept.
    expected = (softplus(-intercept) + softplus(intercept)) / 2
    found = single_latent(csr_array(activations), column(has), train, test)
    assert found == pytest.approx(expected, abs=1e-6)


def test_latents_are_ranked_by_correlation_with_both_classes_weighing_half():
    generator = np.random.default_rng(4)
    has = generator.random(150) < 0.1
    activations = sparse_activations(generator, 150, 40)
    weight = np.where(has, 1 / has.sum(), 1 / (~has).sum())
    matrices = [np.cov(activation, has, aweights=weight) for activation in activations.T]
    squared = np.array([matrix[0, 1] ** 2 / (matrix[0, 0] * matrix[1, 1]) for matrix in matrices])
    found = best_correlated(csc_array(activations), csr_array(has[None, :].astype(float)))
    assert found.tolist() == [sorted(np.argsort(-squared)[:16].tolist())]


def test_of_latents_that_tie_the_first_are_candidates():
    has = np.arange(40) % 2 == 0
    same = np.repeat(sparse_activations(np.random.default_rng(5), 40, 1), 20, axis=1)
    assert best_correlated(csc_array(same), csr_array(has[None, :] * 1.0)).tolist() == [list(range(16))]


def test_labels_are_scored_alike_however_many_at_once(monkeypatch):
    generator = np.random.default_rng(7)
    activations, labels = sparse_activations(generator, 100, 20), csr_array((generator.random((100, 3)) < 0.4) * 1.0)
    together = single_latent(csr_array(activations), labels, *halves(100))
    monkeypatch.setattr(sparc.evaluation.probes, "SCORED", 2)
    assert single_latent(csr_array(activations), labels, *halves(100)) == together


@settings(max_examples=10, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1))
def test_the_order_of_samples_and_latents_does_not_matter(seed):
    generator = np.random.default_rng(seed)
    activations = sparse_activations(generator, 80, 20)
    labels = generator.random((80, 2)) < 0.4
    train, test = halves(80)
    found = single_latent(csr_array(activations), csr_array(labels * 1.0), train, test)
    rows, latents = generator.permutation(80), generator.permutation(20)
    again = single_latent(
        csr_array(activations[rows][:, latents]), csr_array(labels[rows] * 1.0), train[rows], test[rows]
    )
    assert again == pytest.approx(found, abs=1e-9)


# The parts, the labels that count, the record


def test_samples_of_one_group_are_on_one_side_wherever_they_stand():
    groups = [f"image {number}" for number in range(200)] * 3
    test = in_test(groups)
    assert test[:200].tolist() == test[200:400].tolist() == test[400:].tolist()
    assert 70 < test[:200].sum() < 130
    assert in_test(groups[::-1]).tolist() == test[::-1].tolist()


def test_samples_that_a_dataset_held_out_by_their_name_are_split_again():
    names = [name for name in map(str, range(2000)) if held_out(name, 0.1)]
    assert 0.3 < in_test(names).mean() < 0.7


GROUPS = [f"image {number}" for number in range(200)]
IN_TEST = in_test(GROUPS)
TRAIN, TEST = (~IN_TEST).nonzero()[0], IN_TEST.nonzero()[0]


@pytest.fixture
def measured():
    """`probes` of 200 samples by activations and labels, both dense; some of them lack some streams."""

    def measure(activations, labels, groups=GROUPS, lacking=(), solo=None, names=("a", "b")):
        space = LatentSpace(dict.fromkeys(names, 2), activations["a"].shape[1], 1)
        features = {name: torch.ones(len(groups), 2) for name in names}
        for name, rows in lacking:
            features[name][rows] = 0
        joint = {name: codes(activations[name]) for name in names}
        solo = {name: codes(dense) for name, dense in (solo or activations).items()}
        matrix = csr_array(np.asarray(labels, dtype=float))
        return probes(Encodings(space, features, joint, solo), matrix, groups, classifiers=False, seed=0)

    return measure


def label_of(train, test):
    """A label of the first few samples of both parts."""
    has = np.zeros(200, dtype=bool)
    has[TRAIN[:train]] = has[TEST[:test]] = True
    return has


def silent():
    return {name: np.zeros((200, 3)) for name in "ab"}


def test_labels_count_that_eight_samples_have_and_eight_lack_in_each_part(measured):
    n_train, n_test = len(TRAIN), len(TEST)
    sizes = [(8, 20), (7, 50), (50, 7), (n_train - 8, n_test - 8), (n_train - 7, 50), (50, n_test - 7)]
    found = measured(silent(), np.stack([label_of(*size) for size in sizes], axis=1))
    assert (found.labels, found.train, found.test) == (2, n_train, n_test)
    # Labels 0 and 3 count.
    assert found.chance == pytest.approx(chance_precision(np.array([20, n_test - 8]), n_test))
    assert found.single == {way: {"a": pytest.approx(LN2), "b": pytest.approx(LN2)} for way in ("joint", "solo")}
    assert found.classifiers == ()


def test_without_a_label_that_counts_there_is_nothing_to_probe(measured):
    assert measured(silent(), label_of(7, 100)[:, None]) is None
    assert measured(silent(), np.zeros((200, 0))) is None


def test_a_label_counts_by_the_samples_that_have_all_streams(measured):
    has = label_of(9, 9)
    assert measured(silent(), has[:, None], lacking=[("a", TRAIN[:1])]).labels == 1
    assert measured(silent(), has[:, None], lacking=[("a", TRAIN[:1]), ("b", TRAIN[1:2])]) is None


def test_a_label_of_many_captions_of_few_images_does_not_count(measured):
    """Nine samples in each part, of three images each."""
    has = label_of(9, 9)
    groups = list(GROUPS)
    for rows in (TRAIN[:9], TEST[:9]):
        for place, row in enumerate(rows):
            groups[row] = groups[rows[place % 3]]
    assert measured(silent(), has[:, None]).labels == 1
    assert measured(silent(), has[:, None], groups=groups) is None


def test_chance_is_the_mean_average_precision_over_every_order():
    has = np.array([True, True, False, False, False])
    found = [average_precision_score(has[list(order)], -np.arange(5)) for order in permutations(range(5))]
    assert chance_precision(np.array([2]), 5) == pytest.approx(np.mean(found))
    assert chance_precision(np.array([5]), 5) == pytest.approx(1)


def test_joint_and_solo_codes_of_each_stream_are_probed_apart(measured):
    has = label_of(40, 40)
    telling = np.stack([has, np.zeros(200), np.zeros(200)], axis=1) * 1.0
    found = measured({**silent(), "a": telling}, has[:, None], solo={**silent(), "b": telling}).single
    assert found["joint"]["a"] == found["solo"]["b"] < 0.2
    assert found["joint"]["b"] == found["solo"]["a"] == pytest.approx(LN2)


def test_samples_that_lack_a_stream_are_not_in_its_probe(measured):
    """Half of the label's samples lack stream a. If they counted, 0 would not mean that a sample lacks the label."""
    has = label_of(40, 40)
    telling = np.stack([has, np.zeros(200), np.zeros(200)], axis=1) * 1.0
    gone = np.concatenate([TRAIN[:20], TEST[:20]])
    there = telling.copy()
    there[gone] = 0
    found = measured({"a": there, "b": telling}, has[:, None], lacking=[("a", gone)])
    kept = np.setdiff1d(np.arange(200), gone)
    expected = single_latent(csr_array(telling[kept]), column(has[kept]), ~IN_TEST[kept], IN_TEST[kept])
    assert found.single["joint"]["a"] == pytest.approx(expected, abs=1e-12)
    everybody = single_latent(csr_array(telling), column(has), ~IN_TEST, IN_TEST)
    assert found.single["joint"]["b"] == pytest.approx(everybody, abs=1e-12)
    assert (found.train, found.test) == (len(TRAIN) - 20, len(TEST) - 20)


def test_the_order_of_samples_and_streams_does_not_matter(measured):
    generator = np.random.default_rng(6)
    activations = {name: sparse_activations(generator, 200, 20) for name in "ab"}
    labels = generator.random((200, 3)) < 0.3
    found = measured(activations, labels)
    rows = generator.permutation(200)
    moved = {name: dense[rows] for name, dense in activations.items()}
    again = measured(moved, labels[rows], groups=[GROUPS[row] for row in rows], names=("b", "a"))
    assert (again.labels, again.train, again.test, again.chance) == (3, found.train, found.test, found.chance)
    for way in ("joint", "solo"):
        assert again.single[way] == pytest.approx(found.single[way], abs=1e-9)
