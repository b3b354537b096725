"""What happens inside a frozen model, seen from outside: attention and activations of one forward, in its graph.

torch lets a mode see every call of its functions, so no model is patched and none has to be known: attention that goes
through `scaled_dot_product_attention` or `nn.MultiheadAttention`, as that of timm, open_clip and transformers does, is
computed in the open here, and everything else as the model wants it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from sparc.contracts import Backbone
from sparc.errors import PluginError

LAST = 16
"""Activations that are kept: that of the last grid is among them in every architecture that we know."""


class Attention(NamedTuple):
    """One attention of a model."""

    weights: Tensor
    """(B, heads, queries, keys), each row summing to 1."""
    output: Tensor
    """(B, heads, queries, width of a head): the values, weighted."""


class Trace(TorchFunctionMode):
    """Within it, attention is computed explicitly and recorded, in order, as are activations that may hold a grid.

    attention: every self or cross attention.
    activations: the last outputs of norms over tokens, (B, tokens, channels), and the last maps of `grid`'s rows and
    columns, (B, channels, rows, columns) or (B, rows, columns, channels).
    """

    def __init__(self, grid: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.attention: list[Attention] = []
        self.activations: list[Tensor] = []
        self._grid = grid

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Do what the model asked of torch, and look at it."""
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return self._attend(*args, **kwargs)
        if func is F.multi_head_attention_forward:
            return self._attend_with_heads(*args, **kwargs)
        output = func(*args, **kwargs)
        if func is F.embedding and not output.requires_grad:
            # Token ids have no gradient: the graph of a text model begins behind them.
            output.requires_grad_()
        if isinstance(output, Tensor) and self._may_hold_a_grid(func, output):
            self.activations = [*self.activations[1 - LAST :], output]
        return output

    def _may_hold_a_grid(self, func: Callable[..., Any], output: Tensor) -> bool:
        if self._grid is None or not output.requires_grad:
            return False
        if output.ndim == 4:
            return self._grid in (tuple(output.shape[2:]), tuple(output.shape[1:3]))
        return func in (F.layer_norm, F.rms_norm) and output.ndim == 3 and output.shape[1] >= math.prod(self._grid)

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """What `scaled_dot_product_attention` says it computes; frozen models have no dropout."""
        if enable_gqa:
            groups = query.shape[-3] // key.shape[-3]
            key, value = key.repeat_interleave(groups, -3), value.repeat_interleave(groups, -3)
        logits = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
        if is_causal:
            ones = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device)
            logits = logits.masked_fill(~ones.tril(), -torch.inf)
        if attn_mask is not None:
            logits = logits.masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype == torch.bool else logits + attn_mask
        weights = logits.softmax(dim=-1)
        output = weights @ value
        if weights.ndim == 4:
            self.attention.append(Attention(weights, output))
        return output

    def _attend_with_heads(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        embed_dim: int,
        n_heads: int,
        in_weight: Tensor | None,
        in_bias: Tensor | None,
        bias_k: Tensor | None,
        bias_v: Tensor | None,
        add_zero_attn: bool,
        dropout_p: float,
        out_weight: Tensor,
        out_bias: Tensor | None,
        *,
        attn_mask: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
        use_separate_proj_weight: bool = False,
        **_: Any,
    ) -> tuple[Tensor, None]:
        """What `nn.MultiheadAttention` computes in its plain form, (tokens, B, width) in and out."""
        if in_weight is None or use_separate_proj_weight or bias_k is not None or add_zero_attn:
            raise PluginError(
                "expected the plain form of nn.MultiheadAttention, found one with biases or widths of its own",
                hint="choose another --method, which looks at no attention",
            )
        biases = [None] * 3 if in_bias is None else in_bias.chunk(3)
        q, k, v = (
            F.linear(tokens, weight, bias).reshape(*tokens.shape[:2], n_heads, -1).permute(1, 2, 0, 3)
            for tokens, weight, bias in zip((query, key, value), in_weight.chunk(3), biases, strict=True)
        )
        if key_padding_mask is not None:
            hidden = key_padding_mask[:, None, None]
            padding = torch.zeros_like(hidden, dtype=query.dtype).masked_fill(hidden, -torch.inf)
            attn_mask = padding if attn_mask is None else _additive(attn_mask, query.dtype) + padding
        elif attn_mask is not None:
            attn_mask = _additive(attn_mask, query.dtype)
        output = self._attend(q, k, v, attn_mask)
        return F.linear(output.permute(2, 0, 1, 3).flatten(2), out_weight, out_bias), None


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask of nn.MultiheadAttention, whose True hides, as numbers to add."""
    if mask.dtype == torch.bool:
        return torch.zeros_like(mask, dtype=dtype).masked_fill(mask, -torch.inf)
    return mask


def traced(name: str, backbone: Backbone, batch: Any) -> tuple[Tensor, Trace]:
    """Features (B, d) of a batch, in their graph, and what happened on the way. Parameters have no gradient.

    Raises PluginError where the backbone breaks the graph.
    """
    trace = Trace(getattr(backbone, "grid", None))
    with torch.enable_grad(), trace:
        features = backbone.forward(_with_gradient(batch))
    if not features.requires_grad:
        raise PluginError(
            f"backbone '{name}': its forward cuts the graph, so that nothing has a gradient",
            hint="choose --method dense; or let its forward run without torch.no_grad and torch.inference_mode",
        )
    return features, trace


def _with_gradient(batch: Any) -> Any:
    if isinstance(batch, dict):
        return {key: _with_gradient(value) for key, value in batch.items()}
    return batch.detach().clone().requires_grad_() if batch.is_floating_point() else batch
