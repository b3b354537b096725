"""The kernel backend for a table: a compiled one if its compiler is installed and pays, else PyTorch's operators.

The docstring of this package says how to add a backend, for AMD GPUs too.
"""

from __future__ import annotations

import functools
import importlib.util
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from sparc.core.kernels.plain import PLAIN
from sparc.core.kernels.protocol import Kernels

WORTH_COMPILING = 2**22
"""Weights of a table from which Numba pays on the CPU: smaller ones do not repay a second of loading and compiling."""


def kernels(like: Tensor, numel: int | None = None) -> Kernels:
    """Return the backend for a table with the dtype and device of `like`.

    `numel`: size of the table; default `like.numel()`.
    """
    if like.dtype != torch.float32:
        return PLAIN
    if like.device.type == "cpu" and (like.numel() if numel is None else numel) >= WORTH_COMPILING:
        return _numba()
    return _triton() if like.device.type == "cuda" else PLAIN


@functools.cache
def _numba() -> Kernels:
    def load() -> Kernels:
        from sparc.core.kernels.numba_cpu import NumbaKernels

        return NumbaKernels()

    return _load("numba", load)


@functools.cache
def _triton() -> Kernels:
    def load() -> Kernels:
        from sparc.core.kernels.triton_gpu import TritonKernels

        return TritonKernels()

    return _load("triton", load)


def _load(library: str, load: Callable[[], Kernels]) -> Kernels:
    """Load a compiled backend; use PyTorch's operators if its compiler is missing, or warn if it does not work."""
    if importlib.util.find_spec(library) is None:
        return PLAIN
    try:
        return load()
    except (ImportError, RuntimeError, OSError) as error:
        warnings.warn(f"{library} does not work here, so training is slower: {error}", RuntimeWarning, stacklevel=2)
        return PLAIN
