"""What the algorithms that sparc wrote itself take beside the library's function: seconds, peak memory, and agreement.

    python benchmarks/ours_and_libraries.py [--samples 20000 --labels 20 --latents 512 --width 64] [--only probes]

Each way runs in a process of its own, on the same generated data, `--repeats` times. Prints a table: the median of the
seconds, the most memory that the process held above what it held before, and the largest difference between the two
results. Fails if results that must agree differ. Where ours is another method on purpose, the table shows both numbers.
The paper's sizes: --samples 126000 --labels 600 --latents 8192 --width 384; some library functions then take minutes.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
import torch
from scipy.sparse import csc_array, csr_array
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, log_loss
from sklearn.multiclass import OneVsRestClassifier

from sparc.evaluation import alignment, classifiers, labels, probes, retrieval
from sparc.localization.benchmark import measure, scores
from sparc.plugins.contracts import Taxonomy

CANDIDATES = 16
KEPT = 16
QUERIES = 256
CATEGORIES = 80
SMALL = {"samples": 600, "labels": 9, "latents": 32, "width": 8}
STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Comparison:
    """An algorithm of sparc and the function of a library that does the same, or nearly."""

    ours_is: str
    library_is: str
    make: Callable[[argparse.Namespace, np.random.Generator], Any]
    ours: Callable[[Any], Any]
    library: Callable[[Any], Any]
    tolerance: float | None
    """Largest difference between the results; None if ours is another method on purpose."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--labels", type=int, default=20)
    parser.add_argument("--latents", type=int, default=512)
    parser.add_argument("--width", type=int, default=64, help="of features")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=COMPARISONS, help="one algorithm")
    parser.add_argument("--way", choices=["ours", "library"], help="run one way in this process, and print JSON")
    options = parser.parse_args()
    if options.way:
        print(json.dumps(measured(COMPARISONS[options.only], options)))
        return
    wrong = []
    print(f"{'':18} {'ours':>20} {'library':>20} {'library / ours':>15}  results")
    for name in [options.only] if options.only else COMPARISONS:
        ours, library = (in_a_process(name, way, options) for way in ("ours", "library"))
        agreement, right = compared(COMPARISONS[name], ours["result"], library["result"])
        cells = [f"{one['seconds']:.3f} s {memory(one['peak_mb'])}" for one in (ours, library)]
        ratio = library["seconds"] / max(ours["seconds"], 1e-9)
        print(f"{name:18} {cells[0]:>20} {cells[1]:>20} {ratio:>15.1f}  {agreement}", flush=True)
        wrong += [] if right else [name]
    print()
    for name, one in COMPARISONS.items():
        if options.only in (None, name):
            print(f"{name:18} {one.ours_is} | {one.library_is}")
    if wrong:
        sys.exit(f"results differ: {', '.join(wrong)}")


def in_a_process(name: str, way: str, options: argparse.Namespace) -> dict:
    """Run one way in a new process."""
    sizes = [f"--{size}={getattr(options, size)}" for size in ("samples", "labels", "latents", "width", "repeats")]
    command = [sys.executable, __file__, "--only", name, "--way", way, *sizes]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def measured(one: Comparison, options: argparse.Namespace) -> dict:
    """Run one way in this process: median seconds, peak memory in MB, and the result as numbers."""
    work = getattr(one, options.way)
    # A small run first, not measured: libraries load parts of themselves on first use.
    work(one.make(argparse.Namespace(**SMALL), np.random.default_rng(0)))
    inputs = one.make(options, np.random.default_rng(0))
    before = reset_peak()
    seconds = []
    for _ in range(options.repeats):
        began = time.perf_counter()
        result = work(inputs)
        seconds.append(time.perf_counter() - began)
    peak = None if before is None else (in_status("VmHWM") - before) / 1024
    return {"seconds": statistics.median(seconds), "peak_mb": peak, "result": np.ravel(result).tolist()}


def reset_peak() -> int | None:
    """Let the kernel forget the peak so far, and return the memory held now, in kB; None where it keeps no account."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        return in_status("VmRSS")
    except OSError:
        return None


def in_status(field: str) -> int:
    return int(re.search(rf"{field}:\s+(\d+) kB", STATUS.read_text(encoding="utf-8"))[1])


def memory(megabytes: float | None) -> str:
    return "-" if megabytes is None else f"{megabytes:5.0f} MB"


def compared(one: Comparison, ours: list[float], library: list[float]) -> tuple[str, bool]:
    """Return the agreement in words, and whether it is good enough."""
    if one.tolerance is None:
        shown = (" ".join(f"{value:.4f}" for value in values[:3]) for values in (ours, library))
        return "{} | {}, another method".format(*shown), True
    far = float(np.abs(np.subtract(ours, library)).max())
    return f"differ by at most {far:.1g}", far <= one.tolerance


# One latent per label: logistic regressions on a rare activation, for one label


def rare_activations(options, generator):
    """Return activations of 16 latents, active in 1% of the samples, and a label that they tell a little."""
    shape = (options.samples, CANDIDATES)
    values = (generator.random(shape) < 0.01) * generator.gamma(2.0, size=shape)
    has = generator.random(options.samples) < 0.02 + 0.5 * (values[:, 0] > 0)
    return csc_array(values), has


def probes_by_newton(inputs):
    values, has = inputs
    data = probes.regressions(values, np.arange(CANDIDATES), has)
    return probes.log_loss(data, probes.fit(data, ridge=1 / len(has)))


def probes_by_sklearn(inputs):
    values, has = inputs
    weight = np.where(has, 0.5 / has.sum(), 0.5 / (~has).sum())
    found = []
    for latent in range(CANDIDATES):
        column = csr_array(values[:, [latent]])
        model = LogisticRegression(C=1.0, class_weight="balanced", tol=1e-6, max_iter=1000).fit(column, has)
        found.append(log_loss(has, model.predict_proba(column)[:, 1], sample_weight=weight))
    return found


# Classifiers of all labels from features


def labelled_features(options, generator):
    """Return standard features and labels that depend on them; the first half is for training."""
    features = generator.standard_normal((options.samples, options.width)).astype(np.float32)
    scored = features @ generator.standard_normal((options.width, options.labels)) / options.width**0.5
    scored += generator.standard_normal(scored.shape)
    return features, scored > np.quantile(scored, 0.95, axis=0), options.samples // 2


def classifiers_at_once(inputs):
    features, has, n_train = inputs
    return [classifiers.precision(torch.from_numpy(features), has, n_train, (), seed=0)]


def classifiers_by_sklearn(inputs):
    features, has, n_train = inputs
    model = OneVsRestClassifier(LogisticRegression(max_iter=1000)).fit(features[:n_train], has[:n_train].astype(int))
    return [classifiers.average_precision(model.decision_function(features[n_train:]), has[n_train:])]


# Average precision of ranked predictions, and the interval of a share of hits


def predictions(options, generator):
    """Return distinct scores, hits and categories of predictions."""
    # As many categories as COCO has, and fewer for few samples: each must have a hit.
    categories = generator.integers(0, min(CATEGORIES, options.samples // 50 + 1), options.samples)
    return generator.permutation(options.samples) + 1.0, generator.random(options.samples) < 0.4, categories


def precision_of_ours(inputs):
    values, right, categories = inputs
    return [scores.mean_average_precision(values, right, categories)]


def precision_by_sklearn(inputs):
    """Ours divides by all predictions, each of which stands for an object; scikit-learn divides by the hits."""
    values, right, categories = inputs
    groups = [categories == category for category in np.unique(categories)]
    return [np.mean([average_precision_score(right[group], values[group]) * right[group].mean() for group in groups])]


def pointed(options, generator):
    """Return hits of queries, five per image on average, and the image of each."""
    image = np.sort(generator.integers(0, max(2, options.samples // 5), options.samples))
    return generator.random(options.samples) < 0.6, image


def interval_of_ours(inputs):
    return measure._interval(*inputs, seed=0)


def interval_by_scipy(inputs):
    right, image = inputs
    place = np.unique(image, return_inverse=True)[1]
    found = scipy.stats.bootstrap(
        (np.bincount(place, weights=right), np.bincount(place)),
        lambda hits, counts, axis: hits.sum(axis=axis) / counts.sum(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=measure.DRAWS,
        method="percentile",
        rng=0,
    )
    return tuple(found.confidence_interval)


# Hierarchical Jaccard with its interval


def two_streams(options, generator):
    """Return which samples activate which latents in two streams that agree in part, labels by depth, and draws."""
    shape = (options.samples, options.latents)
    rows = np.repeat(np.arange(options.samples), KEPT)
    active = {}
    shared = generator.integers(0, options.latents, rows.size)
    for name in "ab":
        own = np.where(generator.random(rows.size) < 0.5, shared, generator.integers(0, options.latents, rows.size))
        active[name] = labels.binary(csr_array((np.ones(rows.size), (rows, own)), shape=shape))
    # A label for each residue of a shared latent, below eight roots, so that the streams overlap in labels.
    kinds = (shared.reshape(-1, KEPT)[:, 0] % options.labels, np.arange(options.samples))
    parents = {str(label): (str(label % 8),) if label >= 8 else () for label in range(options.labels)}
    matrix = csr_array((np.ones(options.samples), kinds[::-1]), shape=(options.samples, options.labels))
    present = dict.fromkeys("ab", np.ones(options.samples, bool))
    draws = alignment.bootstrap([str(row) for row in range(options.samples)], seed=0)
    return alignment.Activity(active, present), labels.levels(matrix, Taxonomy(parents)), draws


def jaccard_of_ours(inputs):
    overlap = alignment.jaccard(*inputs)[-1]
    return [overlap.all, *overlap.all_interval]


def jaccard_by_scipy(inputs):
    """Bootstrap the same parts by scipy, with replacement: the statistic is evaluated once per replicate."""
    activity, by_level, draws = inputs
    parts = draws.weights.shape[1]

    def estimate(drawn):
        weights = np.bincount(drawn.astype(int), minlength=parts).astype(np.float32)
        return alignment.jaccard(activity, by_level, draws._replace(weights=weights[None]))[-1].all

    every = (np.arange(parts),)
    found = scipy.stats.bootstrap(
        every, estimate, vectorized=False, n_resamples=alignment.REPLICATES, method="percentile", rng=0
    )
    return [estimate(*every), *found.confidence_interval]


# Ranks of a search


def searched(options, generator):
    """Return features of queries and candidates of unit norm; query n shows the same as candidate n."""
    count = min(QUERIES, options.samples)
    features = torch.from_numpy(generator.standard_normal((options.samples, options.width)).astype(np.float32))
    queries = features[:count] + torch.from_numpy(generator.standard_normal((count, options.width)).astype(np.float32))
    pairs = (np.arange(count), np.arange(count))
    right = csr_array((np.ones(count, bool), pairs), shape=(count, options.samples))
    features, queries = (torch.nn.functional.normalize(rows, dim=1) for rows in (features, queries))
    return queries, features, right


def ranks_of_ours(inputs):
    queries, features, right = inputs
    return retrieval.rank(retrieval.between(lambda rows: queries[rows], features), right)


def ranks_by_scipy(inputs):
    queries, features, _ = inputs
    scored = (torch.nn.functional.normalize(queries, dim=1) @ features.T).numpy()
    return scipy.stats.rankdata(-scored, method="max", axis=1).diagonal()


COMPARISONS = {
    "probes": Comparison(
        "evaluation/probes.py: 16 regressions of one label at once, on nonzero activations",
        "scikit-learn's LogisticRegression, a fit per latent",
        rare_activations,
        probes_by_newton,
        probes_by_sklearn,
        tolerance=1e-4,
    ),
    "classifiers": Comparison(
        "evaluation/classifiers.py: a network learns all labels at once; mean average precision",
        "scikit-learn's LogisticRegression, a fit per label",
        labelled_features,
        classifiers_at_once,
        classifiers_by_sklearn,
        tolerance=None,
    ),
    "average precision": Comparison(
        "localization/benchmark/scores.py: predictions by score, equal scores in order",
        "scikit-learn's average_precision_score per category; equal scores are one rank",
        predictions,
        precision_of_ours,
        precision_by_sklearn,
        tolerance=1e-9,
    ),
    "pointing interval": Comparison(
        "localization/benchmark/measure.py: bootstrap over images",
        "scipy.stats.bootstrap, percentile",
        pointed,
        interval_of_ours,
        interval_by_scipy,
        tolerance=0.02,
    ),
    "jaccard interval": Comparison(
        "evaluation/alignment.py: half-sample bootstrap over parts, all replicates from one count per part",
        "scipy.stats.bootstrap over the same parts, with replacement",
        two_streams,
        jaccard_of_ours,
        jaccard_by_scipy,
        tolerance=None,
    ),
    "ranks": Comparison(
        "evaluation/retrieval.py: rank of the best correct candidate, by counting",
        "scipy.stats.rankdata, which sorts all candidates",
        searched,
        ranks_of_ours,
        ranks_by_scipy,
        tolerance=0.0,
    ),
}


if __name__ == "__main__":
    main()
