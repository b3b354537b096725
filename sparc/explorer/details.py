"""Details of each latent: its top samples, histograms, neighbours, and the words and labels of its samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from sparc.explorer.latents import Decoders, pair_counts
from sparc.explorer.shown import Shown
from sparc.explorer.statements import significant, significants
from sparc.explorer.terms import Terms

LATENTS_PER_FILE = 32
BINS = 16
LISTED = 10
"""Latents listed that fire together with a latent."""

Heat = Mapping[tuple[str, int, int], str]
"""By stream, latent and sample, the bytes of a heat map in base64."""


def latent_details(shown: Shown, decoders: Decoders, terms: Terms, heat: Heat) -> Iterator[list[dict[str, Any] | None]]:
    """Yield the content of each file, LATENTS_PER_FILE entries each; None for a latent that fires nowhere."""
    pairs = pair_counts(shown)
    for start in range(0, shown.space.n_latents, LATENTS_PER_FILE):
        block = range(start, min(start + LATENTS_PER_FILE, shown.space.n_latents))
        together = _together(shown, block)
        found: list[dict[str, Any] | None] = []
        for latent in block:
            if not decoders.alive_L[latent]:
                found.append(None)
                continue
            found.append(
                {
                    "top": {name: _top(shown, name, latent, heat) for name in shown.streams},
                    "histogram": _histograms(shown, latent),
                    "nearest": [
                        [other, significant(mean), significants(each)] for other, mean, each in decoders.nearest[latent]
                    ],
                    "together": together[latent - start],
                    "pairs": [[*pair, *counts[latent].tolist()] for pair, counts in pairs.items()],
                    "words": [[term, one.both, one.labelled, one.active] for term, one in terms.words[latent]],
                    "labels": [
                        [term, one.both, one.labelled, one.active, significant(one.purity), one.confirmed]
                        for term, one in terms.labels[latent]
                    ],
                }
            )
        yield found


def _top(shown: Shown, stream: str, latent: int, heat: Heat) -> list[list[Any]]:
    top = shown.tops[stream][latent]
    return [
        [sample, significant(value), heat.get((stream, latent, sample))]
        for sample, value in zip(top.samples.tolist(), top.values.tolist(), strict=True)
    ]


def _histograms(shown: Shown, latent: int) -> dict[str, dict[str, list[Any]]]:
    """Count the activations above 0 of each stream, in bins that all streams share."""
    values = {name: shown.column(name, latent)[1].astype(np.float64) for name in shown.streams}
    largest = max(float(one.max()) for one in values.values() if len(one))
    edges = np.linspace(0, largest, BINS + 1)
    shown_edges = significants(edges.tolist())
    return {
        name: {"edges": shown_edges, "counts": np.histogram(one, edges)[0].tolist()} for name, one in values.items()
    }


def _together(shown: Shown, block: range) -> list[list[list[Any]]]:
    """Return, per latent of a block, the latents that fire in the same samples: number, count, lift.

    The count is the mean over streams; the lift is it over the count expected of independent latents. The order is that
    of count times log lift, so that neither a frequent latent nor a single common sample ranks first.
    """
    count_lL = np.zeros((len(block), shown.space.n_latents))
    expected_lL = np.zeros_like(count_lL)
    for name, matrix in shown.columns.items():
        own = matrix[:, block.start : block.stop]
        ones, others = own.astype(np.float32), matrix.astype(np.float32)
        ones.data[:], others.data[:] = 1, 1
        count_lL += (ones.T @ others).toarray()
        fires = shown.fires[name]
        expected_lL += np.outer(fires[block.start : block.stop], fires) / max(1, int(shown.there[name].sum()))
    lift_lL = count_lL / np.maximum(expected_lL, 1e-12)
    score_lL = np.where((count_lL > 1) & (lift_lL > 1), count_lL * np.log(np.maximum(lift_lL, 1)), 0)
    score_lL[np.arange(len(block)), list(block)] = 0
    count = len(shown.streams)
    best = np.argsort(-score_lL, axis=1, kind="stable")[:, :LISTED]
    return [
        [
            [int(other), significant(count_lL[row, other] / count), significant(lift_lL[row, other])]
            for other in others
            if score_lL[row, other] > 0
        ]
        for row, others in enumerate(best)
    ]
