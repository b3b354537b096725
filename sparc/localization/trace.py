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

from sparc.errors import PluginError
from sparc.plugins.batches import mapped
from sparc.plugins.contracts import Backbone

LAST = 16
"""Activations that are kept: that of the last grid is among them in every architecture that we know."""


NORMS = (F.layer_norm, F.rms_norm)
POOLS = (torch.mean, Tensor.mean, torch.sum, Tensor.sum)


class Attention(NamedTuple):
    """One attention of a model."""

    weights: Tensor
    """(B, heads, queries, keys), each row summing to 1."""
    output: Tensor
    """(B, heads, queries, width of a head): the values, weighted."""


class Trace(TorchFunctionMode):
    """Within it, attention is computed explicitly and recorded, in order, as are activations that may hold a grid.

    attention: every self or cross attention.
    activations: the last tokens that came out of a norm or went into a mean, (B, tokens, channels), and the last maps
    of `grid`'s rows and columns, (B, channels, rows, columns) or (B, rows, columns, channels).
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
        if func in POOLS and _along(args, kwargs) in (1, [1], (1,)):
            self._keep(args[0])
        elif func in NORMS or getattr(output, "ndim", 0) == 4:
            self._keep(output)
        return output

    def _keep(self, tensor: Any) -> None:
        """Record what may hold the grid."""
        if self._grid is None or not isinstance(tensor, Tensor) or not tensor.requires_grad:
            return
        if tensor.ndim == 4 and self._grid in (tuple(tensor.shape[2:]), tuple(tensor.shape[1:3])):
            self.activations = [*self.activations[1 - LAST :], tensor]
        if tensor.ndim == 3 and tensor.shape[1] >= math.prod(self._grid):
            self.activations = [*self.activations[1 - LAST :], tensor]

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
        # Of a query that may look at nothing, torch makes 0, and softmax would make NaN.
        nothing = logits.isneginf().all(dim=-1, keepdim=True)
        weights = logits.masked_fill(nothing, 0).softmax(dim=-1).masked_fill(nothing, 0)
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
        masks = []
        if attn_mask is not None:
            by_head = (query.shape[1], n_heads) if attn_mask.ndim == 3 else ()
            masks.append(_additive(attn_mask, query.dtype).reshape(*by_head, *attn_mask.shape[-2:]))
        if key_padding_mask is not None:
            masks.append(_additive(key_padding_mask, query.dtype)[:, None, None])
        attn_mask = sum(masks[1:], start=masks[0]) if masks else None
        output = self._attend(q, k, v, attn_mask)
        return F.linear(output.permute(2, 0, 1, 3).flatten(2), out_weight, out_bias), None


def _along(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """The dimension that a pool is told."""
    return kwargs["dim"] if "dim" in kwargs else args[1] if len(args) > 1 else None


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
        features = backbone.forward(mapped(batch, _with_gradient))
    if not features.requires_grad:
        raise PluginError(
            f"backbone '{name}': its forward cuts the graph, so that nothing has a gradient",
            hint="choose --method dense; or let its forward run without torch.no_grad and torch.inference_mode",
        )
    return features, trace


def _with_gradient(tensor: Tensor) -> Tensor:
    return tensor.detach().clone().requires_grad_() if tensor.is_floating_point() else tensor
