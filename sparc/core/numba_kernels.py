"""The sums over kept entries of `sparse`, and Adam fused with them, compiled by Numba for the CPU.

Same arguments and same meaning as the plain operators. Each row of a result is written by one thread and summed in one
order, so the same input gives the same bits. Sums may be reassociated, which is what lets them use vector instructions;
values that are not finite stay so.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_compiled = numba.njit(parallel=True, cache=True, fastmath={"reassoc", "contract", "arcp", "nsz"})
_ONE = np.float32(1)


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


def sum_by_latent(rows_E: Tensor, values_E: Tensor, table_ND: Tensor, starts_L1: Tensor) -> Tensor:
    """Sum over e from starts[l] to starts[l + 1] of values[e] * table[rows[e]]: (L, D)."""
    summed = table_ND.new_empty(len(starts_L1) - 1, table_ND.shape[1])
    _match_threads()
    _sum_by_latent(*_arrays(rows_E, values_E, table_ND, starts_L1), summed.numpy())
    return summed


def update_by_latent(
    entries: tuple[Tensor, Tensor, Tensor, Tensor],
    more: tuple[Tensor, Tensor],
    parameter: Tensor,
    moments: tuple[Tensor, Tensor],
    ends: list[int],
    coefficients: tuple[float, ...],
    *,
    on_norm: bool,
) -> None:
    """Sum each latent's gradient and take Adam's step on its row of a table (L, D), while both are in the cache.

    `entries` are as in `sum_by_latent`. `more`: rows (Q, D) to add to the gradient, and which of them each latent adds,
    (L,), -1 for none. `ends` are the last columns of the table's segments; `on_norm` keeps each segment of a row on
    unit norm: the gradient's part along it is removed before, and it is scaled back after. `coefficients` are the
    learning rate over the first bias correction, both betas, the root of the second bias correction, and epsilon.
    """
    _match_threads()
    numbers = np.array(coefficients, dtype=np.float32)
    tensors = (*entries, *more, parameter, *moments)
    _update_by_latent(*_arrays(*tensors), np.array(ends), numbers, on_norm)


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
def _sum_by_latent(rows, values, table, starts, summed):
    for latent in numba.prange(len(summed)):
        out = summed[latent]
        out[:] = 0
        for e in range(starts[latent], starts[latent + 1]):
            value, row = values[e], table[rows[e]]
            for t in range(len(out)):
                out[t] += value * row[t]


@_compiled
def _update_by_latent(rows, values, table, starts, more, more_of, parameter, mean, square, ends, numbers, on_norm):
    rate, beta1, beta2, correction, epsilon = numbers
    n_latents, width = parameter.shape
    for latent in numba.prange(n_latents):
        gradient = np.zeros(width, np.float32)
        for e in range(starts[latent], starts[latent + 1]):
            value, row = values[e], table[rows[e]]
            for t in range(width):
                gradient[t] += value * row[t]
        if more_of[latent] >= 0:
            gradient += more[more_of[latent]]
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
                m[t] = beta1 * m[t] + (_ONE - beta1) * slope
                v[t] = beta2 * v[t] + (_ONE - beta2) * slope * slope
                p[t] -= rate * m[t] / (np.sqrt(v[t]) / correction + epsilon)
                squares += p[t] * p[t]
            if on_norm:
                norm = max(np.sqrt(squares), np.float32(1e-12))
                for t in range(len(p)):
                    p[t] /= norm
            first = end
