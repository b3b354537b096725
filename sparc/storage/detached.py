"""A space without one of its streams; the others stay as they are."""

from __future__ import annotations

import torch

from sparc.config import SpaceConfig, validated
from sparc.storage.checkpoint import SharedLatentSpace


@torch.no_grad()
def without(space: SharedLatentSpace, stream: str) -> SharedLatentSpace:
    """Return a space without a stream, which may be an attached one, or a founding one unless it is the only one."""
    config = space.config
    shape = {
        "streams": {name: width for name, width in config.streams.items() if name != stream},
        "attached": tuple(name for name in config.attached if name != stream),
    }
    left = SharedLatentSpace(validated(SpaceConfig, {**config.model_dump(), **shape})).to(space.decoder.device)
    old = list(space.streams)
    for number, (name, segment) in enumerate(left.segments.items()):
        from_number, from_segment = old.index(name), space.segments[name]
        left.encoders[number].copy_(space.encoders[from_number])
        left.latent_bias[number] = space.latent_bias[from_number]
        left.decoder[:, segment] = space.decoder[:, from_segment]
        left.pre_bias[segment] = space.pre_bias[from_segment]
        left.center[segment] = space.center[from_segment]
        left.scale[number] = space.scale[from_number]
    if space.completion is not None and len(left.streams) > 1:
        left.completion = space.completion.without(stream)
    return left.eval()
