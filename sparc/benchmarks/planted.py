"""Measure planted directions and supports that a space recovers, and how its streams agree, beside an oracle.

The oracle's codes are those of `pursuit.oracle_codes`, which knows the directions; of their activations it keeps those
above the best threshold. Its directions are those of `pursuit.fitted_directions`, which knows the strengths: they say
how much of a direction the training samples hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from sparc.benchmarks.pursuit import fitted_directions, oracle_codes
from sparc.benchmarks.recovery import (
    Directions,
    Supports,
    at_best_threshold,
    cosines,
    matched,
    score_directions,
    score_supports,
)
from sparc.core.space import present
from sparc.errors import InvalidConfig
from sparc.evaluation.alignment import Activity, bootstrap, hierarchical_jaccard, jaccard, solo_jaccard
from sparc.evaluation.encoding import Encodings, activity, encode, encode_solo
from sparc.evaluation.labels import binary, levels
from sparc.plugins.contracts import Planted, PlantedBackbone
from sparc.plugins.registry import checked_params
from sparc.system.brief import Brief

if TYPE_CHECKING:
    from sparc.evaluation import HeldOut
    from sparc.session import Session
    from sparc.storage.checkpoint import SharedLatentSpace

SEED = 0
"""Seed of the shuffled pairs."""


@dataclass(frozen=True)
class WithOracle:
    """Supports that the space recovers, and those that the oracle does."""

    space: Supports
    oracle: Supports


@dataclass(frozen=True)
class StreamRecovery:
    """Planted directions and supports of one stream that a space recovers."""

    directions: Directions
    """Concepts matched with the latents that suit this stream best."""
    shared_directions: Directions
    """Concepts matched with one latent for all streams, the best by the mean over streams. Supports use these."""
    fitted_directions: Directions
    """The oracle's: least squares from the training samples' true strengths."""
    joint: WithOracle
    solo: WithOracle
    uncompleted: WithOracle | None
    """Solo without completion; None if the space has none."""


@dataclass(frozen=True)
class DepthAgreement:
    """Hierarchical Jaccard at one depth of the taxonomy, over all latents; the oracle's over all shared concepts."""

    depth: int
    joint: float
    joint_null: float
    joint_oracle: float
    solo: float
    solo_null: float
    solo_oracle: float
    uncompleted: float | None
    """Solo without completion; None if the space has none."""
    uncompleted_null: float | None


@dataclass(frozen=True, repr=False)
class Recovery(Brief):
    """Planted directions and supports that a space recovers, by stream, and the agreement of its streams."""

    train_samples: int
    samples: int
    """Held-out samples, on which supports and agreement are measured."""
    concepts: int
    """Concepts that every stream shows, of those that any held-out sample has."""
    active: float
    """Such concepts per held-out sample."""
    streams: dict[str, StreamRecovery]
    agreement: tuple[DepthAgreement, ...]
    """Empty without labels, or with one stream."""


def planted_streams(session: Session) -> dict[str, PlantedBackbone]:
    """Load the streams of a session, on the CPU. Raises InvalidConfig unless all of them tell the truth."""
    if session.config.features is not None:
        raise InvalidConfig(
            "--features: expected planted streams, found imported features, whose concepts are not known",
            hint="sparc bench planted --dataset synthetic",
        )
    found: dict[str, PlantedBackbone] = {}
    for name, job in session.data.held_out_jobs.items():
        spec = session.data.registry.backbone(job.stream.name)
        backbone = spec.load(checked_params(spec, job.stream), "cpu")
        if not isinstance(backbone, PlantedBackbone):
            raise InvalidConfig(
                f"stream '{name}': expected a planted stream, found {spec.name}, whose concepts are not known",
                hint=f"such as --stream '{name}=synthetic[width={backbone.width}]'",
            )
        found[name] = backbone
    return found


def measure_planted(session: Session, space: SharedLatentSpace, streams: Mapping[str, PlantedBackbone]) -> Recovery:
    """Measure what a trained space recovers of its planted data."""
    held_out = session.data.held_out
    truth = _truth(session, streams, split=-1)
    shared = sorted(set.intersection(*(set(planted.concepts) for planted in truth.values())))
    if not shared:
        raise InvalidConfig(
            "no concept is in all streams of the held-out samples", hint="give captions with words, and more samples"
        )
    encodings, uncompleted = _encoded(space, held_out)
    planted_NC = binary(_columns(truth[next(iter(streams))], shared))
    oracle = _Oracle.of(encodings, truth, shared, planted_NC)
    by_stream = {name: cosines(_rows(truth[name], shared), _decoder(space, name)) for name in streams}
    one_latent = matched(np.mean(list(by_stream.values()), axis=0))
    fitted = _fitted(session, streams, shared)
    found = {}
    for name, cosines_CL in by_stream.items():
        ways = {"joint": (encodings.joint, oracle.joint), "solo": (encodings.solo, oracle.solo)}
        if uncompleted is not None:
            ways["uncompleted"] = (uncompleted.solo, oracle.solo)
        scored = {
            way: WithOracle(
                score_supports(planted_NC, activity(codes[name]), one_latent),
                score_supports(planted_NC, guess[name], np.arange(len(shared))),
            )
            for way, (codes, guess) in ways.items()
        }
        directions = _rows(truth[name], shared)
        own = np.diag(cosines(directions, fitted[name]))[:, None]
        found[name] = StreamRecovery(
            score_directions(cosines_CL, matched(cosines_CL)),
            score_directions(cosines_CL, one_latent),
            score_directions(own, np.zeros(len(own), np.intp)),
            joint=scored["joint"],
            solo=scored["solo"],
            uncompleted=scored.get("uncompleted"),
        )
    return Recovery(
        train_samples=len(session.data.train),
        samples=len(held_out.groups),
        concepts=len(shared),
        active=planted_NC.nnz / planted_NC.shape[0],
        streams=found,
        agreement=_agreement(encodings, uncompleted, held_out, oracle),
    )


def _encoded(space: SharedLatentSpace, held_out: HeldOut) -> tuple[Encodings, Encodings | None]:
    """Encode all streams together and each alone; the latter also without completion, if the space has one."""
    encodings = encode(space, held_out.features)
    if space.completion is None:
        return encodings, None
    return encodings, replace(encodings, solo=encode_solo(space, held_out.features, complete=False))


@dataclass(frozen=True)
class _Oracle:
    """Activity of the shared concepts, (N, C) per stream, by the true directions."""

    joint: Mapping[str, csr_array]
    solo: Mapping[str, csr_array]

    @classmethod
    def of(
        cls, encodings: Encodings, truth: Mapping[str, Planted], shared: list[str], planted_NC: csr_array
    ) -> _Oracle:
        def active(*names: str) -> csr_array:
            seen = {name: encodings.features[name] for name in names}
            concepts, codes = oracle_codes(seen, truth, encodings.space.k)
            column = {concept: number for number, concept in enumerate(concepts)}
            values_NC = csr_array(codes.to_csr()[:, [column[concept] for concept in shared]])
            return at_best_threshold(planted_NC, values_NC)

        return cls(dict.fromkeys(truth, active(*truth)), {name: active(name) for name in truth})


def _agreement(
    encodings: Encodings, uncompleted: Encodings | None, held_out: HeldOut, oracle: _Oracle
) -> tuple[DepthAgreement, ...]:
    if held_out.labelled is None or len(encodings.space.streams) < 2:
        return ()
    (labels, taxonomy), groups = held_out.labelled, held_out.groups
    there = {name: rows_N.cpu().numpy() for name, rows_N in encodings.present.items()}
    by_level, draws = levels(labels, taxonomy), bootstrap(groups, SEED)
    joint, solo = (jaccard(Activity(active, there), by_level, draws) for active in (oracle.joint, oracle.solo))
    plain = solo_jaccard(uncompleted, labels, taxonomy, groups, SEED) if uncompleted is not None else None
    return tuple(
        DepthAgreement(
            depth=row.depth,
            joint=row.joint.all,
            joint_null=row.joint_null.all,
            joint_oracle=joint[row.depth].all,
            solo=row.solo.all,
            solo_null=row.solo_null.all,
            solo_oracle=solo[row.depth].all,
            uncompleted=None if plain is None else plain[row.depth].solo.all,
            uncompleted_null=None if plain is None else plain[row.depth].solo_null.all,
        )
        for row in hierarchical_jaccard(encodings, labels, taxonomy, groups, SEED)
    )


def _truth(session: Session, streams: Mapping[str, PlantedBackbone], *, split: int) -> dict[str, Planted]:
    """Return the truth about the samples of the first or the last split, by stream."""
    job = next(iter(list(session.data.jobs.values())[split].values()))
    spec = session.data.registry.dataset(job.dataset.name)
    dataset = spec.open(checked_params(spec, job.dataset), job.split)
    samples = [dataset[number] for number in range(len(dataset))]
    return {name: backbone.planted(samples) for name, backbone in streams.items()}


def _fitted(
    session: Session, streams: Mapping[str, PlantedBackbone], shared: list[str]
) -> dict[str, NDArray[np.float64]]:
    """Return the directions (C, D) of shared concepts that least squares finds in the training samples."""
    features = session.data.train.in_memory()
    found = {}
    for name, planted in _truth(session, streams, split=0).items():
        there = present(features[name])
        directions = fitted_directions(features[name][there], planted.strengths[np.flatnonzero(there.numpy())])
        found[name] = _of_concepts(planted, directions, shared)
    return found


def _rows(planted: Planted, shared: list[str]) -> NDArray[np.float64]:
    return _of_concepts(planted, planted.directions, shared)


def _of_concepts(planted: Planted, rows_CD: NDArray[np.floating], shared: list[str]) -> NDArray[np.float64]:
    """Return the rows of the shared concepts, with zeros for a concept that no sample has."""
    row = {concept: number for number, concept in enumerate(planted.concepts)}
    found = np.zeros((len(shared), rows_CD.shape[1]))
    for number, concept in enumerate(shared):
        if concept in row:
            found[number] = rows_CD[row[concept]]
    return found


def _columns(planted: Planted, shared: list[str]) -> csr_array:
    column = {concept: number for number, concept in enumerate(planted.concepts)}
    return csr_array(planted.strengths[:, [column[concept] for concept in shared]])


def _decoder(space: SharedLatentSpace, stream: str) -> NDArray[np.float32]:
    """Return a stream's decoder columns, one per latent, (L, D)."""
    columns_LD: NDArray[np.float32] = space.decoder[:, space.segments[stream]].detach().cpu().numpy()
    return columns_LD
