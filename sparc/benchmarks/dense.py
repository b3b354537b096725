"""The naive training step: dense codes, a dense product for each pair of streams, autograd and PyTorch's Adam.

Research code, the paper's included, does this, and `sparc bench step --oracle` compares the engine with it. Tests hold
both to the same numbers.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sparc.config import TrainingConfig
from sparc.core.space import Batch, LatentSpace


class DenseTraining:
    """Training of a copy of a space that selects globally."""

    def __init__(self, space: LatentSpace, config: TrainingConfig) -> None:
        """Copy the parameters."""

        def leaf(tensor: Tensor) -> Tensor:
            return tensor.detach().clone().requires_grad_()

        self.config = config
        self.k = space.k
        self.encoders = {name: leaf(space.encoder(name)[0]) for name in space.streams}
        self.latent_bias = {name: leaf(space.encoder(name)[1]) for name in space.streams}
        self.decoders = {name: leaf(space.decoder[:, segment].T) for name, segment in space.segments.items()}
        self.pre_bias = {name: leaf(space.pre_bias[segment]) for name, segment in space.segments.items()}
        groups = (self.encoders, self.latent_bias, self.decoders, self.pre_bias)
        self.optimizer = torch.optim.Adam([tensor for group in groups for tensor in group.values()], lr=config.lr)
        self.silence = {name: torch.zeros(space.n_latents, device=space.decoder.device) for name in space.streams}

    def advance(self, batch: Batch) -> Tensor:
        """Take one step on normalised features of samples that have every stream, and return the loss."""
        x = batch.features
        logits = {
            name: F.linear(x[name] - self.pre_bias[name], self.encoders[name], self.latent_bias[name]) for name in x
        }
        kept = torch.stack(list(logits.values())).sum(dim=0).topk(self.k, dim=1).indices
        codes = {name: _sparse(h, kept) for name, h in logits.items()}
        n_streams = len(x)
        loss = torch.zeros((), device=kept.device)
        for source, z in codes.items():
            for target, decoder in self.decoders.items():
                y = F.linear(z, decoder) + self.pre_bias[target]
                if source != target:
                    weight = self.config.lambda_ / (n_streams * (n_streams - 1))
                    loss = loss + weight * _nmse(y, x[target])
                    continue
                loss = loss + _nmse(y, x[target]) / n_streams
                auxiliary = self._auxiliary(source, logits[source], (x[source] - y).detach())
                loss = loss + self.config.aux_weight / n_streams * auxiliary
        loss.backward()  # type: ignore[no-untyped-call]
        self._update(codes)
        return loss.detach()

    def _auxiliary(self, name: str, logits: Tensor, left_over: Tensor) -> Tensor:
        dead = self.silence[name] > self.config.dead_after
        among_dead = logits.masked_fill(~dead, -torch.inf)
        code = _sparse(logits * dead, among_dead.topk(min(self.config.k_aux, dead.numel()), dim=1).indices)
        return _nmse(F.linear(code, self.decoders[name]), left_over) * dead.any()

    @torch.no_grad()
    def _update(self, codes: dict[str, Tensor]) -> None:
        for decoder in self.decoders.values():
            assert decoder.grad is not None
            decoder.grad -= (decoder.grad * decoder).sum(dim=0) * decoder
        self.optimizer.step()
        self.optimizer.zero_grad()
        for decoder in self.decoders.values():
            decoder /= decoder.norm(dim=0)
        for name, z in codes.items():
            self.silence[name] = torch.where((z > 1e-3).any(dim=0), 0, self.silence[name] + len(z))


def _sparse(logits: Tensor, kept: Tensor) -> Tensor:
    return torch.zeros_like(logits).scatter(1, kept, logits.gather(1, kept).relu())


def _nmse(y: Tensor, x: Tensor) -> Tensor:
    return ((y - x).square().sum(dim=1) / x.square().sum(dim=1)).mean()
