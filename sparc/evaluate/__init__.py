"""The verb `evaluate`: what a space is worth on held-out samples, joint, solo and against chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sparc.contracts import Taxonomy
from sparc.evaluate.report import Report

if TYPE_CHECKING:
    from scipy.sparse import csr_array
    from torch import Tensor

    from sparc.core.codes import Codes
    from sparc.core.space import LatentSpace
    from sparc.evaluate.report import Encoded

__all__ = ["Report", "evaluate"]


def evaluate(
    space: LatentSpace,
    features: Mapping[str, Tensor],
    *,
    labels: csr_array | None,
    taxonomy: Taxonomy | None,
    groups: Sequence[str],
    seed: int = 0,
) -> Report:
    """Measure a space on held-out samples; the space is not changed.

    features: raw, (N, D) per stream of the space, zeros where a sample lacks the stream. labels: (N, n_labels)
    multi-hot, columns as in `taxonomy.labels`. groups: per sample, what it shares with others (its image); `seed` draws
    the shuffled pairs of the null.
    """
    from sparc.evaluate.alignment import hierarchical_jaccard
    from sparc.evaluate.encoding import encode_joint, encode_solo
    from sparc.evaluate.retrieval import retrieval

    joint, solo = encode_joint(space, features), encode_solo(space, features)
    several = len(space.streams) > 1
    return Report(
        samples=len(groups),
        streams=tuple(space.streams),
        n_latents=space.n_latents,
        k=space.k,
        selection=space.selection,
        joint=_encoded(space, features, joint),
        solo=_encoded(space, features, solo),
        jaccard=hierarchical_jaccard(space, features, joint, solo, labels, taxonomy, seed)
        if several and labels is not None and taxonomy is not None
        else (),
        retrieval=retrieval(space, features, solo, groups) if several else (),
    )


def _encoded(space: LatentSpace, features: Mapping[str, Tensor], codes: dict[str, Codes]) -> Encoded:
    from sparc.core.space import present
    from sparc.evaluate.alignment import liveness, mean_l0
    from sparc.evaluate.reconstruction import reconstruction
    from sparc.evaluate.report import Encoded

    nmse, r2 = reconstruction(space, features, codes)
    alive, dead, mixed = liveness(codes, space.n_latents)
    l0 = {name: mean_l0(code, present(features[name])) for name, code in codes.items()}
    return Encoded(nmse=nmse, r2=r2, l0=l0, alive=alive, dead=dead, mixed=mixed)
