"""Unit norm of the decoders' columns: each latent's directions, one per stream, side by side in a row.

Without it a dictionary would make its codes small and its directions long, and no two latents' values would compare. A
step keeps it: what would only change a column's norm leaves the gradient before, and columns are scaled back after.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sparc.core.kernels import blocks, kernels, row_dots

SHORTEST = 64
"""Columns that a common piece of the decoders must have."""


class UnitColumns(nn.Module):
    """Projects and normalises rows (L, T) whose segments are the latents' columns in each decoder."""

    def __init__(self, widths: Sequence[int], dtype: torch.dtype) -> None:
        """Cut the decoders into pieces of one width, so that one pass in the order of memory does for all."""
        super().__init__()
        self.widths = list(widths)
        self.ends = list(itertools.accumulate(self.widths))
        """Where each decoder's columns end."""
        self._piece = math.gcd(*self.widths)
        self._in_pieces = self._piece >= SHORTEST  # else each decoder is a piece by itself
        pieces = [width // self._piece for width in self.widths] if self._in_pieces else [1]
        decoder_P = torch.arange(len(pieces)).repeat_interleave(torch.tensor(pieces))
        same_PP = (decoder_P == decoder_P.unsqueeze(1)).to(dtype)
        self.register_buffer("_same_decoder", same_PP, persistent=False)
        self._same_decoder: Tensor
        """(P, P), 1 where two pieces are of one decoder, else 0."""

    @torch.no_grad()
    def project(self, gradient_LT: Tensor, columns_LT: Tensor) -> None:
        """Remove from a gradient of columns (on unit norm) the part along them, in place."""
        if kernels(columns_LT).project_columns(gradient_LT, columns_LT, self.ends):
            return
        for some in blocks(len(columns_LT), columns_LT):
            self.project_rows(gradient_LT[some], columns_LT[some])

    def project_rows(self, gradient_LT: Tensor, columns_LT: Tensor) -> None:
        """`project` of rows that are one block already, by PyTorch alone; to be called without gradient."""
        for gradient_LPD, columns_LPD in zip(self._pieces(gradient_LT), self._pieces(columns_LT), strict=True):
            along_LP = row_dots(gradient_LPD, columns_LPD) @ self._same_decoder
            gradient_LPD.addcmul_(along_LP.unsqueeze(2), columns_LPD, value=-1)

    @torch.no_grad()
    def normalize(self, columns_LT: Tensor) -> None:
        """Put columns on unit norm, in place; those of zeros stay so."""
        if kernels(columns_LT).normalize_columns(columns_LT, self.ends):
            return
        for some in blocks(len(columns_LT), columns_LT):
            self.normalize_rows(columns_LT[some])

    def normalize_rows(self, columns_LT: Tensor) -> None:
        """`normalize` of rows that are one block already, by PyTorch alone; to be called without gradient."""
        for columns_LPD in self._pieces(columns_LT):
            squares_LP = torch.linalg.vector_norm(columns_LPD, dim=2).square_() @ self._same_decoder
            columns_LPD *= squares_LP.clamp_(min=1e-24).rsqrt_().unsqueeze(2)

    def _pieces(self, rows_LT: Tensor) -> list[Tensor]:
        """Rows as pieces of columns, (L, P, D)."""
        if self._in_pieces:
            return [rows_LT.view(-1, len(self._same_decoder), self._piece)]
        return [segment_LD.unsqueeze(1) for segment_LD in torch.split(rows_LT, self.widths, dim=1)]
