"""Probes of labels: the best single latent per label (1-D probes), and, on request, classifiers of all features.

All regressions of a label are fitted at once, on the nonzero activations alone, which is a hundred times faster than a
fit per latent by scikit-learn's LogisticRegression; the losses agree to 1e-9 (benchmarks/ours_and_libraries.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csc_array, csr_array

from sparc.evaluation.classifiers import Split, classify
from sparc.evaluation.encoding import Encodings
from sparc.evaluation.report import Probes
from sparc.plugins.datasets import held_out

FEWEST = 8
"""Fewest groups with a label, and without it, in each part: the loss over fewer would be mostly noise."""

CANDIDATES = 16
"""Latents fitted per label: those that correlate most with it."""

SCORED = 256
"""Labels scored at a time: scores are (SCORED, L)."""

NEWTON_STEPS = 100
"""Most Newton steps. About 10 are taken; about 15 if a latent separates a label of a million samples exactly."""

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def probes(
    encodings: Encodings,
    labels: csr_array,
    groups: Sequence[str],
    *,
    classifiers: bool,
    seed: int,
    on_detail: Callable[[str], None] = lambda detail: None,
) -> Probes | None:
    """Measure how well single latents and, with `classifiers`, all features tell labels; None if no label counts.

    labels: (N, C), ancestors included. The samples of a group are all in the training part or all in the test part,
    decided by its name. A label counts if in each part, among samples that have all streams, `FEWEST` groups have it
    and `FEWEST` lack it. `seed` draws the classifiers' initial weights and batches; nothing else is random.
    """
    there = {name: present_N.cpu().numpy() for name, present_N in encodings.present.items()}
    complete_N = np.logical_and.reduce(list(there.values()))
    test_N = in_test(groups)
    train_rows, test_rows = (complete_N & ~test_N).nonzero()[0], (complete_N & test_N).nonzero()[0]
    labels = labels.astype(np.bool_).astype(np.float64)
    of_group_N = np.unique(np.asarray(groups), return_inverse=True)[1]
    labels = labels[:, frequent(labels, of_group_N, train_rows) & frequent(labels, of_group_N, test_rows)]
    if labels.shape[1] == 0:
        return None
    ways = {"joint": encodings.joint, "solo": encodings.solo}

    def best(place: tuple[str, str]) -> float:
        way, name = place
        on_detail(f"single latents of {name}, {way}")
        train_N, tested_N = there[name] & ~test_N, there[name] & test_N
        return single_latent(ways[way][name].to_csr(), labels, train_N, tested_N)

    single: dict[str, dict[str, float]] = {way: {} for way in ways}
    places = [(way, name) for way in ways for name in encodings.space.streams]
    for (way, name), loss in zip(places, encodings.spread(best, places), strict=True):
        single[way][name] = loss
    split = Split(torch.from_numpy(train_rows), torch.from_numpy(test_rows))
    return Probes(
        labels=labels.shape[1],
        train=len(train_rows),
        test=len(test_rows),
        single=single,
        classifiers=classify(encodings, labels, split, seed, on_detail) if classifiers else (),
        chance=chance_precision(np.asarray(labels[test_rows].sum(axis=0)).ravel(), len(test_rows)),
    )


def in_test(groups: Sequence[str]) -> Bools:
    """Draw the samples of the test part, (N,) bool: about half of the groups."""
    # Hash more than the bare name: a dataset that drew its held-out samples by it would be in one part entirely.
    drawn = {group: held_out(f"probe: {group}", 0.5) for group in set(groups)}
    return np.array([drawn[group] for group in groups], dtype=bool)


def frequent(labels: csr_array, of_group_N: NDArray[np.intp], rows: NDArray[np.intp]) -> Bools:
    """Return (C,) bool, the labels that enough groups among these rows have and enough lack."""
    group_M, n_groups = np.unique(of_group_N[rows], return_inverse=True)[1], len(np.unique(of_group_N[rows]))
    members = csr_array((np.ones(len(rows)), (group_M, np.arange(len(rows)))), shape=(n_groups, len(rows)))
    with_GC = csc_array(members @ csr_array(labels[rows]))
    all_E = with_GC.data == np.bincount(group_M, minlength=n_groups)[with_GC.indices]
    columns_E = np.repeat(np.arange(labels.shape[1]), np.diff(with_GC.indptr))
    whole_C = np.bincount(columns_E[all_E], minlength=labels.shape[1])
    found: Bools = (np.diff(with_GC.indptr) >= FEWEST) & (n_groups - whole_C >= FEWEST)
    return found


def chance_precision(with_C: Floats, n_samples: int) -> float:
    """Return the exact average precision of a random order, mean over labels. with_C: number of samples with each.

    If K of n samples have the label and one of them is at rank i, the expected precision there is
    (1 + (K - 1) (i - 1) / (n - 1)) / i, and every rank is equally likely.
    """
    harmonic = float((1 / np.arange(1, n_samples + 1)).sum()) / n_samples
    share_C = (with_C - 1) / max(1, n_samples - 1)
    return float((harmonic + share_C * (1 - harmonic)).mean())


# One latent per label


def single_latent(codes: csr_array, labels: csr_array, train_N: Bools, test_N: Bools) -> float:
    """Return the log-loss of the best latent per label on the test part, classes balanced, mean over labels.

    codes: (N, L); labels: (N, C); train_N, test_N: the parts. Each probe is a logistic regression on the activation of
    one latent, as in arXiv 2507.06265: scikit-learn's LogisticRegression(C=1, class_weight="balanced") on the
    activation divided by the RMS of its nonzero training activations. The best latent has the lowest log-loss on the
    training part, among the `CANDIDATES` that correlate most with the label there.
    """
    train, test = _scaled(codes, train_N, test_N)
    losses = []
    for start in range(0, labels.shape[1], SCORED):
        block = labels[:, start : start + SCORED]
        has_train, has_test = csr_array(block[train_N].T), csr_array(block[test_N].T)
        for label, candidates in enumerate(best_correlated(train, has_train)):
            seen = regressions(train, candidates, has_train[[label]].toarray()[0] > 0)
            lines_2F = fit(seen, ridge=1 / train.shape[0])
            # Rounded, like the correlations, so that equal latents tie whatever the order of the samples.
            best = int(np.argmin(log_loss(seen, lines_2F).round(9)))
            chosen = slice(best, best + 1)
            unseen = regressions(test, candidates[chosen], has_test[[label]].toarray()[0] > 0)
            losses.append(log_loss(unseen, lines_2F[:, chosen]).item())
    return float(np.mean(losses))


def _scaled(codes: csr_array, train_N: Bools, test_N: Bools) -> tuple[csc_array, csc_array]:
    """Return both parts of the codes, each latent divided by the RMS of its nonzero training activations."""
    train, test = (csc_array(codes[part_N].astype(np.float64)) for part_N in (train_N, test_N))
    squares_L = np.asarray(train.power(2).sum(axis=0)).ravel()
    rms_L = np.sqrt(squares_L / np.maximum(1, np.diff(train.indptr)))
    rms_L[rms_L == 0] = 1
    for part in (train, test):
        part.data /= np.repeat(rms_L, np.diff(part.indptr))
    return train, test


def best_correlated(codes: csc_array, has: csr_array) -> NDArray[np.intp]:
    """Return the latents that correlate most with each label, classes balanced: (C, CANDIDATES), ascending.

    codes: (N, L); has: (C, N). The squared correlation is a quarter of the squared difference of the classes' means,
    over the variance, with each class weighing half. Ties go to the lowest latents.
    """
    count_C1 = np.asarray(has.sum(axis=1)).reshape(-1, 1)

    def means(values: csc_array) -> tuple[Floats, Floats]:
        total_L = np.asarray(values.sum(axis=0)).ravel()
        with_CL = (has @ values).toarray()
        return with_CL / count_C1, (total_L - with_CL) / (values.shape[0] - count_C1)

    (with_CL, without_CL), squares = means(codes), means(codes.power(2))
    variance_CL = sum(squares) / 2 - ((with_CL + without_CL) / 2) ** 2
    correlation_CL = (with_CL - without_CL) ** 2 / 4 / np.maximum(variance_CL, 1e-12)
    return np.sort(np.argsort(-correlation_CL.round(9), axis=1, kind="stable")[:, :CANDIDATES])


# Logistic regression on one activation


class Regressions(NamedTuple):
    """Data of F logistic regressions on one activation each, concatenated: E entries in all.

    Samples with activation 0 are merged into two entries, one per class, with the weight of all of them. So the cost of
    a latent is its number of nonzero activations.
    """

    activation: Floats
    sign: Floats
    """1 with the label, -1 without."""
    weight: Floats
    """Weight of each entry. In each regression, each class weighs 1/2."""
    starts: NDArray[np.intp]
    """(F,) first entry of each regression."""

    def sums(self, values_E: Floats) -> Floats:
        """Return the weighted sum per regression, (F,)."""
        total_F: Floats = np.add.reduceat(self.weight * values_E, self.starts)
        return total_F

    def losses(self, lines_2F: Floats) -> tuple[Floats, Floats]:
        """Return, per entry, the log-loss under its regression, and the probability of the wrong class."""
        slope_E, intercept_E = np.repeat(lines_2F, np.diff(self.starts, append=len(self.sign)), axis=1)
        margin_E = self.sign * (slope_E * self.activation + intercept_E)
        loss_E = np.maximum(-margin_E, 0) + np.log1p(np.exp(-np.abs(margin_E)))
        return loss_E, np.exp(-margin_E - loss_E)


def regressions(codes: csc_array, latents: NDArray[np.intp], has_N: Bools) -> Regressions:
    """Arrange the regressions of one label on several latents. has_N: the samples with the label; some, not all."""
    classes = np.bincount(has_N, minlength=2)
    parts = []
    for latent in latents:
        bounds = slice(codes.indptr[latent], codes.indptr[latent + 1])
        has_n = has_N[codes.indices[bounds]]
        at_zero = classes - np.bincount(has_n, minlength=2)
        parts.append(
            (
                np.concatenate([[0, 0], codes.data[bounds]]),
                np.concatenate([[False, True], has_n]),
                np.concatenate([at_zero, np.ones(len(has_n))]),
            )
        )
    activation_E, has_E, count_E = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Regressions(
        activation=activation_E,
        sign=np.where(has_E, 1.0, -1.0),
        weight=count_E * np.where(has_E, 0.5 / classes[1], 0.5 / classes[0]),
        starts=np.cumsum([0, *(len(part[0]) for part in parts[:-1])]),
    )


def log_loss(data: Regressions, lines_2F: Floats) -> Floats:
    """Return the mean log-loss under each regression's slope and intercept, each class weighing half, (F,)."""
    return data.sums(data.losses(lines_2F)[0])


def fit(data: Regressions, ridge: float) -> Floats:
    """Return slopes and intercepts (2, F) that minimise the log-loss plus ridge / 2 times the squared slope.

    Newton's method on all regressions at once, with step halving if the loss falls by too little (Armijo's rule).
    """
    lines_2F = np.zeros((2, len(data.starts)))
    length_F = np.ones(len(data.starts))
    state_6F = _derivatives(data, lines_2F, ridge)
    for _ in range(NEWTON_STEPS):
        value_F, slope_F, intercept_F, bend_F, mixed_F, level_F = state_6F
        step_2F = np.stack([mixed_F * intercept_F - level_F * slope_F, mixed_F * slope_F - bend_F * intercept_F])
        step_2F /= bend_F * level_F - mixed_F**2
        promised_F = -(step_2F[0] * slope_F + step_2F[1] * intercept_F)
        if (promised_F < 1e-16).all():
            break
        trial_2F = lines_2F + length_F * step_2F
        tried_6F = _derivatives(data, trial_2F, ridge)
        # The slack covers rounding of the sums, which would refuse the last, smallest steps.
        better_F = tried_6F[0] <= value_F - 1e-4 * length_F * promised_F + 1e-13
        lines_2F = np.where(better_F, trial_2F, lines_2F)
        state_6F = np.where(better_F, tried_6F, state_6F)
        length_F = np.where(better_F, 1, length_F / 2)
    return lines_2F


def _derivatives(data: Regressions, lines_2F: Floats, ridge: float) -> Floats:
    """Return (6, F): the objective, its slope and intercept derivatives, its second ones (slope, mixed, intercept)."""
    loss_E, wrong_E = data.losses(lines_2F)
    pull_E, curve_E = -data.sign * wrong_E, wrong_E * (1 - wrong_E)
    activation_E = data.activation
    return np.stack(
        [
            data.sums(loss_E) + ridge / 2 * lines_2F[0] ** 2,
            data.sums(pull_E * activation_E) + ridge * lines_2F[0],
            data.sums(pull_E),
            data.sums(curve_E * activation_E**2) + ridge,
            data.sums(curve_E * activation_E),
            data.sums(curve_E),
        ]
    )
