"""Time of an evaluation, on synthetic codes of any size."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from sparc.config import SpaceConfig
from sparc.core.codes import Codes
from sparc.core.space import LatentSpace
from sparc.evaluation.alignment import Activity, bootstrap, by_depth, shuffles
from sparc.evaluation.concepts import concepts, count_halves
from sparc.evaluation.encoding import activity
from sparc.evaluation.retrieval import between, on_decoded, on_latents, rank
from sparc.evaluation.sharing import liveness, sharing
from sparc.plugins.contracts import Taxonomy
from sparc.system.memory import peak_bytes

QUERIES = 4096
LABELS_PER_SAMPLE = 3
CHILDREN = 3
ROOTS = 8


@dataclass(frozen=True)
class EvaluationCost:
    """Seconds of each measurement, and queries per second of retrieval in one pair of streams."""

    alignment_s: float
    """Hierarchical Jaccard at every depth, joint, solo and both nulls, with intervals."""
    patterns_s: float
    """Liveness of the latents, and which streams share them."""
    concepts_s: float
    """Concepts of the latents, by enrichment."""
    latents_queries_per_s: float
    """Retrieval by latents: scores of all samples, and the rank of the correct one."""
    cross_queries_per_s: float
    """Retrieval by cross-reconstruction."""
    product_queries_per_s: float
    """The product of the queries with the features of all samples alone, for comparison."""
    peak_bytes: int | None
    """Peak memory of the process."""


def measure_evaluation(shape: SpaceConfig, *, samples: int, n_labels: int) -> EvaluationCost:
    """Time the measurements of an evaluation on the CPU, on random codes with frequent and rare latents and labels."""
    generator = np.random.default_rng(0)
    labels, taxonomy = _labels(samples, n_labels, generator)
    groups = [str(row) for row in range(samples)]
    joint, solo = ({name: _codes(shape, samples, generator) for name in shape.streams} for _ in range(2))
    space = LatentSpace(shape.streams, shape.n_latents, shape.k)
    orders = shuffles(list(shape.streams), samples, seed=0)
    there = {name: torch.ones(samples, dtype=torch.bool) for name in shape.streams}

    def alignment() -> None:
        active = [{name: activity(code) for name, code in codes.items()} for codes in (joint, solo)]
        everywhere = dict.fromkeys(shape.streams, np.ones(samples, bool))
        both = [Activity(of_kind, everywhere) for of_kind in active]
        kinds = dict(zip(("joint", "solo", "joint_null", "solo_null"), both + both, strict=True))
        by_depth(kinds, labels, taxonomy, bootstrap(groups, seed=0))

    def patterns() -> None:
        for codes in (joint, solo):
            liveness(codes, shape.n_latents)
        sharing(space, solo, there, orders)

    return EvaluationCost(
        alignment_s=round(_seconds(alignment), 3),
        patterns_s=round(_seconds(patterns), 3),
        concepts_s=round(_seconds(lambda: concepts(count_halves(solo, labels, taxonomy, groups))), 3),
        **_search(shape, space, solo, samples),
        peak_bytes=peak_bytes(),
    )


@torch.inference_mode()
def _search(shape: SpaceConfig, space: LatentSpace, solo: dict[str, Codes], samples: int) -> dict[str, float]:
    first, *_, last = shape.streams
    queries, count = solo[first][: min(QUERIES, samples)], min(QUERIES, samples)
    x_MD = torch.randn(samples, shape.streams[last], generator=torch.Generator().manual_seed(0))
    x_MD /= x_MD.norm(dim=1, keepdim=True)
    right = csr_array((np.ones(count, bool), (np.arange(count), np.arange(count))), shape=(count, samples))
    searches: dict[str, Callable[[], object]] = {
        "latents": lambda: rank(on_latents(queries, solo[last]), right),
        "cross": lambda: rank(between(on_decoded(space, queries, last), x_MD), right),
        "product": lambda: _products(x_MD, count),
    }
    return {f"{name}_queries_per_s": round(count / _seconds(search), 1) for name, search in searches.items()}


def _products(x_MD: Tensor, count: int) -> None:
    """Multiply the first `count` rows with all, 256 at a time, and discard the products."""
    for start in range(0, count, 256):
        torch.mm(x_MD[start : min(start + 256, count)], x_MD.T)


def _codes(shape: SpaceConfig, samples: int, generator: np.random.Generator) -> Codes:
    """Draw codes with frequent and rare latents; a tenth of the kept latents is inactive."""
    indices = _skewed(shape.n_latents, (samples, shape.k), generator)
    values = torch.from_numpy(generator.random(indices.shape, np.float32)) - 0.1
    return Codes(torch.from_numpy(indices), values.relu(), shape.n_latents)


def _labels(samples: int, n_labels: int, generator: np.random.Generator) -> tuple[csr_array, Taxonomy]:
    """Draw the labels of samples, (samples, labels), from a taxonomy of `n_labels`."""
    parents: dict[str, tuple[str, ...]] = {}
    for number in range(n_labels):
        parents[f"label {number}"] = (f"label {number // CHILDREN - 1}",) if number >= ROOTS else ()
    columns = _skewed(n_labels, (samples, LABELS_PER_SAMPLE), generator)
    rows = np.repeat(np.arange(samples), LABELS_PER_SAMPLE)
    labels = csr_array((np.ones(columns.size), (rows, columns.ravel())), shape=(samples, n_labels))
    labels.data[:] = 1
    return labels, Taxonomy(parents)


def _skewed(count: int, shape: tuple[int, ...], generator: np.random.Generator) -> np.typing.NDArray[np.int64]:
    """Draw numbers below `count`, small ones most often."""
    weight = np.arange(1, count + 1) ** -0.6
    return np.minimum(np.searchsorted(np.cumsum(weight / weight.sum()), generator.random(shape)), count - 1)


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
