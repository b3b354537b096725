"""Naive, dense measures with a loop for every sum. `sparc.evaluation` must agree with them.

Codes are lists of rows of L numbers, labels lists of sets. Nothing is imported from sparc.
"""

from __future__ import annotations

import math
from collections import Counter
from itertools import combinations, permutations


def depth(parents, label):
    """Length of the longest path up to a root."""
    return max((1 + depth(parents, parent) for parent in parents[label]), default=0)


def lift(parents, label, level):
    """Ancestor at `level` along the deepest parents, the first declared among equals."""
    while depth(parents, label) > level:
        deepest = max(depth(parents, parent) for parent in parents[label])
        label = next(parent for parent in parents[label] if depth(parents, parent) == deepest)
    return label


def counts(codes, labels, latent):
    """Number of samples that activate the latent, by label."""
    return Counter(label for row, names in zip(codes, labels, strict=True) if row[latent] > 0 for label in names)


def alive(codes, latent):
    return any(row[latent] > 0 for row in codes)


def jaccard(codes, labels, parents, level, n_latents, present):
    """Mean over all latents, and over those with a pair of streams alive in them (None without any).

    For a pair of streams, over the samples that have both.
    """
    lifted = [{lift(parents, label, level) for label in names} for names in labels]
    means = []
    for latent in range(n_latents):
        overlaps = []
        for first, second in combinations(codes, 2):
            rows = [n for n in range(len(labels)) if present[first][n] and present[second][n]]
            here, there = [codes[first][n] for n in rows], [codes[second][n] for n in rows]
            if alive(here, latent) and alive(there, latent):
                said = [lifted[n] for n in rows]
                one, other = counts(here, said, latent), counts(there, said, latent)
                minima, maxima = (one & other).total(), (one | other).total()
                overlaps.append(minima / maxima if maxima else 0.0)
        means.append(sum(overlaps) / len(overlaps) if overlaps else None)
    of_alive = [mean for mean in means if mean is not None]
    return sum(of_alive) / n_latents, (sum(of_alive) / len(of_alive) if of_alive else None)


def liveness(codes, n_latents):
    """Latents alive in all streams, in none, in some."""
    found = Counter(sum(alive(rows, latent) for rows in codes.values()) for latent in range(n_latents))
    everywhere, nowhere = found[len(codes)], found[0]
    return everywhere, nowhere, n_latents - everywhere - nowhere


def l0(codes, present):
    active = [sum(value > 0 for value in row) for row, there in zip(codes, present, strict=True) if there]
    return sum(active) / len(active)


def reconstruction(y, x, present_source, present_target):
    """NMSE and R^2 of the rows y for the rows x. The mean of R^2 is over all rows that have the target."""
    there = [row for row, present in zip(x, present_target, strict=True) if present]
    mean = [sum(column) / len(there) for column in zip(*there, strict=True)]
    rows = [n for n in range(len(x)) if present_source[n] and present_target[n]]
    errors = [squared(y[n], x[n]) for n in rows]
    relative = [error / squared(x[n], [0] * len(x[n])) for error, n in zip(errors, rows, strict=True)]
    spread = sum(squared(x[n], mean) for n in rows)
    return sum(relative) / len(rows), 1 - sum(errors) / spread


def squared(a, b):
    return sum((p - q) ** 2 for p, q in zip(a, b, strict=True))


def cosine(a, b):
    scale = math.sqrt(squared(a, [0] * len(a)) * squared(b, [0] * len(b)))
    return sum(p * q for p, q in zip(a, b, strict=True)) / scale if scale else 0.0


def ranks(queries, candidates, groups):
    """Rank of the best correct candidate, ties against it."""
    found = []
    for query, group in zip(queries, groups, strict=True):
        scores = [cosine(query, candidate) for candidate in candidates]
        best = max(score for score, other in zip(scores, groups, strict=True) if other == group)
        found.append(
            1 + sum(score >= best - 1e-12 for score, other in zip(scores, groups, strict=True) if other != group)
        )
    return found


def ranks_among(queries, candidates, query_groups, candidate_groups):
    """Rank as `ranks` does, with candidates that have groups of their own."""
    found = []
    for query, group in zip(queries, query_groups, strict=True):
        scores = [cosine(query, candidate) for candidate in candidates]
        pairs = list(zip(scores, candidate_groups, strict=True))
        best = max(score for score, other in pairs if other == group)
        found.append(1 + sum(score >= best - 1e-12 for score, other in pairs if other != group))
    return found


def chance(groups):
    """Expected recall at 1, 5 and 10, and MRR, over every order of the candidates. Few candidates only."""
    recall, reciprocal, cases = {1: 0, 5: 0, 10: 0}, 0.0, 0
    for order in permutations(range(len(groups))):
        for group in groups:
            best = 1
            while groups[order[best - 1]] != group:
                best += 1
            for k in recall:
                recall[k] += best <= k
            reciprocal += 1 / best
            cases += 1
    return {k: hits / cases for k, hits in recall.items()}, reciprocal / cases
