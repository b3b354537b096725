"""One call of a frozen backbone, in the precision of the features."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from sparc.errors import PluginError


def forward(run: Callable[[Any], Any], inputs: Any, device: str, precision: str = "float32") -> Any:
    """Run a function of a backbone on a batch that is on its device, without a graph.

    precision: of the matrix products, by autocast: float32, bfloat16 or float16.
    """
    lower = precision != "float32"
    kind = torch.device(device).type
    with (
        torch.inference_mode(),
        contextlib.nullcontext() if lower else _all_bits(),
        torch.autocast(kind, getattr(torch, precision), enabled=lower),
    ):
        return run(inputs)


@contextlib.contextmanager
def _all_bits() -> Iterator[None]:
    """Compute convolutions on a GPU in float32; TF32, the default, keeps ten bits of the mantissa."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def check_features(name: str, output: Any, shape: tuple[int, ...]) -> None:
    """Raise PluginError unless the output of a backbone is a floating-point tensor of a shape."""
    if not isinstance(output, Tensor) or output.shape != shape or not output.is_floating_point():
        found = f"{output.dtype} {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise PluginError(
            f"backbone '{name}': expected a floating-point tensor of shape {shape}, found {found}",
            hint="fix its forward or its width",
        )
