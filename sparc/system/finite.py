"""Find the weights that are not finite, which a diverged training or a damaged file leaves behind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_MASK = "mask"
"""Part of the names of attention masks, which may hold infinities."""


def not_finite(state: Mapping[str, Tensor]) -> str | None:
    """Return the name of the first floating-point tensor with a number that is not finite, with what it holds.

    None if there is none. Attention masks are passed over.
    """
    for name, tensor in state.items():
        if not tensor.is_floating_point() or tensor.is_quantized or _MASK in name.rpartition(".")[2]:
            continue
        if _may_be_finite(tensor):
            continue
        values = tensor.float() if tensor.element_size() < 4 else tensor
        wrong = int((~values.isfinite()).sum())
        if wrong:
            return f"{name}, in which {wrong:,} of {tensor.numel():,} numbers are NaN or infinite"
    return None


def _may_be_finite(tensor: Tensor) -> bool:
    """Return True if the sum is finite, which takes a fraction of the time that looking at each number takes."""
    import torch

    if tensor.element_size() < 2:  # eight bits: torch has no sum of them
        return False
    return bool(tensor.sum(dtype=torch.float32 if tensor.element_size() < 4 else None).isfinite())
