"""The training step through autograd: for a loss or an optimiser of one's own.

The same codes, losses and gradients as the trainer's own step, which it costs a little more than.
"""

from __future__ import annotations

import torch

from sparc.config import TrainingConfig
from sparc.core.dead import DeadLatents
from sparc.core.losses import Term, loss_terms, total
from sparc.core.space import Batch, LatentSpace


class AutogradTraining:
    """A training of a space with an optimiser of PyTorch."""

    def __init__(self, space: LatentSpace, config: TrainingConfig) -> None:
        """Train the space in place, by Adam."""
        self.space = space
        self.config = config
        self.optimizer = torch.optim.Adam(space.parameters(), lr=config.lr, fused=True)
        self.dead = DeadLatents(space.streams, space.n_latents, space.decoder.device)

    def advance(self, batch: Batch) -> list[Term]:
        """Take one step on normalised features."""
        codes = self.space.encode_batch(batch)
        terms = loss_terms(
            self.space,
            batch,
            codes,
            cross_weight=self.config.lambda_,
            aux_weight=self.config.aux_weight,
            k_aux=self.config.k_aux,
            dead=self.dead.dead(self.config.dead_after),
        )
        total(terms).backward()  # type: ignore[no-untyped-call]
        self.space.project_decoder_gradient()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.space.renormalize_decoder()
        self.dead.update(codes, batch)
        return terms
