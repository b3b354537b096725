"""`localize`: run every step, from a checked request to a map for each image, query and stream."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sparc.localization import targets
from sparc.localization.geometry import spread, strongest
from sparc.localization.held_out import NO_IMAGES, HeldOutImages
from sparc.localization.request import Query, Request, check_modalities
from sparc.localization.targets import Target
from sparc.localization.view import Caption, View, read_caption
from sparc.localization.words import Word, words_of
from sparc.models import Models
from sparc.models.standing import Standing, standing
from sparc.plugins.geometry import Box
from sparc.system.brief import Brief

CARRIERS = 5
"""Number of latents that a result names as those that carried the match."""


class Carrier(NamedTuple):
    """A latent that carried a match."""

    latent: int
    share: float
    """Share of the score that this latent contributes."""
    name: str
    """The latent's name, or an empty string."""


@dataclass(frozen=True, repr=False)
class Localization(Brief):
    """The map of one query in one image, as one stream sees it."""

    name: str
    """The image's path, or its number among the images."""
    image: Image.Image = field(repr=False, compare=False)
    """The image in RGB."""
    stream: str
    query: Query
    method: str
    values: NDArray[np.float32]
    """The map, (rows, columns) of the backbone's grid."""
    box: Box
    """The part of the image that the grid covers."""
    score: float
    """The target's value for the whole image: a dot product of codes, or a sum of activations."""
    carriers: tuple[Carrier, ...] = ()
    words: tuple[Word, ...] = ()
    standing: Standing | None = None
    """The score among those of the same query on held-out images; None if there are none to compare with."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the image."""
        return self.image.size

    def on_image(self, size: tuple[int, int] | None = None) -> NDArray[np.float32]:
        """Return the map in pixels of the image, or of the image resized to `size` (width, height): (height, width).

        Bilinear between the centres of the grid's cells; NaN outside of what the backbone sees.
        """
        return spread(self.values, self.box, self.size, size or self.size)

    @property
    def peak(self) -> tuple[float, float] | None:
        """The centre (x, y), in pixels of the image, of the grid's strongest cell.

        Only cells whose centre lies in the image count. None if the map is constant, as when nothing is found.
        """
        return strongest(self.values, self.box, self.size)


OnMap = Callable[[int, int, str], None]
"""Callback that receives the number of maps done, their total, and the image, query and stream of the next one."""


def localize(
    models: Models,
    request: Request,
    on_map: OnMap = lambda done, total, following: None,
    held_out: HeldOutImages = NO_IMAGES,
) -> list[Localization]:
    """Find each query of a request in its images, with each image stream of `models`.

    Results come in the order image, query, stream. The first text stream reads the captions. `held_out` are images to
    compare scores with.

    Raises:
        InvalidConfig: an image stream without a grid, no image stream, or captions and no text stream.
        PluginError: a method that the backbone's architecture does not allow.
    """
    check_modalities(request, {stream: models.modalities[stream] for stream in models.backbones})
    captions = {query: read_caption(models, query.text) for query in request.queries if query.text}
    usual = _Usual(models, request, captions, held_out)
    found: list[Localization] = []
    total = sum(len(request.queries_of(place)) for place in range(len(request.images))) * len(models.of("image"))
    for place, sample in enumerate(request.images):
        on_map(len(found), total, sample.id)
        views = [View(models, stream, sample) for stream in models.of("image")]
        for query in request.queries_of(place):
            joint = request.joint(query)
            for view in views:
                on_map(len(found), total, f"{sample.id}: {query}, {view.stream}")
                if query in captions:
                    evidence = _caption_evidence(view, captions[query], joint=joint)
                else:
                    others = [other for other in views if joint and other is not view]
                    evidence = _latents_evidence(view, query.latents, others, gradient=request.method != "dense")
                one = _localization(view, query, request.method, evidence)
                found.append(replace(one, standing=usual.standing(one)))
    on_map(total, total, "")
    return found


@dataclass(frozen=True)
class _Usual:
    """Scores of queries on held-out images, computed once per query and stream."""

    models: Models
    request: Request
    captions: Mapping[Query, Caption]
    held_out: HeldOutImages
    _scores: dict[tuple[Query, str], Tensor | None] = field(default_factory=dict)

    def standing(self, one: Localization) -> Standing | None:
        key = (one.query, one.stream)
        if key not in self._scores:
            caption, joint = self.captions.get(one.query), self.request.joint(one.query)
            self._scores[key] = self.held_out.scores(self.models, one.stream, one.query, caption=caption, joint=joint)
        scores = self._scores[key]
        return None if scores is None else standing(one.score, scores)


class _Evidence(NamedTuple):
    """The match of a query with a whole image: the target of its map, and what each latent and word contributes."""

    target: Target
    indices: Tensor
    """(K,), the latents of the image's code."""
    parts: Tensor
    """(K,), the part of the score that each of them contributes."""
    words: tuple[Word, ...] = ()


def _caption_evidence(view: View, caption: Caption, *, joint: bool) -> _Evidence:
    space, stream = view.models.space, view.stream
    match = partial(targets.match, space, stream, text=caption.stream, joint=joint)

    def of_caption(rows_BD: Tensor) -> Tensor:
        return match(image_BD=view.features, text_BD=rows_BD).shares().sum(dim=1)

    with torch.inference_mode():
        found = match(image_BD=view.features, text_BD=caption.features)
        parts_K = found.shares()[0]
    words = words_of(caption.stream, view.models.backbones[caption.stream], caption.text, caption.batch, of_caption)
    target = targets.similarity(space, stream, caption.stream, caption.features, joint=joint)
    return _Evidence(target, found.image.indices[0], parts_K, words)


def _latents_evidence(view: View, latents: Sequence[int], others: Sequence[View], *, gradient: bool) -> _Evidence:
    """Match latents with an image whose code is selected jointly with the views `others` of the same image."""
    space, stream = view.models.space, view.stream
    beside = {other.stream: other.features for other in others}
    target = targets.latents_target(space, stream, latents, beside, view.features, gradient=gradient)
    with torch.inference_mode():
        codes = space.encode_known(space.normalize({stream: view.features, **beside}))[stream]
        wanted_K = torch.isin(codes.indices[0], torch.tensor(latents, device=codes.indices.device))
        parts_K = codes.values[0] * wanted_K
    return _Evidence(target, codes.indices[0], parts_K)


def _localization(view: View, query: Query, method: str, evidence: _Evidence) -> Localization:
    parts_K = evidence.parts
    total = float(parts_K.sum())
    best = torch.argsort(parts_K, descending=True, stable=True)[:CARRIERS].tolist()
    kept = [(int(evidence.indices[place]), float(parts_K[place])) for place in best if parts_K[place] > 0]
    names = view.models.names
    return Localization(
        name=view.sample.id,
        image=view.image,
        stream=view.stream,
        query=query,
        method=method,
        values=view.map(method, evidence.target),
        box=view.box,
        score=total,
        carriers=tuple(Carrier(latent, part / total, names.get(latent, "")) for latent, part in kept),
        words=evidence.words,
    )
