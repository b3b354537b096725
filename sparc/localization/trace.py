"""Traces: attention weights and activations of one forward pass of a frozen model, in its autograd graph.

A torch function mode intercepts every call of a torch function, so no model is patched and no architecture needs to be
known. timm, open_clip and transformers compute attention by `scaled_dot_product_attention` or `nn.MultiheadAttention`;
here both are computed step by step, so that their weights can be recorded. All other calls run unchanged.
"""

from __future__ import annotations

import inspect
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
"""Number of activations kept; in all architectures we tested, the last one with the grid's size is among them."""

NORMS = (F.layer_norm, F.rms_norm)
POOLS = (torch.mean, Tensor.mean, torch.sum, Tensor.sum)
_MULTI_HEAD = inspect.signature(F.multi_head_attention_forward)


class _DotProductAttention(NamedTuple):
    """The arguments of `scaled_dot_product_attention`, in its order."""

    query: Tensor
    key: Tensor
    value: Tensor
    attn_mask: Tensor | None = None
    dropout_p: float = 0.0
    is_causal: bool = False
    scale: float | None = None
    enable_gqa: bool = False


class Attention(NamedTuple):
    """The attention of one layer."""

    weights: Tensor
    """(B, heads, queries, keys); each row sums to 1."""
    output: Tensor
    """(B, heads, queries, width of a head): the weighted values."""


class Trace(TorchFunctionMode):
    """A context in which attention and activations that may hold the grid are recorded, in the order of the calls.

    attention: every self or cross attention.
    activations: the last outputs of norms and inputs of means over tokens, (B, tokens, C), and the last maps with the
    rows and columns of `grid`, (B, C, rows, columns) or (B, rows, columns, C).
    layers: how many of the attentions, the last ones, attention relevance goes through; None for all.
    """

    def __init__(self, grid: tuple[int, int] | None = None, layers: int | None = None) -> None:
        super().__init__()
        self.layers = layers
        self.attention: list[Attention] = []
        self.activations: list[Tensor] = []
        self._grid = grid

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run the torch function that the model called, and record its input or output."""
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return self._attend(_DotProductAttention(*args, **kwargs))
        if func is F.multi_head_attention_forward:
            given = _MULTI_HEAD.bind(*args, **kwargs)
            given.apply_defaults()
            return self._attend_with_heads(given.arguments)
        output = func(*args, **kwargs)
        if func is F.embedding and not output.requires_grad:
            # Token ids cannot have a gradient, so the graph of a text model starts at its embeddings.
            output.requires_grad_()
        if func in POOLS and _along(args, kwargs) in (1, [1], (1,)):
            self._keep(args[0])
        elif func in NORMS or getattr(output, "ndim", 0) == 4:
            self._keep(output)
        return output

    def _keep(self, tensor: Any) -> None:
        """Record an activation if it may hold the grid."""
        if self._grid is None or not isinstance(tensor, Tensor) or not tensor.requires_grad:
            return
        if tensor.ndim == 4 and self._grid in (tuple(tensor.shape[2:]), tuple(tensor.shape[1:3])):
            self.activations = [*self.activations[1 - LAST :], tensor]
        if tensor.ndim == 3 and tensor.shape[1] >= math.prod(self._grid):
            self.activations = [*self.activations[1 - LAST :], tensor]

    def _attend(self, given: _DotProductAttention) -> Tensor:
        """Compute attention as torch documents it, without dropout, since the models are frozen."""
        query, key, value, mask = given.query, given.key, given.value, given.attn_mask
        if given.enable_gqa:
            groups = query.shape[-3] // key.shape[-3]
            key, value = key.repeat_interleave(groups, -3), value.repeat_interleave(groups, -3)
        logits = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if given.scale is None else given.scale)
        if given.is_causal:
            ones = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device)
            logits = logits.masked_fill(~ones.tril(), -torch.inf)
        if mask is not None:
            logits = logits.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else logits + mask
        # For a query that may attend to no key torch returns 0, where softmax would return NaN.
        nothing = logits.isneginf().all(dim=-1, keepdim=True)
        weights = logits.masked_fill(nothing, 0).softmax(dim=-1).masked_fill(nothing, 0)
        output = weights @ value
        if weights.ndim == 4:
            self.attention.append(Attention(weights, output))
        return output

    def _attend_with_heads(self, given: Mapping[str, Any]) -> tuple[Tensor, None]:
        """Compute the plain form of `multi_head_attention_forward`, (tokens, B, width) in and out.

        Raises PluginError for key and value biases, zero attention, or separate projection weights.
        """
        weight, bias = given["in_proj_weight"], given["in_proj_bias"]
        extended = given["bias_k"] is not None or given["add_zero_attn"]
        if weight is None or given["use_separate_proj_weight"] or extended:
            raise PluginError(
                "expected the plain form of nn.MultiheadAttention, found one with biases or widths of its own",
                hint="choose a --method that needs no attention",
            )
        query, n_heads = given["query"], given["num_heads"]
        projections = zip(weight.chunk(3), [None] * 3 if bias is None else bias.chunk(3), strict=True)
        q, k, v = (
            F.linear(tokens, *projection).reshape(*tokens.shape[:2], n_heads, -1).permute(1, 2, 0, 3)
            for tokens, projection in zip((query, given["key"], given["value"]), projections, strict=True)
        )
        masks = []
        if (mask := given["attn_mask"]) is not None:
            by_head = (query.shape[1], n_heads) if mask.ndim == 3 else ()
            masks.append(_additive(mask, query.dtype).reshape(*by_head, *mask.shape[-2:]))
        if (padding := given["key_padding_mask"]) is not None:
            masks.append(_additive(padding, query.dtype)[:, None, None])
        output = self._attend(_DotProductAttention(q, k, v, sum(masks[1:], start=masks[0]) if masks else None))
        return F.linear(output.permute(2, 0, 1, 3).flatten(2), given["out_proj_weight"], given["out_proj_bias"]), None


def _along(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Return the `dim` argument of a pooling call."""
    return kwargs["dim"] if "dim" in kwargs else args[1] if len(args) > 1 else None


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a mask of nn.MultiheadAttention, in which True hides a key, as numbers to add to the logits."""
    if mask.dtype == torch.bool:
        return torch.zeros_like(mask, dtype=dtype).masked_fill(mask, -torch.inf)
    return mask


def traced(name: str, backbone: Backbone, batch: Any, layers: int | None = None) -> tuple[Tensor, Trace]:
    """Return the features (B, D) of a batch in their autograd graph, and the trace of their forward pass.

    layers: as `Trace` has it. The graph starts at the batch, or at the embeddings of its tokens: parameters get no
    gradient.

    Raises PluginError if the backbone's forward detaches the features from the graph.
    """
    trace = Trace(getattr(backbone, "grid", None), layers)
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
