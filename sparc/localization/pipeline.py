"""The verb `localize`: where in an image is what a caption says, or what some latents stand for?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sparc.errors import BadSample, InvalidConfig, MissingData
from sparc.localization import targets
from sparc.localization.geometry import Box, spread, strongest
from sparc.localization.methods import METHODS
from sparc.localization.models import Models, one_of
from sparc.localization.targets import Target
from sparc.localization.view import View
from sparc.localization.words import Word, words_of
from sparc.plugins.batches import mapped
from sparc.plugins.contracts import Sample

CARRIERS = 5
"""Latents that are named as those that carried a match."""


@dataclass(frozen=True)
class Query:
    """What to look for: what a caption says, or what some latents stand for together."""

    text: str = ""
    latents: tuple[int, ...] = ()

    def __str__(self) -> str:
        """As people write it."""
        return self.text or f"latent{'s' if len(self.latents) > 1 else ''} {', '.join(map(str, self.latents))}"


class Carrier(NamedTuple):
    """A latent and its part in a match."""

    latent: int
    share: float
    """Of the target's value: its activation, or its part of the dot product."""
    name: str
    """What `sparc evaluate` calls it; empty where it has no name."""


@dataclass(frozen=True)
class Localization:
    """Where one stream sees what was looked for in one image."""

    name: str
    """Of the image: its path, or its place among the images."""
    image: Image.Image = field(repr=False, compare=False)
    """In RGB."""
    stream: str
    query: Query
    method: str
    values: NDArray[np.float32]
    """(rows, columns) of the backbone's grid."""
    box: Box
    """What the grid covers of the image."""
    score: float
    """The target's value for the whole image: a dot product of codes, or a sum of activations."""
    carriers: tuple[Carrier, ...] = ()
    words: tuple[Word, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the image."""
        return self.image.size

    def on_image(self, size: tuple[int, int] | None = None) -> NDArray[np.float32]:
        """The map in pixels of the image, or of the image resized to `size` (width, height): (height, width).

        Bilinear between the middles of the grid's cells; NaN where the backbone does not look.
        """
        return spread(self.values, self.box, self.size, size or self.size)

    @property
    def peak(self) -> tuple[float, float] | None:
        """The middle (x, y) in the image of the grid's strongest cell, among those whose middle lies in the image.

        None where the map is the same everywhere, as where nothing is found.
        """
        return strongest(self.values, self.box, self.size)


def localize(
    models: Models,
    images: Sequence[str | Path | Image.Image],
    *,
    texts: Sequence[str] = (),
    latents: Sequence[int | Sequence[int]] = (),
    method: str = "dense",
    joint: bool | None = None,
) -> list[Localization]:
    """Find in each image what each text says, and what each latent, or set of latents, stands for.

    One result per image, query and image stream of `models`, in this order; what is given twice counts once. Texts are
    read by the first text stream.

    joint: whether an image and its text select their latents together, and for latents the image streams of an image;
    else each stream selects for itself. Left out, texts select jointly and latents do not.

    Raises:
        InvalidConfig: nothing to look for, an empty text, a latent that the space does not have, an unknown method, or
            a stream without a grid.
        MissingData, BadSample: an image that is not there, or does not decode.
        PluginError: a method that the backbone's architecture does not allow.
    """
    queries = checked_queries(texts, latents, method, models.space.n_latents)
    samples = checked_images(images)
    one_of(models, "image")
    read = {query.text: read_text(models, query.text) for query in queries if query.text}
    found = []
    for sample in samples:
        views = {stream: View(models, stream, sample) for stream in models.of("image")}
        for query in queries:
            for view in views.values():
                if query.text:
                    found.append(_by_text(view, query, read[query.text], method, joint=joint is not False))
                else:
                    others = [other for other in views.values() if joint and other is not view]
                    found.append(_by_latents(view, query, others, method))
    return found


def checked_queries(
    texts: Sequence[str], latents: Sequence[int | Sequence[int]], method: str, n_latents: int
) -> list[Query]:
    """What to look for, each once. Raises InvalidConfig."""
    if method not in METHODS:
        raise InvalidConfig(f"expected a method of {', '.join(METHODS)}, found '{method}'", hint="leave --method out")
    queries = [Query(text=text) for text in texts]
    sets = [(one,) if isinstance(one, int) else tuple(dict.fromkeys(one)) for one in latents]
    queries += [Query(latents=one) for one in sets]
    if not queries:
        raise InvalidConfig("expected something to look for, found nothing", hint="add --text WORDS or --latent NUMBER")
    for query in queries:
        if not query.text.strip() and not query.latents:
            raise InvalidConfig("--text: expected words, found an empty text", hint="say what to look for")
        for latent in query.latents:
            if not 0 <= latent < n_latents:
                raise InvalidConfig(f"latent: expected 0 to {n_latents - 1}, found {latent}", hint="choose another")
    return list(dict.fromkeys(queries))


def checked_images(images: Sequence[str | Path | Image.Image]) -> list[Sample]:
    """The images, read, files each once. Raises InvalidConfig, MissingData, BadSample."""
    samples = {sample.id: sample for sample in (_sample(image, number) for number, image in enumerate(images))}
    if not samples:
        raise InvalidConfig("expected at least one image, found none", hint="add --image FILE")
    return list(samples.values())


def _sample(image: str | Path | Image.Image, number: int) -> Sample:
    """The image, read once and kept in memory."""
    if isinstance(image, Image.Image):
        return Sample(f"image {number}", lambda: image)
    path = Path(image).expanduser()
    if not path.is_file():
        raise MissingData(f"no image at {path}", hint="check --image")
    try:
        with Image.open(path) as opened:
            opened.load()
            return Sample(str(image), lambda: opened)
    except Exception as error:  # Pillow raises a dozen unrelated types for broken files
        raise BadSample(f"{path} does not decode: {error}", hint="give an image, such as a PNG or a JPEG") from error


class ReadText(NamedTuple):
    """A caption as a text stream reads it."""

    stream: str
    text: str
    batch: Any
    """What its backbone gets."""
    features: Tensor
    """(1, D)"""


def read_text(models: Models, text: str, *, stream: str | None = None) -> ReadText:
    """Read a caption with a text stream, or the first of them. Raises InvalidConfig where there is none."""
    stream = one_of(models, "text") if stream is None else stream
    backbone = models.backbones[stream]
    batch = mapped(backbone.preprocess([Sample(text, caption=text)]), lambda tensor: tensor.to(models.device))
    with torch.inference_mode():
        return ReadText(stream, text, batch, backbone.forward(batch).float().clone())


def _by_text(view: View, query: Query, read: ReadText, method: str, *, joint: bool) -> Localization:
    space, stream = view.models.space, view.stream
    match = partial(targets.match, space, stream, text=read.stream, joint=joint)

    def of_text(rows_BD: Tensor) -> Tensor:
        return match(image_BD=view.features, text_BD=rows_BD).shares().sum(dim=1)

    with torch.inference_mode():
        found = match(image_BD=view.features, text_BD=read.features)
        parts_K = found.shares()[0]
    words = words_of(read.stream, view.models.backbones[read.stream], read.text, read.batch, of_text)
    target = targets.similarity(space, stream, read.stream, read.features, joint=joint)
    return _result(view, query, method, target, found.image.indices[0], parts_K, words)


def _by_latents(view: View, query: Query, others: Sequence[View], method: str) -> Localization:
    space, stream = view.models.space, view.stream
    beside = {other.stream: other.features for other in others}
    gradient = method != "dense"
    target = targets.latents_target(space, stream, query.latents, beside, view.features, gradient=gradient)
    with torch.inference_mode():
        codes = space.encode_batch(space.normalize({stream: view.features, **beside}))[stream]
        wanted_K = torch.isin(codes.indices[0], torch.tensor(query.latents, device=codes.indices.device))
        parts_K = codes.values[0] * wanted_K
    return _result(view, query, method, target, codes.indices[0], parts_K, ())


def _result(
    view: View, query: Query, method: str, target: Target, indices_K: Tensor, parts_K: Tensor, words: tuple[Word, ...]
) -> Localization:
    total = float(parts_K.sum())
    best = torch.argsort(parts_K, descending=True, stable=True)[:CARRIERS].tolist()
    carriers = [
        Carrier(latent, float(parts_K[place]) / total, view.models.names.get(latent, ""))
        for place in best
        if parts_K[place] > 0
        for latent in [int(indices_K[place])]
    ]
    return Localization(
        name=view.sample.id,
        image=view.image,
        stream=view.stream,
        query=query,
        method=method,
        values=view.map(method, target),
        box=view.box,
        score=total,
        carriers=tuple(carriers),
        words=words,
    )
