"""A space whose latents are split over ranks: each holds some rows of the encoders and decoders.

Features, pre-bias, normalisation and completion are whole on every rank; they do not grow with the latents.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from sparc.config import SpaceConfig
from sparc.core import topk
from sparc.core.space import Batch
from sparc.core.topk import Kept, Selector
from sparc.errors import InvalidConfig
from sparc.storage.checkpoint import SharedLatentSpace
from sparc.training.distributed import Ranks, collective
from sparc.training.merging import filled, share_of


def shard_range(n_latents: int, number: int, size: int) -> slice:
    """Return the latents of one of several ranks, as `torch.chunk` splits them."""
    longest = -(-n_latents // size)
    return slice(min(n_latents, number * longest), min(n_latents, (number + 1) * longest))


class SpaceShard(SharedLatentSpace):
    """The latents of one rank, numbered from 0. Only training uses it."""

    def __init__(self, config: SpaceConfig, ranks: Ranks, *, seed: int = 0) -> None:
        """Draw the initial weights of the whole space with `seed`, and keep those of this rank.

        `config` is that of the whole space. Raises InvalidConfig if a rank would get no latents.
        """
        group = ranks.latents
        self_range = shard_range(config.n_latents, group.number, group.size)
        last = shard_range(config.n_latents, group.size - 1, group.size)
        if last.start >= last.stop:
            raise InvalidConfig(
                f"--shard-latents: expected few enough shards for {config.n_latents:,} latents, found {group.size}",
                hint="lower --shard-latents",
            )
        count = self_range.stop - self_range.start
        super().__init__(config.model_copy(update={"n_latents": count, "k": min(config.k, count)}))
        self.whole = config
        self.ranks = ranks
        self.latents = self_range
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for own_LD, segment in zip(self.encoders, self.segments.values(), strict=True):
                bound = own_LD.shape[1] ** -0.5
                drawn_LD = torch.empty(config.n_latents, own_LD.shape[1]).uniform_(-bound, bound, generator=generator)
                own_LD.copy_(drawn_LD[self.latents])
                self.decoder[:, segment] = F.normalize(own_LD, dim=1)

    def joined(self, state: Mapping[str, Tensor]) -> SharedLatentSpace:
        """Return the whole space, with the weights of all ranks, and this one's completion."""
        with torch.device("meta"):
            space = SharedLatentSpace(self.whole)
        space.load_state_dict(dict(state), assign=True)
        space.completion = self.completion
        return space

    def keep(self, batch: Batch, inputs: Mapping[str, Tensor], selector: Selector = topk.select) -> dict[str, Kept]:
        """Return those of the kept latents that this rank holds.

        The index sets are those of the whole space, so a sample has between none and all of its latents here. Rows are
        filled up with entries whose logit is 0.
        """
        centered, selects = inputs, batch.present
        if batch.selecting is not None:
            centered = {name: self.centered(name, x_BD) for name, x_BD in batch.selecting.items()}
            selects = batch.selects or {name: torch.ones_like(there_B) for name, there_B in batch.present.items()}
        candidates = self.select(centered, selects, selector)
        kept = {}
        for shared in [list(candidates)] if self.selection == "global" else [[name] for name in candidates]:
            numbers_BC, logits = candidates[shared[0]].indices, [candidates[name].logits for name in shared]
            share = share_of(numbers_BC + self.latents.start, logits, self.whole.k, self.ranks.latents)
            indices_BK = filled(numbers_BC.gather(1, share.places), share, self.n_latents)
            for name, logits_BC in zip(shared, logits, strict=True):
                if batch.selecting is None:
                    logits_BK = logits_BC.gather(1, share.places)
                else:
                    logits_BK = self.logits(name, inputs[name], indices_BK) * batch.present[name].unsqueeze(1)
                kept[name] = Kept(indices_BK, torch.where(share.chosen, logits_BK, 0))
        return kept


def split_dim(name: str) -> int | None:
    """Return the dimension of a tensor of a checkpoint that counts latents; None if the tensor has none."""
    name = name.rpartition("space.")[2].rpartition("adam.exp_avg_sq.")[2].rpartition("adam.exp_avg.")[2]
    if name.startswith("encoders.") or name == "decoder":
        return 0
    return 1 if name in ("latent_bias", "samples_since_active") else None


def own_part(name: str, tensor: Tensor, latents: slice) -> Tensor:
    """Return the part of a whole tensor of a checkpoint that belongs to some latents."""
    dim = split_dim(name)
    return tensor if dim is None else tensor.narrow(dim, latents.start, latents.stop - latents.start)


def gathered(name: str, tensor: Tensor, space: SpaceShard) -> Tensor:
    """Return a whole tensor of a checkpoint, on the host, in the first rank of the row; this rank's in the others.

    All ranks of a row of the mesh call this, in one order.
    """
    dim, ranks = split_dim(name), space.ranks
    if dim is None:
        return tensor.detach().cpu()
    group, n_latents = ranks.latents, space.whole.n_latents
    lengths = [shard_range(n_latents, number, group.size) for number in range(group.size)]
    longest = lengths[0].stop
    shape = [longest if place == dim else size for place, size in enumerate(tensor.shape)]
    padded = tensor.new_zeros(shape, device="cpu")
    padded.narrow(dim, 0, tensor.shape[dim]).copy_(tensor.detach())
    parts = [torch.empty_like(padded) for _ in lengths] if group.number == 0 else None
    with collective():
        dist.gather(padded, parts, dst=ranks.rank - group.number, group=ranks.hosts)
    if parts is None:
        return tensor
    some = (part.narrow(dim, 0, one.stop - one.start) for part, one in zip(parts, lengths, strict=True))
    return torch.cat(list(some), dim=dim)
