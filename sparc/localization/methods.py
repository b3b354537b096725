"""Methods: how much each patch of an image contributes to a target. Dense codes, and three methods by gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sparc.errors import PluginError
from sparc.localization.targets import Target
from sparc.localization.trace import Attention, Trace


def dense(patches_PD: Tensor, target: Target) -> Tensor:
    """Return the target of each patch, encoded on its own, (P,). Uses no gradient and no other patch's code."""
    with torch.inference_mode():
        return target(patches_PD)


def by_gradient(
    method: str, name: str, features_1D: Tensor, trace: Trace, grid: tuple[int, int], target: Target
) -> Tensor:
    """Return the map of a target by `relevance`, `grad-cam` or `layer-cam`, (P,); zeros if the gradient is zero.

    name: the stream, for errors.
    features_1D: in the graph that `trace` recorded, which is retained for further targets.

    Raises PluginError if the model's architecture does not allow the method.
    """
    leaf_1D = features_1D.detach().requires_grad_()
    with torch.enable_grad():
        (pull_1D,) = torch.autograd.grad(target(leaf_1D).sum(), leaf_1D)
    if not pull_1D.any():  # for example, the codes share no latent
        return features_1D.new_zeros(math.prod(grid))
    return GRADIENT_METHODS[method](name, Explained(features_1D, pull_1D, trace, grid))


class Explained(NamedTuple):
    """The input of the gradient methods: features, their gradient, and what the trace recorded."""

    features: Tensor
    """(1, D), in their autograd graph."""
    pull: Tensor
    """(1, D), the gradient of the target with respect to the features."""
    trace: Trace
    grid: tuple[int, int]

    def gradients(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return the target's gradient with respect to each tensor; zeros for one that it does not depend on."""
        found = torch.autograd.grad(self.features, tensors, self.pull, retain_graph=True, allow_unused=True)
        return [
            torch.zeros_like(tensor) if gradient is None else gradient
            for tensor, gradient in zip(tensors, found, strict=True)
        ]


def relevance(name: str, of: Explained) -> Tensor:
    """Return the attention relevance of the last P tokens, (P,): Chefer et al. 2021, arXiv 2103.15679, eqs. 5 and 6.

    With A the attention of a layer and dA its gradient, R starts as the identity. Layer by layer it becomes
    R + mean over heads of relu(A dA) R. The result is a weighted mean of the rows of R. The weights are the gradient
    norms of the rows of the last attention's output, so a model that reads its class token uses that token's row alone.
    If the trace asks for fewer layers, R starts before the last ones, so what earlier layers mixed is not followed.

    Raises PluginError if the attention of one of these layers does not span all tokens, or if there are fewer layers.
    """
    layers, n_tokens = _last(name, of.trace), math.prod(of.grid)
    if not layers or not _sees_all([tuple(layer.weights.shape) for layer in layers], n_tokens):
        found = "none" if not layers else "some over others"
        raise PluginError(
            f"stream '{name}': expected attention over all {n_tokens} tokens in every layer, found {found}",
            hint="choose another --method: dense, grad-cam or layer-cam",
        )
    *gradients, of_output = of.gradients([*(layer.weights for layer in layers), layers[-1].output])
    identity = torch.eye(layers[0].weights.shape[-1], device=of.pull.device)
    rollout = identity
    for layer, gradient in zip(layers, gradients, strict=True):
        step = (layer.weights * gradient).clamp(min=0).mean(dim=1)[0].detach()
        # A layer with few queries pools the tokens and has no residual connection to add.
        rollout = rollout + step @ rollout if step.shape == identity.shape else step @ rollout
    if rollout.shape == identity.shape:
        rollout = rollout - identity  # the initial identity marks the tokens that are read, whatever they hold
    strength = of_output[0].square().sum(dim=(0, 2)).sqrt()
    return (strength / strength.sum().clamp(min=1e-30) @ rollout)[-n_tokens:]


def _last(name: str, trace: Trace) -> list[Attention]:
    """Return the attentions that relevance goes through. Raises PluginError if the model has fewer."""
    found, wanted = trace.attention, trace.layers
    if wanted is None or not found:
        return found
    if wanted > len(found):
        raise PluginError(
            f"stream '{name}': expected at least the {wanted} layers of --layers, found {len(found)} with attention",
            hint=f"--layers {len(found)} or fewer, or leave it out for all",
        )
    return found[-wanted:]


def _sees_all(shapes: Sequence[tuple[int, ...]], n_tokens: int) -> bool:
    """Return True if every layer attends from all tokens to all tokens; the last layer may have fewer queries."""
    batch, _, _, keys = shapes[0]
    squares = all((size[0], *size[2:]) == (1, keys, keys) for size in shapes[:-1])
    return squares and batch == 1 and keys >= n_tokens and shapes[-1][0] == 1 and shapes[-1][3] == keys


def grad_cam(name: str, of: Explained) -> Tensor:
    """Return Grad-CAM, (P,): the grid's last activations, channels weighted by mean gradient (arXiv 1610.02391)."""
    activations_PC, gradient_PC = last_grid(name, of)
    return (activations_PC * gradient_PC.mean(dim=0)).sum(dim=1).clamp(min=0)


def layer_cam(name: str, of: Explained) -> Tensor:
    """Return LayerCAM, (P,): as Grad-CAM, but weighted by the positive gradient of each patch (Jiang et al. 2021)."""
    activations_PC, gradient_PC = last_grid(name, of)
    return (activations_PC * gradient_PC.clamp(min=0)).sum(dim=1).clamp(min=0)


def last_grid(name: str, of: Explained) -> tuple[Tensor, Tensor]:
    """Return the grid's last activations that the features depend on, and the target's gradient there: (P, C) each.

    For a transformer that reads its class token, these are the inputs of the last block's attention; for one that pools
    its tokens, the pooled tokens.

    Raises PluginError if no recorded activation has the grid's size.
    """
    candidates = of.trace.activations
    gradients = of.gradients(candidates) if candidates else []
    for activations, gradient in zip(reversed(candidates), reversed(gradients), strict=True):
        grid_PC = _grid_of(gradient, of.grid)
        if grid_PC.any():
            return _grid_of(activations.detach(), of.grid), grid_PC
    raise PluginError(
        f"stream '{name}': found no activations with a grid of {of.grid[0]} x {of.grid[1]} that its features depend on",
        hint="choose another --method: dense, or relevance if the model has attention",
    )


def _grid_of(activations: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return the grid's part of one image's tokens, or of its map, as (P, C)."""
    if activations.ndim == 3:
        return activations[0, -math.prod(grid) :]
    if tuple(activations.shape[2:]) == grid:
        return activations[0].flatten(1).T
    return activations[0].flatten(0, 1)


GRADIENT_METHODS = {"relevance": relevance, "grad-cam": grad_cam, "layer-cam": layer_cam}
"""Gradient methods by name; with `dense` these are `sparc.localization.request.METHODS`."""
