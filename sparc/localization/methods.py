"""Maps: how much each patch of an image has to do with a target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sparc.errors import PluginError
from sparc.localization.targets import Target
from sparc.localization.trace import Trace


def dense(patches_PD: Tensor, target: Target) -> Tensor:
    """The target of each patch encoded by itself, (P,): no gradient, and nothing of the other patches' codes."""
    with torch.inference_mode():
        return target(patches_PD)


def by_gradient(
    method: str, name: str, features_1D: Tensor, trace: Trace, grid: tuple[int, int], target: Target
) -> Tensor:
    """The target explained by its gradient, (P,): `relevance`, `grad-cam` or `layer-cam`. Zero where it has none.

    features_1D: in the graph that `trace` saw; it stays, for other targets.

    Raises PluginError where the model's architecture does not allow the method.
    """
    leaf_1D = features_1D.detach().requires_grad_()
    with torch.enable_grad():
        (pull_1D,) = torch.autograd.grad(target(leaf_1D).sum(), leaf_1D)
    if not pull_1D.any():  # the codes share no latent
        return features_1D.new_zeros(math.prod(grid))
    return GRADIENT_METHODS[method](name, Explained(features_1D, pull_1D, trace, grid))


class Explained(NamedTuple):
    """What methods by gradient go by."""

    features: Tensor
    """(1, D), in their graph."""
    pull: Tensor
    """(1, D), the target's gradient by the features."""
    trace: Trace
    grid: tuple[int, int]

    def gradients(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The target's gradients; zero where it does not depend on a tensor."""
        found = torch.autograd.grad(self.features, tensors, self.pull, retain_graph=True, allow_unused=True)
        return [
            torch.zeros_like(tensor) if gradient is None else gradient
            for tensor, gradient in zip(tensors, found, strict=True)
        ]


def relevance(name: str, of: Explained) -> Tensor:
    """Attention relevance through the layers, (P,), of the last tokens: Chefer et al. 2021, arXiv 2103.15679.

    With A the attention of a layer and dA its gradient, R starts as the identity and becomes R + mean over heads of
    relu(A dA) R layer by layer. Of R counts what the features are read from: the rows of the last attention's output
    by the norm of their gradient, which is the class token's row alone where the features are the class token's.

    Raises PluginError where the model's attention does not look at all tokens at once.
    """
    layers, n_tokens = of.trace.attention, math.prod(of.grid)
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
        # Attention of a few queries over all tokens pools them.
        rollout = rollout + step @ rollout if step.shape == identity.shape else step @ rollout
    if rollout.shape == identity.shape:
        rollout = rollout - identity  # what each token says of itself says nothing
    strength = of_output[0].square().sum(dim=(0, 2)).sqrt()
    return (strength / strength.sum().clamp(min=1e-30) @ rollout)[-n_tokens:]


def _sees_all(shapes: Sequence[tuple[int, ...]], n_tokens: int) -> bool:
    """Whether each layer looks from all tokens at all, of which the grid's are the last; the last layer may pool."""
    batch, _, _, keys = shapes[0]
    squares = all((size[0], *size[2:]) == (1, keys, keys) for size in shapes[:-1])
    return squares and batch == 1 and keys >= n_tokens and shapes[-1][0] == 1 and shapes[-1][3] == keys


def grad_cam(name: str, of: Explained) -> Tensor:
    """Grad-CAM, (P,): the last activations of the grid, channels weighted by their mean gradient (arXiv 1610.02391)."""
    activations_PC, gradient_PC = last_grid(name, of)
    return (activations_PC * gradient_PC.mean(dim=0)).sum(dim=1).clamp(min=0)


def layer_cam(name: str, of: Explained) -> Tensor:
    """LayerCAM, (P,): the same, weighted by each place's own positive gradient (Jiang et al. 2021)."""
    activations_PC, gradient_PC = last_grid(name, of)
    return (activations_PC * gradient_PC.clamp(min=0)).sum(dim=1).clamp(min=0)


def last_grid(name: str, of: Explained) -> tuple[Tensor, Tensor]:
    """The last activations of the grid that the features depend on, and the target's gradient: (P, channels) each.

    Of a transformer that reads off its class token, what the last block's attention gets; else what is pooled.

    Raises PluginError where there are none.
    """
    candidates = of.trace.activations
    gradients = of.gradients(candidates) if candidates else []
    for activations, gradient in zip(reversed(candidates), reversed(gradients), strict=True):
        places_PC = _places(gradient, of.grid)
        if places_PC.any():
            return _places(activations.detach(), of.grid), places_PC
    raise PluginError(
        f"stream '{name}': found no activations with a grid of {of.grid[0]} x {of.grid[1]} that its features depend on",
        hint="choose another --method: dense, or relevance where there is attention",
    )


def _places(activations: Tensor, grid: tuple[int, int]) -> Tensor:
    """Of one image's tokens, or its map, the grid's places: (P, channels)."""
    if activations.ndim == 3:
        return activations[0, -math.prod(grid) :]
    if tuple(activations.shape[2:]) == grid:
        return activations[0].flatten(1).T
    return activations[0].flatten(0, 1)


GRADIENT_METHODS = {"relevance": relevance, "grad-cam": grad_cam, "layer-cam": layer_cam}
METHODS = ("dense", *GRADIENT_METHODS)
