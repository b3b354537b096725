"""Targets: differentiable functions of an image's features that a map explains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sparc.core.codes import Codes
from sparc.core.space import LatentSpace

Target = Callable[[Tensor], Tensor]
"""Maps raw features (B, D) of an image stream to one value per row, (B,)."""


class Match(NamedTuple):
    """Codes of an image stream and a text stream: B rows each, or a single row paired with all rows of the other."""

    image: Codes
    text: Codes

    def shares(self) -> Tensor:
        """Return what each latent of the image's code adds to the dot product of both codes, (B, K)."""
        count = max(len(self.image), len(self.text))
        indices_BK, theirs_BL = self.image.indices.expand(count, -1), self.text.to_dense().expand(count, -1)
        return self.image.values * theirs_BL.gather(1, indices_BK)


def match(space: LatentSpace, image: str, *, image_BD: Tensor, text: str, text_BD: Tensor, joint: bool) -> Match:
    """Encode images (B, D) and texts (B, D); a single row of either is paired with every row of the other.

    joint: select the latents of both together, as in training. Otherwise each selects its own, and only latents that
    both kept contribute.
    """
    if not joint:
        alone = {name: {name: rows_BD} for name, rows_BD in ((image, image_BD), (text, text_BD))}
        codes = {name: space.encode_known(space.normalize(features))[name] for name, features in alone.items()}
        return Match(codes[image], codes[text])
    count = max(len(image_BD), len(text_BD))
    codes = space.encode_known(space.normalize({image: image_BD.expand(count, -1), text: text_BD.expand(count, -1)}))
    return Match(codes[image], codes[text])


def similarity(space: LatentSpace, stream: str, text: str, text_1D: Tensor, *, joint: bool) -> Target:
    """Return the target of a caption: the dot product of both codes, the sum over latents of z_image z_text."""

    def target(rows_BD: Tensor) -> Tensor:
        return match(space, stream, image_BD=rows_BD, text=text, text_BD=text_1D, joint=joint).shares().sum(dim=1)

    return target


def activation(space: LatentSpace, stream: str, latents: Sequence[int], beside: Mapping[str, Tensor]) -> Target:
    """Return the sum of some latents' activations as a target, the code selected jointly with the features `beside`."""
    chosen = torch.tensor(list(latents))

    def target(rows_BD: Tensor) -> Tensor:
        features = {stream: rows_BD, **{name: row_1D.expand(len(rows_BD), -1) for name, row_1D in beside.items()}}
        codes = space.encode_known(space.normalize(features))[stream]
        return (codes.values * torch.isin(codes.indices, chosen.to(codes.indices))).sum(dim=1)

    return target


def logit(space: LatentSpace, stream: str, latents: Sequence[int]) -> Target:
    """Return the sum of some latents' logits as a target, which has a gradient even if none of them was kept."""
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
    """Return the target of latents: their activation; for a gradient, their logit if the image activates none."""
    target = activation(space, stream, latents, beside)
    with torch.inference_mode():
        silent = not bool(target(features_1D).any())
    return logit(space, stream, latents) if gradient and silent else target
