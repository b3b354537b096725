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
from sparc.core.kernels.sparse import Entries, LatentSum, weighted_rows, weighted_sum
from sparc.core.losses import Term, pair
from sparc.core.space import Batch, LatentSpace
from sparc.core.topk import Affine, Select, select

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
    def out_of_cache(self) -> bool:
        """Whether many latents are to be summed together, so that rows come from memory less often."""
        return self.sums[0][0].out_of_cache

    def blocks(self) -> list[slice]:
        """Ranges of latents to ask for."""
        return self.sums[0][0].blocks()

    def block(self, latents: slice) -> Tensor:
        """The gradient of a range of latents, (latents, D)."""
        gradient = self.sums[0][0].block(latents)
        for summed, columns in self.sums[1:]:
            gradient[:, columns] += summed.block(latents)
        return gradient

    def products(self, table_LD: Tensor) -> list[Tensor]:
        """Per sum, (E, G): the product of each entry's row with its latent's row of the table, in the sum's columns."""
        return [summed.products(table_LD[:, columns]) for summed, columns in self.sums]


class EncoderGradients(NamedTuple):
    """Gradients of what makes the codes, and of the pre-bias."""

    encoders: list[TableGradient]
    """(L, D) per stream."""
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
    select_with: Select = select,
) -> Gradients:
    """Loss of a batch with all streams of the space, its codes, and the gradients as far as through the decoder.

    The weights and `dead` are those of `losses.loss_terms`, `select_with` finds the kept latents.
    """
    centered = {name: space.centered(name, x_BD) for name, x_BD in batch.features.items()}
    with record_function("sparc.select"):
        kept = space.select(centered, batch.present, select_with)
    codes = {name: Codes(indices, torch.relu(logits), space.n_latents) for name, (indices, logits) in kept.items()}
    found = Gradients(space, batch, centered, codes, cross_weight)
    streams, silent = list(codes), dead or {}
    # Sources with one index set are decoded at once: its rows of the decoder are then in the cache.
    for shared in [streams] if space.selection == "global" else [[name] for name in streams]:
        indices_BK = codes[shared[0]].indices
        values_BGK = torch.stack([codes[name].values for name in shared], dim=1)
        R_BGT = found.residuals(indices_BK, values_BGK)
        revived = {name: silent[name].latents for name in shared if aux_weight and name in silent}
        left_over = {
            source: -R_BGT[:, place, space.segments[source]]
            for place, source in enumerate(shared)
            if len(revived.get(source, ()))
        }
        found.reconstruct(shared, indices_BK, values_BGK, R_BGT)
        for source, left_over_BD in left_over.items():
            found.revive(source, left_over_BD, revived[source], k_aux, aux_weight)
    found.terms.sort(key=lambda term: ("self", "cross", "aux").index(term.name.split("/")[0]))
    return found


class Gradients:
    """Terms, codes and gradients of a batch, as they come together source by source.

    The way back leads through the decoder: the products of its rows with those of G are the gradients of the codes.
    Kernels make them while they update the decoder, so that what lies beyond it is a call of its own.
    """

    def __init__(
        self,
        space: LatentSpace,
        batch: Batch,
        centered: dict[str, Tensor],
        codes: dict[str, Codes],
        cross_weight: float,
    ) -> None:
        """Start with no terms."""
        self.terms: list[Term] = []
        """In the order of `losses.loss_terms`."""
        self.codes = codes
        self.decoder = TableGradient()
        """(L, T)."""
        self._space = space
        self._batch = batch
        self._centered = centered
        self._cross_weight = cross_weight
        self._energy = {name: x_BD.square().sum(dim=1) for name, x_BD in batch.features.items()}
        self._sources: list[list[str]] = []  # whose codes each of the decoder's sums runs over
        self._pre_bias_T = torch.zeros_like(space.pre_bias)  # its part through the decoder

    def residuals(self, indices_BK: Tensor, values_BGK: Tensor) -> Tensor:
        """R_ts of sources that share an index set, for all targets side by side: (B, G, T)."""
        with record_function("sparc.decode"):
            R_BGT = weighted_rows(indices_BK, values_BGK, self._space.decoder)
        for target, segment in self._space.segments.items():
            R_BGT[:, :, segment] -= self._centered[target].unsqueeze(1)
        return R_BGT

    def reconstruct(self, shared: list[str], indices_BK: Tensor, values_BGK: Tensor, R_BGT: Tensor) -> None:
        """Self and cross terms of these sources; the residuals become G_ts in place."""
        with record_function("sparc.losses"):
            for place, source in enumerate(shared):
                self._terms(source, R_BGT[:, place])
        G_BGT = R_BGT
        self._pre_bias_T += G_BGT.sum(dim=(0, 1))
        self._decoded(shared, indices_BK, values_BGK, G_BGT)

    def _terms(self, source: str, R_BT: Tensor) -> None:
        for target, segment in self._space.segments.items():
            name, weight = pair(source, target, len(self._space.streams), self._cross_weight)
            valid_B = self._batch.present[source] & self._batch.present[target]
            value = _differentiate_nmse(R_BT[:, segment], self._energy[target], valid_B, weight)
            if weight:
                self.terms.append(Term(name, value, weight))

    def revive(self, stream: str, left_over_BD: Tensor, dead_Q: Tensor, k_aux: int, aux_weight: float) -> None:
        """The AuxK term of a stream: its dead latents alone rebuild what the living left over."""
        weight_LD, bias_L = self._space.encoder(stream)
        segment = self._space.segments[stream]
        present_B = self._batch.present[stream]
        affine = Affine(self._centered[stream], weight_LD[dead_Q], bias_L[dead_Q], present_B)
        kept = select({stream: affine}, min(k_aux, len(dead_Q)), shared=False)[stream]
        values_B1K = torch.relu(kept.logits).unsqueeze(1)
        R_B1D = weighted_rows(kept.indices, values_B1K, self._space.decoder[dead_Q, segment])
        R_B1D -= left_over_BD.unsqueeze(1)
        weight = aux_weight / len(self._space.streams)
        value = _differentiate_nmse(R_B1D[:, 0], left_over_BD.square().sum(dim=1), present_B, weight)
        self.terms.append(Term(f"aux/{stream}", value, weight))
        self._decoded([stream], dead_Q[kept.indices], values_B1K, R_B1D, segment)

    def _decoded(
        self, shared: list[str], indices_BK: Tensor, values_BGK: Tensor, G_BGT: Tensor, columns: slice = _ALL
    ) -> None:
        with record_function("sparc.sort"):
            entries = Entries(indices_BK, self._space.n_latents)
            self.decoder.add(LatentSum(entries, entries.in_order(values_BGK), G_BGT), columns)
        self._sources.append(shared)

    @torch.no_grad()
    def beyond_decoder(self, products: list[Tensor]) -> EncoderGradients:
        """What lies beyond the decoder, given `decoder.products` of the table that made this loss."""
        space = self._space
        encoders = {name: TableGradient() for name in space.streams}
        bias_L = {name: torch.zeros_like(space.latent_bias[0]) for name in space.streams}
        for (decoded, _), sources, dots_EG in zip(self.decoder.sums, self._sources, products, strict=True):
            dz_EG = torch.where(decoded.values > 0, dots_EG, 0)
            for place, source in enumerate(sources):
                dz_E1, inputs_B1D = dz_EG[:, place : place + 1], self._centered[source].unsqueeze(1)
                encoders[source].add(LatentSum(decoded.entries, dz_E1, inputs_B1D))
                bias_L[source] += decoded.entries.sum_values(dz_E1.squeeze(1))
        pre_bias_T = self._pre_bias_T.clone()
        for name, segment in space.segments.items():
            weight_LD, _ = space.encoder(name)
            pre_bias_T[segment] -= weighted_sum(bias_L[name], weight_LD)
        return EncoderGradients(list(encoders.values()), torch.stack(list(bias_L.values())), pre_bias_T)


def _differentiate_nmse(residual_BD: Tensor, energy_B: Tensor, valid_B: Tensor, weight: float) -> Tensor:
    """NMSE of a residual, relative to the energy of its target; the residual becomes its weighted gradient in place."""
    valid_B = valid_B & (energy_B > 0)
    share_B = valid_B / (torch.where(valid_B, energy_B, 1) * valid_B.sum().clamp(min=1))
    value: Tensor = (torch.linalg.vector_norm(residual_BD, dim=1).square() * share_B).sum()
    residual_BD *= (2 * weight * share_B).unsqueeze(1)
    return value
