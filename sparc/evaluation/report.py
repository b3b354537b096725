"""The report of an evaluation, and `evaluation.json`, the file that holds it. Imports no torch and no scipy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sparc.storage.belonging import check_belongs
from sparc.system.brief import Brief
from sparc.system.files import read_model, write_json

WHAT = "the evaluation of a run"
"""Name of `evaluation.json` in messages."""


class _Section(Brief, BaseModel):
    """Part of the report."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Matrix = dict[str, dict[str, float | None]]
"""Source stream to target stream to number; None if no sample has both, or if the number is not finite."""


class Pattern(_Section):
    """The number of latents that are active in these streams and in no other."""

    streams: tuple[str, ...]
    latents: int


class CodeMeasures(_Section):
    """Measures of the codes of held-out samples, all encoded joint or all solo."""

    nmse: Matrix
    """Squared error over squared norm, mean over samples; 0 is perfect."""
    r2: Matrix
    """1 minus squared error over squared distance from the mean, summed over all samples; 1 is perfect."""
    l0: dict[str, float]
    """Per stream, active latents per sample, at most k."""
    alive: int
    """Latents active at least once in every stream."""
    dead: int
    """Latents active in no stream."""
    mixed: int
    """Latents active in some streams only."""
    patterns: tuple[Pattern, ...]
    """The mixed latents by the streams that they are active in, most frequent first."""
    dead_in: dict[str, int]
    """Per stream, latents that are never active in it."""


Interval = tuple[float, float]
"""95% interval: the estimate plus and minus bootstrap standard errors, as many as Student's t gives."""


class Overlap(_Section):
    """A Jaccard overlap, averaged over latents."""

    all: float
    """Over all latents; a latent that is not alive in two streams counts 0, as in the paper."""
    alive: float | None
    """Over the latents that are alive in two streams; None if there are none."""
    all_interval: Interval | None
    """None if there are too few groups of samples."""
    alive_interval: Interval | None


class SoloOverlap(_Section):
    """Hierarchical Jaccard of solo codes, with labels lifted to one depth of the taxonomy."""

    depth: int
    solo: Overlap
    solo_null: Overlap
    """Solo, on shuffled pairs: the overlap that the labels' frequencies alone cause."""


class DepthOverlap(SoloOverlap):
    """Hierarchical Jaccard of joint and of solo codes."""

    joint: Overlap
    joint_null: Overlap
    """Joint, on shuffled pairs: the overlap that the shared index set alone causes."""


class IndexOverlap(_Section):
    """Overlap of the active latents of a sample in two streams, each encoded alone."""

    first: str
    second: str
    overlap: float
    """Jaccard: latents active in both over latents active in either, mean over samples."""
    null: float
    """Overlap on shuffled pairs."""


class Sharing(_Section):
    """Sharing of latents between streams, each stream encoded alone."""

    overlaps: tuple[IndexOverlap, ...]
    """Per pair of streams."""
    shared: int
    """Latents active in at least two streams."""
    only: dict[str, int]
    """Per stream, latents active in it and in no other."""
    dead: int
    duplicates: int
    """Alive latents with a duplicate: another alive latent with nearly the same decoder direction in all streams."""
    cofiring: float | None
    """Share of the samples that activate a latent in both of two streams, of those that do in either; mean over pairs
    of streams, then over alive latents."""
    cofiring_null: float | None
    """`cofiring` on shuffled pairs."""
    entropy: float | None
    """Entropy of a latent's activations over the streams, 1 if all are equally active; mean over alive latents."""


class ConceptDepth(_Section):
    """Labels of one depth as names of latents."""

    depth: int
    labels: int
    """Labels of this depth that any image has."""
    named: int
    """Latents for which a label of this depth was found."""
    confirmed: int
    """Named latents whose label holds on images that were not used to find it."""
    taken: int
    """Labels that name at least one latent."""
    effective: float
    """Effective number of names: exp of the entropy of the names over the labels."""
    frequent_share: float | None
    """Share of the named latents that carry one of the most frequent tenth of the labels."""
    frequency_correlation: float | None
    """Spearman correlation between a label's images and the latents that it names."""


class Concepts(_Section):
    """Names of latents, by the labels of the images that activate them."""

    rule: Literal["enrichment"]
    named: int
    """Latents with a name, a label of any depth."""
    confirmed: int
    purity: float | None
    """Share of a latent's images that have its label, on images not used to find it; mean over named latents."""
    lift: float | None
    """Purity over the label's frequency, on the same images; mean over named latents."""
    depths: tuple[ConceptDepth, ...]


class PurityNames(_Section):
    """Names of latents in one stream by the paper's rule."""

    named: int
    """Latents with a name."""
    taken: int
    """Labels that name at least one latent."""
    effective: float
    """Effective number of names: exp of the entropy of the names over the labels."""
    purity: float | None
    """Share of a latent's strongest samples that have its label; mean over named latents. Nothing is held out."""
    lift: float | None
    """Purity over the label's frequency among labelled samples; mean over named latents."""


class PurityConcepts(_Section):
    """Names of latents by the paper's rule, which gives a latent a name of its own in each stream."""

    rule: Literal["purity"]
    streams: dict[str, PurityNames]
    agreed: int
    """Latents that have the same name in every stream."""


class Classifier(_Section):
    """Mean average precision of classifiers of labels, on the test part."""

    features: str
    """The inputs: `raw`, `latents`, `reconstruction` or `cross-reconstruction`."""
    source: str
    """The stream that is encoded."""
    target: str
    """The stream whose features are the inputs; the source again for latents."""
    linear: float
    mlp: float


class Probes(_Section):
    """Scores of single latents, and of classifiers of all features, as predictors of labels."""

    labels: int
    train: int
    test: int
    """Samples of the test part; all samples of an image are in the same part."""
    single: dict[str, dict[str, float]]
    """Test log-loss by `joint` or `solo`, then stream: of the best latent per label, classes balanced, mean over
    labels. A constant prediction gives ln 2 = 0.693."""
    classifiers: tuple[Classifier, ...]
    chance: float
    """Exact mean average precision of a random order."""


class Ranks(_Section):
    """Recall at 1, 5 and 10, and ranks, of a search."""

    r1: float
    r5: float
    r10: float
    median: float
    """Median rank of the best correct answer."""
    mrr: float
    """Mean of 1 / rank."""


class Retrieval(_Section):
    """One stream searched with another, each encoded alone. An image or caption of several samples counts once."""

    query: str
    target: str
    queries: int
    candidates: int
    latents: Ranks
    """Search by the cosine between codes."""
    reconstruction: Ranks
    """Search by the cosine between both codes decoded into the target stream."""
    cross: Ranks
    """Search by the cosine between the query's code decoded into the target stream and the target's features."""
    raw: Ranks | None
    """Search by the cosine between features, without latents; None unless the two backbones share a space."""
    chance: Ranks
    """Exact expectation for a random order."""


class Uncompleted(_Section):
    """Solo measures without completion: a stream alone selects by its own logits, as in the paper."""

    codes: CodeMeasures
    jaccard: tuple[SoloOverlap, ...] = ()
    """Per depth; empty without labels."""
    retrieval: tuple[Retrieval, ...] = ()
    """Per ordered pair of streams."""


class Report(_Section):
    """Everything measured by an evaluation. A space with a completion guesses missing streams in all solo measures."""

    samples: int
    streams: tuple[str, ...]
    n_latents: int
    k: int
    selection: str
    joint: CodeMeasures
    solo: CodeMeasures
    jaccard: tuple[DepthOverlap, ...] = ()
    """Per depth; empty without labels or with one stream."""
    sharing: Sharing | None = None
    """None with one stream."""
    retrieval: tuple[Retrieval, ...] = ()
    """Per ordered pair of streams; empty with one stream."""
    concepts: Annotated[Concepts | PurityConcepts, Field(discriminator="rule")] | None = None
    """By the rule that was chosen; None without labels."""
    probes: Probes | None = None
    """None without labels, or if no label has enough images with and without it."""
    uncompleted: Uncompleted | None = None
    """None if the space has no completion."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        for measures in (self.joint, self.solo, *([self.uncompleted.codes] if self.uncompleted else [])):
            for matrix in (measures.nmse, measures.r2):
                if set(matrix) != set(self.streams) or any(set(row) != set(self.streams) for row in matrix.values()):
                    raise ValueError(f"expected measures of the streams {', '.join(self.streams)}")
            if set(measures.l0) != set(self.streams):
                raise ValueError(f"expected l0 of the streams {', '.join(self.streams)}")
        return self

    def __repr__(self) -> str:
        """Return one line with the size, and the names of the sections that were measured."""
        own = {"samples", "streams", "n_latents", "k", "selection"}
        sections = [name for name in type(self).model_fields if name not in own and getattr(self, name)]
        return (
            f"Report({self.samples:,} samples, streams {', '.join(self.streams)}, {self.n_latents} latents, {self.k} "
            f"kept, {self.selection} selection; has {', '.join(sections)})"
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain data for a JSON file."""
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Report:
        """Return the report of what `to_json` returned."""
        return cls.model_validate(content)


class EvaluationFile(_Section):
    """The content of `evaluation.json`: a report, and the data that it was measured on."""

    dataset: str
    split: str
    random_weights: tuple[str, ...]
    """Streams whose backbone has random weights (a dry run)."""
    report: Report
    weights: str | None = None
    """Digest of the weights that were measured; None if they have none."""
    latents: str | None = None
    """SHA-256 of the table of latents that was written with it."""

    @classmethod
    def read(cls, path: Path) -> EvaluationFile:
        """Read the file.

        Raises MissingData; CorruptFile if it is damaged, or not what this version writes, or of other weights than
        those beside it.
        """
        hint = f"measure the run again: sparc evaluate {path.parent}"
        found = read_model(path, cls, what=WHAT, hint=hint)
        check_belongs(path, found.weights, hint)
        return found

    def write(self, path: Path) -> None:
        """Write the file. Raises StorageError."""
        write_json(path, self.model_dump(mode="json"))
