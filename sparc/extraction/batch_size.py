"""How many samples to compute at once: found from the memory that they take."""

from __future__ import annotations

from collections.abc import Callable

LARGEST = 32
"""Samples of a batch on the CPU, which more would not make faster."""
LARGEST_ON_GPU = 1024
INPUT_BYTES = 256 << 20
"""Of a batch's inputs at most: each of up to 16 data-loading workers holds two batches in the machine's memory."""
SHARE = 0.5
"""Of a GPU's free memory that a batch may take."""
FEW, MORE = 2, 8
"""Samples whose memory is measured."""


def fitting_inputs(sample_bytes: int, largest: int) -> int:
    """Find the largest power of two of samples, `largest` at most, whose inputs take at most INPUT_BYTES."""
    return _power_of_two(INPUT_BYTES / max(1, sample_bytes), largest)


def fitting_memory(peak: Callable[[int], int], free: int, largest: int) -> int:
    """Find the largest power of two of samples, `largest` at most, that take no more than SHARE of `free` bytes.

    `peak(count)` computes so many samples and returns the bytes they took; what more of them take is on the line
    through two of its values.
    """
    few, more = peak(FEW), peak(MORE)
    each = max(1.0, (more - few) / (MORE - FEW))
    return _power_of_two((SHARE * free - max(0.0, few - FEW * each)) / each, largest)


def _power_of_two(most: float, largest: int) -> int:
    return 1 << (max(1, min(int(most), largest)).bit_length() - 1)
