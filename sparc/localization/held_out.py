"""Scores of a query on held-out images, which tell whether its score on an image says that it is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sparc.core.space import present
from sparc.localization import targets
from sparc.localization.request import Query
from sparc.localization.view import Caption
from sparc.models import Models
from sparc.storage.store import FeatureStore

LIMIT = 2000
"""Largest number of held-out images that a query is scored on; of more, every second, third, ... is taken."""
BATCH = 256
"""Held-out images that are encoded at once."""


@dataclass(frozen=True)
class HeldOutImages:
    """Raw features of held-out images by image stream, (N, D) each, N the same images in the same order."""

    features: Mapping[str, Tensor]

    def scores(
        self, models: Models, stream: str, query: Query, *, caption: Caption | None, joint: bool
    ) -> Tensor | None:
        """Return a query's score on each image, (N,), as `localize` scores an image; None if there are no images.

        caption: the query as the text stream reads it; None for latents.
        """
        own_ND = self.features.get(stream)
        if own_ND is None or not len(own_ND):
            return None
        space, parts = models.space, []
        for low in range(0, len(own_ND), BATCH):
            rows_BD = own_ND[low : low + BATCH].to(models.device)
            if caption is not None:
                target = targets.similarity(space, stream, caption.stream, caption.features, joint=joint)
            else:
                others = {
                    name: theirs_ND[low : low + BATCH].to(models.device)
                    for name, theirs_ND in self.features.items()
                    if joint and name != stream
                }
                target = targets.activation(space, stream, query.latents, others)
            with torch.inference_mode():
                parts.append(target(rows_BD))
        return torch.cat(parts)


NO_IMAGES = HeldOutImages({})


def held_out_images(store: FeatureStore, streams: Sequence[str]) -> HeldOutImages:
    """Return the features of distinct held-out images that all these image streams have, at most LIMIT."""
    _, samples = np.unique(store.rows[streams[0]].numpy(), return_index=True)
    chosen = torch.from_numpy(samples[:: -(-len(samples) // LIMIT)])
    features = {name: _gathered(store.shards[name], store.rows[name][chosen]) for name in streams}
    there = torch.stack([present(rows) for rows in features.values()]).all(dim=0)
    return HeldOutImages({name: rows[there] for name, rows in features.items()})


def _gathered(shards: Sequence[Tensor], rows: Tensor) -> Tensor:
    """Return rows of consecutive shards as float32, without reading the other rows."""
    starts = torch.tensor([0, *map(len, shards)]).cumsum(0)
    found = torch.empty(len(rows), shards[0].shape[1])
    for shard, low, high in zip(shards, starts[:-1], starts[1:], strict=True):
        inside = (rows >= low) & (rows < high)
        found[inside] = shard[rows[inside] - low].float()
    return found
