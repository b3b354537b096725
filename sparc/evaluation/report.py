"""What an evaluation found, as plain data that goes to JSON and back."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


Matrix = dict[str, dict[str, float | None]]
"""Source stream to target stream to number; None where no sample has both, or the number is not finite."""


class Pattern(_Record):
    """Latents that are active in some streams and in no other."""

    streams: tuple[str, ...]
    latents: int


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
    patterns: tuple[Pattern, ...]
    """The mixed latents by the streams that they are active in."""
    dead_in: dict[str, int]
    """Per stream, latents that are never active there."""


Interval = tuple[float, float]
"""95%: so many bootstrap standard errors to each side of the estimate as Student's t says."""


class Overlap(_Record):
    """A Jaccard overlap, averaged over latents."""

    all: float
    """Over all latents; one without two streams alive in it counts 0, as in the paper."""
    alive: float | None
    """Over the latents with two streams alive in them; None where there is none."""
    all_interval: Interval | None
    """None where there are too few groups of samples to tell."""
    alive_interval: Interval | None


class Depth(_Record):
    """Hierarchical Jaccard with labels lifted to one depth of the taxonomy."""

    depth: int
    joint: Overlap
    solo: Overlap
    joint_null: Overlap
    """Joint, on shuffled pairs: what the shared index set alone forces."""
    solo_null: Overlap
    """Solo, on shuffled pairs: what the labels' frequencies alone give."""


class IndexOverlap(_Record):
    """How alike the active latents of a sample are in two streams, each encoded alone."""

    first: str
    second: str
    overlap: float
    """Mean over samples of shared over all active latents (Jaccard)."""
    null: float
    """The same on shuffled pairs."""


class Sharing(_Record):
    """Which streams a latent belongs to, each stream encoded alone."""

    overlaps: tuple[IndexOverlap, ...]
    """Per pair of streams."""
    shared: int
    """Latents active in at least two streams."""
    only: dict[str, int]
    """Per stream, latents active there and nowhere else."""
    dead: int
    duplicates: int
    """Latents, not dead, with another one whose decoder is nearly the same direction in all streams."""
    cofiring: float | None
    """Of the samples that activate a latent in one of two streams, the share that does in both; mean over pairs of
    streams, then over the latents that are not dead."""
    cofiring_null: float | None
    """The same on shuffled pairs."""
    entropy: float | None
    """Of a latent's activations over the streams, 1 where all have it equally often; mean over latents not dead."""


class ConceptDepth(_Record):
    """Labels of one depth as names of latents."""

    depth: int
    labels: int
    """Labels of this depth that any image has."""
    named: int
    """Latents for which a label of this depth is found."""
    confirmed: int
    """Of these, the ones whose label holds on samples that were not used to find it."""
    taken: int
    """Labels that name at least one latent."""
    effective: float
    """Labels that would name as many latents each, as evenly: exp of the entropy."""
    frequent_share: float | None
    """Share of the named latents that the tenth of the labels with most images takes."""
    frequency_correlation: float | None
    """Spearman's, between a label's images and the latents that it names."""


class Concepts(_Record):
    """What latents stand for, by the labels of the samples that activate them."""

    rule: str
    """enrichment, or purity as in the paper."""
    named: int
    """Latents with a name, of any depth."""
    confirmed: int
    purity: float | None
    """Mean over named latents of the share of their images that has the label, on images not used to find it."""
    lift: float | None
    """Mean over named latents of purity over the label's frequency, on the same images."""
    depths: tuple[ConceptDepth, ...]


class Classifier(_Record):
    """How well labels are read off features: mean average precision over labels, on the test part."""

    features: str
    """raw, latents, reconstruction or cross-reconstruction."""
    source: str
    """The stream that is seen."""
    target: str
    """The stream whose features these are; of latents the source again."""
    linear: float
    mlp: float


class Probes(_Record):
    """What a latent, or a linear or small nonlinear reading of features, says about labels."""

    labels: int
    train: int
    test: int
    """Samples; those of one image are on one side."""
    single: dict[str, dict[str, float]]
    """joint or solo, then stream: test log-loss of the best latent per label, classes balanced, mean over labels.
    Knowing nothing gives ln 2 = 0.693."""
    classifiers: tuple[Classifier, ...]
    chance: float
    """Mean average precision of a random order, exactly."""


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
    """One stream searched with another, each encoded alone. What several samples show is one query, one candidate."""

    query: str
    target: str
    queries: int
    candidates: int
    latents: Ranks
    """By cosine between codes."""
    reconstruction: Ranks
    """By cosine between both codes decoded into the target stream."""
    cross: Ranks
    """By cosine between the query's code decoded into the target stream and the target's features."""
    raw: Ranks | None
    """By cosine between features, where the two backbones share a space; no latents take part."""
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
    sharing: Sharing | None = None
    """None with one stream."""
    retrieval: tuple[Retrieval, ...] = ()
    """Per ordered pair of streams; empty with one stream."""
    concepts: Concepts | None = None
    """None without labels."""
    probes: Probes | None = None
    """None without labels, or where none has enough images with and without it."""

    def to_json(self) -> dict[str, Any]:
        """Return plain data for a JSON file."""
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Report:
        """Read what `to_json` gave."""
        return cls.model_validate(content)
