"""Measure the cost of a map on top of the model: time per image and peak memory.

    uv run python benchmarks/localize.py --stream 'dinov2[weights=random]' --repeat 10

Loads a backbone, makes an untrained space of 8,192 latents, k = 64, with a text stream of 384 features, and looks for a
caption in one image. Measures a forward pass without gradient, a forward and backward pass from the target to the
pixels, and each method with its own forward pass. Prints one JSON object: milliseconds (medians, measured in turns) and
MiB (peak of tensors above those allocated before).
"""

import argparse
import json
import statistics
import sys
import time
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch.profiler import ProfilerActivity, profile

from sparc.config import SpaceConfig, reference
from sparc.errors import PluginError
from sparc.localization.request import METHODS
from sparc.localization.targets import similarity
from sparc.localization.view import View
from sparc.models import Models
from sparc.plugins.contracts import Sample
from sparc.plugins.registry import checked_params, discover
from sparc.storage.checkpoint import SharedLatentSpace
from sparc.system.memory import keep_freed_memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stream", default="dinov2[weights=random]")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeat", type=int, default=10)
    options = parser.parse_args()
    keep_freed_memory()
    torch.manual_seed(0)
    registry, ref = discover(), reference(options.stream)
    spec = registry.backbone(ref.name)
    backbone = spec.load(checked_params(spec, ref), options.device)
    space = SharedLatentSpace(SpaceConfig(streams={"image": backbone.width, "text": 384}, n_latents=8192, k=64))
    models = Models(
        space.to(options.device).eval().requires_grad_(False), {"image": backbone}, {"image": "image"}, options.device
    )
    pixels = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    sample = Sample("noise", partial(Image.fromarray, pixels))
    target = similarity(space, "image", "text", torch.randn(1, 384, device=options.device), joint=True)

    def forward() -> None:
        with torch.inference_mode():
            backbone.forward(fresh().batch)

    def backward() -> None:
        leaf = fresh().batch.requires_grad_()
        target(backbone.forward(leaf)).sum().backward()

    def fresh() -> View:
        view = View(models, "image", sample)
        view.__dict__["batch"] = batch.clone()
        return view

    batch = View(models, "image", sample).batch
    works = {"forward": forward, "forward and backward of the target": backward}
    for method in METHODS:
        try:
            fresh().map(method, target)
            works[method] = lambda method=method: fresh().map(method, target)
        except PluginError as error:
            print(error.message, file=sys.stderr)
    times = {name: [] for name in works}
    for _ in range(options.repeat):
        for name, work in works.items():
            began = time.perf_counter()
            work()
            synchronize(options.device)
            times[name].append(1000 * (time.perf_counter() - began))
    found = {"stream": options.stream, "grid": backbone.grid, "device": options.device}
    for name, work in works.items():
        found[name] = {"ms": round(statistics.median(times[name]), 1), "mib": round(peak(work, options.device))}
    print(json.dumps(found, indent=2))


def synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def peak(work, device: str) -> float:
    """Return the peak memory of `work` in MiB, above what is allocated before."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        work()
    held = most = 0
    for event in profiled.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most / 2**20


if __name__ == "__main__":
    main()
