"""Adam over a latent space, one block of latents at a time: each weight is read and written once a step.

On the CPU a block's gradient is summed, projected, applied and its columns put back on unit norm while it is in the
cache. Where the rows to be summed are many, the gradients of some blocks are summed together, as many as take no more
memory than those rows: that of a large table never exists as a whole. Kingma and Ba, arXiv 1412.6980; the arithmetic is
that of `torch.optim.Adam(fused=True)`.

Moments may be kept in bfloat16. A step changes the mean of squares by a thousandth, less than half a unit of bfloat16's
last place, and rounding to the nearest would keep it where it is; so both are rounded up or down at random, with the
odds that keep their expectation.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.profiler import record_function

from sparc.core.kernels.backend import AdamStep, kernels
from sparc.core.kernels.sparse import blocks
from sparc.core.space import LatentSpace
from sparc.core.topk import tiles
from sparc.training.gradients import Gradients, TableGradient

BETAS = (0.9, 0.999)
EPSILON = 1e-8
UNPACKED = 2**22
"""Weights whose moments are in float32 at a time where they are kept in bfloat16."""


class Adam:
    """First and second moments of a space's parameters, and the step that uses them."""

    def __init__(self, space: LatentSpace, lr: float, state: torch.dtype | None = None) -> None:
        """Start with moments of zero, of dtype `state`: that of the parameters, or bfloat16."""
        self.space = space
        self.lr = lr
        self.moments = {
            name: (torch.zeros_like(parameter, dtype=state), torch.zeros_like(parameter, dtype=state))
            for name, parameter in space.named_parameters()
        }
        """By name of the parameter: running means of its gradient and of the gradient's square."""
        self.steps = 0
        """Steps taken."""
        self._steps = torch.zeros((), device=space.decoder.device)
        """The same where the fused operator reads it: of a GPU the host need not ask."""

    @torch.no_grad()
    def step(self, gradients: Gradients) -> None:
        """Update every parameter. The decoder's columns stay on unit norm: their gradient's part along them is removed
        before the update, and they are scaled back after it."""
        self.steps += 1
        self._steps.fill_(self.steps)
        with record_function("sparc.decoder"):
            products = self._update_at_once("decoder", gradients.decoder, on_norm=True)
        if products is None:
            with record_function("sparc.code_gradients"):
                products = gradients.decoder.products(self.space.decoder)
            with record_function("sparc.decoder"):
                self._update_by_blocks("decoder", gradients.decoder, on_norm=True)
        with record_function("sparc.encoders"):
            beyond = gradients.beyond_decoder(products)
            for position, gradient in enumerate(beyond.encoders):
                name = f"encoders.{position}"
                if self._update_at_once(name, gradient, on_norm=False) is None:
                    self._update_by_blocks(name, gradient, on_norm=False)
        self._update(self.space.latent_bias, beyond.latent_bias, *self.moments["latent_bias"])
        self._update(self.space.pre_bias, beyond.pre_bias, *self.moments["pre_bias"])

    def _update_at_once(self, name: str, gradient: TableGradient, *, on_norm: bool) -> list[Tensor] | None:
        """Update a table by a kernel, which gives `gradient.products` of what the table was.

        None, and nothing done, where no kernel can.
        """
        table = self.space.get_parameter(name)
        update: Callable[..., list[Tensor]] | None = getattr(kernels(table), "update_by_latent", None)
        if update is None or self.moments[name][0].dtype != table.dtype:
            return None
        width = table.shape[1]
        products = update(
            [summed.sorted_entries() for summed, _ in gradient.sums],
            [columns.indices(width)[:2] for _, columns in gradient.sums],
            table,
            self.moments[name],
            self.space.columns.ends if on_norm else [width],
            self._numbers(),
            on_norm=on_norm,
            out_of_cache=gradient.sums[0][0].out_of_cache,
        )
        return [dots.view_as(summed.values) for dots, (summed, _) in zip(products, gradient.sums, strict=True)]

    def _update_by_blocks(self, name: str, gradient: TableGradient, *, on_norm: bool) -> None:
        table, (mean, square) = self.space.get_parameter(name).detach(), self.moments[name]
        for together in gradient.blocks():
            gradient_LD = gradient.block(together)
            for some in blocks(len(gradient_LD), table):
                latents = slice(together.start + some.start, together.start + some.stop)
                self._update_rows(table[latents], gradient_LD[some], mean[latents], square[latents], on_norm=on_norm)
            del gradient_LD  # the next is made when this one is gone

    def _update_rows(self, rows: Tensor, gradient: Tensor, mean: Tensor, square: Tensor, *, on_norm: bool) -> None:
        if on_norm:
            self.space.columns.project_rows(gradient, rows)
        self._update(rows, gradient, mean, square)
        if on_norm:
            self.space.columns.normalize_rows(rows)

    def _numbers(self) -> AdamStep:
        (beta1, beta2), steps = BETAS, self.steps
        correction = (1 - beta2**steps) ** 0.5
        return AdamStep(
            rate=self.lr * correction / (1 - beta1**steps),
            beta1=beta1,
            rest1=1 - beta1,
            beta2=beta2,
            rest2=1 - beta2,
            epsilon=EPSILON * correction,
        )

    def _update(self, parameter: Tensor, gradient: Tensor, mean: Tensor, square: Tensor) -> None:
        if mean.dtype == parameter.dtype:
            self._step(parameter, gradient, mean, square)
            return
        noise = torch.Generator(mean.device).manual_seed(self.steps)
        size = max(1, UNPACKED // max(1, parameter[:1].numel()))
        for some in tiles(len(parameter), size):
            exact_mean, exact_square = mean[some].to(parameter.dtype), square[some].to(parameter.dtype)
            self._step(parameter[some], gradient[some], exact_mean, exact_square)
            mean[some] = _rounded_at_random(exact_mean, noise)
            square[some] = _rounded_at_random(exact_square, noise)

    def _step(self, parameter: Tensor, gradient: Tensor, mean: Tensor, square: Tensor) -> None:
        torch._fused_adam_(
            [parameter],
            [gradient],
            [mean],
            [square],
            [],
            [self._steps],
            lr=self.lr,
            beta1=BETAS[0],
            beta2=BETAS[1],
            weight_decay=0.0,
            eps=EPSILON,
            amsgrad=False,
            maximize=False,
        )


def _rounded_at_random(values: Tensor, generator: torch.Generator) -> Tensor:
    """Float32 values as ones that bfloat16 holds, up or down with odds that keep the expectation.

    The last axis draws its noise once for all rows, so their errors are alike; each is still right on average.
    """
    noise = torch.randint(2**16, values.shape[-1:], generator=generator, dtype=torch.int32, device=values.device)
    bits = values.float().view(torch.int32) + noise
    rounded = bits.bitwise_and_(-(2**16)).view(torch.float32)
    return torch.where(values.isfinite(), rounded, values)
