"""The answers of a search."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sparc.plugins.contracts import Sample
from sparc.system.brief import Brief
from sparc.system.graphemes import start_of

LETTERS = 400
"""Most letters of a text that are shown."""
_JOINERS = "\u200c\u200d"
"""Characters that are not printed, and that scripts need between letters."""


def plain(text: str, letters: int = LETTERS) -> str:
    """Return a text on one line of at most so many letters, without control characters and halves of characters."""
    shown = (one if one.isprintable() or one in _JOINERS else " " for one in text[: 4 * letters])
    line = " ".join("".join(shown).split())
    return f"{start_of(line, letters - 1)}…" if len(line) > letters or len(text) > 4 * letters else line


class SharedConcept(NamedTuple):
    """A latent that the codes of query and hit both activate."""

    latent: int
    name: str | None
    """Its confirmed name; None without one."""
    share: float
    """Share of the score that this latent contributes."""

    def __str__(self) -> str:
        """Return `name (N)`, since several latents may have one name; or `latent N` without a name."""
        return f"latent {self.latent}" if self.name is None else f"{self.name} ({self.latent})"


@dataclass(frozen=True, repr=False)
class Hit(Brief):
    """An image or caption that was found."""

    score: float
    """Cosine with the query."""
    sample: Sample = field(repr=False)
    """First sample that shows it."""
    concepts: tuple[SharedConcept, ...] = ()
    """Concepts that query and hit share, the largest share first; empty for a search by cross-reconstruction."""

    @property
    def name(self) -> str:
        """Name of the image, such as its path in the folder; the sample's id for an image without one."""
        return self.sample.image_id or self.sample.id

    @property
    def caption(self) -> str:
        """Caption of the sample; empty without one, and if it only says the name again."""
        caption = self.sample.caption or ""
        return "" if caption in (self.name, self.sample.id) else caption


@dataclass(frozen=True, repr=False)
class Found(Brief):
    """The hits of one query in one stream, the best first."""

    query: str
    """The text, or the path of the image."""
    modality: str
    """`image` or `text`, of the query."""
    sample: Sample = field(repr=False)
    """The query itself."""
    query_stream: str
    target_stream: str
    target_modality: str
    by: str
    candidates: int
    """Distinct images or captions that were searched."""
    hits: tuple[Hit, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the hits as JSON has them."""
        return {
            "query": self.query,
            "kind": self.modality,
            "query_stream": self.query_stream,
            "target_stream": self.target_stream,
            "by": self.by,
            "candidates": self.candidates,
            "hits": [
                {
                    "id": hit.sample.id,
                    "image": hit.name,
                    "score": hit.score,
                    "caption": hit.sample.caption,
                    "concepts": [concept._asdict() for concept in hit.concepts],
                }
                for hit in self.hits
            ],
        }
