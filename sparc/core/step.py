"""One training step, for reading: encode, loss, backward, optimiser, unit norms, counters of dead latents.

`sparc train` does not run this. `sparc/training/` computes the same step faster and without a graph. To change the
loss, change `losses.py` and `training/gradients.py`; to change the optimiser, change this file and `training/adam.py`.
The tests compare them.
"""

from __future__ import annotations

import torch

from sparc.core.dead import ActivityCounters
from sparc.core.losses import LossWeights, Term, loss_terms, total
from sparc.core.space import Batch, LatentSpace


class AutogradTraining:
    """Training of a space by autograd and `torch.optim.Adam`."""

    def __init__(self, space: LatentSpace, weights: LossWeights, *, lr: float, dead_after: int) -> None:
        """Prepare to train the space in place.

        A latent is dead in a stream after more than `dead_after` training samples without activation there.
        """
        self.space = space
        self.weights = weights
        self.dead_after = dead_after
        self.optimizer = torch.optim.Adam(space.parameters(), lr=lr, fused=True)
        self.counters = ActivityCounters(space.streams, space.n_latents, space.decoder.device)

    def advance(self, batch: Batch) -> list[Term]:
        """Take one step on normalised features and return the terms of its loss."""
        codes = self.space.encode_batch(batch)
        terms = loss_terms(self.space, batch, codes, self.weights, self.counters.dead(self.dead_after))
        total(terms).backward()  # type: ignore[no-untyped-call]
        self.space.project_decoder_gradient()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.space.renormalize_decoder()
        self.counters.update(codes, batch)
        return terms
