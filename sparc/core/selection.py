"""Which latents a sample keeps: the paper's TopK."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def top_k(scores_BL: Tensor, k: int) -> Tensor:
    """Indices (B, K) of the k largest scores of each row, largest first; among equal scores the lowest index is kept.

    `torch.topk` breaks ties as it likes, and differently on each device. Only a tie between the last kept and the first
    dropped score changes the set, so only such rows are sorted.
    """
    if k == scores_BL.shape[1]:
        return scores_BL.argsort(dim=1, descending=True, stable=True)
    top = scores_BL.topk(k + 1, dim=1)
    indices_BK = top.indices[:, :k].contiguous()
    tied_B = top.values[:, k - 1] == top.values[:, k]
    if tied_B.any():
        indices_BK[tied_B] = scores_BL[tied_B].argsort(dim=1, descending=True, stable=True)[:, :k]
    return indices_BK
