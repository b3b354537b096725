"""Attach a stream to a trained space: the space stays as it is, to the bit, and an encoder and a decoder are added.

The start is closed form. Let x^_t(x) = m_t + M_tn (x - m_n) be the guess of the founding stream t from the newcomer n
(`core/completion.py`), S the number of founding streams, and z the mean of their codes of a sample:

    b_n = m_n
    h_n = (1/S) sum_t W_t (x^_t - b_t) + c_t       so W_n = (1/S) sum_t W_t M_tn: the founding streams' mean logits
    D_n = sum_samples (x_n - b_n) z^T              scaled to directions of norm one

Training then improves the newcomer's weights by the loss of `core/losses.py`, with the options of the run. Its terms
without the newcomer do not change, because all that the other streams have is put back after each step.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from sparc.config import SpaceConfig, TrainingConfig, validated
from sparc.core.completion import Completion, fit_completion
from sparc.core.kernels import LatentSum, SortedEntries, sum_by_latent
from sparc.core.losses import Term
from sparc.core.newcomer import fit_newcomer
from sparc.core.space import Batch
from sparc.storage.checkpoint import SharedLatentSpace
from sparc.training.loader import TrainingFeatures, in_order
from sparc.training.trainer import Training, moments


def attached(space: SharedLatentSpace, stream: str, features: TrainingFeatures) -> SharedLatentSpace:
    """Return a space that has a stream more, begun in closed form from raw training features of all streams.

    The streams that `space` has, and their completion, are copied. Raises MisalignedStreams, BadFeatures.
    """
    device = space.decoder.device
    width = features.shards[stream][0].shape[1]
    shape = {"streams": {**space.streams, stream: width}, "attached": (*space.config.attached, stream)}
    config = validated(SpaceConfig, {**space.config.model_dump(), **shape})
    wider = SharedLatentSpace(config).to(device)
    _copy(space, wider)
    if wider.normalization == "standard":
        wider.fit_normalization({stream: features.shards[stream]})
    fitted, held_out = moments(wider, features)
    if space.completion is None:
        guesses = fit_completion(fitted, held_out)
    else:
        newcomer = fit_newcomer(space.completion, fitted, held_out, stream)
        guesses = space.completion.with_newcomers({**space.completion.newcomers, stream: newcomer})
        wider.completion = guesses
    _begin(wider, stream, guesses)
    _begin_decoder(space, wider, stream, features)
    return wider


class AttachedTraining(Training):
    """Training of the last stream of a space; all others stay as they are."""

    def __init__(self, space: SharedLatentSpace, config: TrainingConfig) -> None:
        """Start at step 0 from the weights that the space has."""
        super().__init__(space, config)
        self._fixed = [part.clone() for part in _parts_before_last(space)]

    def advance(self, batch: Batch) -> list[Term]:
        """Take one step on normalised features, and put back all weights of the other streams."""
        terms = super().advance(batch)
        for part, fixed in zip(_parts_before_last(self.space), self._fixed, strict=True):
            part.copy_(fixed)
        return terms


def _parts_before_last(space: SharedLatentSpace) -> list[Tensor]:
    """Return views of all that belongs to the streams before the last one."""
    last = list(space.segments.values())[-1]
    return [
        *(weight.detach() for weight in list(space.encoders)[:-1]),
        space.latent_bias.detach()[:-1],
        space.decoder.detach()[:, : last.start],
        space.pre_bias.detach()[: last.start],
        space.center[: last.start],
        space.scale[:-1],
    ]


def _copy(space: SharedLatentSpace, wider: SharedLatentSpace) -> None:
    """Copy a space into one that has a stream more."""
    own = [*space.encoders, space.latent_bias, space.decoder, space.pre_bias, space.center, space.scale]
    for part, value in zip(_parts_before_last(wider), own, strict=True):
        part.copy_(value.detach())


@torch.no_grad()
def _begin(space: SharedLatentSpace, stream: str, guesses: Completion) -> None:
    """Begin the encoder of the last stream at the mean of the founding streams' logits that its features let expect."""
    weight_LD, bias_L = space.encoder(stream)
    space.pre_bias[space.segments[stream]] = guesses.mean_of(stream)
    if guesses.rank == 0:  # nothing can be guessed; the drawn weights are better than zeros
        return
    founding = list(space.config.founding)
    logits_LR, at_mean_L = weight_LD.new_zeros(space.n_latents, guesses.rank), torch.zeros_like(bias_L)
    for name in founding:
        others_LD, other_bias_L = space.encoder(name)
        logits_LR += others_LD @ guesses.factor[:, guesses.segments[name]].T
        at_mean_L += others_LD @ space.centered(name, guesses.mean_of(name)) + other_bias_L
    weight_LD.copy_(logits_LR @ guesses.loadings([stream]) / len(founding))
    bias_L.copy_(at_mean_L / len(founding))


@torch.no_grad()
def _begin_decoder(space: SharedLatentSpace, wider: SharedLatentSpace, stream: str, features: TrainingFeatures) -> None:
    """Begin the directions of the last stream at sums of its centred features, weighted by the founding codes."""
    sums_LD = torch.zeros_like(wider.decoder[:, wider.segments[stream]])
    for raw in in_order(features, wider.decoder.device):
        batch = wider.normalize(raw)
        x_BD = wider.centered(stream, batch.features[stream]) * batch.present[stream].unsqueeze(1)
        codes = list(space.encode({name: raw[name] for name in space.config.founding}).values())
        there_B = torch.stack([batch.present[name] for name in space.config.founding]).sum(dim=0).clamp(min=1)
        mean_BK = torch.stack([code.values for code in codes]).sum(dim=0) / there_B.unsqueeze(1)
        shared = [replace(codes[0], values=mean_BK)] if space.selection == "global" else codes
        for code in shared:
            entries = SortedEntries(code.indices, wider.n_latents)
            summed = LatentSum(entries, entries.in_order(code.values.unsqueeze(1)), x_BD.unsqueeze(1))
            for some in summed.blocks():
                sums_LD[some] += sum_by_latent(summed, some)
    active_L1 = sums_LD.square().sum(dim=1, keepdim=True) > 0
    wider.decoder[:, wider.segments[stream]] = torch.where(active_L1, sums_LD, wider.decoder[:, wider.segments[stream]])
    wider.renormalize_decoder()
    _copy(space, wider)  # scaling directions of norm one rounds them
