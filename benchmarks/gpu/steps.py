"""The training step beside its encoder product, the naive dense step in bfloat16, and trainers of other libraries."""

import itertools

import torch

from benchmarks.gpu import peers, timing
from sparc.benchmarks.dense import DenseTraining
from sparc.config import SpaceConfig, TrainingConfig
from sparc.storage.checkpoint import SharedLatentSpace
from sparc.training.trainer import Training

WIDTHS = {"a": 1024, "b": 768, "c": 768}
SIZES = list(itertools.product((8192, 65536), (4096, 16384)))
"""Latents, samples in a batch."""
PRODUCTS = ("float32", "bfloat16")


def measure(settings):
    """Measure every size; what does not fit the memory, or the time that is left, is said."""
    widths = {"a": 24, "b": 16, "c": 16} if settings.small else WIDTHS
    k, sizes = (8, [(256, 64)]) if settings.small else (64, SIZES)
    runs = [(ours, product) for product in PRODUCTS] + [(dense, None)] + [(peer, name) for name in peers.installed()]
    return [one(run, of, (widths, latents, k, batch), settings) for latents, batch in sizes for run, of in runs]


def one(run, of, size, settings):
    """Run one measurement; one that does not fit says so."""
    row = {"what": f"L {size[1]} B {size[3]}"}
    if not settings.in_time:
        return {**row, "left out": "no time left"}
    try:
        return {**row, **run(of, size, settings)}
    except torch.OutOfMemoryError:
        return {**row, "left out": "out of memory"}
    finally:
        timing.free(settings.device)


def ours(product, size, settings):
    widths, latents, k, batch = size
    device, repeats = settings.device, 3 if settings.small else 10
    space = SharedLatentSpace(SpaceConfig(streams=widths, n_latents=latents, k=k)).to(device)
    training = Training(
        space, TrainingConfig(batch_size=batch, completion="none", encoder_product=product), lacking=False
    )
    raw = {name: torch.randn(batch, width, device=device) for name, width in widths.items()}

    def step():
        training.advance(space.normalize(raw))

    most = timing.peak(step, device)
    whole = timing.median_ms(step, device, repeats)
    bare = {dtype: product_ms(widths, latents, batch, dtype, device, repeats) for dtype in PRODUCTS}
    return {
        "step": f"sparc, {product} product",
        "ms": whole,
        "of the float32 product": whole / bare["float32"],
        "of the bfloat16 product": whole / bare["bfloat16"],
        "phases": timing.phases(step, device, repeats),
        "waits": timing.waits(step, device),
        "peak GB": None if most is None else most / 1e9,
    }


def product_ms(widths, latents, batch, dtype, device, repeats):
    """Return the milliseconds of the product of all features with all encoders, side by side."""
    width = sum(widths.values())
    inputs, weight = (torch.randn(rows, width, device=device).to(getattr(torch, dtype)) for rows in (batch, latents))
    at_once = max(1, min(batch, 2**30 // latents))  # the logits of a part are discarded, as those of a step are
    out = inputs.new_empty(at_once, latents)

    def product():
        for first in range(0, batch, at_once):
            some = inputs[first : first + at_once]
            torch.mm(some, weight.T, out=out[: len(some)])

    return timing.median_ms(product, device, repeats)


def dense(_, size, settings):
    """Measure the naive step: every code dense, in bfloat16 by autocast."""
    widths, latents, k, batch = size
    device = settings.device
    space = SharedLatentSpace(SpaceConfig(streams=widths, n_latents=latents, k=k)).to(device)
    features = space.normalize({name: torch.randn(batch, width, device=device) for name, width in widths.items()})
    training = DenseTraining(space, TrainingConfig(batch_size=batch))
    del space

    def step():
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            training.advance(features)

    most = timing.peak(step, device)
    return {
        "step": "dense, bfloat16",
        "ms": timing.median_ms(step, device, 3),
        "peak GB": None if most is None else most / 1e9,
    }


def peer(name, size, settings):
    widths, latents, k, batch = size
    step = peers.PEERS[name](sum(widths.values()), latents, k, batch, settings.device)
    most = timing.peak(step, settings.device)
    return {
        "step": name,
        "ms": timing.median_ms(step, settings.device, 3 if settings.small else 5),
        "peak GB": None if most is None else most / 1e9,
    }
