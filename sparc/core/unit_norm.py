"""Unit norm of the decoders' columns: each latent's directions, one per stream, side by side in a row of the table.

Without it, a space could shrink its codes and lengthen its directions, and the values of two latents would not compare.
A step keeps the norm: before the update, the part of the gradient along a column is removed, since it would only change
the norm; after the update, columns are scaled back.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sparc.core.kernels import blocks, kernels, row_dots

SHORTEST = 64
"""Smallest common piece of the decoders' columns that pays."""


class UnitColumns(nn.Module):
    """Projects gradients and normalises columns of a table (L, T): row l holds the column of latent l in each decoder.

    If the widths have a common divisor of at least `SHORTEST`, columns are cut into pieces of that length: the table is
    then one tensor (L, P, D), and one pass in the order of memory serves all decoders.
    """

    def __init__(self, widths: Sequence[int], dtype: torch.dtype) -> None:
        """Find the pieces of decoders of these widths."""
        super().__init__()
        self.widths = list(widths)
        self.ends = list(itertools.accumulate(self.widths))
        """End of each decoder's columns in a row of the table."""
        self._piece = math.gcd(*self.widths)
        self._in_pieces = self._piece >= SHORTEST  # else each decoder is one piece
        pieces = [width // self._piece for width in self.widths] if self._in_pieces else [1]
        decoder_P = torch.arange(len(pieces)).repeat_interleave(torch.tensor(pieces))
        same_PP = (decoder_P == decoder_P.unsqueeze(1)).to(dtype)
        self.register_buffer("_same_decoder", same_PP, persistent=False)
        self._same_decoder: Tensor
        """(P, P), 1 if two pieces belong to the same decoder, else 0."""

    @torch.no_grad()
    def project(self, gradient_LT: Tensor, columns_LT: Tensor) -> None:
        """Remove from a gradient its part along each column, in place. Columns have unit norm."""
        if kernels(columns_LT).project_columns(gradient_LT, columns_LT, self.ends):
            return
        for some in blocks(len(columns_LT), columns_LT):
            self.project_rows(gradient_LT[some], columns_LT[some])

    def project_rows(self, gradient_LT: Tensor, columns_LT: Tensor) -> None:
        """Do `project` on rows that are one block already, with PyTorch's operators. Call it under `no_grad`."""
        for gradient_LPD, columns_LPD in zip(self._pieces(gradient_LT), self._pieces(columns_LT), strict=True):
            along_LP = row_dots(gradient_LPD, columns_LPD) @ self._same_decoder
            gradient_LPD.addcmul_(along_LP.unsqueeze(2), columns_LPD, value=-1)

    @torch.no_grad()
    def normalize(self, columns_LT: Tensor) -> None:
        """Scale columns to unit norm, in place; columns of zeros stay zero."""
        if kernels(columns_LT).normalize_columns(columns_LT, self.ends):
            return
        for some in blocks(len(columns_LT), columns_LT):
            self.normalize_rows(columns_LT[some])

    def normalize_rows(self, columns_LT: Tensor) -> None:
        """Do `normalize` on rows that are one block already, with PyTorch's operators. Call it under `no_grad`."""
        for columns_LPD in self._pieces(columns_LT):
            squares_LP = torch.linalg.vector_norm(columns_LPD, dim=2).square_() @ self._same_decoder
            columns_LPD *= squares_LP.clamp_(min=1e-24).rsqrt_().unsqueeze(2)

    def _pieces(self, rows_LT: Tensor) -> list[Tensor]:
        """Return rows as tensors (L, P, D): one of all pieces, or one per decoder with P = 1."""
        if self._in_pieces:
            return [rows_LT.view(-1, len(self._same_decoder), self._piece)]
        return [segment_LD.unsqueeze(1) for segment_LD in torch.split(rows_LT, self.widths, dim=1)]
