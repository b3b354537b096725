"""The words and labels that the samples of a latent have more often than others."""

from __future__ import annotations

from typing import NamedTuple

from sparc.evaluation.concepts import Enriched, Images, enriched
from sparc.explorer.shown import Shown
from sparc.explorer.statements import clean

LISTED = 10
"""Words and labels listed per latent."""

Listed = list[tuple[str, Enriched]]


class Terms(NamedTuple):
    """Enriched terms per latent, those first that are enriched most."""

    words: list[Listed]
    labels: list[Listed]

    def confirmed(self, latent: int) -> list[str]:
        """Return the labels and words of a latent that hold on images that did not choose them, each once."""
        both = [*self.labels[latent], *self.words[latent]]
        return list(dict.fromkeys(term for term, one in both if one.confirmed))


def latent_terms(shown: Shown) -> Terms:
    """Find the enriched words and labels of each latent; none where the data have no captions or no labels."""
    labels = () if shown.labels is None else shown.labels[1].labels
    return Terms(_listed(shown, shown.word_images, shown.words.terms), _listed(shown, shown.label_images, labels))


def _listed(shown: Shown, images: Images | None, terms: tuple[str, ...]) -> list[Listed]:
    if images is None:
        return [[] for _ in range(shown.space.n_latents)]
    return [
        [(clean(terms[one.term]), one) for one in found]
        for _, halves in images.blocks()
        for found in enriched(halves, LISTED)
    ]
