"""Adam over a latent space, one block of latents at a time: each weight is read and written once a step.

A block's gradient is summed, projected, applied and its columns put back on unit norm while it is in the cache; the
gradient of a whole table never exists. Kingma and Ba, arXiv 1412.6980; the arithmetic is that of
`torch.optim.Adam(fused=True)`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.profiler import record_function

from sparc.core.gradients import Gradients
from sparc.core.space import LatentSpace

BETAS = (0.9, 0.999)
EPSILON = 1e-8


class Adam:
    """First and second moments of a space's parameters, and the step that uses them."""

    def __init__(self, space: LatentSpace, lr: float) -> None:
        """Start with moments of zero."""
        self.space = space
        self.lr = lr
        self.moments = {
            name: (torch.zeros_like(parameter), torch.zeros_like(parameter))
            for name, parameter in space.named_parameters()
        }
        """By name of the parameter: running means of its gradient and of the gradient's square."""
        self.steps = torch.zeros((), device=space.decoder.device)

    @torch.no_grad()
    def step(self, gradients: Gradients) -> None:
        """Update every parameter. The decoder's columns stay on unit norm: their gradient's part along them is removed
        before the update, and they are scaled back after it."""
        self.steps += 1
        space = self.space
        with record_function("sparc.decoder"):
            for latents in gradients.decoder.blocks():
                gradient = gradients.decoder.block(latents)
                columns = space.decoder[latents]
                space.project(gradient, columns)
                self._update("decoder", latents, gradient)
                space.normalize_columns(columns)
        with record_function("sparc.encoders"):
            for position, table in enumerate(gradients.encoders):
                for latents in table.blocks():
                    self._update(f"encoders.{position}", latents, table.block(latents))
        self._update("latent_bias", slice(None), gradients.latent_bias)
        self._update("pre_bias", slice(None), gradients.pre_bias)

    def _update(self, name: str, rows: slice, gradient: Tensor) -> None:
        mean, square = self.moments[name]
        torch._fused_adam_(
            [self.space.get_parameter(name)[rows]],
            [gradient],
            [mean[rows]],
            [square[rows]],
            [],
            [self.steps],
            lr=self.lr,
            beta1=BETAS[0],
            beta2=BETAS[1],
            weight_decay=0.0,
            eps=EPSILON,
            amsgrad=False,
            maximize=False,
        )
