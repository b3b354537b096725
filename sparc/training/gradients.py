"""`core/losses.py` by hand: the loss and its gradients in one pass, without autograd.

This is what `sparc train` runs; `core/losses.py` is the definition, and the tests hold this module to it. Without a
graph, the gradient of a table need never exist as a whole: `adam` computes it one block of latents at a time. For a
source s and a target t:

    R_ts = D_t z_s + b_t - x_t                              residual
    G_ts = dloss / dR_ts = 2 w_ts R_ts / (n_ts ||x_t||^2)   w: weight of the term, n: samples that have both streams
    dz_s = sum_t D_t^T G_ts  where z_s > 0, else 0
    dD_t = sum_s G_ts z_s^T,  dW_s = dz_s (x_s - b_s)^T,  dc_s = sum_batch dz_s
    db_t = sum_s sum_batch G_ts - W_t^T dc_t                  inputs x_s are data, with dropout too

The first index is the target. AuxK adds the same for its own residual D_s z'_s - (x_s - y_ss), in which x_s - y_ss, the
left-over, is a constant.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.profiler import record_function

from sparc.core import topk
from sparc.core.codes import Codes
from sparc.core.dead import Dead
from sparc.core.kernels import LatentSum, SortedEntries, dots_by_latent, sum_by_latent, weighted_rows, weighted_sum
from sparc.core.losses import KINDS, LossWeights, Term, reconstruction_term
from sparc.core.space import Batch, LatentSpace
from sparc.core.topk import EncoderProduct, Selector
from sparc.training.merging import kept_here

if TYPE_CHECKING:
    from sparc.training.distributed import Ranks

_ALL = slice(None)


class TableGradient:
    """Gradient of a table (L, D): sums over kept entries, each computed only when it is needed."""

    def __init__(self) -> None:
        """Start without sums; the first one that is added covers all columns."""
        self.sums: list[tuple[LatentSum, slice]] = []
        """Sums, each with the columns that it adds to."""

    def add(self, summed: LatentSum, columns: slice = _ALL) -> None:
        """Add a sum to some columns."""
        self.sums.append((summed, columns))

    def blocks(self) -> list[slice]:
        """Return the ranges of latents to compute at a time."""
        return self.sums[0][0].blocks()

    def block(self, latents: slice) -> Tensor:
        """Return the gradient of a range of latents, (latents, D)."""
        gradient = sum_by_latent(self.sums[0][0], latents)
        for summed, columns in self.sums[1:]:
            gradient[:, columns] += sum_by_latent(summed, latents)
        return gradient

    def dots(self, table_LD: Tensor) -> list[Tensor]:
        """Return per sum `dots_by_latent` with the sum's columns of the table, (E, G)."""
        return [dots_by_latent(summed, table_LD[:, columns]) for summed, columns in self.sums]


class EncoderGradients(NamedTuple):
    """Gradients of the parameters upstream of the codes, and of the pre-bias."""

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
    weights: LossWeights,
    dead: Mapping[str, Dead] | None = None,
    selector: Selector = topk.select,
    ranks: Ranks | None = None,
) -> Gradients:
    """Return the loss of a batch with an entry for every stream, its codes, and the gradients down to the codes.

    `weights` and `dead` are those of `core.losses.loss_terms`; `selector` finds the latents that each sample keeps.
    With `ranks`, the batch holds this process's samples and the space its latents. Terms are then those of the whole
    batch. Gradients are this process's summands: of its samples, divided by the number of all, and of its latents.
    """
    inputs = space.inputs(batch)
    with record_function("sparc.select"):
        kept = space.keep(batch, inputs, selector)
    codes = {name: Codes(indices, torch.relu(logits), space.n_latents) for name, (indices, logits) in kept.items()}
    found = Gradients(space, batch, inputs, codes, weights, ranks)
    streams, revived = list(codes), found.revived(dead or {})
    # Sources that share an index set are decoded together: the decoder's rows are then read once, from the cache.
    for shared in [streams] if space.selection == "global" else [[name] for name in streams]:
        indices_BK = codes[shared[0]].indices
        values_BGK = torch.stack([codes[name].values for name in shared], dim=1)
        R_BGT = found.residuals(indices_BK, values_BGK)
        left_over = {
            source: -R_BGT[:, place, space.segments[source]] for place, source in enumerate(shared) if source in revived
        }
        found.reconstruct(shared, indices_BK, values_BGK, R_BGT)
        for source, left_over_BD in left_over.items():
            found.revive(source, left_over_BD, *revived[source])
    found.terms.sort(key=lambda term: KINDS.index(term.kind))
    if ranks is not None:
        values = ranks.samples.sum_(torch.stack([term.value for term in found.terms]), "terms")
        found.terms = [term._replace(value=value) for term, value in zip(found.terms, values, strict=True)]
    return found


class Gradients:
    """Terms, codes and gradients of a batch, accumulated source by source.

    Backward stops at the decoder. A kernel can compute the code gradients while it updates the decoder, so everything
    upstream is a second call, `beyond_decoder`.
    """

    def __init__(
        self,
        space: LatentSpace,
        batch: Batch,
        inputs: dict[str, Tensor],
        codes: dict[str, Codes],
        weights: LossWeights,
        ranks: Ranks | None = None,
    ) -> None:
        """Start without terms."""
        self.terms: list[Term] = []
        """Terms in the order of `core.losses.loss_terms`."""
        self.codes = codes
        self.decoder = TableGradient()
        """(L, T)."""
        self._space = space
        self._batch = batch
        self._inputs = inputs
        self._centered = inputs if batch.inputs is None else space.inputs(batch._replace(inputs=None))
        self._weights = weights
        self._ranks = ranks
        self._energy = {name: x_BD.square().sum(dim=1) for name, x_BD in batch.features.items()}
        self._sources: list[list[str]] = []
        """Streams whose codes each sum of the decoder's gradient runs over."""
        self._pre_bias_T = torch.zeros_like(space.pre_bias)
        """Gradient of the pre-bias through the decoder alone."""
        self._counts = None if ranks is None else self._valid_counts(ranks)

    def _valid_counts(self, ranks: Ranks) -> Tensor:
        """Return for each source and target how many samples of the whole batch have both, (S, S)."""
        there_SB = torch.stack([self._batch.present[name] for name in self._space.streams])
        energy_SB = torch.stack([self._energy[name] for name in self._space.streams])
        counts_SS = there_SB.to(energy_SB) @ (there_SB & (energy_SB > 0)).to(energy_SB).T
        return ranks.samples.sum_(counts_SS, "terms")

    def revived(self, dead: Mapping[str, Dead]) -> dict[str, tuple[Tensor, int]]:
        """Return, for the streams that AuxK acts on, the dead latents and how many there are on all ranks."""
        if not self._weights.aux:
            return {}
        latents = {name: dead[name].latents for name in dead}
        totals = [len(dead_Q) for dead_Q in latents.values()]
        if self._ranks is not None and self._ranks.latents.size > 1:
            totals = self._ranks.latents.sum_(self._pre_bias_T.new_tensor(totals), "terms").long().tolist()
        return {name: (dead_Q, total) for (name, dead_Q), total in zip(latents.items(), totals, strict=True) if total}

    def residuals(self, indices_BK: Tensor, values_BGK: Tensor) -> Tensor:
        """Return R_ts of the sources that share an index set, all targets side by side: (B, G, T)."""
        with record_function("sparc.decode"):
            R_BGT = weighted_rows(indices_BK, values_BGK, self._space.decoder)
        if self._ranks is not None:
            self._ranks.latents.sum_(R_BGT, "reconstructions")
        for target, segment in self._space.segments.items():
            R_BGT[:, :, segment] -= self._centered[target].unsqueeze(1)
        return R_BGT

    def reconstruct(self, shared: list[str], indices_BK: Tensor, values_BGK: Tensor, R_BGT: Tensor) -> None:
        """Add the self and cross terms of these sources; overwrite the residuals R_ts with G_ts."""
        with record_function("sparc.losses"):
            for place, source in enumerate(shared):
                self._reconstruction_terms(source, R_BGT[:, place])
        G_BGT = R_BGT
        self._pre_bias_T += G_BGT.sum(dim=(0, 1))
        self._add_to_decoder(shared, indices_BK, values_BGK, G_BGT)

    def _reconstruction_terms(self, source: str, R_BT: Tensor) -> None:
        for column, (target, segment) in enumerate(self._space.segments.items()):
            weight = self._weights.reconstruction(source, target, len(self._space.streams))
            valid_B = self._batch.present[source] & self._batch.present[target]
            count = None if self._counts is None else self._counts[list(self._space.streams).index(source), column]
            value = _differentiate_nmse(R_BT[:, segment], self._energy[target], valid_B, weight, count)
            if weight:
                self.terms.append(reconstruction_term(source, target, value, weight))

    def revive(self, stream: str, left_over_BD: Tensor, dead_Q: Tensor, total: int) -> None:
        """Add a stream's AuxK term: its dead latents, and no others, reconstruct what its code left unexplained.

        `total` is the number of dead latents on all ranks.
        """
        weight_LD, bias_L = self._space.encoder(stream)
        segment = self._space.segments[stream]
        present_B = self._batch.present[stream]
        product = EncoderProduct(self._inputs[stream], weight_LD[dead_Q], bias_L[dead_Q], present_B)
        k = min(self._weights.k_aux, total)
        if self._ranks is None or self._ranks.latents.size == 1:
            kept = topk.select({stream: product}, k, shared=False)[stream]
        else:
            kept = kept_here(product, dead_Q, k, self._ranks.latents)
        values_B1K = torch.relu(kept.logits).unsqueeze(1)
        if len(dead_Q):
            R_B1D = weighted_rows(kept.indices, values_B1K, self._space.decoder[dead_Q, segment])
        else:  # all are on other ranks
            R_B1D = torch.zeros_like(left_over_BD).unsqueeze(1)
        energy_B = left_over_BD.square().sum(dim=1)
        count = None
        if self._ranks is not None:
            self._ranks.latents.sum_(R_B1D, "reconstructions")
            count = self._ranks.samples.sum_((present_B & (energy_B > 0)).sum(), "terms")
        R_B1D -= left_over_BD.unsqueeze(1)
        weight = self._weights.auxiliary(len(self._space.streams))
        value = _differentiate_nmse(R_B1D[:, 0], energy_B, present_B, weight, count)
        self.terms.append(Term("aux", stream, stream, value, weight))
        if len(dead_Q):
            self._add_to_decoder([stream], dead_Q[kept.indices], values_B1K, R_B1D, segment)

    def _add_to_decoder(
        self, shared: list[str], indices_BK: Tensor, values_BGK: Tensor, G_BGT: Tensor, columns: slice = _ALL
    ) -> None:
        with record_function("sparc.sort"):
            entries = SortedEntries(indices_BK, self._space.n_latents)
            self.decoder.add(LatentSum(entries, entries.in_order(values_BGK), G_BGT), columns)
        self._sources.append(shared)

    @torch.no_grad()
    def beyond_decoder(self, dots: list[Tensor]) -> EncoderGradients:
        """Return the gradients upstream of the codes.

        `dots` are `decoder.dots` of the table that computed this loss, that is, before it is updated.
        """
        space = self._space
        encoders = {name: TableGradient() for name in space.streams}
        bias_L = {name: torch.zeros_like(space.latent_bias[0]) for name in space.streams}
        for (decoded, _), sources, dots_EG in zip(self.decoder.sums, self._sources, dots, strict=True):
            dz_EG = torch.where(decoded.values > 0, dots_EG, 0)
            for place, source in enumerate(sources):
                dz_E1, inputs_B1D = dz_EG[:, place : place + 1], self._inputs[source].unsqueeze(1)
                encoders[source].add(LatentSum(decoded.entries, dz_E1, inputs_B1D))
                bias_L[source] += decoded.entries.sum_values(dz_E1.squeeze(1))
        pre_bias_T = self._pre_bias_T.clone()
        if self._ranks is not None and self._ranks.latents.number:  # the first of its row adds it once
            pre_bias_T.zero_()
        for name, segment in space.segments.items():
            weight_LD, _ = space.encoder(name)
            pre_bias_T[segment] -= weighted_sum(bias_L[name], weight_LD)
        bias_SL = torch.stack(list(bias_L.values()))
        if self._ranks is not None:
            self._ranks.samples.sum_(bias_SL, "biases")
            self._ranks.everyone.sum_(pre_bias_T, "biases")
        return EncoderGradients(list(encoders.values()), bias_SL, pre_bias_T)


def _differentiate_nmse(
    residual_BD: Tensor, energy_B: Tensor, valid_B: Tensor, weight: float, count: Tensor | None = None
) -> Tensor:
    """Return the NMSE of a residual given its target's squared norms; overwrite the residual with its gradient.

    `count` is the number of valid samples in the whole batch, by default that in this part of it.
    """
    valid_B = valid_B & (energy_B > 0)
    count = valid_B.sum() if count is None else count
    share_B = valid_B / (torch.where(valid_B, energy_B, 1) * count.clamp(min=1))
    value: Tensor = (torch.linalg.vector_norm(residual_BD, dim=1).square() * share_B).sum()
    residual_BD *= (2 * weight * share_B).unsqueeze(1)
    return value
