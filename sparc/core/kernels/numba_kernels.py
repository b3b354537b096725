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

from sparc.core.kernels import numba_loops as loops
from sparc.core.kernels.backend import AdamStep
from sparc.core.kernels.sparse import CACHED


def weighted_rows(indices_BK: Tensor, values_BGK: Tensor, table_LD: Tensor) -> Tensor:
    """Sum over j of values[b, g, j] * table[indices[b, j]]: (B, G, D).

    Raises IndexError for an index that the table lacks: its row would be read from beyond the table.
    """
    _check_indices(indices_BK, table_LD)
    summed = values_BGK.new_empty(*values_BGK.shape[:2], table_LD.shape[1])
    _match_threads()
    loops.weighted_rows(*_arrays(indices_BK, values_BGK, table_LD), summed.numpy())
    return summed


def entry_dots(rows_BGD: Tensor, table_LD: Tensor, indices_BK: Tensor) -> Tensor:
    """Product of rows[b, g] and table[indices[b, j]] for each entry: (B, G, K).

    Raises IndexError for an index that the table lacks: sorting entries by latent would write out of bounds.
    """
    _check_indices(indices_BK, table_LD)
    if not table_LD.is_contiguous():  # some columns of a table, of which only a few rows may be asked for
        latents, indices_BK = torch.unique(indices_BK, return_inverse=True)
        table_LD = table_LD[latents]
    dots = rows_BGD.new_empty(*rows_BGD.shape[:2], indices_BK.shape[1])
    _match_threads()
    loops.entry_dots(*_arrays(rows_BGD, table_LD, indices_BK), dots.numpy(), CACHED)
    return dots


def sum_by_latent(positions_E: Tensor, values_E: Tensor, rows_ND: Tensor, starts_L1: Tensor) -> Tensor:
    """Sum over e from starts[l] to starts[l + 1] of values[e] * rows[positions[e]]: (L, D)."""
    summed = rows_ND.new_empty(len(starts_L1) - 1, rows_ND.shape[1])
    _match_threads()
    loops.sum_by_latent(*_arrays(positions_E, values_E, rows_ND, starts_L1), summed.numpy())
    return summed


def sum_with_products(
    positions_E: Tensor, values_E: Tensor, rows_ND: Tensor, starts_L1: Tensor, table_LD: Tensor, *, out_of_cache: bool
) -> tuple[Tensor, Tensor]:
    """What `sum_by_latent` gives, (L, D), and the product of each entry's row with its latent's row of a table, (E,).

    Rows that are `out_of_cache` are read some at a time for many latents.
    """
    summed, products = torch.empty_like(table_LD), torch.empty_like(values_E)
    _match_threads()
    loops.sum_with_products(
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
    loops.update_by_latent(
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
    loops.project_columns(_in_place(gradient), *_arrays(parameter), np.array(ends))


def normalize_columns(parameter: Tensor, ends: Sequence[int]) -> None:
    """Put each segment of each row of a table (L, D) on unit norm, in place; `ends` as in `project_columns`."""
    _match_threads()
    loops.normalize_columns(_in_place(parameter), np.array(ends))


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
    loops.round_rows(*_arrays(table_LD), _in_place(rounded_LC.view(torch.int16)), first, squares_L2.numpy())


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
