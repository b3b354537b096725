"""The kernels compiled by Numba for the CPU, with Adam fused into the sums of the gradient.

One thread computes each float of a result, in one order, so the same input gives the same bits. Numba may reassociate
sums to use vector instructions; values that are not finite stay so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sparc.core.kernels import cache
from sparc.core.kernels import numba_loops as loops
from sparc.core.kernels.entries import LatentSum
from sparc.core.kernels.plain import PlainKernels
from sparc.core.kernels.protocol import AdamStep


class NumbaKernels(PlainKernels):
    """Loops in `numba_loops` over the tensors' memory; see `Kernels`."""

    def __init__(self) -> None:
        """Start Numba's threads. With OpenMP that sets the number of PyTorch's threads too, so it is set back."""
        threads = torch.get_num_threads()
        _match_threads()
        torch.set_num_threads(threads)

    def weighted_rows(self, indices_BK: Tensor, values_BGK: Tensor, table_LD: Tensor) -> Tensor:
        """See `Kernels`. Raises IndexError for an index beyond the table, which would read beyond its memory."""
        _check_indices(indices_BK, table_LD)
        summed = values_BGK.new_empty(*values_BGK.shape[:2], table_LD.shape[1])
        _match_threads()
        loops.weighted_rows(*_arrays(indices_BK, values_BGK, table_LD), summed.numpy())
        return summed

    def entry_dots(self, vectors_BGD: Tensor, table_LD: Tensor, indices_BK: Tensor) -> Tensor:
        """See `Kernels`. Raises IndexError for an index beyond the table: the loop would write beyond its memory."""
        _check_indices(indices_BK, table_LD)
        if not table_LD.is_contiguous():  # a slice of columns: copy only the rows that are used
            latents, indices_BK = torch.unique(indices_BK, return_inverse=True)
            table_LD = table_LD[latents]
        dots = vectors_BGD.new_empty(*vectors_BGD.shape[:2], indices_BK.shape[1])
        _match_threads()
        loops.entry_dots(*_arrays(vectors_BGD, table_LD, indices_BK), dots.numpy(), cache.CACHED)
        return dots

    def sum_by_latent(self, summed: LatentSum) -> Tensor:
        """See `Kernels`."""
        if summed.out_of_cache:
            return super().sum_by_latent(summed)
        sums = summed.vectors.new_empty(summed.entries.n_latents, summed.vectors.shape[1])
        _match_threads()
        loops.sum_by_latent(*_operands(summed), sums.numpy())
        return sums

    def dots_by_latent(self, summed: LatentSum, table_LD: Tensor) -> Tensor:
        """See `Kernels`."""
        return self._dots_by_sample(summed, table_LD)

    def sum_with_dots(self, summed: LatentSum, table_LD: Tensor) -> tuple[Tensor, Tensor]:
        """See `Kernels`; both come from one pass over the vectors."""
        sums, dots = torch.empty_like(table_LD), torch.empty_like(summed.values)
        _match_threads()
        loops.sum_with_dots(_entries(summed, dots), *_arrays(table_LD), sums.numpy(), _portions(summed))
        return sums, dots

    def update_by_latent(
        self,
        sums: Sequence[tuple[LatentSum, slice]],
        table: Tensor,
        moments: tuple[Tensor, Tensor],
        step: AdamStep,
        unit_ends: Sequence[int] | None,
    ) -> list[Tensor] | None:
        """See `Kernels`. If the vectors exceed the cache, a group's gradients take as much memory as the vectors."""
        width = table.shape[1]
        dots = [torch.empty_like(summed.values) for summed, _ in sums]
        _match_threads()
        every = (_entries(summed, each) for (summed, _), each in zip(sums, dots, strict=True))
        loops.update_by_latent(
            loops.Entries(*zip(*every, strict=True)),
            np.array([columns.indices(width)[:2] for _, columns in sums]),
            tuple(_in_place(tensor) for tensor in (table, *moments)),
            np.array([] if unit_ends is None else unit_ends, dtype=np.int64),
            np.array(step, dtype=np.float32),
            _portions(sums[0][0]),
        )
        return dots

    def project_directions(self, gradient: Tensor, table: Tensor, ends: Sequence[int]) -> bool:
        """See `Kernels`; for a contiguous gradient."""
        if not gradient.is_contiguous():
            return False
        _match_threads()
        loops.project_directions(_in_place(gradient), *_arrays(table), np.array(ends))
        return True

    def normalize_directions(self, table: Tensor, ends: Sequence[int]) -> bool:
        """See `Kernels`; for a contiguous table."""
        if not table.is_contiguous():
            return False
        _match_threads()
        loops.normalize_directions(_in_place(table), np.array(ends))
        return True

    def round_rows(self, table_LD: Tensor, rounded_LR: Tensor, first: int, squares_L2: Tensor) -> bool:
        """See `Kernels`."""
        _match_threads()
        loops.round_rows(*_arrays(table_LD), _in_place(rounded_LR.view(torch.int16)), first, squares_L2.numpy())
        return True


def _portions(summed: LatentSum) -> loops.Portions:
    """Return how many latents a thread sums together, and how many floats of the vectors it reads at a time."""
    if not summed.out_of_cache:
        return loops.Portions(1, np.iinfo(np.int64).max)
    n_latents = summed.entries.n_latents
    rounds = -(-n_latents // len(summed.vectors))  # in each round every thread has one group
    return loops.Portions(-(-n_latents // (rounds * numba.get_num_threads())), cache.CACHED)


def _operands(summed: LatentSum) -> tuple[NDArray[Any], ...]:
    return _arrays(summed.positions, summed.weights, summed.vectors, summed.starts)


def _entries(summed: LatentSum, dots: Tensor) -> loops.Entries:
    positions, values, vectors, starts = _operands(summed)
    return loops.Entries(positions, values, vectors, starts, dots.flatten().numpy())


def _arrays(*tensors: Tensor) -> tuple[NDArray[Any], ...]:
    return tuple(tensor.detach().contiguous().numpy() for tensor in tensors)


def _in_place(tensor: Tensor) -> NDArray[Any]:
    assert tensor.is_contiguous(), "the result would go to a copy"
    return tensor.detach().numpy()


def _check_indices(indices_BK: Tensor, table_LD: Tensor) -> None:
    if indices_BK.numel() and not 0 <= int(indices_BK.min()) <= int(indices_BK.max()) < len(table_LD):
        raise IndexError(f"a latent is not in the table of {len(table_LD)}")


def _match_threads() -> None:
    numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))
