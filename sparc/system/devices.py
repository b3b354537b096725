"""Devices to compute on, in words of this program: those of PyTorch name its own insides."""

from __future__ import annotations

from sparc.errors import counted


def no_device(device: str) -> str:
    """Return why a device cannot be used, as the message of an error."""
    import torch

    kind, _, number = device.partition(":")
    why = "there is no device of this name"
    if kind == "cuda" and (number.isdecimal() or not number):
        count = torch.cuda.device_count()
        why = f"PyTorch finds {counted(count, 'GPU') if count else 'no GPU'}"
        if torch.version.cuda is None:
            why = "this PyTorch is built without CUDA"
    elif kind in ("mps", "xpu"):
        why = "this machine or this PyTorch has none"
    return f"'{device}' is not available: {why}"


def devices() -> str:
    """Return the devices that can be used here, as the hint of an error."""
    import torch

    gpus = [f"cuda:{number}" for number in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return f"auto, cpu, cuda, cuda:1, ...; here: {', '.join(('auto', 'cpu', *gpus))}"
