"""The training loss as named terms, over any number of streams.

    NMSE(y, x) = mean_batch( ||y - x||^2 / ||x||^2 )
    loss = mean_s NMSE(y_ss, x_s) + lambda * mean_{s != t} NMSE(y_ts, x_t) + alpha * mean_s AUX_s
    AUX_s = NMSE( D_s z'_s, stopgrad(x_s - y_ss) ),  z'_s = ReLU of the k_aux largest logits among the latents dead in s

arXiv 2507.06265, section 3. The mean over the batch runs over the samples that have both streams.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from sparc.core.codes import Codes
from sparc.core.dead import Dead
from sparc.core.kernels.sparse import kept_logits
from sparc.core.space import Batch, LatentSpace
from sparc.core.topk import Affine, select


class Term(NamedTuple):
    """One weighted part of the loss."""

    name: str
    """`self/a`, `cross/a->b` (b rebuilt from the code of a) or `aux/a`."""
    value: Tensor
    """Scalar, unweighted: what is logged."""
    weight: float


def total(terms: Iterable[Term]) -> Tensor:
    """Sum the weighted terms: the scalar to minimise."""
    return torch.stack([term.weight * term.value for term in terms]).sum()


def nmse(residual_BD: Tensor, target_BD: Tensor, valid_B: Tensor) -> Tensor:
    """Squared error relative to the target's squared norm, averaged over valid rows: a scalar, 0 where none is valid.

    A target of zeros has no relative error; its row does not count.
    """
    energy_B = target_BD.square().sum(dim=1)
    valid_B = valid_B & (energy_B > 0)
    ratio_B = residual_BD.square().sum(dim=1) / torch.where(valid_B, energy_B, 1)
    return torch.where(valid_B, ratio_B, 0).sum() / valid_B.sum().clamp(min=1)


def loss_terms(
    space: LatentSpace,
    batch: Batch,
    codes: Mapping[str, Codes],
    *,
    cross_weight: float,
    aux_weight: float = 0.0,
    k_aux: int = 1,
    dead: Mapping[str, Dead] | None = None,
) -> list[Term]:
    """Terms of the loss of a batch with all streams of the space, and its codes.

    `dead` says per stream which latents are dead; where none is, there is no AuxK term. A term of weight zero is not
    computed.
    """
    selfs: list[Term] = []
    crosses: list[Term] = []
    auxs: list[Term] = []
    for source, outputs in space.reconstruct(codes).items():
        for target, y_BD in outputs.items():
            x_BD = batch.features[target]
            name, weight = pair(source, target, len(space.streams), cross_weight)
            if weight:
                valid_B = batch.present[source] & batch.present[target]
                term = Term(name, nmse(y_BD - x_BD, x_BD, valid_B), weight)
                (selfs if target == source else crosses).append(term)
            if target == source and aux_weight and dead is not None and len(dead_Q := dead[source].latents):
                value = _aux(space, source, batch, (x_BD - y_BD).detach(), dead_Q, k_aux)
                auxs.append(Term(f"aux/{source}", value, aux_weight / len(space.streams)))
    return selfs + crosses + auxs


def pair(source: str, target: str, n_streams: int, cross_weight: float) -> tuple[str, float]:
    """Name and weight of the term of `target` rebuilt from the code of `source`."""
    if source == target:
        return f"self/{source}", 1 / n_streams
    return f"cross/{source}->{target}", cross_weight / (n_streams * (n_streams - 1))


def _aux(space: LatentSpace, stream: str, batch: Batch, residual_BD: Tensor, dead_Q: Tensor, k_aux: int) -> Tensor:
    """AuxK of one stream: its dead latents alone rebuild what the living left over."""
    weight_LD, bias_L = space.encoder(stream)
    centered_BD = space.centered(stream, batch.features[stream])
    affine = Affine(centered_BD, weight_LD[dead_Q], bias_L[dead_Q], batch.present[stream])
    kept = select({stream: affine}, min(k_aux, len(dead_Q)), shared=False)[stream]
    indices_BK = dead_Q[kept.indices]
    kept_BK = kept_logits(centered_BD, weight_LD, bias_L, kept.logits, indices_BK)
    rebuilt_BD = space.decode_linear(Codes(indices_BK, torch.relu(kept_BK), space.n_latents), stream)
    return nmse(rebuilt_BD - residual_BD, residual_BD, batch.present[stream])
