"""The kernels compiled by Triton for GPUs, without atomics.

Each program writes its own part of the result and sums in one order, so the same input gives the same bits. The streams
that share an index set are neighbours in the grid: all but the first find a row of the table in the cache.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sparc.core.kernels.entries import LatentSum
from sparc.core.kernels.plain import PlainKernels

ENTRIES, COLUMNS = tl.constexpr(64), tl.constexpr(64)
"""Rows of a table, and columns of them, that a program holds at a time."""
SUMMED = tl.constexpr(256)
"""Columns of a latent's sum that a program computes."""


class TritonKernels(PlainKernels):
    """One Triton kernel per sum; see `Kernels`."""

    def weighted_rows(self, indices_BK: Tensor, values_BGK: Tensor, table_LD: Tensor) -> Tensor:
        """See `Kernels`."""
        n_samples, n_streams, n_kept = values_BGK.shape
        width = table_LD.shape[1]
        summed = values_BGK.new_empty(n_samples, n_streams, width)
        with torch.cuda.device_of(table_LD):
            _weighted_rows[(n_samples * n_streams, triton.cdiv(width, COLUMNS.value))](
                indices_BK.contiguous(),
                values_BGK.contiguous(),
                table_LD,
                summed,
                (table_LD.stride(0), width, n_kept, n_streams),
            )
        return summed

    def entry_dots(self, vectors_BGD: Tensor, table_LD: Tensor, indices_BK: Tensor) -> Tensor:
        """See `Kernels`."""
        n_samples, n_streams, width = vectors_BGD.shape
        n_kept = indices_BK.shape[1]
        dots = vectors_BGD.new_empty(n_samples, n_streams, n_kept)
        with torch.cuda.device_of(table_LD):
            _entry_dots[(n_samples * n_streams, triton.cdiv(n_kept, ENTRIES.value))](
                vectors_BGD.contiguous(),
                table_LD,
                indices_BK.contiguous(),
                dots,
                (table_LD.stride(0), width, n_kept, n_streams),
            )
        return dots

    def sum_by_latent(self, summed: LatentSum) -> Tensor:
        """See `Kernels`."""
        n_latents, width = summed.entries.n_latents, summed.vectors.shape[1]
        vectors_ND = summed.vectors.contiguous()
        sums = vectors_ND.new_empty(n_latents, width)
        with torch.cuda.device_of(vectors_ND):
            _sum_by_latent[(n_latents, triton.cdiv(width, SUMMED.value))](
                summed.positions, summed.weights, vectors_ND, summed.starts, sums, width
            )
        return sums

    def dots_by_latent(self, summed: LatentSum, table_LD: Tensor) -> Tensor:
        """See `Kernels`."""
        return self._dots_by_sample(summed, table_LD)


@triton.jit
def _weighted_rows(indices, values, table, summed, sizes):
    stride, width, n_kept, n_streams = sizes
    place = tl.program_id(0).to(tl.int64)
    sample = place // n_streams
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = columns < width
    total = tl.zeros((COLUMNS,), dtype=summed.dtype.element_ty)
    for first in range(0, n_kept, ENTRIES):
        entries = first + tl.arange(0, ENTRIES)
        kept = entries < n_kept
        latents = tl.load(indices + sample * n_kept + entries, mask=kept, other=0)
        weights = tl.load(values + place * n_kept + entries, mask=kept, other=0.0)
        tile = tl.load(
            table + latents[:, None] * stride + columns[None, :], mask=kept[:, None] & inside[None, :], other=0.0
        )
        total += tl.sum(weights[:, None] * tile, axis=0)
    tl.store(summed + place * width + columns, total, mask=inside)


@triton.jit
def _entry_dots(vectors, table, indices, dots, sizes):
    stride, width, n_kept, n_streams = sizes
    place = tl.program_id(0).to(tl.int64)
    sample = place // n_streams
    entries = tl.program_id(1) * ENTRIES + tl.arange(0, ENTRIES)
    kept = entries < n_kept
    latents = tl.load(indices + sample * n_kept + entries, mask=kept, other=0)
    summed = tl.zeros((ENTRIES,), dtype=dots.dtype.element_ty)
    for first in range(0, width, COLUMNS):
        columns = first + tl.arange(0, COLUMNS)
        inside = columns < width
        tile = tl.load(
            table + latents[:, None] * stride + columns[None, :], mask=kept[:, None] & inside[None, :], other=0.0
        )
        part = tl.load(vectors + place * width + columns, mask=inside, other=0.0)
        summed += tl.sum(tile * part[None, :], axis=1)
    tl.store(dots + place * n_kept + entries, summed, mask=kept)


@triton.jit
def _sum_by_latent(positions, values, vectors, starts, summed, width):
    latent = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * SUMMED + tl.arange(0, SUMMED)
    inside = columns < width
    total = tl.zeros((SUMMED,), dtype=summed.dtype.element_ty)
    for entry in range(tl.load(starts + latent), tl.load(starts + latent + 1)):
        position = tl.load(positions + entry).to(tl.int64)
        total += tl.load(values + entry) * tl.load(vectors + position * width + columns, mask=inside, other=0.0)
    tl.store(summed + latent * width + columns, total, mask=inside)
