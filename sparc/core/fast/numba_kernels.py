"""The sums over kept entries of `sparse`, and Adam fused with them, compiled by Numba for the CPU.

Same arguments and same meaning as the plain operators. Each number of a result is made by one thread and summed in one
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
from sparc.core.sparse import CACHED

_compiled = numba.njit(parallel=True, cache=True, fastmath={"reassoc", "contract", "arcp", "nsz"})
_inlined = numba.njit(inline="always")


def weighted_rows(indices_BK: Tensor, values_BGK: Tensor, table_LD: Tensor) -> Tensor:
    """Sum over j of values[b, g, j] * table[indices[b, j]]: (B, G, D).

    Raises IndexError for an index that the table lacks: its row would be read from beyond the table.
    """
    _check_indices(indices_BK, table_LD)
    summed = values_BGK.new_empty(*values_BGK.shape[:2], table_LD.shape[1])
    _match_threads()
    _weighted_rows(*_arrays(indices_BK, values_BGK, table_LD), summed.numpy())
    return summed


def entry_dots(rows_BGD: Tensor, table_LD: Tensor, indices_BK: Tensor) -> Tensor:
    """Product of rows[b, g] and table[indices[b, j]] for each entry: (B, G, K).

    Raises IndexError for an index that the table lacks: sorting entries by latent would write out of bounds.
    """
    _check_indices(indices_BK, table_LD)
    if not table_LD.is_contiguous():  # some columns of a table, of which only a few rows may be asked for
        latents, indices_BK = indices_BK.unique(return_inverse=True)
        table_LD = table_LD[latents]
    dots = rows_BGD.new_empty(*rows_BGD.shape[:2], indices_BK.shape[1])
    _match_threads()
    _entry_dots(*_arrays(rows_BGD, table_LD, indices_BK), dots.numpy(), CACHED)
    return dots


def sum_by_latent(positions_E: Tensor, values_E: Tensor, rows_ND: Tensor, starts_L1: Tensor) -> Tensor:
    """Sum over e from starts[l] to starts[l + 1] of values[e] * rows[positions[e]]: (L, D)."""
    summed = rows_ND.new_empty(len(starts_L1) - 1, rows_ND.shape[1])
    _match_threads()
    _sum_by_latent(*_arrays(positions_E, values_E, rows_ND, starts_L1), summed.numpy())
    return summed


def sum_with_products(
    positions_E: Tensor, values_E: Tensor, rows_ND: Tensor, starts_L1: Tensor, table_LD: Tensor, *, out_of_cache: bool
) -> tuple[Tensor, Tensor]:
    """What `sum_by_latent` gives, (L, D), and the product of each entry's row with its latent's row of a table, (E,).

    Rows that are `out_of_cache` are read some at a time for many latents.
    """
    summed, products = torch.empty_like(table_LD), torch.empty_like(values_E)
    _match_threads()
    _sum_with_products(
        *_arrays(positions_E, values_E, rows_ND, starts_L1, table_LD),
        products.numpy(),
        summed.numpy(),
        *_groups(len(table_LD), len(rows_ND), out_of_cache),
    )
    return summed, products


def update_by_latent(
    sums: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]],
    columns: Sequence[tuple[int, int]],
    parameter: Tensor,
    moments: tuple[Tensor, Tensor],
    ends: Sequence[int],
    step: AdamStep,
    *,
    on_norm: bool,
    out_of_cache: bool,
) -> list[Tensor]:
    """Sum each latent's gradient and take Adam's step on its row of a table (L, D), while both are in the cache.

    Each of `sums` is as in `sum_by_latent`, and adds to its `columns`. `ends` are the last columns of the table's
    segments; `on_norm` keeps each segment of a row on unit norm: the gradient's part along it is removed before, and it
    is scaled back after. Rows that are `out_of_cache` are read some at a time for many latents, whose gradients then
    take as much memory as the rows.

    Returns for each sum the products of its rows with those of the table before the step, shaped as the values.
    """
    _match_threads()
    products = [torch.empty_like(values) for _, values, _, _ in sums]
    _update_by_latent(
        *zip(*(_arrays(*one) for one in sums), strict=True),
        tuple(one.numpy() for one in products),
        np.array(columns),
        *(_in_place(tensor) for tensor in (parameter, *moments)),
        np.array(ends),
        np.array(step, dtype=np.float32),
        on_norm,
        *_groups(len(parameter), len(sums[0][2]), out_of_cache),
    )
    return products


def project_columns(gradient: Tensor, parameter: Tensor, ends: Sequence[int]) -> None:
    """Remove from the gradient of a table (L, D) what lies along each segment of its rows, which are on unit norm.

    `ends` are the last columns of the segments. In place.
    """
    _match_threads()
    _project_columns(_in_place(gradient), *_arrays(parameter), np.array(ends))


def normalize_columns(parameter: Tensor, ends: Sequence[int]) -> None:
    """Put each segment of each row of a table (L, D) on unit norm, in place; `ends` as in `project_columns`."""
    _match_threads()
    _normalize_columns(_in_place(parameter), np.array(ends))


def _groups(n_latents: int, n_rows: int, out_of_cache: bool) -> tuple[int, int]:
    """How many latents a thread sums together, and how many numbers of the rows at a time."""
    if not out_of_cache:
        return 1, np.iinfo(np.int64).max
    rounds = -(-n_latents // n_rows)  # in each of which every thread has one group
    return -(-n_latents // (rounds * numba.get_num_threads())), CACHED


def round_rows(table_LD: Tensor, rounded_LC: Tensor, first: int, squares_L2: Tensor) -> None:
    """Round a table (L, D) to bfloat16, into the columns of `rounded_LC` from `first` on.

    The sum of squares of each row, and that of what rounding takes from it, are added to `squares_L2`.
    """
    _match_threads()
    _round_rows(*_arrays(table_LD), _in_place(rounded_LC.view(torch.int16)), first, squares_L2.numpy())


def _arrays(*tensors: Tensor) -> tuple[NDArray[Any], ...]:
    return tuple(tensor.detach().contiguous().numpy() for tensor in tensors)


def _in_place(tensor: Tensor) -> NDArray[Any]:
    assert tensor.is_contiguous(), "a copy would be written in place of it"
    return tensor.detach().numpy()


def _check_indices(indices_BK: Tensor, table_LD: Tensor) -> None:
    if indices_BK.numel() and not 0 <= int(indices_BK.min()) <= int(indices_BK.max()) < len(table_LD):
        raise IndexError(f"a latent is not in the table of {len(table_LD)}")


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
def _entry_dots(rows, table, indices, dots, in_cache):
    n_rows, n_shared, n_kept = dots.shape
    at_a_time = max(1, in_cache // (n_shared * table.shape[1]))
    for begin in range(0, n_rows, at_a_time):
        entries, starts = _by_latent(indices[begin : begin + at_a_time], len(table))
        # A latent's row is read once for all samples that keep it, whose own rows lie in the cache.
        for latent in numba.prange(len(table)):
            own, last = table[latent], starts[latent + 1] - 1
            # The last entry stands in for what four lack: so an entry has the same bits whatever else a batch holds.
            for e in range(starts[latent], last + 1, 4):
                b0, j0 = divmod(entries[e], n_kept)
                b1, j1 = divmod(entries[min(e + 1, last)], n_kept)
                b2, j2 = divmod(entries[min(e + 2, last)], n_kept)
                b3, j3 = divmod(entries[min(e + 3, last)], n_kept)
                for g in range(n_shared):
                    row0, row1 = rows[begin + b0, g], rows[begin + b1, g]
                    row2, row3 = rows[begin + b2, g], rows[begin + b3, g]
                    dot0 = dot1 = dot2 = dot3 = np.float32(0)
                    for t in range(len(own)):
                        dot0 += row0[t] * own[t]
                        dot1 += row1[t] * own[t]
                        dot2 += row2[t] * own[t]
                        dot3 += row3[t] * own[t]
                    dots[begin + b0, g, j0], dots[begin + b1, g, j1] = dot0, dot1
                    dots[begin + b2, g, j2], dots[begin + b3, g, j3] = dot2, dot3


@numba.njit(cache=True)
def _by_latent(indices, n_latents):
    """Positions of the entries in the order of their latents, and where each latent's start."""
    starts = np.zeros(n_latents + 1, np.int64)
    for latent in indices.flat:
        starts[latent + 1] += 1
    for latent in range(n_latents):
        starts[latent + 1] += starts[latent]
    reached, entries = starts.copy(), np.empty(indices.size, np.int64)
    for e, latent in enumerate(indices.flat):
        entries[reached[latent]] = e
        reached[latent] += 1
    return entries, starts


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
def _update_by_latent(
    positions, values, rows, starts, products, columns, parameter, mean, square, ends, numbers, on_norm, group, in_cache
):
    n_latents, width = parameter.shape
    for number in numba.prange((n_latents + group - 1) // group):
        start, stop = number * group, min(n_latents, (number + 1) * group)
        gradients = np.zeros((stop - start, width), np.float32)
        for i in range(len(starts)):
            those, own = starts[i][start : stop + 1], parameter[start:stop]
            _sum_group(positions[i], values[i], rows[i], those, own, columns[i], products[i], gradients, in_cache)
        for latent in range(start, stop):
            begin = 0
            for end in ends:
                gradient, own = gradients[latent - start, begin:end], parameter[latent, begin:end]
                _step(gradient, own, mean[latent, begin:end], square[latent, begin:end], numbers, on_norm)
                begin = end


@_compiled
def _sum_with_products(positions, values, rows, starts, table, products, summed, group, in_cache):
    n_latents = len(table)
    for number in numba.prange((n_latents + group - 1) // group):
        start, stop = number * group, min(n_latents, (number + 1) * group)
        those, own, sums = starts[start : stop + 1], table[start:stop], summed[start:stop]
        sums[:] = 0
        _sum_group(positions, values, rows, those, own, (0, table.shape[1]), products, sums, in_cache)


@_inlined
def _sum_group(positions, values, rows, starts, table, columns, products, sums, in_cache):
    """Add rows to the sums of some latents, and multiply them with the latents' own, a part of the rows at a time."""
    begin, end = columns
    at_a_time = max(1, min(len(rows), in_cache // (end - begin)))
    reached = starts[:-1].copy()
    for seen in range(at_a_time, len(rows) + at_a_time, at_a_time):
        for place in range(len(sums)):
            first = last = reached[place]
            while last < starts[place + 1] and positions[last] < seen:
                last += 1
            reached[place] = last
            total, own = sums[place, begin:end], table[place, begin:end]
            _add_rows(total, own, positions, values, rows, products, first, last)


@_inlined
def _add_rows(total, own, positions, values, rows, products, first, last):
    fours = last - (last - first) % 4
    for e in range(first, fours, 4):
        row0, row1 = rows[positions[e]], rows[positions[e + 1]]
        row2, row3 = rows[positions[e + 2]], rows[positions[e + 3]]
        value0, value1, value2, value3 = values[e], values[e + 1], values[e + 2], values[e + 3]
        dot0 = dot1 = dot2 = dot3 = np.float32(0)
        for t in range(len(total)):
            total[t] += value0 * row0[t] + value1 * row1[t] + value2 * row2[t] + value3 * row3[t]
            dot0 += row0[t] * own[t]
            dot1 += row1[t] * own[t]
            dot2 += row2[t] * own[t]
            dot3 += row3[t] * own[t]
        products[e], products[e + 1], products[e + 2], products[e + 3] = dot0, dot1, dot2, dot3
    for e in range(fours, last):
        value, row, dot = values[e], rows[positions[e]], np.float32(0)
        for t in range(len(total)):
            total[t] += value * row[t]
            dot += row[t] * own[t]
        products[e] = dot


@_inlined
def _step(gradient, own, mean, square, numbers, on_norm):
    rate, beta1, rest1, beta2, rest2, epsilon = numbers
    along = np.float32(0)
    if on_norm:
        for t in range(len(own)):
            along += gradient[t] * own[t]
    squares = np.float32(0)
    for t in range(len(own)):
        slope = gradient[t] - along * own[t]
        mean[t] = beta1 * mean[t] + rest1 * slope
        square[t] = beta2 * square[t] + rest2 * slope * slope
        own[t] -= rate * mean[t] / (np.sqrt(square[t]) + epsilon)
        squares += own[t] * own[t]
    if on_norm:
        scale = np.float32(1) / max(np.sqrt(squares), np.float32(1e-12))
        for t in range(len(own)):
            own[t] *= scale


@_compiled
def _project_columns(gradient, parameter, ends):
    for latent in numba.prange(len(parameter)):
        begin = 0
        for end in ends:
            slope, own = gradient[latent, begin:end], parameter[latent, begin:end]
            along = np.float32(0)
            for t in range(len(own)):
                along += slope[t] * own[t]
            for t in range(len(own)):
                slope[t] -= along * own[t]
            begin = end


@_compiled
def _normalize_columns(parameter, ends):
    for latent in numba.prange(len(parameter)):
        begin = 0
        for end in ends:
            own = parameter[latent, begin:end]
            squares = np.float32(0)
            for t in range(len(own)):
                squares += own[t] * own[t]
            scale = np.float32(1) / max(np.sqrt(squares), np.float32(1e-12))
            for t in range(len(own)):
                own[t] *= scale
            begin = end


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
