"""Global TopK over latents that several ranks hold: each finds its best, and all choose among these.

Each of the k best latents of a sample is among the k best of the rank that holds it. So ranks exchange k candidates per
sample, numbers and logits, and never logits of all latents. Of equal scores the latent with the lowest number is kept,
as by one process: candidates are sorted by number first.

A rank keeps its own share of the chosen latents. Shares differ from sample to sample, so they are filled up to the
longest: with entries of value 0, spread over the latents, because a sum over the entries of one latent would be long.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sparc.core import topk
from sparc.core.topk import EncoderProduct, Kept, summed_scores, top_k
from sparc.training.distributed import Group

_NO_LATENT = {torch.float32: (torch.int32, 2**31 - 1), torch.float64: (torch.int64, 2**63 - 1)}
"""Integers as wide as floats, so that numbers and logits travel as one tensor, and the number of no latent."""


class Share(NamedTuple):
    """The chosen candidates of this rank."""

    places: Tensor
    """(B, K) columns of the candidates, the largest score first."""
    chosen: Tensor
    """(B, K) bool; False for entries that only fill up."""


@torch.no_grad()
def share_of(numbers_BC: Tensor, logits: Sequence[Tensor], k: int, group: Group) -> Share:
    """Return which of this rank's candidates are among the k best of all ranks.

    `numbers_BC` are the latents' numbers among those of all ranks; `logits` (B, C) of streams whose sum decides.
    """
    kind, nothing = _NO_LATENT[logits[0].dtype]
    n_samples, count = numbers_BC.shape
    packed = logits[0].new_full((1 + len(logits), n_samples, k), -torch.inf)
    packed[0].view(kind).fill_(nothing)
    packed[0, :, :count].view(kind).copy_(numbers_BC)
    for place, logits_BC in enumerate(logits, 1):
        packed[place, :, :count] = logits_BC
    gathered = group.gathered(packed, "candidates")
    numbers_BA = gathered[:, 0].view(kind).transpose(0, 1).reshape(n_samples, -1)
    scores_BA = summed_scores([one.transpose(0, 1).reshape(n_samples, -1) for one in gathered[:, 1:].unbind(1)])
    order_BA = numbers_BA.argsort(dim=1)
    best_BK = top_k(scores_BA.gather(1, order_BA), k)
    chosen_BA = torch.zeros_like(scores_BA, dtype=torch.bool).scatter_(1, order_BA.gather(1, best_BK), True)
    mine_BC = chosen_BA[:, group.number * k : group.number * k + count]
    width = min(count, max(1, int(mine_BC.sum(dim=1).max()))) if count else 0
    places_BK = (~mine_BC).byte().argsort(dim=1, stable=True)[:, :width]
    return Share(places_BK, mine_BC.gather(1, places_BK))


def filled(indices_BK: Tensor, share: Share, n_latents: int) -> Tensor:
    """Return indices with those of the entries that only fill up spread over all latents."""
    spread = torch.arange(indices_BK.numel(), device=indices_BK.device).view_as(indices_BK) % max(1, n_latents)
    return torch.where(share.chosen, indices_BK, spread)


@torch.no_grad()
def kept_here(product: EncoderProduct, latents_Q: Tensor, k: int, group: Group) -> Kept:
    """Keep the k largest logits of one stream among some latents of each rank.

    `product` has the weights of this rank's latents `latents_Q`. Returns its share: positions in `latents_Q`, and
    logits that are 0 for entries that only fill up.
    """
    count = len(latents_Q)
    found = topk.select({"": product}, min(k, count), shared=False)[""] if count else _none(product)
    # Numbers need only sort as those of all ranks do: a rank's latents follow those of the ranks before it.
    first = group.number * 2**40 if product.inputs.dtype == torch.float64 else group.number * (2**31 // group.size)
    numbers_BC = latents_Q[found.indices] + first
    share = share_of(numbers_BC, [found.logits], k, group)
    indices_BK = filled(found.indices.gather(1, share.places), share, count)
    return Kept(indices_BK, torch.where(share.chosen, found.logits.gather(1, share.places), 0))


def _none(product: EncoderProduct) -> Kept:
    n_samples, device = len(product.inputs), product.inputs.device
    return Kept(torch.empty(n_samples, 0, dtype=torch.int64, device=device), product.inputs.new_empty(n_samples, 0))
