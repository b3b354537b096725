"""The optimiser and the unit norms of `core/step.py` by hand: Adam, one block of latents at a time.

Each weight is read and written once a step. On the CPU a block's gradient is summed, projected and applied, and its
directions are scaled back to unit norm, while the block is in the cache. If the vectors to sum exceed the cache, the
gradients of several blocks are summed together, as many as take no more memory than those vectors, so the gradient of a
large table never exists as a whole. Kingma and Ba, arXiv 1412.6980; the arithmetic is that of
`torch.optim.Adam(fused=True)`.

Moments may be kept in bfloat16. A step changes the mean of squares by a thousandth, which is less than half a unit in
bfloat16's last place: rounding to nearest would never move it. So both moments are rounded up or down at random, with
odds that keep their expectation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.profiler import record_function

from sparc.core.kernels import AdamStep, blocks, kernels, tiles
from sparc.core.space import LatentSpace
from sparc.training.gradients import EncoderGradients, Gradients, TableGradient
from sparc.training.reduction import Reduction

if TYPE_CHECKING:
    from sparc.training.distributed import Ranks

BETAS = (0.9, 0.999)
EPSILON = 1e-8
UNPACKED = 2**22
"""Number of bfloat16 moments that are converted to float32 at a time."""


class Adam:
    """First and second moments of a space's parameters, and the step that uses them."""

    def __init__(
        self, space: LatentSpace, lr: float, state: torch.dtype | None = None, ranks: Ranks | None = None
    ) -> None:
        """Start with moments of zero, in the dtype `state`: by default that of the parameters, or bfloat16.

        With `ranks`, gradients are summed over those that have other samples.
        """
        self.space = space
        self.lr = lr
        self._ranks = ranks
        self._summed = ranks is not None and ranks.samples.size > 1
        self.moments = {
            name: (torch.zeros_like(parameter, dtype=state), torch.zeros_like(parameter, dtype=state))
            for name, parameter in space.named_parameters()
        }
        """Running means of the gradient and of its square, by name of the parameter."""
        self.steps = 0
        """Steps taken."""
        self._steps = torch.zeros((), device=space.decoder.device)
        """The step count as a device tensor, as `_fused_adam_` needs it (no sync)."""

    @torch.no_grad()
    def step(self, gradients: Gradients) -> Tensor:
        """Update every parameter, keep the decoders' directions on unit norm, and return the norm of the gradient.

        The norm is that of the biases' gradient, because the tables' gradient never exists as a whole.

        The part of the gradient along a direction is removed before the update, and directions are scaled back after
        it.
        """
        self.steps += 1
        self._steps.fill_(self.steps)
        if self._summed:
            return self._step_on_sums(gradients)
        with record_function("sparc.decoder"):
            dots = self._update_at_once("decoder", gradients.decoder, on_norm=True)
        if dots is None:
            with record_function("sparc.code_gradients"):
                dots = gradients.decoder.dots(self.space.decoder)
            with record_function("sparc.decoder"):
                self._update_by_blocks("decoder", gradients.decoder, on_norm=True)
        with record_function("sparc.encoders"):
            beyond = gradients.beyond_decoder(dots)
            for position, gradient in enumerate(beyond.encoders):
                name = f"encoders.{position}"
                if self._update_at_once(name, gradient, on_norm=False) is None:
                    self._update_by_blocks(name, gradient, on_norm=False)
        return self._update_biases(beyond)

    def _step_on_sums(self, gradients: Gradients) -> Tensor:
        """As `step`, with the gradients of tables summed over the ranks that have other samples."""
        assert self._ranks is not None
        reduction = Reduction(self._ranks.samples, gradients.decoder)
        with record_function("sparc.code_gradients"):
            dots = gradients.decoder.dots(self.space.decoder)
        with record_function("sparc.decoder"):
            self._update_by_sums("decoder", gradients.decoder, reduction, on_norm=True)
        with record_function("sparc.encoders"):
            beyond = gradients.beyond_decoder(dots)
            for position, gradient in enumerate(beyond.encoders):
                self._update_by_sums(f"encoders.{position}", gradient, reduction, on_norm=False)
        return self._update_biases(beyond)

    def _update_by_sums(self, name: str, gradient: TableGradient, reduction: Reduction, *, on_norm: bool) -> None:
        table, (moment1, moment2) = self.space.get_parameter(name).detach(), self.moments[name]
        for together, gradient_LD in reduction.blocks(gradient, table):
            for some in blocks(len(gradient_LD), table):
                latents = slice(together.start + some.start, together.start + some.stop)
                rows, moments = table[latents], (moment1[latents], moment2[latents])
                self._update_rows(rows, gradient_LD[some], *moments, on_norm=on_norm)

    def _update_biases(self, beyond: EncoderGradients) -> Tensor:
        self._update(self.space.latent_bias, beyond.latent_bias, *self.moments["latent_bias"])
        self._update(self.space.pre_bias, beyond.pre_bias, *self.moments["pre_bias"])
        norm = beyond.latent_bias.norm()
        if self._ranks is not None and self._ranks.latents.size > 1:
            norm = self._ranks.latents.sum_(norm.square(), "biases").sqrt()
        return torch.hypot(norm, beyond.pre_bias.norm())

    def _update_at_once(self, name: str, gradient: TableGradient, *, on_norm: bool) -> list[Tensor] | None:
        """Update a table by a fused kernel and return `gradient.dots` with the table before the update.

        Returns None, and leaves the table as it is, if no kernel does this.
        """
        table, moments = self.space.get_parameter(name), self.moments[name]
        if moments[0].dtype != table.dtype:
            return None
        unit_ends = self.space.directions.ends if on_norm else None
        return kernels(table).update_by_latent(gradient.sums, table, moments, self._scalars(), unit_ends)

    def _update_by_blocks(self, name: str, gradient: TableGradient, *, on_norm: bool) -> None:
        table, (moment1, moment2) = self.space.get_parameter(name).detach(), self.moments[name]
        for together in gradient.blocks():
            gradient_LD = gradient.block(together)
            for some in blocks(len(gradient_LD), table):
                latents = slice(together.start + some.start, together.start + some.stop)
                rows, moments = table[latents], (moment1[latents], moment2[latents])
                self._update_rows(rows, gradient_LD[some], *moments, on_norm=on_norm)
            del gradient_LD  # free its memory before the next one is computed

    def _update_rows(self, rows: Tensor, gradient: Tensor, moment1: Tensor, moment2: Tensor, *, on_norm: bool) -> None:
        if on_norm:
            self.space.directions.project_rows(gradient, rows)
        self._update(rows, gradient, moment1, moment2)
        if on_norm:
            self.space.directions.normalize_rows(rows)

    def _scalars(self) -> AdamStep:
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

    def _update(self, parameter: Tensor, gradient: Tensor, moment1: Tensor, moment2: Tensor) -> None:
        if moment1.dtype == parameter.dtype:
            self._step(parameter, gradient, moment1, moment2)
            return
        noise = torch.Generator(moment1.device).manual_seed(self.steps)
        size = max(1, UNPACKED // max(1, parameter[:1].numel()))
        for some in tiles(len(parameter), size):
            exact1, exact2 = moment1[some].to(parameter.dtype), moment2[some].to(parameter.dtype)
            self._step(parameter[some], gradient[some], exact1, exact2)
            moment1[some] = _rounded_at_random(exact1, noise)
            moment2[some] = _rounded_at_random(exact2, noise)

    def _step(self, parameter: Tensor, gradient: Tensor, moment1: Tensor, moment2: Tensor) -> None:
        torch._fused_adam_(
            [parameter],
            [gradient],
            [moment1],
            [moment2],
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
    """Round float32 values to ones that bfloat16 represents, up or down with odds that keep the expectation.

    All rows use the same noise along the last axis, so their errors are correlated; each is still right on average.
    """
    noise = torch.randint(2**16, values.shape[-1:], generator=generator, dtype=torch.int32, device=values.device)
    bits = values.float().view(torch.int32) + noise
    rounded = bits.bitwise_and_(-(2**16)).view(torch.float32)
    return torch.where(values.isfinite(), rounded, values)
