"""What an evaluation found, as plain data that goes to JSON and back."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


Matrix = dict[str, dict[str, float | None]]
"""Source stream to target stream to number; None where no sample has both, or the number is not finite."""


class Encoded(_Record):
    """What holds of the held-out samples encoded one way, joint or solo."""

    nmse: Matrix
    """Squared error over squared norm, mean over samples."""
    r2: Matrix
    """1 less squared error over squared distance from the mean, over all samples."""
    l0: dict[str, float]
    """Active latents per sample, of the k kept."""
    alive: int
    """Latents active at least once in every stream."""
    dead: int
    """Latents active in no stream."""
    mixed: int
    """Latents active in some streams only."""


class Overlap(_Record):
    """A Jaccard overlap, averaged over latents."""

    all: float
    """Over all latents; one without two streams alive in it counts 0, as in the paper."""
    alive: float | None
    """Over the latents with two streams alive in them; None where there is none."""


class Depth(_Record):
    """Hierarchical Jaccard with labels lifted to one depth of the taxonomy."""

    depth: int
    joint: Overlap
    solo: Overlap
    joint_null: Overlap
    """Joint, on shuffled pairs: what the shared index set alone forces."""
    solo_null: Overlap
    """Solo, on shuffled pairs: what the labels' frequencies alone give."""


class Ranks(_Record):
    """Quality of a ranking."""

    r1: float
    r5: float
    r10: float
    median: float
    """Median rank of the best correct answer."""
    mrr: float
    """Mean of 1 / rank."""


class Retrieval(_Record):
    """One stream searched with another, each encoded alone."""

    query: str
    target: str
    candidates: int
    latents: Ranks
    """By cosine between codes."""
    cross: Ranks
    """By cosine between the query's code decoded into the target stream and the target's features."""
    chance: Ranks
    """Of a random order, exactly."""


class Report(_Record):
    """All of an evaluation."""

    samples: int
    streams: tuple[str, ...]
    n_latents: int
    k: int
    selection: str
    joint: Encoded
    solo: Encoded
    jaccard: tuple[Depth, ...] = ()
    """Per depth; empty without labels or with one stream."""
    retrieval: tuple[Retrieval, ...] = ()
    """Per ordered pair of streams; empty with one stream."""

    def to_json(self) -> dict[str, Any]:
        """Return plain data for a JSON file."""
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Report:
        """Read what `to_json` gave."""
        return cls.model_validate(content)
