"""How well labels are read off features and codes: a linear and a small nonlinear classifier of all labels at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import permutations
from math import ceil

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from sparc.core.codes import Codes
from sparc.core.kernels import weighted_rows
from sparc.core.space import LatentSpace
from sparc.evaluation.encoding import Features, chunks
from sparc.evaluation.report import Classifier

HIDDEN = 512
"""Units of the nonlinear classifier's one hidden layer."""

BATCH = 1024
"""Samples per step at most."""

EPOCHS = 10
"""Passes over the training part at least."""

STEPS = 150
"""Steps at least: few samples are passed over more often. Many more and the linear ones would learn them by heart."""

LEARNING_RATE = 1e-3
WEIGHT_DECAY = 0.01

Inputs = Tensor | Codes
"""Of M samples: features (M, D), or codes over D latents."""

Layers = list[tuple[Tensor, Tensor]]
"""Weights (inputs, outputs) and bias (outputs,) of each layer."""


def classify(
    space: LatentSpace,
    features: Features,
    solo: Mapping[str, Codes],
    labels: csr_array,
    train: Tensor,
    test: Tensor,
    seed: int,
) -> tuple[Classifier, ...]:
    """Train on some samples, and measure the mean average precision on others, of whatever labels can be read off.

    These are each stream's normalised features, its solo code, what is rebuilt from the code of the stream itself, and
    of each other stream from it. features: (N, D) per stream; labels: (N, C), 0 or 1, each of which some of the `test`
    samples have; train, test: rows of samples that have all streams. The space is not changed, and every classifier
    starts from `seed`: on a CPU the numbers are the same again.
    """
    rows = torch.cat([train, test])
    has_MC = labels[rows.numpy()].astype(np.bool_).toarray()
    found = []
    for kind, source, target, inputs in readings(space, features, solo, rows):
        linear, mlp = (precision(inputs, has_MC, len(train), hidden, seed) for hidden in ((), (HIDDEN,)))
        found.append(Classifier(features=kind, source=source, target=target, linear=linear, mlp=mlp))
    return tuple(found)


@torch.no_grad()
def readings(
    space: LatentSpace, features: Features, solo: Mapping[str, Codes], rows: Tensor
) -> Iterator[tuple[str, str, str, Inputs]]:
    """What labels are read off, one after the other: its kind, its source stream, its target stream, and itself."""

    def coded(source: str) -> Codes:
        return solo[source][rows.to(solo[source].indices.device)]

    def decoded(source: str, target: str) -> Tensor:
        codes = coded(source)
        return torch.cat([space.decode(codes[chunk], target) for chunk in chunks(len(codes))])

    for name in space.streams:
        raw_MD = features[name][rows.to(features[name].device)]
        yield "raw", name, name, space.normalize({name: raw_MD}).features[name]
    for name in space.streams:
        yield "latents", name, name, coded(name)
    for name in space.streams:
        yield "reconstruction", name, name, decoded(name, name)
    for source, target in permutations(space.streams, 2):
        yield "cross-reconstruction", source, target, decoded(source, target)


def precision(inputs: Inputs, has_MC: NDArray[np.bool_], n_train: int, hidden: tuple[int, ...], seed: int) -> float:
    """Train a classifier on the first `n_train` samples; its mean average precision on the others."""
    scaled = scale(inputs, n_train)
    device = (inputs.values if isinstance(inputs, Codes) else inputs).device
    layers = learn(scaled[:n_train], torch.from_numpy(has_MC[:n_train]).to(device), hidden, seed)
    return average_precision(scores(layers, scaled[n_train:]), has_MC[n_train:])


@torch.no_grad()
def scale(inputs: Inputs, n_train: int) -> Inputs:
    """Bring inputs to one scale by the first `n_train` of them, in float32.

    Features are standardised; one that does not vary becomes 0. Codes are not centred, so that they stay sparse: each
    latent is divided by the RMS of its nonzero activations, so that rare ones are not larger, and all by one number
    that gives them the mean square of standardised features. A latent that is never active becomes 0.
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
    # A constant feature differs from its mean by rounding alone, which must not be made as large as the others.
    spread_D = torch.where(spread_D > 1e-5 * mean_D.abs(), spread_D, torch.inf)
    return (inputs - mean_D).div_(spread_D)


def learn(inputs: Inputs, has_MC: Tensor, hidden: tuple[int, ...], seed: int) -> Layers:
    """Fit a classifier of all labels at once by AdamW.

    has_MC: which sample has which label, bool; some have each, and some do not. hidden: the widths of its hidden
    layers, () where it is linear. What is trained for is the mean over labels of the log-loss.
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
    """Draw the first weights. The last layer starts with the labels' frequencies alone: what is not learned is 0."""
    width = inputs.n_latents if isinstance(inputs, Codes) else inputs.shape[1]
    layers = []
    for units in hidden:
        weight = torch.empty(width, units).uniform_(-(width**-0.5), width**-0.5, generator=generator)
        layers.append((weight, torch.zeros(units)))
        width = units
    layers.append((torch.zeros(width, has_MC.shape[1]), torch.logit(has_MC.float().mean(dim=0))))
    return [(w.to(has_MC.device).requires_grad_(), b.to(has_MC.device).requires_grad_()) for w, b in layers]


def logits(layers: Layers, inputs: Inputs) -> Tensor:
    """Log-odds of every label for every sample, (M, C); the first layer costs a code its kept latents alone."""
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
    """Log-odds (M, C) of all samples, a few at a time."""
    scored_MC: NDArray[np.float32] = torch.cat(
        [logits(layers, inputs[rows]).cpu() for rows in chunks(len(inputs))]
    ).numpy()
    return scored_MC


def average_precision(scores_MC: NDArray[np.float32], has_MC: NDArray[np.bool_]) -> float:
    """Mean over labels of the average precision of the order that a label's scores give the samples.

    Scores that are no numbers tie at the end: a space that went astray shall not look good.
    """
    from sklearn.metrics import average_precision_score

    scores_MC = np.where(np.isfinite(scores_MC), scores_MC, np.finfo(np.float32).min)
    return float(
        np.mean([average_precision_score(has, scores) for has, scores in zip(has_MC.T, scores_MC.T, strict=True)])
    )
