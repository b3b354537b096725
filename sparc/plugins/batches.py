"""Batches as backbones preprocess them: one tensor, or a dict of tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def tensors(batch: Any) -> list[Tensor]:
    """Return the tensors of a batch, each (B, ...)."""
    return list(batch.values()) if isinstance(batch, dict) else [batch]


def mapped(batch: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """Return the batch with `function` applied to each tensor."""
    if isinstance(batch, dict):
        return {key: function(value) for key, value in batch.items()}
    return function(batch)
