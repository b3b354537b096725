"""Each Triton kernel beside PyTorch's operators in float64 on the CPU."""

import torch

from sparc.core.kernels import LatentSum, SortedEntries
from sparc.core.kernels.plain import PLAIN

TOLERANCE = 1e-5
"""Largest error of a float32 sum, relative to the largest sum."""
SHAPES = [(5, 3, 4, 70, 90), (4, 1, 1, 16, 90), (3, 2, 66, 300, 90), (2048, 3, 64, 2560, 8192)]
"""Samples, streams that share latents, kept latents, width, latents."""


def measure(settings):
    """Compare every kernel in every shape; the result must be right, and the same bits in a second run."""
    from sparc.core.kernels.triton_gpu import TritonKernels  # noqa: PLC0415  not every machine has Triton

    triton = TritonKernels()
    return [compare(triton, shape, settings.device) for shape in (SHAPES[:3] if settings.small else SHAPES)]


def compare(triton, shape, device):
    samples, streams, kept, width, latents = shape
    generator = torch.Generator().manual_seed(0)
    indices = torch.rand(samples, latents, generator=generator).topk(kept, dim=1).indices
    values = torch.randn(samples, streams, kept, generator=generator)
    table = torch.randn(latents, width, generator=generator)
    vectors = torch.randn(samples, streams, width, generator=generator)

    def results(kernels, place, dtype):
        at = indices.to(place)
        some = [tensor.to(place, dtype) for tensor in (values, table, vectors)]
        entries = SortedEntries(at, latents)
        summed = LatentSum(entries, entries.in_order(some[0]), some[2])
        return {
            "weighted_rows": kernels.weighted_rows(at, some[0], some[1]),
            "entry_dots": kernels.entry_dots(some[2], some[1], at),
            "sum_by_latent": kernels.sum_by_latent(summed),
            "dots_by_latent": kernels.dots_by_latent(summed, some[1]),
        }

    found = results(triton, device, torch.float32)
    again = results(triton, device, torch.float32)
    expected = results(PLAIN, "cpu", torch.float64)
    errors = {
        name: ((found[name].double().cpu() - right).abs().max() / right.abs().max()).item()
        for name, right in expected.items()
    }
    same = all(torch.equal(found[name], again[name]) for name in found)
    return {
        "what": "x".join(map(str, shape)),
        **errors,
        "same bits again": same,
        "right": same and max(errors.values()) < TOLERANCE,
    }
