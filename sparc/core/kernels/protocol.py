"""The methods of a kernel backend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from torch import Tensor

from sparc.core.kernels.entries import LatentSum


class AdamStep(NamedTuple):
    """The scalars of one step of Adam, computed in double precision: p -= rate * m / (sqrt(v) + epsilon).

    `rate` and `epsilon` contain the root of the second moment's bias correction, which saves a division per weight.
    """

    rate: float
    """Learning rate times that root, divided by the first moment's bias correction."""
    beta1: float
    rest1: float
    """1 - beta1."""
    beta2: float
    rest2: float
    """1 - beta2."""
    epsilon: float
    """Adam's epsilon times that root."""


class Kernels(Protocol):
    """A kernel backend.

    The last four methods fuse what the callers otherwise do with PyTorch's operators. A backend without them returns
    None or False and leaves its arguments untouched.
    """

    def weighted_rows(self, indices_BK: Tensor, values_BGK: Tensor, table_LD: Tensor) -> Tensor:
        """Return the sum over j of values[b, g, j] * table[indices[b, j]]: (B, G, D)."""

    def entry_dots(self, vectors_BGD: Tensor, table_LD: Tensor, indices_BK: Tensor) -> Tensor:
        """Return the dot product of vectors[b, g] and table[indices[b, j]] for each entry: (B, G, K)."""

    def sum_by_latent(self, summed: LatentSum) -> Tensor:
        """Return all sums of `summed`: (L, D)."""

    def dots_by_latent(self, summed: LatentSum, table_LD: Tensor) -> Tensor:
        """Return the dot products of `entry_dots` for the vectors of a sum, in the order of its entries: (E, G)."""

    def sum_with_dots(self, summed: LatentSum, table_LD: Tensor) -> tuple[Tensor, Tensor]:
        """Return `sum_by_latent` and `dots_by_latent`."""

    def update_by_latent(
        self,
        sums: Sequence[tuple[LatentSum, slice]],
        table: Tensor,
        moments: tuple[Tensor, Tensor],
        step: AdamStep,
        unit_ends: Sequence[int] | None,
    ) -> list[Tensor] | None:
        """Sum each latent's gradient and take Adam's step on its row of a table (L, D), while both are in the cache.

        Each sum adds to the columns of the table beside it in `sums`; the first covers all. With `unit_ends`, the ends
        of the decoders' columns, the latent's directions stay on unit norm: the gradient's part along a direction is
        removed before the step, and the direction is scaled back after it.

        Returns for each sum its `dots_by_latent` with the table before the step; None if not implemented.
        """

    def project_directions(self, gradient: Tensor, table: Tensor, ends: Sequence[int]) -> bool:
        """Remove from the gradient of a table (L, D) its part along each direction, in place.

        Directions have unit norm; `ends` are the ends of the decoders' columns. Returns False if not implemented.
        """

    def normalize_directions(self, table: Tensor, ends: Sequence[int]) -> bool:
        """Scale each direction in a table (L, D) to unit norm, in place. Returns False if not implemented."""

    def round_rows(self, table_LD: Tensor, rounded_LR: Tensor, first: int, squares_L2: Tensor) -> bool:
        """Round a table to bfloat16, into the columns of `rounded_LR` from `first` on.

        Adds to `squares_L2` the sum of squares of each row, and that of its rounding errors. Returns False if not
        implemented.
        """
