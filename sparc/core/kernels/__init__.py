"""Sums and products over the kept entries of a batch, on the CPU and on GPUs.

A kernel backend is an object with the methods of `protocol.Kernels`. `plain.PlainKernels` implements them by the
operators of PyTorch, on any device; Numba (CPU) and Triton (GPU) inherit from it and override what they compute faster.

To add a backend, subclass `PlainKernels` in a new module, override the methods that pay, and return it for its device
in `choose.kernels`. Compute each sum in one order, without atomics: equal inputs give equal bits.
`tests/core/test_numba_kernels.py` shows how a backend is tested against the plain one.

On ROCm, PyTorch calls the device of an AMD GPU `cuda` too, so an AMD GPU gets the Triton kernels, which we have not run
there. A backend for AMD GPUs tests `torch.version.hip` in `choose.kernels`, before Triton is chosen.

    cache      how much data to process at a time
    entries    the kept entries of a batch sorted by latent, and sums over them
    protocol   the methods of a backend
    plain      PyTorch's operators; numba_cpu (with numba_loops) and triton_gpu are the compiled backends
    choose     the backend for a table
    sparse     what the rest of the package calls, differentiable where training by autograd needs it
"""

from sparc.core.kernels.cache import blocks, tiles
from sparc.core.kernels.choose import kernels
from sparc.core.kernels.entries import LatentSum, SortedEntries
from sparc.core.kernels.plain import row_dots
from sparc.core.kernels.protocol import AdamStep, Kernels
from sparc.core.kernels.sparse import (
    dots_by_latent,
    entry_dots,
    logits_with_gradient,
    sum_by_latent,
    weighted_rows,
    weighted_sum,
)

__all__ = [
    "AdamStep",
    "Kernels",
    "LatentSum",
    "SortedEntries",
    "blocks",
    "dots_by_latent",
    "entry_dots",
    "kernels",
    "logits_with_gradient",
    "row_dots",
    "sum_by_latent",
    "tiles",
    "weighted_rows",
    "weighted_sum",
]
