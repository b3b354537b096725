"""Measure a trained space on held-out samples: joint, solo and against chance.

Where each measure is defined:

    reconstruction.py   NMSE and R2 of every stream rebuilt from every stream (NMSE of the loss: core/losses.py)
    alignment.py        hierarchical Jaccard of labels, its intervals, and the nulls on shuffled pairs
    sharing.py          alive, dead and mixed latents, L0, overlap of index sets, cofiring, entropy, duplicates
    concepts.py         names of latents: enrichment, purity, lift, confirmation
    words.py            words of captions, which name latents where there are no labels
    purity.py           names of latents by the rule of the paper's code
    retrieval.py        R@k, median rank and MRR of one stream searched with another
    probes.py           log-loss of the best latent per label (1-D probes)
    classifiers.py      mean average precision of linear and MLP classifiers

    encoding.py         joint and solo codes of the held-out samples
    work.py             the work in parts, which several processes can share
    labels.py           labels at every depth of the taxonomy
    latents.py          the table of all latents, latents.csv
    report.py           the report and evaluation.json
    plots.py            plots of a report

Shapes. Array names end in their axes, the same letters in every module:

    N samples      n some of them        M a subset of samples: candidates of a search, rows of a classifier
    Q queries      B samples of a batch  G groups of samples, such as the captions of one image
    L latents      l some of them        A alive latents
    S streams      D features of one     T features of all streams, side by side
    C labels       H depths of labels    J columns of labels that depths count (`labels.Levels`)
    P parts of the samples and R replicates of the bootstrap
    E entries and F regressions of 1-D probes       X any
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sparc.evaluation.report import Report
from sparc.evaluation.work import OnPart, Spread, Work, alone

if TYPE_CHECKING:
    from scipy.sparse import csr_array
    from torch import Tensor

    from sparc.core.codes import Codes
    from sparc.core.space import LatentSpace
    from sparc.evaluation.encoding import Encodings
    from sparc.evaluation.latents import LatentTable
    from sparc.evaluation.report import CodeMeasures, Uncompleted
    from sparc.plugins.contracts import Taxonomy
    from sparc.storage.latent_names import LatentName

__all__ = ["Evaluation", "HeldOut", "OnPart", "Report", "Spread", "Work", "alone", "evaluate"]


@dataclass(frozen=True)
class HeldOut:
    """Held-out samples to measure on, of all streams of a space."""

    features: Mapping[str, Tensor]
    """Raw, (N, D) per stream; a row of zeros if a sample lacks the stream."""
    groups: Sequence[str]
    """Per sample, its image; samples of one group are not independent."""
    labels: csr_array | None = None
    """(N, C) multi-hot, columns as in `taxonomy.labels`."""
    taxonomy: Taxonomy | None = None
    captions: Iterable[str | None] | None = None
    """Per sample, its caption, which is read only where there are no labels."""
    rows: Mapping[str, Tensor] | None = None
    """Per stream (N,), the number of each sample's image or caption; None if all are distinct."""
    shared_spaces: Mapping[str, str] | None = None
    """Per stream, the name of the space of its features, if features of other backbones lie in it too."""

    @property
    def labelled(self) -> tuple[csr_array, Taxonomy] | None:
        """Labels and taxonomy; None without labels."""
        if self.labels is None or self.taxonomy is None or not self.taxonomy.labels:
            return None
        return self.labels, self.taxonomy


@dataclass(frozen=True)
class Evaluation:
    """Result of an evaluation: the report, and the table of all latents."""

    report: Report
    latents: LatentTable


def evaluate(
    space: LatentSpace,
    held_out: HeldOut,
    *,
    rule: str = "enrichment",
    classifiers: bool = False,
    seed: int = 0,
    work: Work | None = None,
) -> Evaluation:
    """Measure a space on held-out samples, without changing the space.

    `rule`, `enrichment` or `purity`, is that of the report's concepts section; the names in the table of latents are
    always those of enrichment. `classifiers` adds the classifiers of labels, which take longest. `seed` draws the
    shuffled pairs of the nulls, the bootstrap and the classifiers' initial weights. With `work.spread`, several
    processes share codes, reconstruction, retrieval, alignment and probes, which take longest; all return the whole
    result.
    """
    from sparc.evaluation.alignment import shuffles
    from sparc.evaluation.encoding import encode
    from sparc.evaluation.latents import latent_table
    from sparc.evaluation.retrieval import retrieval
    from sparc.evaluation.sharing import sharing

    streams, groups, work = tuple(space.streams), held_out.groups, work or Work()
    parts = _Parts(held_out, work.on_part)
    parts.begin("codes")
    encodings = encode(space, held_out.features, work.spread)
    parts.begin("sharing")
    orders = shuffles(streams, len(groups), seed)
    shared, per_latent = sharing(space, encodings.solo, encodings.present, orders)
    parts.begin("reconstruction")
    joint, solo = (_encoded(encodings, codes) for codes in (encodings.joint, encodings.solo))
    parts.begin("retrieval")
    found = retrieval(encodings, groups, rows=held_out.rows, shared_spaces=held_out.shared_spaces, on_pair=parts.detail)
    from_labels, names = _from_labels(encodings, held_out, rule, classifiers, seed, parts)
    uncompleted = _uncompleted(encodings, held_out, seed, parts)
    parts.begin("")
    report = Report(
        samples=len(groups),
        streams=streams,
        n_latents=space.n_latents,
        k=space.k,
        selection=space.selection,
        joint=joint,
        solo=solo,
        sharing=shared if len(streams) > 1 else None,
        retrieval=found,
        uncompleted=uncompleted,
        **from_labels,
    )
    return Evaluation(report, latent_table(per_latent, names))


class _Parts:
    """Reports the progress of an evaluation, part by part."""

    def __init__(self, held_out: HeldOut, on_part: OnPart) -> None:
        self._total = 7 if held_out.labelled is not None else 4
        self._on_part = on_part
        self._done = -1
        self._part = ""

    def begin(self, part: str) -> None:
        """Report that all parts before this one are done; an empty name ends the last part."""
        self._done, self._part = self._done + 1, part
        self._on_part(self._done, self._total, part)

    def detail(self, what: str) -> None:
        """Report what begins within the present part."""
        self._on_part(self._done, self._total, f"{self._part}: {what}")


def _from_labels(
    encodings: Encodings,
    held_out: HeldOut,
    rule: str,
    classifiers: bool,
    seed: int,
    parts: _Parts,
) -> tuple[dict[str, Any], dict[int, LatentName] | None]:
    """Measure what needs labels: fields of the report, and names of latents. Without labels, words name latents."""
    from sparc.evaluation.alignment import hierarchical_jaccard
    from sparc.evaluation.concepts import concepts, count_halves, latent_names
    from sparc.evaluation.labels import levels
    from sparc.evaluation.probes import probes
    from sparc.evaluation.purity import purity_concepts

    if held_out.labelled is None:
        return {}, _from_words(encodings, held_out, parts)
    (labels, taxonomy), groups = held_out.labelled, held_out.groups
    parts.begin("concepts")
    halves = count_halves(encodings.solo, labels, taxonomy, groups)
    by_enrichment, found = concepts(halves)
    names = latent_names(found, taxonomy)
    parts.begin("probes")
    lifted = levels(labels, taxonomy).lifted
    fields: dict[str, Any] = {
        "concepts": purity_concepts(encodings.joint, labels) if rule == "purity" else by_enrichment,
        "probes": probes(encodings, lifted, groups, classifiers=classifiers, seed=seed, on_detail=parts.detail),
    }
    parts.begin("alignment")
    if len(encodings.space.streams) > 1:
        fields["jaccard"] = hierarchical_jaccard(encodings, labels, taxonomy, groups, seed)
    return fields, names


def _from_words(encodings: Encodings, held_out: HeldOut, parts: _Parts) -> dict[int, LatentName] | None:
    """Name latents by words of captions; None without captions."""
    import numpy as np

    from sparc.evaluation.concepts import images_of, word_names
    from sparc.evaluation.words import words_of

    if held_out.captions is None:
        return None
    parts.detail("words of captions")
    words = words_of(held_out.captions)
    if not words.terms:
        return None
    depths = np.zeros(len(words.terms), np.intp)
    return word_names(images_of(encodings.solo, words.samples, depths, held_out.groups), words.terms)


def _uncompleted(encodings: Encodings, held_out: HeldOut, seed: int, parts: _Parts) -> Uncompleted | None:
    """Measure solo codes without completion; None if the space has none."""
    from sparc.evaluation.alignment import solo_jaccard
    from sparc.evaluation.encoding import encode_solo
    from sparc.evaluation.report import Uncompleted
    from sparc.evaluation.retrieval import retrieval

    if encodings.space.completion is None:
        return None
    parts.detail("without completion")
    uncompleted = encode_solo(encodings.space, encodings.features, complete=False, spread=encodings.spread)
    plain = replace(encodings, solo=uncompleted)
    labelled, groups = held_out.labelled, held_out.groups
    return Uncompleted(
        codes=_encoded(plain, plain.solo),
        jaccard=solo_jaccard(plain, *labelled, groups, seed) if labelled is not None else (),
        retrieval=retrieval(plain, groups, rows=held_out.rows, shared_spaces=held_out.shared_spaces),
    )


def _encoded(encodings: Encodings, codes: Mapping[str, Codes]) -> CodeMeasures:
    from sparc.evaluation.reconstruction import reconstruction
    from sparc.evaluation.report import CodeMeasures
    from sparc.evaluation.sharing import liveness, mean_l0

    nmse, r2 = reconstruction(encodings.space, encodings.features, codes, encodings.spread)
    l0 = {name: mean_l0(code, encodings.present[name]) for name, code in codes.items()}
    return CodeMeasures(nmse=nmse, r2=r2, l0=l0, **liveness(codes, encodings.space.n_latents)._asdict())
