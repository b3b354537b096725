"""Which kernels do the sums over kept entries: compiled ones where they are there, plain PyTorch everywhere else.

A backend is a module with `weighted_rows`, `entry_dots` and `sum_by_latent`; the plain ones are in `sparse`, and the
tests hold all to the same numbers. One may also make sums and products for the same reads, `sum_with_products`, take
Adam's step on the way, `update_by_latent`, and round a table to bfloat16, `round_rows`.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import warnings
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

WORTH_COMPILING = 2**22
"""Weights that a table must have on the CPU: a second of loading and compiling is not repaid by smaller ones."""


class AdamStep(NamedTuple):
    """The numbers of one step of Adam, computed in double precision: p -= rate * m / (sqrt(v) + epsilon).

    The root of the second moment's bias correction is in `rate` and `epsilon`, which saves each weight a division.
    """

    rate: float
    """Learning rate times that root, over the first moment's bias correction."""
    beta1: float
    rest1: float
    """1 - beta1."""
    beta2: float
    rest2: float
    epsilon: float
    """Adam's epsilon times that root."""


def kernels(like: Tensor, numel: int | None = None) -> ModuleType | None:
    """Compiled kernels for a table of `numel` weights of this dtype and device; None for PyTorch's own operators."""
    if like.dtype != torch.float32:
        return None
    if like.device.type == "cpu" and (like.numel() if numel is None else numel) >= WORTH_COMPILING:
        return _load("numba", "sparc.core.kernels.numba_kernels")
    return _load("triton", "sparc.core.kernels.triton_kernels") if like.device.type == "cuda" else None


@functools.cache
def _load(library: str, module: str) -> ModuleType | None:
    """Import kernels. Where their compiler is there and does not work, say so, and go on without."""
    if importlib.util.find_spec(library) is None:
        return None
    try:
        return importlib.import_module(module)
    except (ImportError, RuntimeError, OSError) as error:
        warnings.warn(f"{library} does not work here, so training is slower: {error}", RuntimeWarning, stacklevel=2)
        return None
