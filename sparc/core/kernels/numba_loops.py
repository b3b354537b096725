"""The loops of `numba_cpu`, over NumPy arrays. Numba compiles each on its first call and caches it on disk.

Numba passes no nested tuples into a parallel loop, so `update_by_latent` unpacks the operands of its sums before it.
"""

from typing import Any, NamedTuple

import numba
import numpy as np

_compiled = numba.njit(parallel=True, cache=True, fastmath={"reassoc", "contract", "arcp", "nsz"})
_inlined = numba.njit(inline="always")


class Entries(NamedTuple):
    """Arrays of the kept entries of a sum, sorted by latent; or tuples with those of several sums."""

    positions: Any
    """(E,) int64: row of `vectors` of each entry."""
    values: Any
    """(E,) factor of each entry's vector."""
    vectors: Any
    """(V, width) float32."""
    starts: Any
    """(latents + 1,) int64: where the entries of each latent start."""
    dots: Any
    """(E,) float32: the dot products are written here."""


class Portions(NamedTuple):
    """Amounts that a thread works on at a time."""

    latents: int
    floats: int
    """Floats of the vectors, which shall stay in the cache."""


# Loops process four rows or vectors at a time, so that a result is read and written a quarter as often.


@_compiled
def weighted_rows(indices, values, table, summed):
    """Compute `Kernels.weighted_rows` into `summed`."""
    n_samples, n_streams, n_kept = values.shape
    for b in numba.prange(n_samples):
        summed[b] = 0
        fours = n_kept - n_kept % 4
        for j in range(0, fours, 4):
            row0, row1 = table[indices[b, j]], table[indices[b, j + 1]]
            row2, row3 = table[indices[b, j + 2]], table[indices[b, j + 3]]
            for g in range(n_streams):
                out = summed[b, g]
                value0, value1 = values[b, g, j], values[b, g, j + 1]
                value2, value3 = values[b, g, j + 2], values[b, g, j + 3]
                for t in range(len(out)):
                    out[t] += value0 * row0[t] + value1 * row1[t] + value2 * row2[t] + value3 * row3[t]
        for j in range(fours, n_kept):
            row = table[indices[b, j]]
            for g in range(n_streams):
                out, value = summed[b, g], values[b, g, j]
                for t in range(len(out)):
                    out[t] += value * row[t]


@_compiled
def entry_dots(vectors, table, indices, dots, in_cache):
    """Compute `Kernels.entry_dots` into `dots`, for as many samples at a time as hold `in_cache` floats."""
    n_samples, n_streams, n_kept = dots.shape
    at_a_time = max(1, in_cache // (n_streams * table.shape[1]))
    for begin in range(0, n_samples, at_a_time):
        entries, starts = _by_latent(indices[begin : begin + at_a_time], len(table))
        # A latent's row is read once for all samples that keep it, and their vectors are in the cache.
        for latent in numba.prange(len(table)):
            row, last = table[latent], starts[latent + 1] - 1
            # The last entry fills up an incomplete four, so an entry's bits don't depend on the rest of the batch.
            for e in range(starts[latent], last + 1, 4):
                b0, j0 = divmod(entries[e], n_kept)
                b1, j1 = divmod(entries[min(e + 1, last)], n_kept)
                b2, j2 = divmod(entries[min(e + 2, last)], n_kept)
                b3, j3 = divmod(entries[min(e + 3, last)], n_kept)
                for g in range(n_streams):
                    vector0, vector1 = vectors[begin + b0, g], vectors[begin + b1, g]
                    vector2, vector3 = vectors[begin + b2, g], vectors[begin + b3, g]
                    dot0 = dot1 = dot2 = dot3 = np.float32(0)
                    for t in range(len(row)):
                        dot0 += vector0[t] * row[t]
                        dot1 += vector1[t] * row[t]
                        dot2 += vector2[t] * row[t]
                        dot3 += vector3[t] * row[t]
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
def sum_by_latent(positions, values, vectors, starts, summed):
    """Compute `Kernels.sum_by_latent` into `summed`."""
    for latent in numba.prange(len(summed)):
        out = summed[latent]
        out[:] = 0
        for e in range(starts[latent], starts[latent + 1]):
            value, vector = values[e], vectors[positions[e]]
            for t in range(len(out)):
                out[t] += value * vector[t]


@_compiled
def update_by_latent(sums, columns, weights, ends, scalars, portions):
    """Do `Kernels.update_by_latent`; write each sum's dot products into its `dots`.

    `sums` holds a tuple of arrays per operand, `columns` the first and last column of each sum, `weights` the table and
    Adam's two moments. Without `ends` of directions of unit norm, `ends` is empty.
    """
    positions, values, vectors, starts, dots = sums
    table, moment1, moment2 = weights
    n_latents, width = table.shape
    on_norm = len(ends) > 0
    parts = ends if on_norm else np.array([width])
    group, in_cache = portions
    for number in numba.prange((n_latents + group - 1) // group):
        start, stop = number * group, min(n_latents, (number + 1) * group)
        gradients = np.zeros((stop - start, width), np.float32)
        for i in range(len(starts)):
            entries = Entries(positions[i], values[i], vectors[i], starts[i][start : stop + 1], dots[i])
            _sum_group(entries, table[start:stop], gradients, columns[i], in_cache)
        for latent in range(start, stop):
            begin = 0
            for end in parts:
                gradient, row = gradients[latent - start, begin:end], table[latent, begin:end]
                _step(gradient, row, moment1[latent, begin:end], moment2[latent, begin:end], scalars, on_norm)
                begin = end


@_compiled
def sum_with_dots(entries, table, summed, portions):
    """Compute `Kernels.sum_with_dots` into `entries.dots` and `summed`."""
    positions, values, vectors, starts, dots = entries
    group, in_cache = portions
    n_latents = len(table)
    for number in numba.prange((n_latents + group - 1) // group):
        start, stop = number * group, min(n_latents, (number + 1) * group)
        summed[start:stop] = 0
        part = Entries(positions, values, vectors, starts[start : stop + 1], dots)
        _sum_group(part, table[start:stop], summed[start:stop], (0, table.shape[1]), in_cache)


@_inlined
def _sum_group(entries, table, sums, columns, in_cache):
    """Add vectors to the sums of some latents and compute their dot products, a part of the vectors at a time."""
    positions, starts, n_vectors = entries.positions, entries.starts, len(entries.vectors)
    begin, end = columns
    at_a_time = max(1, min(n_vectors, in_cache // (end - begin)))
    reached = starts[:-1].copy()
    for seen in range(at_a_time, n_vectors + at_a_time, at_a_time):
        for place in range(len(sums)):
            first = last = reached[place]
            while last < starts[place + 1] and positions[last] < seen:
                last += 1
            reached[place] = last
            # Slices of rows, since Numba vectorises only what it knows to be contiguous.
            _add_vectors(sums[place, begin:end], table[place, begin:end], entries, first, last)


@_inlined
def _add_vectors(total, row, entries, first, last):
    positions, values, vectors, dots = entries.positions, entries.values, entries.vectors, entries.dots
    fours = last - (last - first) % 4
    for e in range(first, fours, 4):
        vector0, vector1 = vectors[positions[e]], vectors[positions[e + 1]]
        vector2, vector3 = vectors[positions[e + 2]], vectors[positions[e + 3]]
        value0, value1, value2, value3 = values[e], values[e + 1], values[e + 2], values[e + 3]
        dot0 = dot1 = dot2 = dot3 = np.float32(0)
        for t in range(len(total)):
            total[t] += value0 * vector0[t] + value1 * vector1[t] + value2 * vector2[t] + value3 * vector3[t]
            dot0 += vector0[t] * row[t]
            dot1 += vector1[t] * row[t]
            dot2 += vector2[t] * row[t]
            dot3 += vector3[t] * row[t]
        dots[e], dots[e + 1], dots[e + 2], dots[e + 3] = dot0, dot1, dot2, dot3
    for e in range(fours, last):
        value, vector, dot = values[e], vectors[positions[e]], np.float32(0)
        for t in range(len(total)):
            total[t] += value * vector[t]
            dot += vector[t] * row[t]
        dots[e] = dot


@_inlined
def _step(gradient, weights, moment1, moment2, scalars, on_norm):
    rate, beta1, rest1, beta2, rest2, epsilon = scalars
    dot = np.float32(0)
    if on_norm:
        for t in range(len(weights)):
            dot += gradient[t] * weights[t]
    norm_squared = np.float32(0)
    for t in range(len(weights)):
        projected = gradient[t] - dot * weights[t]
        moment1[t] = beta1 * moment1[t] + rest1 * projected
        moment2[t] = beta2 * moment2[t] + rest2 * projected * projected
        weights[t] -= rate * moment1[t] / (np.sqrt(moment2[t]) + epsilon)
        norm_squared += weights[t] * weights[t]
    if on_norm:
        scale = np.float32(1) / max(np.sqrt(norm_squared), np.float32(1e-12))
        for t in range(len(weights)):
            weights[t] *= scale


@_compiled
def project_directions(gradient, table, ends):
    """Do `Kernels.project_directions`."""
    for latent in numba.prange(len(table)):
        begin = 0
        for end in ends:
            part, direction = gradient[latent, begin:end], table[latent, begin:end]
            dot = np.float32(0)
            for t in range(len(direction)):
                dot += part[t] * direction[t]
            for t in range(len(direction)):
                part[t] -= dot * direction[t]
            begin = end


@_compiled
def normalize_directions(table, ends):
    """Do `Kernels.normalize_directions`."""
    for latent in numba.prange(len(table)):
        begin = 0
        for end in ends:
            direction = table[latent, begin:end]
            norm_squared = np.float32(0)
            for t in range(len(direction)):
                norm_squared += direction[t] * direction[t]
            scale = np.float32(1) / max(np.sqrt(norm_squared), np.float32(1e-12))
            for t in range(len(direction)):
                direction[t] *= scale
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
        norm_squared = error_squared = np.float32(0)
        for t in range(width):
            norm_squared += row[t] * row[t]
            error_squared += (row[t] - nearest[t]) * (row[t] - nearest[t])
        squares[latent, 0] += norm_squared
        squares[latent, 1] += error_squared
