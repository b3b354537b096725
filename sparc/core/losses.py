"""The training loss as a list of terms, over any number of streams.

    NMSE(y, x) = mean_batch( ||y - x||^2 / ||x||^2 )
    loss = mean_s NMSE(y_ss, x_s) + lambda * mean_{s != t} NMSE(y_ts, x_t) + alpha * mean_s AUX_s
    AUX_s = NMSE( D_s z'_s, stopgrad(x_s - y_ss) ),  z'_s = ReLU of the k_aux largest logits among the latents dead in s

arXiv 2507.06265, section 3. The first index of y_ts is the target; in Python, as in `Term`, the source comes first. The
mean over the batch runs over the samples that have both streams.

`sparc train` does not run `loss_terms`. It computes the same terms and their gradients without autograd, in
`sparc/training/gradients.py`. To change the loss, change this module, that one, and `tests/oracle.py`; the tests
compare them. The trainer's twin of `nmse` is `_differentiate_nmse`. The NMSE that is reported, on held-out samples, is
in `sparc/evaluation/reconstruction.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from sparc.core.codes import Codes
from sparc.core.dead import Dead
from sparc.core.kernels import logits_with_gradient
from sparc.core.space import Batch, LatentSpace
from sparc.core.topk import EncoderProduct, select

Kind = Literal["self", "cross", "aux"]
KINDS: tuple[Kind, ...] = ("self", "cross", "aux")
"""Kinds of terms, in the order in which terms are listed."""


@dataclass(frozen=True)
class LossWeights:
    """Weights of the loss, and how many dead latents AuxK uses."""

    cross: float
    """lambda, the weight of cross-reconstruction."""
    aux: float = 0.0
    """alpha, the weight of AuxK."""
    k_aux: int = 1
    """Dead latents per sample that reconstruct what the code left unexplained."""

    def reconstruction(self, source: str, target: str, n_streams: int) -> float:
        """Return the weight of the NMSE of `target` reconstructed from the code of `source`."""
        return 1 / n_streams if source == target else self.cross / (n_streams * (n_streams - 1))

    def auxiliary(self, n_streams: int) -> float:
        """Return the weight of the AuxK term of one stream."""
        return self.aux / n_streams


class Term(NamedTuple):
    """One weighted part of the loss."""

    kind: Kind
    source: str
    """Stream whose code is decoded."""
    target: str
    """Stream that is reconstructed; `source` itself unless the kind is `cross`."""
    value: Tensor
    """Unweighted scalar, as it is logged."""
    weight: float

    @property
    def name(self) -> str:
        """Name in logs and files: `self/a`, `cross/a->b` (b reconstructed from the code of a) or `aux/a`."""
        return f"{self.kind}/{self.source}->{self.target}" if self.kind == "cross" else f"{self.kind}/{self.source}"


def reconstruction_term(source: str, target: str, value: Tensor, weight: float) -> Term:
    """Return the self or cross term of a pair of streams."""
    return Term("self" if source == target else "cross", source, target, value, weight)


def total(terms: Iterable[Term]) -> Tensor:
    """Return the weighted sum of the terms, the scalar to minimise."""
    return torch.stack([term.weight * term.value for term in terms]).sum()


def nmse(residual_BD: Tensor, target_BD: Tensor, valid_B: Tensor) -> Tensor:
    """Return the squared error relative to the target's squared norm, averaged over valid samples.

    A scalar, 0 if no sample is valid. A sample whose target is zero has no relative error and does not count.
    """
    energy_B = target_BD.square().sum(dim=1)
    valid_B = valid_B & (energy_B > 0)
    ratio_B = residual_BD.square().sum(dim=1) / torch.where(valid_B, energy_B, 1)
    return torch.where(valid_B, ratio_B, 0).sum() / valid_B.sum().clamp(min=1)


def loss_terms(
    space: LatentSpace,
    batch: Batch,
    codes: Mapping[str, Codes],
    weights: LossWeights,
    dead: Mapping[str, Dead] | None = None,
) -> list[Term]:
    """Return the terms of the loss of a batch with an entry for every stream, given its codes.

    `dead` holds the dead latents of each stream; a stream without dead latents has no AuxK term. Terms of weight zero
    are not computed. Terms come in the order of `KINDS`, then of the streams.
    """
    terms: list[Term] = []
    n_streams = len(space.streams)
    for source, outputs in space.reconstruct(codes).items():
        for target, y_BD in outputs.items():
            x_BD = batch.features[target]
            if weight := weights.reconstruction(source, target, n_streams):
                valid_B = batch.present[source] & batch.present[target]
                terms.append(reconstruction_term(source, target, nmse(y_BD - x_BD, x_BD, valid_B), weight))
            if target == source and weights.aux and dead is not None and len(dead_Q := dead[source].latents):
                value = _aux(space, source, batch, (x_BD - y_BD).detach(), dead_Q, weights.k_aux)
                terms.append(Term("aux", source, source, value, weights.auxiliary(n_streams)))
    return sorted(terms, key=lambda term: KINDS.index(term.kind))


def _aux(space: LatentSpace, stream: str, batch: Batch, left_over_BD: Tensor, dead_Q: Tensor, k_aux: int) -> Tensor:
    """Return AUX_s: the stream's dead latents, and no others, reconstruct what its code left unexplained."""
    weight_LD, bias_L = space.encoder(stream)
    centered_BD = space.inputs(batch)[stream]
    product = EncoderProduct(centered_BD, weight_LD[dead_Q], bias_L[dead_Q], batch.present[stream])
    kept = select({stream: product}, min(k_aux, len(dead_Q)), shared=False)[stream]
    indices_BK = dead_Q[kept.indices]
    kept_BK = logits_with_gradient(centered_BD, weight_LD, bias_L, kept.logits, indices_BK)
    rebuilt_BD = space.decode_linear(Codes(indices_BK, torch.relu(kept_BK), space.n_latents), stream)
    return nmse(rebuilt_BD - left_over_BD, left_over_BD, batch.present[stream])
