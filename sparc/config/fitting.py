"""Fit the options that nobody set to the number of training samples. At the paper's size they have its values.

The rule comes from runs on 80 to 1,147 pairs of the demo and on planted data, which `docs/how-to/train.md` shows.
"""

from __future__ import annotations

import math

from sparc.config.options import RunConfig
from sparc.errors import counted

PAPER = RunConfig()
"""The defaults of the options, which are the paper's."""
SAMPLES_PER_LATENT = 2
"""Training samples for each latent: with fewer, latents learn single samples."""
FEWEST_LATENTS = 16
STEPS = 300
"""Least number of steps: with fewer, the decoders have not left their random start."""
FAST = 1e-3
"""Learning rate of a short training."""
SHORT = 1000
"""Most steps of a short training. Beyond, the rate falls with the square root of their number."""
LIFETIMES = 10
"""A latent counts as dead after this part of all training samples, so that AuxK acts in short trainings too."""
FITTED = ("n_latents", "k", "epochs", "lr", "dead_after")


def fitted(config: RunConfig, samples: int) -> RunConfig:
    """Return a configuration whose unset options fit a number of training samples. The paper's recipe is left as it is.

    - Latents: half as many as samples, rounded down to a power of two, at least 16, at most the paper's 8,192.
    - Latents kept: the square root of half of them, 64 of 8,192 and 16 of 512.
    - Epochs: 50, or as many as 300 steps take.
    - Learning rate: 1e-3 up to 1,000 steps, then falling with the square root of their number to the paper's 1e-4.
    - Dead after: a tenth of the training, at most the paper's 256,000 samples.
    """
    if config.recipe == "paper":
        return config
    free = [name for name in FITTED if name not in config.model_fields_set]
    found: dict[str, float] = {name: getattr(config, name) for name in FITTED}
    if "n_latents" in free:
        least = FEWEST_LATENTS if "k" in free else _power_of_two(4 * config.k - 1) * 2
        found["n_latents"] = max(least, min(PAPER.n_latents, _power_of_two(samples / SAMPLES_PER_LATENT)))
    if "k" in free:
        found["k"] = min(int(found["n_latents"]), max(1, round(math.sqrt(found["n_latents"] / 2))))
    per_epoch = max(1, samples // config.batch_size)
    if "epochs" in free:
        found["epochs"] = max(PAPER.epochs, math.ceil(STEPS / per_epoch))
    steps = per_epoch * int(found["epochs"])
    if "lr" in free:
        found["lr"] = max(PAPER.lr, _rounded(FAST * math.sqrt(min(1.0, SHORT / steps))))
    if "dead_after" in free:
        found["dead_after"] = max(1, min(PAPER.dead_after, samples * int(found["epochs"]) // LIFETIMES))
    return config.model_copy(update={name: found[name] for name in free})


def described(config: RunConfig, chosen: RunConfig, samples: int) -> str:
    """Return one line on the size of a training: samples, steps, latents, and which options the samples set."""
    per_epoch = max(1, samples // chosen.batch_size)
    size = min(chosen.batch_size, samples)
    steps, epochs = counted(per_epoch * chosen.epochs, "step"), counted(chosen.epochs, "epoch")
    text = (
        f"{samples:,} training samples, {steps} of {size} ({epochs}), {chosen.n_latents:,} latents, {chosen.k} kept, "
        f"learning rate {chosen.lr:g}"
    )
    if config.recipe == "paper":
        return f"{text}; options that were not set are the paper's"
    free = [name for name in FITTED if name not in config.model_fields_set]
    shown = [name.replace("_", "-") for name in free]
    return f"{text}; {', '.join(shown)} fit the number of samples" if shown else text


def _power_of_two(value: float) -> int:
    """Return the largest power of two that is at most `value`; 1 below 2."""
    return int(2 ** math.floor(math.log2(value))) if value >= 1 else 1


def _rounded(value: float) -> float:
    """Return a number with two significant digits."""
    return float(f"{value:.1e}")
