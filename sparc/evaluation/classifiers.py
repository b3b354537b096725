"""Classifiers of labels from features and codes: one linear, one with a hidden layer; mean average precision.

One network learns all labels at once, so its time hardly grows with the number of labels.
benchmarks/ours_and_libraries.py compares it with scikit-learn's LogisticRegression, a fit per label, which gives other
numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import permutations
from math import ceil
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from sparc.core.codes import Codes
from sparc.core.kernels import weighted_rows
from sparc.evaluation.encoding import Encodings, chunks
from sparc.evaluation.report import Classifier

HIDDEN = 512
"""Units of the nonlinear classifier's one hidden layer."""

BATCH = 1024
"""Most samples per step."""

EPOCHS = 10
"""Fewest passes over the training part."""

STEPS = 150
"""Fewest steps: a small training part is passed over more often. With many more, linear classifiers would overfit."""

LEARNING_RATE = 1e-3
WEIGHT_DECAY = 0.01

Inputs = Tensor | Codes
"""Features (M, D), or codes over D latents, of M samples."""

Layers = list[tuple[Tensor, Tensor]]
"""Weights (inputs, outputs) and bias (outputs,) of each layer."""


class Split(NamedTuple):
    """Rows of the training and the test samples; all of them have all streams."""

    train: Tensor
    test: Tensor


def classify(
    encodings: Encodings,
    labels: csr_array,
    split: Split,
    seed: int,
    on_inputs: Callable[[str], None] = lambda inputs: None,
) -> tuple[Classifier, ...]:
    """Train classifiers on the training rows, and measure their mean average precision on the test rows.

    Their inputs are each stream's normalised features, its solo codes, its reconstruction from them, and its
    reconstruction from each other stream's codes. labels: (N, C), 0 or 1; some test samples must have each label. The
    space is not changed. Every classifier starts from `seed`, so numbers repeat on a CPU.
    """
    rows = torch.cat(split)
    has_MC = labels[rows.numpy()].astype(np.bool_).toarray()

    def learned(reading: Reading) -> Classifier:
        source, target = reading.source, reading.target
        on_inputs(f"classifiers of {reading.kind}, {source if source == target else f'{source} → {target}'}")
        inputs = read(encodings, rows, reading)
        linear, mlp = (precision(inputs, has_MC, len(split.train), hidden, seed) for hidden in ((), (HIDDEN,)))
        return Classifier(features=reading.kind, source=source, target=target, linear=linear, mlp=mlp)

    return tuple(encodings.spread(learned, readings(tuple(encodings.space.streams))))


class Reading(NamedTuple):
    """One kind of input for classifiers."""

    kind: str
    """`raw`, `latents`, `reconstruction` or `cross-reconstruction`."""
    source: str
    """Stream whose features or codes are read."""
    target: str
    """Stream that a reconstruction is of; otherwise the source."""


def readings(streams: Sequence[str]) -> list[Reading]:
    """Return the inputs that classifiers are trained on, in the order of the report."""
    own = [Reading(kind, name, name) for kind in ("raw", "latents", "reconstruction") for name in streams]
    return own + [Reading("cross-reconstruction", *pair) for pair in permutations(streams, 2)]


@torch.no_grad()
def read(encodings: Encodings, rows: Tensor, reading: Reading) -> Inputs:
    """Compute one kind of input for some rows, (M,): features (M, D) of the target stream, or codes of the source."""
    space, (kind, source, target) = encodings.space, reading
    if kind == "raw":
        features = encodings.features[source]
        return space.normalize({source: features[rows.to(features.device)]}).features[source]
    codes = encodings.solo[source][rows.to(encodings.solo[source].indices.device)]
    if kind == "latents":
        return codes
    return torch.cat([space.decode(codes[chunk], target) for chunk in chunks(len(codes))])


def precision(inputs: Inputs, has_MC: NDArray[np.bool_], n_train: int, hidden: tuple[int, ...], seed: int) -> float:
    """Train a classifier on the first `n_train` samples; return its mean average precision on the others."""
    scaled = scale(inputs, n_train)
    device = (inputs.values if isinstance(inputs, Codes) else inputs).device
    layers = learn(scaled[:n_train], torch.from_numpy(has_MC[:n_train]).to(device), hidden, seed)
    return average_precision(scores(layers, scaled[n_train:]), has_MC[n_train:])


@torch.no_grad()
def scale(inputs: Inputs, n_train: int) -> Inputs:
    """Scale inputs by the statistics of the first `n_train` samples, in float32.

    Features are standardised; a constant feature becomes 0. Codes are not centred, so that they stay sparse: each
    latent is divided by the RMS of its nonzero activations, so that rare latents are not larger than frequent ones.
    Then all are divided by one number that gives them the mean square of standardised features. A latent that is never
    active becomes 0.
    """
    if isinstance(inputs, Codes):
        seen = inputs[:n_train]
        latents, squares = seen.indices.flatten(), seen.values.flatten().double().square()
        squares_L = squares.new_zeros(seen.n_latents).index_add_(0, latents, squares)
        active_L = squares.new_zeros(seen.n_latents).index_add_(0, latents, (squares > 0).double())
        share = active_L.sum() / (n_train * seen.n_latents)
        factor_L = torch.where(active_L > 0, (active_L / squares_L / share).sqrt(), 0)
        return Codes(inputs.indices, (inputs.values * factor_L[inputs.indices]).float(), inputs.n_latents)
    inputs = inputs.float()
    spread_D, mean_D = torch.std_mean(inputs[:n_train], dim=0, correction=0)
    # A constant feature differs from its mean by rounding error, which must not be scaled up to unit variance.
    spread_D = torch.where(spread_D > 1e-5 * mean_D.abs(), spread_D, torch.inf)
    return (inputs - mean_D).div_(spread_D)


def learn(inputs: Inputs, has_MC: Tensor, hidden: tuple[int, ...], seed: int) -> Layers:
    """Fit a classifier of all labels at once by AdamW.

    The loss is the log-loss, mean over labels. has_MC: bool, the labels of each sample; some samples have each label,
    and some lack it. hidden: widths of the hidden layers, () for a linear classifier.
    """
    generator = torch.Generator().manual_seed(seed)
    layers = _initial(inputs, has_MC, hidden, generator)
    optimizer = torch.optim.AdamW(
        [parameter for layer in layers for parameter in layer], lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY
    )
    n_batches = ceil(len(inputs) / BATCH)
    for _ in range(max(EPOCHS, ceil(STEPS / n_batches))):
        order_M = torch.randperm(len(inputs), generator=generator).to(has_MC.device)
        for batch_B in order_M.tensor_split(n_batches):
            optimizer.zero_grad()
            loss = F.binary_cross_entropy_with_logits(logits(layers, inputs[batch_B]), has_MC[batch_B].float())
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return layers


def _initial(inputs: Inputs, has_MC: Tensor, hidden: tuple[int, ...], generator: torch.Generator) -> Layers:
    """Draw the initial weights. The last layer starts at 0 with the labels' frequencies as biases."""
    width = inputs.n_latents if isinstance(inputs, Codes) else inputs.shape[1]
    layers = []
    for units in hidden:
        weight = torch.empty(width, units).uniform_(-(width**-0.5), width**-0.5, generator=generator)
        layers.append((weight, torch.zeros(units)))
        width = units
    layers.append((torch.zeros(width, has_MC.shape[1]), torch.logit(has_MC.float().mean(dim=0))))
    return [(w.to(has_MC.device).requires_grad_(), b.to(has_MC.device).requires_grad_()) for w, b in layers]


def logits(layers: Layers, inputs: Inputs) -> Tensor:
    """Return the log-odds of every label per sample, (M, C). Of codes, the first layer reads the kept latents only."""
    (weight, bias), *others = layers
    if isinstance(inputs, Codes):
        out = weighted_rows(inputs.indices, inputs.values.unsqueeze(1), weight).squeeze(1) + bias
    else:
        out = inputs @ weight + bias
    for weight, bias in others:
        out = torch.relu(out) @ weight + bias
    return out


@torch.no_grad()
def scores(layers: Layers, inputs: Inputs) -> NDArray[np.float32]:
    """Return the log-odds (M, C) of all samples, computed in chunks."""
    scored_MC: NDArray[np.float32] = torch.cat(
        [logits(layers, inputs[rows]).cpu() for rows in chunks(len(inputs))]
    ).numpy()
    return scored_MC


def average_precision(scores_MC: NDArray[np.float32], has_MC: NDArray[np.bool_]) -> float:
    """Return the average precision of the samples ranked by a label's scores, mean over labels.

    Scores that are not finite tie at the end, so that a diverged space does not look good.
    """
    from sklearn.metrics import average_precision_score

    scores_MC = np.where(np.isfinite(scores_MC), scores_MC, np.finfo(np.float32).min)
    return float(
        np.mean([average_precision_score(has, scores) for has, scores in zip(has_MC.T, scores_MC.T, strict=True)])
    )
