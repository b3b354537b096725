"""The training loss and its gradients in one pass, written by hand: what `losses` and autograd give, without a graph.

`losses` is the definition; the tests hold this module to it. Without a graph, the gradients of the tables need never
exist as a whole: `adam` takes them a block of latents at a time. For a source s and a target t:

    R_ts = D_t z_s + b_t - x_t                              residual
    G_ts = dloss / dR_ts = 2 w_ts R_ts / (n_ts ||x_t||^2)   w: weight of the term, n: samples that have both
    dz_s = sum_t D_t^T G_ts  where z_s > 0, else 0
    dD_t = sum_s G_ts z_s^T,  dW_s = dz_s (x_s - b_s)^T,  dc_s = sum_batch dz_s
    db_t = sum_s sum_batch G_ts - W_t^T dc_t

AuxK adds the same for its own residual D_s z'_s - (x_s - y_ss), whose target is a constant.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.profiler import record_function

from sparc.core.codes import Codes
from sparc.core.dead import Dead
from sparc.core.losses import Term, pair
from sparc.core.selection import Affine, select
from sparc.core.space import Batch, LatentSpace
from sparc.core.sparse import Entries, LatentSum, entry_dots, weighted_rows, weighted_sum

_ALL = slice(None)


class TableGradient:
    """Gradient of a table of latents (L, D), as sums over kept entries that are made when asked for."""

    def __init__(self) -> None:
        """Start with nothing; the first sum to be added covers all columns."""
        self.sums: list[tuple[LatentSum, slice]] = []
        """Sums, and the columns that each adds to."""

    def add(self, summed: LatentSum, columns: slice = _ALL) -> None:
        """Add a sum to some columns."""
        self.sums.append((summed, columns))

    @property
    def by_columns(self) -> bool:
        """Whether many latents are summed together, a few columns at a time."""
        return self.sums[0][0].by_columns

    def blocks(self) -> list[slice]:
        """Ranges of latents to ask for."""
        return self.sums[0][0].blocks()

    def block(self, latents: slice) -> Tensor:
        """The gradient of a range of latents, (latents, D)."""
        gradient = self.sums[0][0].block(latents)
        for summed, columns in self.sums[1:]:
            gradient[:, columns] += summed.block(latents)
        return gradient


class Gradients(NamedTuple):
    """Loss, codes and gradients of a batch."""

    terms: list[Term]
    codes: dict[str, Codes]
    encoders: list[TableGradient]
    """(L, D) per stream."""
    decoder: TableGradient
    """(L, T)."""
    latent_bias: Tensor
    """(S, L)."""
    pre_bias: Tensor
    """(T,)."""


@torch.no_grad()
def gradients(
    space: LatentSpace,
    batch: Batch,
    *,
    cross_weight: float,
    aux_weight: float = 0.0,
    k_aux: int = 1,
    dead: Mapping[str, Dead] | None = None,
    product: str = "float32",
) -> Gradients:
    """Loss of a batch with all streams of the space, its codes, and the gradient of every parameter.

    The weights and `dead` are those of `losses.loss_terms`, `product` that of `LatentSpace.select`.
    """
    centered = {name: space.centered(name, x_BD) for name, x_BD in batch.features.items()}
    with record_function("sparc.select"):
        kept = space.select(centered, batch.present, product=product)
    codes = {name: Codes(indices, torch.relu(logits), space.n_latents) for name, (indices, logits) in kept.items()}
    backward = _Backward(space, batch, centered, cross_weight)
    streams, silent = list(codes), dead or {}
    # Sources with one index set are decoded at once: its rows of the decoder are then in the cache.
    for shared in [streams] if space.selection == "global" else [[name] for name in streams]:
        indices_BK = codes[shared[0]].indices
        values_BGK = torch.stack([codes[name].values for name in shared], dim=1)
        R_BGT = backward.residuals(indices_BK, values_BGK)
        revived = {name: silent[name].latents for name in shared if aux_weight and name in silent}
        left_over = {
            source: -R_BGT[:, place, space.segments[source]]
            for place, source in enumerate(shared)
            if len(revived.get(source, ()))
        }
        backward.reconstruct(shared, indices_BK, values_BGK, R_BGT)
        for source, left_over_BD in left_over.items():
            backward.revive(source, left_over_BD, revived[source], k_aux, aux_weight)
    return backward.result(codes)


class _Backward:
    """Terms and gradients as they come together, source by source."""

    def __init__(self, space: LatentSpace, batch: Batch, centered: dict[str, Tensor], cross_weight: float) -> None:
        self.space = space
        self.batch = batch
        self.centered = centered
        self.cross_weight = cross_weight
        self.position = {name: position for position, name in enumerate(space.streams)}
        self.energy = {name: x_BD.square().sum(dim=1) for name, x_BD in batch.features.items()}
        self.terms: list[Term] = []
        self.encoders = [TableGradient() for _ in space.streams]
        self.decoder = TableGradient()
        self.latent_bias_SL = torch.zeros_like(space.latent_bias)
        self.pre_bias_T = torch.zeros_like(space.pre_bias)

    def residuals(self, indices_BK: Tensor, values_BGK: Tensor) -> Tensor:
        """R_ts of sources that share an index set, for all targets side by side: (B, G, T)."""
        with record_function("sparc.decode"):
            R_BGT = weighted_rows(indices_BK, values_BGK, self.space.decoder)
        for target, segment in self.space.segments.items():
            R_BGT[:, :, segment] -= self.centered[target].unsqueeze(1)
        return R_BGT

    def reconstruct(self, shared: list[str], indices_BK: Tensor, values_BGK: Tensor, R_BGT: Tensor) -> None:
        """Self and cross terms of these sources; the residuals become G_ts in place."""
        with record_function("sparc.losses"):
            for place, source in enumerate(shared):
                self._terms(source, R_BGT[:, place])
        G_BGT = R_BGT
        with record_function("sparc.sort"):
            entries = Entries(indices_BK, self.space.n_latents)
            self.decoder.add(LatentSum(entries, values_BGK, G_BGT))
        self.pre_bias_T += G_BGT.sum(dim=(0, 1))
        with record_function("sparc.code_gradients"):
            dz_BGK = entry_dots(G_BGT, self.space.decoder, indices_BK)
        dz_BGK = torch.where(values_BGK > 0, dz_BGK, 0)
        for place, source in enumerate(shared):
            self._encoded(source, entries, dz_BGK[:, place])

    def _encoded(self, source: str, entries: Entries, dz_BK: Tensor) -> None:
        position = self.position[source]
        inputs_B1D = self.centered[source].unsqueeze(1)
        self.encoders[position].add(LatentSum(entries, dz_BK.unsqueeze(1), inputs_B1D))
        self.latent_bias_SL[position] += entries.sum_values(dz_BK)

    def _terms(self, source: str, R_BT: Tensor) -> None:
        for target, segment in self.space.segments.items():
            name, weight = pair(source, target, len(self.space.streams), self.cross_weight)
            valid_B = self.batch.present[source] & self.batch.present[target]
            value = _differentiate_nmse(R_BT[:, segment], self.energy[target], valid_B, weight)
            if weight:
                self.terms.append(Term(name, value, weight))

    def revive(self, stream: str, left_over_BD: Tensor, dead_Q: Tensor, k_aux: int, aux_weight: float) -> None:
        """The AuxK term of a stream: its dead latents alone rebuild what the living left over."""
        weight_LD, bias_L = self.space.encoder(stream)
        segment = self.space.segments[stream]
        present_B = self.batch.present[stream]
        affine = Affine(self.centered[stream], weight_LD[dead_Q], bias_L[dead_Q], present_B)
        kept = select({stream: affine}, min(k_aux, len(dead_Q)), shared=False)[stream]
        values_B1K = torch.relu(kept.logits).unsqueeze(1)
        table_QD = self.space.decoder[dead_Q, segment]
        R_B1D = weighted_rows(kept.indices, values_B1K, table_QD) - left_over_BD.unsqueeze(1)
        weight = aux_weight / len(self.space.streams)
        value = _differentiate_nmse(R_B1D[:, 0], left_over_BD.square().sum(dim=1), present_B, weight)
        self.terms.append(Term(f"aux/{stream}", value, weight))
        dz_B1K = entry_dots(R_B1D, table_QD, kept.indices)
        entries = Entries(dead_Q[kept.indices], self.space.n_latents)
        self.decoder.add(LatentSum(entries, values_B1K, R_B1D), segment)
        self._encoded(stream, entries, torch.where(values_B1K > 0, dz_B1K, 0)[:, 0])

    def result(self, codes: dict[str, Codes]) -> Gradients:
        """All of it, with the terms in the order of `losses.loss_terms`."""
        for name, segment in self.space.segments.items():
            weight_LD, _ = self.space.encoder(name)
            self.pre_bias_T[segment] -= weighted_sum(self.latent_bias_SL[self.position[name]], weight_LD)
        terms = sorted(self.terms, key=lambda term: ("self", "cross", "aux").index(term.name.split("/")[0]))
        return Gradients(terms, codes, self.encoders, self.decoder, self.latent_bias_SL, self.pre_bias_T)


def _differentiate_nmse(residual_BD: Tensor, energy_B: Tensor, valid_B: Tensor, weight: float) -> Tensor:
    """NMSE of a residual, relative to the energy of its target; the residual becomes its weighted gradient in place."""
    valid_B = valid_B & (energy_B > 0)
    share_B = valid_B / (torch.where(valid_B, energy_B, 1) * valid_B.sum().clamp(min=1))
    value: Tensor = (torch.linalg.vector_norm(residual_BD, dim=1).square() * share_B).sum()
    residual_BD *= (2 * weight * share_B).unsqueeze(1)
    return value
