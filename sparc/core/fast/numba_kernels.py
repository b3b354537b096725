"""The sums over kept entries of `sparse`, and Adam fused with them, compiled by Numba for the CPU.

Same arguments and same meaning as the plain operators. Each row of a result is written by one thread and summed in one
order, so the same input gives the same bits. Sums may be reassociated, which is what lets them use vector instructions;
values that are not finite stay so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sparc.core.fast.backend import AdamStep

_compiled = numba.njit(parallel=True, cache=True, fastmath={"reassoc", "contract", "arcp", "nsz"})


def weighted_rows(indices_BK: Tensor, values_BGK: Tensor, table_LD: Tensor) -> Tensor:
    """Sum over j of values[b, g, j] * table[indices[b, j]]: (B, G, D)."""
    summed = values_BGK.new_empty(*values_BGK.shape[:2], table_LD.shape[1])
    _match_threads()
    _weighted_rows(*_arrays(indices_BK, values_BGK, table_LD), summed.numpy())
    return summed


def entry_dots(rows_BGD: Tensor, table_LD: Tensor, indices_BK: Tensor) -> Tensor:
    """Product of rows[b, g] and table[indices[b, j]] for each entry: (B, G, K)."""
    dots = rows_BGD.new_empty(*rows_BGD.shape[:2], indices_BK.shape[1])
    _match_threads()
    _entry_dots(*_arrays(rows_BGD, table_LD, indices_BK), dots.numpy())
    return dots


def sum_by_latent(positions_E: Tensor, values_E: Tensor, rows_ND: Tensor, starts_L1: Tensor) -> Tensor:
    """Sum over e from starts[l] to starts[l + 1] of values[e] * rows[positions[e]]: (L, D)."""
    summed = rows_ND.new_empty(len(starts_L1) - 1, rows_ND.shape[1])
    _match_threads()
    _sum_by_latent(*_arrays(positions_E, values_E, rows_ND, starts_L1), summed.numpy())
    return summed


def update_by_latent(
    sums: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]],
    columns: Sequence[tuple[int, int]],
    parameter: Tensor,
    moments: tuple[Tensor, Tensor],
    ends: Sequence[int],
    step: AdamStep,
    *,
    on_norm: bool,
) -> None:
    """Sum each latent's gradient and take Adam's step on its row of a table (L, D), while both are in the cache.

    Each of `sums` is as in `sum_by_latent`, and adds to its `columns`. `ends` are the last columns of the table's
    segments; `on_norm` keeps each segment of a row on unit norm: the gradient's part along it is removed before, and it
    is scaled back after.
    """
    written = (parameter.detach(), *moments)
    assert all(tensor.is_contiguous() for tensor in written), "a copy would be updated in place of the table"
    _match_threads()
    parts = zip(*(_arrays(*one) for one in sums), strict=True)
    numbers = np.array(step, dtype=np.float32)
    _update_by_latent(*parts, np.array(columns), *(t.numpy() for t in written), np.array(ends), numbers, on_norm)


def round_rows(table_LD: Tensor, rounded_LC: Tensor, first: int, squares_L2: Tensor) -> None:
    """Round a table (L, D) to bfloat16, into the columns of `rounded_LC` from `first` on.

    The sum of squares of each row, and that of what rounding takes from it, are added to `squares_L2`.
    """
    assert rounded_LC.is_contiguous(), "a copy would be written in place of the table"
    _match_threads()
    _round_rows(*_arrays(table_LD), rounded_LC.view(torch.int16).numpy(), first, squares_L2.numpy())


def _arrays(*tensors: Tensor) -> tuple[NDArray[Any], ...]:
    return tuple(tensor.detach().contiguous().numpy() for tensor in tensors)


def _match_threads() -> None:
    numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))


# Four rows of a table at a time: a result is then read and written a quarter as often.


@_compiled
def _weighted_rows(indices, values, table, summed):
    n_rows, n_shared, n_kept = values.shape
    for b in numba.prange(n_rows):
        summed[b] = 0
        fours = n_kept - n_kept % 4
        for j in range(0, fours, 4):
            row0, row1 = table[indices[b, j]], table[indices[b, j + 1]]
            row2, row3 = table[indices[b, j + 2]], table[indices[b, j + 3]]
            for g in range(n_shared):
                out = summed[b, g]
                value0, value1 = values[b, g, j], values[b, g, j + 1]
                value2, value3 = values[b, g, j + 2], values[b, g, j + 3]
                for t in range(len(out)):
                    out[t] += value0 * row0[t] + value1 * row1[t] + value2 * row2[t] + value3 * row3[t]
        for j in range(fours, n_kept):
            row = table[indices[b, j]]
            for g in range(n_shared):
                out, value = summed[b, g], values[b, g, j]
                for t in range(len(out)):
                    out[t] += value * row[t]


@_compiled
def _entry_dots(rows, table, indices, dots):
    n_rows, n_shared, n_kept = dots.shape
    for b in numba.prange(n_rows):
        fours = n_kept - n_kept % 4
        for j in range(0, fours, 4):
            row0, row1 = table[indices[b, j]], table[indices[b, j + 1]]
            row2, row3 = table[indices[b, j + 2]], table[indices[b, j + 3]]
            for g in range(n_shared):
                row = rows[b, g]
                dot0 = dot1 = dot2 = dot3 = np.float32(0)
                for t in range(len(row)):
                    dot0 += row[t] * row0[t]
                    dot1 += row[t] * row1[t]
                    dot2 += row[t] * row2[t]
                    dot3 += row[t] * row3[t]
                dots[b, g, j], dots[b, g, j + 1] = dot0, dot1
                dots[b, g, j + 2], dots[b, g, j + 3] = dot2, dot3
        for j in range(fours, n_kept):
            entry = table[indices[b, j]]
            for g in range(n_shared):
                row, dot = rows[b, g], np.float32(0)
                for t in range(len(row)):
                    dot += row[t] * entry[t]
                dots[b, g, j] = dot


@_compiled
def _sum_by_latent(positions, values, rows, starts, summed):
    for latent in numba.prange(len(summed)):
        out = summed[latent]
        out[:] = 0
        for e in range(starts[latent], starts[latent + 1]):
            value, row = values[e], rows[positions[e]]
            for t in range(len(out)):
                out[t] += value * row[t]


@_compiled
def _update_by_latent(positions, values, rows, starts, columns, parameter, mean, square, ends, numbers, on_norm):
    rate, beta1, rest1, beta2, rest2, correction, epsilon = numbers
    n_latents, width = parameter.shape
    for latent in numba.prange(n_latents):
        gradient = np.zeros(width, np.float32)
        for i in range(len(starts)):
            part = gradient[columns[i, 0] : columns[i, 1]]
            for e in range(starts[i][latent], starts[i][latent + 1]):
                value, row = values[i][e], rows[i][positions[i][e]]
                for t in range(len(part)):
                    part[t] += value * row[t]
        first = 0
        for end in ends:
            g, p = gradient[first:end], parameter[latent, first:end]
            m, v = mean[latent, first:end], square[latent, first:end]
            along = np.float32(0)
            if on_norm:
                for t in range(len(g)):
                    along += g[t] * p[t]
            squares = np.float32(0)
            for t in range(len(g)):
                slope = g[t] - along * p[t]
                m[t] = beta1 * m[t] + rest1 * slope
                v[t] = beta2 * v[t] + rest2 * slope * slope
                p[t] -= rate * m[t] / (np.sqrt(v[t]) / correction + epsilon)
                squares += p[t] * p[t]
            if on_norm:
                norm = max(np.sqrt(squares), np.float32(1e-12))
                for t in range(len(p)):
                    p[t] /= norm
            first = end


@_compiled
def _round_rows(table, rounded, first, squares):
    n_latents, width = table.shape
    for latent in numba.prange(n_latents):
        row, upper = table[latent], np.empty(width, np.int32)
        bits, out = row.view(np.int32), rounded[latent, first : first + width]
        for t in range(width):
            upper[t] = (bits[t] + 0x7FFF + ((bits[t] >> 16) & 1)) & -0x10000  # to the nearest, of two the even one
            out[t] = upper[t] >> 16
        nearest = upper.view(np.float32)
        square = lost = np.float32(0)
        for t in range(width):
            square += row[t] * row[t]
            lost += (row[t] - nearest[t]) * (row[t] - nearest[t])
        squares[latent, 0] += square
        squares[latent, 1] += lost
