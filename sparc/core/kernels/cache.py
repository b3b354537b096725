"""Sizes of blocks that fit in a CPU's cache."""

from __future__ import annotations

from torch import Tensor

BLOCK = 640 * 1024
"""Numbers of a table's gradient in one block on the CPU: 2.5 MB, which fit beside the block's weights and moments."""
FEWEST = 64
"""Smallest number of latents in a block."""
CACHED = 2**21
"""Numbers that the cache holds while they are read many times: 8 MB."""
COLUMNS = 128
"""Columns that are summed at a time if the rows of a sum exceed `CACHED`."""
OFTEN = 4
"""Entries per latent, on average, from which summing some columns at a time pays."""


def tiles(length: int, size: int) -> list[slice]:
    """Return ranges of at most `size` that cover `length`, or one empty range if `length` is 0."""
    return [slice(start, min(start + size, length)) for start in range(0, length, size)] or [slice(0, 0)]


def blocks(n_latents: int, like_ND: Tensor, together: int = 1) -> list[slice]:
    """Return ranges of the latents of a table as wide as `like_ND`: `together` blocks each on the CPU, else all."""
    in_block = max(FEWEST, BLOCK // max(1, like_ND.shape[1]))
    return tiles(n_latents, together * in_block if like_ND.device.type == "cpu" else n_latents)
