"""The verb `localize`: where in an image is what a caption says, or what some latents stand for?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sparc.attribute import targets
from sparc.attribute.geometry import Box, measured_box
from sparc.attribute.methods import METHODS, by_gradient, dense
from sparc.attribute.models import Models, one_of
from sparc.attribute.targets import Target
from sparc.attribute.trace import Trace, traced
from sparc.attribute.words import Word, words_of
from sparc.contracts import GridBackbone, Sample
from sparc.errors import BadSample, InvalidConfig, MissingData, PluginError

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

    image: str
    stream: str
    query: Query
    method: str
    values: NDArray[np.float32]
    """(rows, columns) of the backbone's grid."""
    box: Box
    """What the grid covers of the image."""
    size: tuple[int, int]
    """Width and height of the image."""
    score: float
    """The target's value for the whole image: a dot product of codes, or a sum of activations."""
    carriers: tuple[Carrier, ...] = ()
    words: tuple[Word, ...] = field(default=())

    def on_image(self, size: tuple[int, int] | None = None) -> NDArray[np.float32]:
        """The map in pixels of the image, or of the image resized to `size` (width, height): (height, width).

        Bilinear between the middles of the grid's cells; NaN where the backbone does not look.
        """
        width, height = self.size
        shown = size or self.size
        rows, columns = self.values.shape
        across = _weights(shown[0], width, self.box.left, self.box.right, columns)
        down = _weights(shown[1], height, self.box.top, self.box.bottom, rows)
        return (down @ self.values @ across.T).astype(np.float32)

    @property
    def peak(self) -> tuple[float, float]:
        """The middle (x, y) in the image of the grid's strongest cell, among those whose middle lies in the image."""
        x, y = self._middles
        inside = ((y >= 0) & (y <= self.size[1]))[:, None] & ((x >= 0) & (x <= self.size[0]))
        row, column = np.unravel_index(np.argmax(np.where(inside, self.values, -np.inf)), self.values.shape)
        return float(x[column]), float(y[row])

    @property
    def _middles(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        rows, columns = self.values.shape
        x = self.box.left + (np.arange(columns) + 0.5) * (self.box.right - self.box.left) / columns
        y = self.box.top + (np.arange(rows) + 0.5) * (self.box.bottom - self.box.top) / rows
        return x, y


def _weights(shown: int, length: int, low: float, high: float, cells: int) -> NDArray[np.float64]:
    """Linear interpolation from cells between `low` and `high` to pixels, (shown, cells)."""
    middles = (np.arange(shown) + 0.5) * length / shown
    place = (middles - low) / (high - low) * cells
    left = np.clip(place - 0.5, 0, cells - 1)
    weights: NDArray[np.float64] = np.maximum(0, 1 - np.abs(left[:, None] - np.arange(cells)))
    weights[(place < 0) | (place > cells)] = np.nan
    return weights


@dataclass(frozen=True, eq=False)
class View:
    """An image as one backbone sees it; computed when asked for, once for all that is looked for in it."""

    models: Models
    stream: str
    sample: Sample

    @cached_property
    def grid(self) -> tuple[int, int]:
        """Rows and columns. Raises InvalidConfig where the backbone has none."""
        grid = getattr(self.models.backbones[self.stream], "grid", None)
        if grid is None:
            raise InvalidConfig(
                f"stream '{self.stream}': expected a backbone with a grid of patches, found one without",
                hint=f"name others with --stream: {', '.join(self.models.of('image'))}",
            )
        rows, columns = grid
        return rows, columns

    @cached_property
    def size(self) -> tuple[int, int]:
        """Width and height of the image."""
        return self.sample.image().size

    @cached_property
    def box(self) -> Box:
        """What the grid covers of the image."""
        return measured_box(self.stream, self.models.backbones[self.stream], self.size)

    @cached_property
    def _batch(self) -> Any:
        return moved(self.models.backbones[self.stream].preprocess([self.sample]), self.models.device)

    @cached_property
    def _dense(self) -> tuple[Tensor, Tensor]:
        backbone = self.models.backbones[self.stream]
        _ = self.grid
        assert isinstance(backbone, GridBackbone)
        with torch.inference_mode():
            features_1D, patches_1PD = backbone.forward_tokens(self._batch)
        if patches_1PD.shape[-1] != backbone.width:
            raise PluginError(
                f"stream '{self.stream}': expected patches of width {backbone.width} as its features have, found "
                f"{patches_1PD.shape[-1]}",
                hint="choose another --method; or repair its forward_tokens",
            )
        return features_1D.float(), patches_1PD[0].float()

    @cached_property
    def traced(self) -> tuple[Tensor, Trace]:
        """Features (1, D) in their graph, and what happened on the way."""
        _ = self.grid
        features_1D, trace = traced(self.stream, self.models.backbones[self.stream], self._batch)
        return features_1D.float(), trace

    @cached_property
    def features(self) -> Tensor:
        """Features (1, D) of the image, without graph."""
        with torch.inference_mode():
            return self.models.backbones[self.stream].forward(self._batch).float().clone()

    def map(self, method: str, target: Target) -> NDArray[np.float32]:
        """How much each cell has to do with the target, (rows, columns)."""
        if method == "dense":
            values = dense(self._dense[1], target)
        else:
            values = by_gradient(method, self.stream, *self.traced, self.grid, target)
        return values.detach().reshape(self.grid).float().cpu().numpy()


def moved(batch: Any, device: str) -> Any:
    """A batch that is a tensor or a dict of tensors, on a device."""
    if isinstance(batch, dict):
        return {key: tensor.to(device) for key, tensor in batch.items()}
    return batch.to(device)


def localize(
    models: Models,
    images: Sequence[str | Path | Image.Image],
    *,
    texts: Sequence[str] = (),
    latents: Sequence[int | Sequence[int]] = (),
    method: str = "dense",
    joint: bool = True,
) -> list[Localization]:
    """Find in each image what each text says, and what each latent, or set of latents, stands for.

    One result per image, query and image stream of `models`, in this order. Texts are read by the first text stream.
    joint: the streams of an image and its text select their latents together, as in training; else each for itself.

    Raises:
        InvalidConfig: nothing to look for, an empty text, a latent that the space does not have, an unknown method, or
            a stream without a grid.
        MissingData, BadSample: an image that is not there, or does not decode.
        PluginError: a method that the backbone's architecture does not allow.
    """
    queries = _queries(models, texts, latents)
    if method not in METHODS:
        raise InvalidConfig(f"expected a method of {', '.join(METHODS)}, found '{method}'", hint="leave --method out")
    one_of(models, "image")
    text = one_of(models, "text") if any(query.text for query in queries) else ""
    samples = [_sample(image, number) for number, image in enumerate(images)]
    if not samples:
        raise InvalidConfig("expected at least one image, found none", hint="add --image FILE")
    read = {query.text: _read(models, text, query.text) for query in queries if query.text}
    found = []
    for sample in samples:
        views = {stream: View(models, stream, sample) for stream in models.of("image")}
        for query in queries:
            for view in views.values():
                if query.text:
                    found.append(_by_text(view, query, text, read[query.text], method, joint=joint))
                else:
                    beside = [other for other in views.values() if joint and other is not view]
                    found.append(_by_latents(view, query, beside, method))
    return found


def _queries(models: Models, texts: Sequence[str], latents: Sequence[int | Sequence[int]]) -> list[Query]:
    queries = [Query(text=text) for text in texts]
    queries += [Query(latents=(one,) if isinstance(one, int) else tuple(one)) for one in latents]
    if not queries:
        raise InvalidConfig("expected something to look for, found nothing", hint="add --text WORDS or --latent NUMBER")
    for query in queries:
        if not query.text.strip() and not query.latents:
            raise InvalidConfig("--text: expected words, found an empty text", hint="say what to look for")
        for latent in query.latents:
            if not 0 <= latent < models.space.n_latents:
                raise InvalidConfig(
                    f"latent: expected 0 to {models.space.n_latents - 1}, found {latent}", hint="choose another"
                )
    return queries


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


def _read(models: Models, stream: str, text: str) -> tuple[Any, Tensor]:
    """What the text stream's backbone reads, and its features (1, D)."""
    backbone = models.backbones[stream]
    batch = moved(backbone.preprocess([Sample(text, caption=text)]), models.device)
    with torch.inference_mode():
        return batch, backbone.forward(batch).float().clone()


def _by_text(
    view: View, query: Query, text: str, read: tuple[Any, Tensor], method: str, *, joint: bool
) -> Localization:
    space, stream = view.models.space, view.stream
    batch, text_1D = read

    def target(rows_BD: Tensor) -> Tensor:
        return targets.match(space, stream, rows_BD, text, text_1D, joint=joint).latents().sum(dim=1)

    def of_text(rows_BD: Tensor) -> Tensor:
        return targets.match(space, stream, view.features, text, rows_BD, joint=joint).latents().sum(dim=1)

    with torch.inference_mode():
        found = targets.match(space, stream, view.features, text, text_1D, joint=joint)
        parts_K = found.latents()[0]
    words = words_of(text, view.models.backbones[text], query.text, batch, of_text)
    return _result(view, query, method, target, found.image.indices[0], parts_K, words)


def _by_latents(view: View, query: Query, others: Sequence[View], method: str) -> Localization:
    space, stream = view.models.space, view.stream
    beside = {other.stream: other.features for other in others}
    target = targets.activation(space, stream, query.latents, beside)
    with torch.inference_mode():
        codes = space.encode_batch(space.normalize({stream: view.features, **beside}))[stream]
        wanted_K = torch.isin(codes.indices[0], torch.tensor(query.latents, device=codes.indices.device))
        parts_K = codes.values[0] * wanted_K
    if not parts_K.any() and method != "dense":
        target = targets.logit(space, stream, query.latents)
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
        image=view.sample.id,
        stream=view.stream,
        query=query,
        method=method,
        values=view.map(method, target),
        box=view.box,
        size=view.size,
        score=total,
        carriers=tuple(carriers),
        words=words,
    )
