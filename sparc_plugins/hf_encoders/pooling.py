"""Ways to reduce the tokens of a caption to one vector. Padding never takes part, on either side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def first_token(tokens: Tensor, mask: Tensor) -> Tensor:
    """Return each caption's first token (B, d)."""
    return _at(tokens, mask.int().argmax(dim=1))


def last_token(tokens: Tensor, mask: Tensor) -> Tensor:
    """Return each caption's last token (B, d)."""
    return _at(tokens, mask.shape[1] - 1 - mask.int().flip(1).argmax(dim=1))


def largest(tokens: Tensor, mask: Tensor) -> Tensor:
    """Return the maximum over tokens (B, d)."""
    return tokens.masked_fill(mask.unsqueeze(2) == 0, float("-inf")).amax(dim=1)


def mean(tokens: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over tokens (B, d)."""
    return _weighted(tokens, mask)


def mean_sqrt_len(tokens: Tensor, mask: Tensor) -> Tensor:
    """Return the sum over tokens, divided by the square root of their number (B, d)."""
    return _weighted(tokens, mask) * mask.sum(dim=1, keepdim=True).sqrt()


def weighted_mean(tokens: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over tokens (B, d), each weighted by its position counted from 1.

    With a prompt that is left out, the remaining tokens keep the positions that they have behind it. That is why
    positions are those in `mask`'s row: padding is on the right.
    """
    import torch

    positions = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
    return _weighted(tokens, mask * positions)


POOLS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "class": first_token,
    "cls": first_token,
    "max": largest,
    "mean": mean,
    "mean_sqrt_len_tokens": mean_sqrt_len,
    "weightedmean": weighted_mean,
    "lasttoken": last_token,
}
"""Functions from tokens (B, T, d) and a mask (B, T), 0 where a token does not count, to vectors (B, d).

`class` is a parameter's value, the other names are those of sentence-transformers."""


def without_prompt(mask: Tensor, length: int) -> Tensor:
    """Return `mask` (B, T) with zeros for the first `length` tokens of each caption."""
    return mask * (mask.cumsum(dim=1) > length)


def _at(tokens: Tensor, places: Tensor) -> Tensor:
    import torch

    return tokens[torch.arange(len(tokens), device=tokens.device), places]


def _weighted(tokens: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean over tokens, in float32: bfloat16 does not count to 512, and float16 overflows."""
    weights = weights.float()
    return (tokens.float() * weights.unsqueeze(2)).sum(dim=1) / weights.sum(dim=1, keepdim=True).clamp(min=1e-9)
