"""Find what goes wrong in a training: numbers that are not finite, and norms that stand out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from sparc.config import TrainingConfig
from sparc.core.losses import Term, total
from sparc.errors import BadFeatures
from sparc.training.loader import Loader, TrainingFeatures, batches

LOWER = "lower --lr, with another --out; the features are kept"
HUGE = 1e15
"""Features above this are named: their squares may leave float32."""
STANDS_OUT = 10.0
"""A norm is an outlier if it is this many times the mean of the others since the last log."""


class Diverged(Exception):
    """A term of the loss that is not finite, before the weights were updated by it."""

    def __init__(self, step: int, term: str, value: float) -> None:
        """Store the step, the term and its value."""
        super().__init__(f"the loss term '{term}' is {value} at step {step}")
        self.step, self.term = step, term


def check_terms(terms: Sequence[Term], step: int) -> None:
    """Raise Diverged for the first term of a step that is not finite. On a GPU this waits for the step."""
    if terms and not total(terms).isfinite():
        values = {term.name: term.value.item() for term in terms}
        wrong = next((name for name, value in values.items() if not math.isfinite(value)), None)
        raise Diverged(step, wrong or "the weighted sum", values.get(wrong or "", math.inf))


def diverged(
    error: Diverged, features: TrainingFeatures | None, config: TrainingConfig, *, back: int = 1
) -> BadFeatures:
    """Return the error of a divergence; it names the feature that caused it, if one in the last `back` batches did."""
    if features is None:  # without a store they are gone; those that are not finite were refused when they came
        return BadFeatures(str(error), hint=LOWER)
    steps = range(max(1, error.step - back + 1), error.step + 1)
    found = next(filter(None, (odd_feature(features, config, step) for step in steps)), None)
    if found is None:
        return BadFeatures(str(error), hint=LOWER)
    return BadFeatures(
        f"{error}: {found}",
        hint="the files of these features were changed, or the backbone made that; check them, and resume: the last "
        "checkpoint is from before",
    )


def odd_feature(features: TrainingFeatures, config: TrainingConfig, step: int) -> str | None:
    """Return in words which feature of a step's batch is not finite, or so large that its square is not; or None."""
    loader = Loader(features, config, start=step - 1)
    raw, samples = next(iter(loader)), next(batches(loader.n_samples, config, start=step - 1))
    ids = getattr(features, "ids", None)
    for stream, x_BD in raw.items():
        largest_B = x_BD.double().abs().amax(dim=1)  # NaN if a feature is
        odd_B = ~(largest_B <= HUGE)
        if odd_B.any():
            place = int(odd_B.nonzero()[0])
            sample = int(samples[place])
            name = f"'{ids[sample]}'" if ids is not None else f"number {sample}"
            return f"stream '{stream}' has the feature {float(largest_B[place]):.3g} at sample {name}"
    return None


class Norms:
    """Mean and largest of the norms of features and gradients since the last log. Part of a checkpoint."""

    def __init__(self, names: Iterable[str], device: torch.device) -> None:
        """Start without norms; `names` are those of what is measured, in the log."""
        self.names = list(names)
        self.sums = torch.zeros(len(self.names), 3, device=device)
        """Sum, count and largest, per name."""

    def add(self, norms: Mapping[str, Tensor]) -> None:
        """Add norms, (N,) per name. Nothing waits for the device."""
        for row, name in zip(self.sums, self.names, strict=True):
            if name in norms:
                row[0] += norms[name].sum()
                row[1] += norms[name].numel()
                row[2] = torch.maximum(row[2], norms[name].max())

    def outliers(self) -> dict[str, float]:
        """Return the largest norm by name, `outlier/NAME`, where it stands out; then begin anew."""
        found = {}
        for name, (summed, count, largest) in zip(self.names, self.sums.tolist(), strict=True):
            if count > 1 and largest > STANDS_OUT * (summed - largest) / (count - 1) > 0:
                found[f"outlier/{name}"] = largest
        self.sums.zero_()
        return found
