"""Unit norm of directions. A latent has one direction in each decoder D_t: what its activation adds, column l of D_t.

The table of the decoders holds the directions of latent l side by side in row l, so a direction is a piece of a row.

Without unit norm, a space could shrink its codes and lengthen its directions, and the values of two latents would not
compare. A step keeps the norm: before the update, the part of the gradient along a direction is removed, since it would
only change the norm; after the update, directions are scaled back.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sparc.core.kernels import blocks, kernels, row_dots

SHORTEST = 64
"""Shortest piece for which cutting directions into pieces pays."""


class UnitDirections(nn.Module):
    """Normalises the directions in a table (L, T), and projects gradients off them.

    If the widths have a common divisor of at least `SHORTEST`, directions are cut into pieces of that length: the table
    is then one tensor (L, P, D), and one pass in the order of memory serves all decoders.
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
        # On the CPU, also where the space is built on `meta`, to be given its weights later.
        decoder_P = torch.arange(len(pieces), device="cpu").repeat_interleave(torch.tensor(pieces, device="cpu"))
        same_PP = (decoder_P == decoder_P.unsqueeze(1)).to(dtype)
        self.register_buffer("_same_decoder", same_PP, persistent=False)
        self._same_decoder: Tensor
        """(P, P), 1 if two pieces belong to the same decoder, else 0."""

    @torch.no_grad()
    def project(self, gradient_LT: Tensor, directions_LT: Tensor) -> None:
        """Remove from a gradient its part along each direction, in place. Directions have unit norm."""
        if kernels(directions_LT).project_directions(gradient_LT, directions_LT, self.ends):
            return
        for some in blocks(len(directions_LT), directions_LT):
            self.project_rows(gradient_LT[some], directions_LT[some])

    def project_rows(self, gradient_LT: Tensor, directions_LT: Tensor) -> None:
        """As `project`, for rows that are one block, with PyTorch's operators. Call it under `no_grad`."""
        for gradient_LPD, directions_LPD in zip(self._pieces(gradient_LT), self._pieces(directions_LT), strict=True):
            along_LP = row_dots(gradient_LPD, directions_LPD) @ self._same_decoder
            gradient_LPD.addcmul_(along_LP.unsqueeze(2), directions_LPD, value=-1)

    @torch.no_grad()
    def normalize(self, directions_LT: Tensor) -> None:
        """Scale directions to unit norm, in place; directions of zero stay zero."""
        if kernels(directions_LT).normalize_directions(directions_LT, self.ends):
            return
        for some in blocks(len(directions_LT), directions_LT):
            self.normalize_rows(directions_LT[some])

    def normalize_rows(self, directions_LT: Tensor) -> None:
        """As `normalize`, for rows that are one block, with PyTorch's operators. Call it under `no_grad`."""
        for directions_LPD in self._pieces(directions_LT):
            squares_LP = torch.linalg.vector_norm(directions_LPD, dim=2).square_() @ self._same_decoder
            directions_LPD *= squares_LP.clamp_(min=1e-24).rsqrt_().unsqueeze(2)

    def _pieces(self, rows_LT: Tensor) -> list[Tensor]:
        """Return rows as tensors (L, P, D): one of all pieces, or one per decoder with P = 1."""
        if self._in_pieces:
            return [rows_LT.view(-1, len(self._same_decoder), self._piece)]
        return [segment_LD.unsqueeze(1) for segment_LD in torch.split(rows_LT, self.widths, dim=1)]
