"""The number of samples to compute at once, from the memory that they take."""

from __future__ import annotations

from collections.abc import Callable

LARGEST = 32
"""Largest batch on the CPU; larger ones are no faster."""
LARGEST_ON_GPU = 1024
INPUT_BYTES = 256 << 20
"""Largest size of a batch's inputs: each of up to 16 data-loading workers holds two batches in main memory."""
GPU_FRACTION = 0.5
"""Fraction of a GPU's free memory that a batch may take."""
FEW, MORE = 2, 8
"""Sample counts at which the memory is measured."""


def fitting_inputs(sample_bytes: int, largest: int) -> int:
    """Return the largest power of two, at most `largest`, of samples whose inputs take at most INPUT_BYTES."""
    return _power_of_two(INPUT_BYTES / max(1, sample_bytes), largest)


def fitting_memory(peak: Callable[[int], int], free: int, largest: int) -> int:
    """Return the largest power of two, at most `largest`, of samples that take at most GPU_FRACTION of `free` bytes.

    `peak(count)` computes `count` samples and returns the bytes they took. Memory is extrapolated linearly from its
    values at FEW and MORE samples.
    """
    few, more = peak(FEW), peak(MORE)
    each = max(1.0, (more - few) / (MORE - FEW))
    return _power_of_two((GPU_FRACTION * free - max(0.0, few - FEW * each)) / each, largest)


def _power_of_two(most: float, largest: int) -> int:
    return 1 << (max(1, min(int(most), largest)).bit_length() - 1)
