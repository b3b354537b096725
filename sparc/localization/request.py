"""A request: what to look for and in which images, checked before anything heavy loads. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from sparc.config import Method
from sparc.errors import InvalidConfig
from sparc.models.inputs import ImageInput, decoded, image_sample
from sparc.models.streams import first_of
from sparc.plugins.contracts import Sample

METHODS: tuple[str, ...] = get_args(Method)
SELECTIONS = ("joint", "solo")


@dataclass(frozen=True)
class Query:
    """One thing to look for: a caption, or a set of latents taken together."""

    text: str = ""
    latents: tuple[int, ...] = ()

    def __str__(self) -> str:
        """Return the caption, or `latents 3, 5`."""
        return self.text or f"latent{'s' if len(self.latents) > 1 else ''} {', '.join(map(str, self.latents))}"


@dataclass(frozen=True)
class Request:
    """Queries, the decoded images to look in, and how to look. `checked_request` makes it."""

    images: tuple[Sample, ...]
    queries: tuple[Query, ...]
    method: str = "dense"
    selection: str | None = None
    """`joint` or `solo`; None leaves it to the query, see `joint`."""
    pairs: tuple[tuple[int, Query], ...] | None = None
    """Place of an image and the query to look for in it; None looks for each query in each image."""

    def queries_of(self, image: int) -> tuple[Query, ...]:
        """Return the queries to look for in the image at a place."""
        if self.pairs is None:
            return self.queries
        return tuple(query for place, query in self.pairs if place == image)

    def joint(self, query: Query) -> bool:
        """Return True if the latents of a query are selected jointly, False if each stream selects its own.

        A caption is selected jointly with the image, latents jointly with the other image streams. By default captions
        are joint and latents solo.
        """
        return bool(query.text) if self.selection is None else self.selection == "joint"


def checked_request(
    image: Sequence[ImageInput],
    *,
    n_latents: int,
    text: Sequence[str] = (),
    latent: Sequence[int | Sequence[int]] = (),
    method: str = "dense",
    selection: str | None = None,
) -> Request:
    """Check what a user wants to find, for a space of `n_latents`, and decode each image once.

    A query or a file that is given twice counts once. A sequence of latents is one query for all of them together.

    Raises:
        InvalidConfig: no image, no query, an empty text, a latent that the space does not have, or an unknown method or
            selection.
        MissingData: an image file that does not exist.
        BadSample: an image file that does not decode, or that is larger than the limits.
        StorageError, OutOfMemory: the machine refuses to read an image file.
    """
    _check_way(method, selection)
    queries = _checked_queries(text, latent, n_latents)
    return Request(_decoded(_samples(image)), queries, method, selection)


def paired_request(
    image: Sequence[ImageInput], text: Sequence[str], *, method: str = "dense", selection: str | None = None
) -> Request:
    """Check image-text pairs, the first text for the first image and so on, and decode each image once.

    Raises as `checked_request`, and InvalidConfig unless there are as many texts as images.
    """
    _check_way(method, selection)
    if len(image) != len(text):
        raise InvalidConfig(
            f"--pair: expected a --text for each --image, found {len(image)} of --image and {len(text)} of --text",
            hint="repeat both in the same order, or leave --pair out to look for each text in each image",
        )
    samples = _samples(image)
    queries = _checked_queries(text, (), 0)
    place_of = {name: place for place, name in enumerate(dict.fromkeys(sample.id for sample in samples))}
    pairs = dict.fromkeys((place_of[one.id], Query(text=words)) for one, words in zip(samples, text, strict=True))
    return Request(_decoded(samples), queries, method, selection, tuple(pairs))


def _check_way(method: str, selection: str | None) -> None:
    """Raise InvalidConfig for an unknown method or selection."""
    if selection is not None and selection not in SELECTIONS:
        raise InvalidConfig(f"--selection: expected joint or solo, found '{selection}'", hint="leave it out")
    if method not in METHODS:
        raise InvalidConfig(f"expected a method of {', '.join(METHODS)}, found '{method}'", hint="leave --method out")


def _checked_queries(texts: Sequence[str], latents: Sequence[int | Sequence[int]], n_latents: int) -> tuple[Query, ...]:
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
    return tuple(dict.fromkeys(queries))


def _samples(images: Sequence[ImageInput]) -> list[Sample]:
    """Return a sample for each image. Raises InvalidConfig without one, and MissingData."""
    if not images:
        raise InvalidConfig("expected at least one image, found none", hint="add --image FILE")
    return [image_sample(image, number) for number, image in enumerate(images)]


def _decoded(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """Decode each image once, now, and keep its pixels."""
    return tuple(decoded(sample) for sample in {sample.id: sample for sample in samples}.values())


def check_modalities(request: Request, modalities: Mapping[str, str]) -> None:
    """Raise InvalidConfig unless some stream reads images and, for captions, some stream reads text.

    modalities: `image` or `text` by stream; a backbone's spec tells it without loading the model.
    """
    first_of(modalities, "image")
    if any(query.text for query in request.queries):
        first_of(modalities, "text")
