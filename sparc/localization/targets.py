"""What a map explains: how much of something there is in features, as a number that has a gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sparc.core.codes import Codes
from sparc.core.space import LatentSpace

Target = Callable[[Tensor], Tensor]
"""From raw features (B, D) of an image stream to a value of each row, (B,)."""


class Match(NamedTuple):
    """Codes of an image stream and a text stream, of as many rows, or one of either for all."""

    image: Codes
    text: Codes

    def shares(self) -> Tensor:
        """What each latent that the image kept adds to the dot product of both codes, (B, K)."""
        count = max(len(self.image), len(self.text))
        indices_BK, theirs_BL = self.image.indices.expand(count, -1), self.text.to_dense().expand(count, -1)
        return self.image.values * theirs_BL.gather(1, indices_BK)


def match(space: LatentSpace, image: str, *, image_BD: Tensor, text: str, text_BD: Tensor, joint: bool) -> Match:
    """Encode images (B, D) and texts (B, D); either may be a single row, which is held against each of the other.

    joint: both select their latents together, as in training; else each for itself, and what both kept counts.
    """
    if not joint:
        alone = {name: {name: rows_BD} for name, rows_BD in ((image, image_BD), (text, text_BD))}
        codes = {name: space.encode_batch(space.normalize(features))[name] for name, features in alone.items()}
        return Match(codes[image], codes[text])
    count = max(len(image_BD), len(text_BD))
    codes = space.encode_batch(space.normalize({image: image_BD.expand(count, -1), text: text_BD.expand(count, -1)}))
    return Match(codes[image], codes[text])


def similarity(space: LatentSpace, stream: str, text: str, text_1D: Tensor, *, joint: bool) -> Target:
    """Dot product of the stream's code with a caption's: sum over latents of z_image z_text; `joint` as in `match`."""

    def target(rows_BD: Tensor) -> Tensor:
        return match(space, stream, image_BD=rows_BD, text=text, text_BD=text_1D, joint=joint).shares().sum(dim=1)

    return target


def activation(space: LatentSpace, stream: str, latents: Sequence[int], beside: Mapping[str, Tensor]) -> Target:
    """Sum of the activations of some latents in the stream's code, selected jointly with the features `beside`."""
    chosen = torch.tensor(list(latents))

    def target(rows_BD: Tensor) -> Tensor:
        features = {stream: rows_BD, **{name: row_1D.expand(len(rows_BD), -1) for name, row_1D in beside.items()}}
        codes = space.encode_batch(space.normalize(features))[stream]
        return (codes.values * torch.isin(codes.indices, chosen.to(codes.indices))).sum(dim=1)

    return target


def logit(space: LatentSpace, stream: str, latents: Sequence[int]) -> Target:
    """Sum of the logits of some latents: what has a gradient where none of them was kept."""
    chosen = list(latents)

    def target(rows_BD: Tensor) -> Tensor:
        weight_LD, bias_L = space.encoder(stream)
        centered_BD = space.centered(stream, space.normalize({stream: rows_BD}).features[stream])
        return (centered_BD @ weight_LD[chosen].T + bias_L[chosen]).sum(dim=1)

    return target


def latents_target(
    space: LatentSpace,
    stream: str,
    latents: Sequence[int],
    beside: Mapping[str, Tensor],
    features_1D: Tensor,
    *,
    gradient: bool,
) -> Target:
    """What a map of latents explains: their activation; to a gradient their logit where the image activates none."""
    target = activation(space, stream, latents, beside)
    with torch.inference_mode():
        silent = not bool(target(features_1D).any())
    return logit(space, stream, latents) if gradient and silent else target
