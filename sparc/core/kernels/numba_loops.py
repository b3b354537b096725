"""The loops of `numba_cpu`, over NumPy arrays. Numba compiles each on its first call and caches it on disk.

Numba passes no nested tuples into a parallel loop, so the operands of several sums are separate parameters.
"""

import numba
import numpy as np

_compiled = numba.njit(parallel=True, cache=True, fastmath={"reassoc", "contract", "arcp", "nsz"})
_inlined = numba.njit(inline="always")

# Loops process four rows at a time, so that a result is read and written a quarter as often.


@_compiled
def weighted_rows(indices, values, table, summed):
    """Compute `Kernels.weighted_rows` into `summed`."""
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
def entry_dots(rows, table, indices, dots, in_cache):
    """Compute `Kernels.entry_dots` into `dots`, for as many rows at a time as hold `in_cache` numbers."""
    n_rows, n_shared, n_kept = dots.shape
    at_a_time = max(1, in_cache // (n_shared * table.shape[1]))
    for begin in range(0, n_rows, at_a_time):
        entries, starts = _by_latent(indices[begin : begin + at_a_time], len(table))
        # A latent's row is read once for all samples that keep it, and the rows of those are in the cache.
        for latent in numba.prange(len(table)):
            own, last = table[latent], starts[latent + 1] - 1
            # The last entry fills up an incomplete four, so an entry's bits don't depend on the rest of the batch.
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
    """Return the positions of the entries sorted by latent, and where each latent's entries start."""
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
def sum_by_latent(positions, values, rows, starts, summed):
    """Compute `Kernels.sum_by_latent` into `summed`."""
    for latent in numba.prange(len(summed)):
        out = summed[latent]
        out[:] = 0
        for e in range(starts[latent], starts[latent + 1]):
            value, row = values[e], rows[positions[e]]
            for t in range(len(out)):
                out[t] += value * row[t]


@_compiled
def update_by_latent(
    positions, values, rows, starts, dots, columns, parameter, mean, square, ends, numbers, on_norm, group, in_cache
):
    """Do `Kernels.update_by_latent`, `group` latents at a time; write the dots of each sum into `dots`."""
    n_latents, width = parameter.shape
    for number in numba.prange((n_latents + group - 1) // group):
        start, stop = number * group, min(n_latents, (number + 1) * group)
        gradients = np.zeros((stop - start, width), np.float32)
        for i in range(len(starts)):
            those, own = starts[i][start : stop + 1], parameter[start:stop]
            _sum_group(positions[i], values[i], rows[i], those, own, columns[i], dots[i], gradients, in_cache)
        for latent in range(start, stop):
            begin = 0
            for end in ends:
                gradient, own = gradients[latent - start, begin:end], parameter[latent, begin:end]
                _step(gradient, own, mean[latent, begin:end], square[latent, begin:end], numbers, on_norm)
                begin = end


@_compiled
def sum_with_dots(positions, values, rows, starts, table, dots, summed, group, in_cache):
    """Compute `Kernels.sum_with_dots` into `dots` and `summed`, `group` latents at a time."""
    n_latents = len(table)
    for number in numba.prange((n_latents + group - 1) // group):
        start, stop = number * group, min(n_latents, (number + 1) * group)
        those, own, sums = starts[start : stop + 1], table[start:stop], summed[start:stop]
        sums[:] = 0
        _sum_group(positions, values, rows, those, own, (0, table.shape[1]), dots, sums, in_cache)


@_inlined
def _sum_group(positions, values, rows, starts, table, columns, dots, sums, in_cache):
    """Add rows to the sums of some latents and compute their dots, a part of the rows at a time."""
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
            _add_rows(total, own, positions, values, rows, dots, first, last)


@_inlined
def _add_rows(total, own, positions, values, rows, dots, first, last):
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
        dots[e], dots[e + 1], dots[e + 2], dots[e + 3] = dot0, dot1, dot2, dot3
    for e in range(fours, last):
        value, row, dot = values[e], rows[positions[e]], np.float32(0)
        for t in range(len(total)):
            total[t] += value * row[t]
            dot += row[t] * own[t]
        dots[e] = dot


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
def project_directions(gradient, parameter, ends):
    """Do `Kernels.project_directions`."""
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
def normalize_directions(parameter, ends):
    """Do `Kernels.normalize_directions`."""
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
def round_rows(table, rounded, first, squares):
    """Do `Kernels.round_rows`; the bits of bfloat16 are written as int16."""
    n_latents, width = table.shape
    for latent in numba.prange(n_latents):
        row, upper = table[latent], np.empty(width, np.int32)
        bits, out = row.view(np.int32), rounded[latent, first : first + width]
        for t in range(width):
            upper[t] = (bits[t] + 0x7FFF + ((bits[t] >> 16) & 1)) & -0x10000  # to nearest, ties to even
            out[t] = upper[t] >> 16
        nearest = upper.view(np.float32)
        square = lost = np.float32(0)
        for t in range(width):
            square += row[t] * row[t]
            lost += (row[t] - nearest[t]) * (row[t] - nearest[t])
        squares[latent, 0] += square
        squares[latent, 1] += lost
