"""The verb `evaluate`: what a space is worth on held-out samples, joint, solo and against chance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sparc.evaluation.report import Report
from sparc.plugins.contracts import Taxonomy

if TYPE_CHECKING:
    from scipy.sparse import csr_array
    from torch import Tensor

    from sparc.core.codes import Codes
    from sparc.core.space import LatentSpace
    from sparc.evaluation.concepts import Names
    from sparc.evaluation.latents import LatentTable
    from sparc.evaluation.report import Encoded

__all__ = ["Evaluation", "Report", "Samples", "evaluate"]


@dataclass(frozen=True)
class Samples:
    """Held-out samples to measure on."""

    features: Mapping[str, Tensor]
    """Raw, (N, D) per stream of the space, zeros where a sample lacks the stream."""
    groups: Sequence[str]
    """Per sample, what it shares with others: its image."""
    labels: csr_array | None = None
    """(N, n_labels) multi-hot, columns as in `taxonomy.labels`."""
    taxonomy: Taxonomy | None = None
    rows: Mapping[str, Tensor] | None = None
    """Per stream (N,), the distinct image or caption of each sample; without it every sample has its own."""
    shared_spaces: Mapping[str, str] | None = None
    """By stream the name of the space that its features lie in, where another backbone's may lie there too."""

    @property
    def labelled(self) -> tuple[csr_array, Taxonomy] | None:
        """Labels and taxonomy; None where there are none."""
        if self.labels is None or self.taxonomy is None or not self.taxonomy.labels:
            return None
        return self.labels, self.taxonomy


@dataclass(frozen=True)
class Evaluation:
    """What was found, of the space and of its latents one by one."""

    report: Report
    latents: LatentTable


OnPart = Callable[[int, int, str], None]
"""Called with the number of parts done, of all, and the part that comes now."""


def evaluate(
    space: LatentSpace,
    samples: Samples,
    *,
    rule: str = "enrichment",
    classifiers: bool = False,
    seed: int = 0,
    on_part: OnPart = lambda done, total, part: None,
) -> Evaluation:
    """Measure a space on held-out samples; the space is not changed.

    `rule` is how latents get names (`concepts.RULES`). `classifiers` asks for those of labels too, which take longest.
    `seed` draws the shuffled pairs of the nulls, the bootstrap and the classifiers' initial weights.
    """
    from sparc.core.space import present
    from sparc.evaluation.alignment import shuffles
    from sparc.evaluation.encoding import encode_joint, encode_solo
    from sparc.evaluation.latents import latent_table
    from sparc.evaluation.retrieval import retrieval
    from sparc.evaluation.sharing import sharing

    features, several = samples.features, len(space.streams) > 1
    begin = _Parts(samples, on_part).begin
    begin("codes")
    joint, solo = encode_joint(space, features), encode_solo(space, features)
    begin("sharing")
    there = {name: present(rows) for name, rows in features.items()}
    shared, per_latent = sharing(space, solo, there, shuffles(list(space.streams), len(samples.groups), seed))
    begin("reconstruction")
    rebuilt = _encoded(space, features, joint), _encoded(space, features, solo)
    begin("retrieval")
    found = retrieval(space, features, solo, samples.groups, rows=samples.rows, shared_spaces=samples.shared_spaces)
    report = Report(
        samples=len(samples.groups),
        streams=tuple(space.streams),
        n_latents=space.n_latents,
        k=space.k,
        selection=space.selection,
        joint=rebuilt[0],
        solo=rebuilt[1],
        sharing=shared if several else None,
        retrieval=found,
    )
    names = None
    if (labelled := samples.labelled) is not None:
        said, names = _by_labels(space, samples, *labelled, joint, solo, rule, classifiers, seed, begin)
        report = report.model_copy(update=said)
    begin("")
    return Evaluation(report, latent_table(per_latent, names, samples.taxonomy))


class _Parts:
    """Says which part of an evaluation comes now."""

    def __init__(self, samples: Samples, on_part: OnPart) -> None:
        self._total = 7 if samples.labelled is not None else 4
        self._on_part = on_part
        self._done = 0

    def begin(self, part: str) -> None:
        """Say that all parts before this one are done; no name says that all are."""
        self._on_part(self._done, self._total, part)
        self._done += 1


def _by_labels(
    space: LatentSpace,
    samples: Samples,
    labels: csr_array,
    taxonomy: Taxonomy,
    joint: dict[str, Codes],
    solo: dict[str, Codes],
    rule: str,
    classifiers: bool,
    seed: int,
    begin: Callable[[str], None],
) -> tuple[dict[str, Any], Names]:
    """What labels say of a space, as fields of a report, and of each latent."""
    from sparc.evaluation.alignment import hierarchical_jaccard
    from sparc.evaluation.concepts import concepts
    from sparc.evaluation.labels import levels
    from sparc.evaluation.probes import probes

    features, groups = samples.features, samples.groups
    begin("concepts")
    named, names = concepts(solo, labels, taxonomy, groups, rule=rule)
    begin("probes")
    lifted = levels(labels, taxonomy).lifted
    probed = probes(space, features, joint, solo, lifted, groups, classifiers=classifiers, seed=seed)
    found: dict[str, Any] = {"concepts": named, "probes": probed}
    begin("alignment")
    if len(space.streams) > 1:
        found["jaccard"] = hierarchical_jaccard(space, features, joint, solo, labels, taxonomy, groups, seed)
    return found, names


def _encoded(space: LatentSpace, features: Mapping[str, Tensor], codes: dict[str, Codes]) -> Encoded:
    from sparc.core.space import present
    from sparc.evaluation.reconstruction import reconstruction
    from sparc.evaluation.report import Encoded
    from sparc.evaluation.sharing import liveness, mean_l0

    nmse, r2 = reconstruction(space, features, codes)
    l0 = {name: mean_l0(code, present(features[name])) for name, code in codes.items()}
    return Encoded(nmse=nmse, r2=r2, l0=l0, **liveness(codes, space.n_latents)._asdict())
