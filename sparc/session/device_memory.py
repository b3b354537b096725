"""Memory that a training and an evaluation take on a GPU, by formula: for a machine without one."""

from __future__ import annotations

from collections.abc import Mapping

from sparc.config import RunConfig

MANY_SAMPLES, MANY_LATENTS = 2048, 65536
"""Samples and latents whose logits are on the GPU at a time, as in `core.topk`, which imports torch."""
SCORES, QUERIES, CHUNK = 2**25, 512, 1024
"""Scores and queries of a search at a time, and samples that are encoded at a time, as in `evaluation`."""


def parameter_bytes(config: RunConfig, widths: Mapping[str, int]) -> int:
    """Return the bytes of a space's parameters in float32."""
    total = sum(widths.values())
    return 4 * (2 * config.n_latents * total + len(widths) * config.n_latents + total)


def training_bytes(config: RunConfig, widths: Mapping[str, int]) -> int:
    """Return the bytes of parameters, Adam's moments, and the larger of a step's batch and the moments' sums."""
    total, streams, size = sum(widths.values()), len(widths), config.batch_size
    parameters = parameter_bytes(config, widths)
    adam = parameters if config.adam_state == "bfloat16" else 2 * parameters
    inputs = 6 * 4 * size * total  # raw and normalised features, those with dropout, and guesses
    residuals = 2 * 4 * size * streams * total
    logits = 4 * (streams + 2) * min(size, MANY_SAMPLES) * min(config.n_latents, MANY_LATENTS)
    products = 3 * 8 * total * total  # of all samples, in float64, of two parts and their sum
    return parameters + adam + max(inputs + residuals + logits, products)


def evaluation_bytes(config: RunConfig, widths: Mapping[str, int], held_out: int) -> int:
    """Return the bytes of parameters, features, codes, and the larger of a search's scores and a chunk's logits."""
    total, streams = sum(widths.values()), len(widths)
    features = 4 * held_out * total
    codes = 3 * 12 * held_out * streams * config.k  # joint, solo, and solo without completion: int64 and float32
    searched = 3 * 4 * min(SCORES, QUERIES * held_out)
    decoded = 3 * 4 * held_out * max(widths.values())
    encoded = 4 * (streams + 2) * CHUNK * min(config.n_latents, MANY_LATENTS)
    return parameter_bytes(config, widths) + features + codes + max(searched + decoded, encoded)
