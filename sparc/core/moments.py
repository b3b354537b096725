"""Means and covariances of the normalised features of several streams, summed in float64.

A sample that lacks a stream counts for the other streams only: a covariance of two streams is that of the samples that
have both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from sparc.core.space import Batch


class Moments:
    """Sums over samples from which means and covariances follow."""

    def __init__(self, widths: Mapping[str, int], device: torch.device | str = "cpu") -> None:
        """Start without samples; `widths` of the streams, in the space's order."""
        self.streams = dict(widths)
        total, count = sum(widths.values()), len(widths)
        self._of_column = torch.repeat_interleave(torch.arange(count), torch.tensor(list(widths.values()))).to(device)
        self.counts = torch.zeros(count, count, dtype=torch.float64, device=device)
        """(S, S) samples that have both streams."""
        self.sums = torch.zeros(count, total, dtype=torch.float64, device=device)
        """(S, T) sums of all features over the samples that have the stream of the row."""
        self.products = torch.zeros(total, total, dtype=torch.float64, device=device)
        """(T, T) sums of products of two features."""

    def add(self, batch: Batch) -> None:
        """Add normalised features (B, D) of every stream."""
        x_BT = torch.cat([batch.features[name] for name in self.streams], dim=1).double()
        present_BS = torch.stack([batch.present[name] for name in self.streams], dim=1).double()
        self.counts += present_BS.T @ present_BS
        self.sums += present_BS.T @ x_BT
        self.products += x_BT.T @ x_BT

    def __add__(self, other: Moments) -> Moments:
        """Return the moments of both sets of samples together."""
        both = Moments(self.streams, self.counts.device)
        for name in ("counts", "sums", "products"):
            setattr(both, name, getattr(self, name) + getattr(other, name))
        return both

    @property
    def lacking(self) -> bool:
        """True if a sample that has one stream lacks another."""
        return bool((self.counts != self.counts.max()).any())

    def first(self, count: int) -> Moments:
        """Return the moments of the first streams alone."""
        some = Moments(dict(list(self.streams.items())[:count]), self.counts.device)
        total = sum(some.streams.values())
        some.counts, some.sums = self.counts[:count, :count], self.sums[:count, :total]
        some.products = self.products[:total, :total]
        return some

    @property
    def mean(self) -> Tensor:
        """Mean of each stream over the samples that have it, (T,); zero if none has it."""
        own_T = self._of_column
        return self.sums[own_T, torch.arange(len(own_T), device=own_T.device)] / self._own_counts.clamp(min=1)

    @property
    def _own_counts(self) -> Tensor:
        return self.counts.diagonal()[self._of_column]

    def covariance(self, mean_T: Tensor) -> Tensor:
        """Return the mean products of differences from `mean_T`, (T, T); zero for streams that no sample has both of.

        Its mean is that of the samples, or for held-out samples the one that was fitted elsewhere.
        """
        own_T = self._of_column
        counts_TT = self.counts[own_T][:, own_T]
        crossed_TT = mean_T.unsqueeze(1) * self.sums[own_T]
        products_TT = self.products - crossed_TT - crossed_TT.T + counts_TT * torch.outer(mean_T, mean_T)
        return products_TT / counts_TT.clamp(min=1)


def moments_of(
    batches: Iterable[Batch], widths: Mapping[str, int], held_out_N: Tensor, device: torch.device | str = "cpu"
) -> tuple[Moments, Moments]:
    """Return the moments of the samples to fit on, and of those that the mask `held_out_N` names.

    Batches come in the order of the mask.
    """
    fitted, held_out = Moments(widths, device), Moments(widths, device)
    first = 0
    for batch in batches:
        count = len(next(iter(batch.present.values())))
        held_out_B = held_out_N[first : first + count]
        first += count
        for moments, chosen_B in ((fitted, ~held_out_B), (held_out, held_out_B)):
            rows = chosen_B.nonzero().squeeze(1).to(device)
            moments.add(
                Batch(
                    {name: x_BD[rows] for name, x_BD in batch.features.items()},
                    {name: there_B[rows] for name, there_B in batch.present.items()},
                )
            )
    return fitted, held_out
