"""Details of each sample: its codes in every stream, and what each latent contributes to each reconstruction."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from sparc.core.codes import Codes
from sparc.core.kernels import entry_dots
from sparc.evaluation.words import READ
from sparc.explorer.shown import Shown
from sparc.explorer.statements import clean, shortened, significant

SAMPLES_PER_FILE = 32
CAPTION = 160
"""Characters of a caption in the list of samples."""
PARTS = 12
"""Contributions listed per reconstruction."""


def sample_columns(shown: Shown, thumbs: NDArray[Any]) -> dict[str, list[Any]]:
    """Return the columns of the list of samples. thumbs: (n,) thumbnail of each sample, or -1."""
    captions = [None if text is None else shortened(text, CAPTION) for text in shown.captions]
    return {"id": shown.ids, "caption": captions, "thumb": thumbs.tolist()}


def sample_details(shown: Shown) -> Iterator[list[dict[str, Any]]]:
    """Yield the content of each file, SAMPLES_PER_FILE entries each."""
    for start in range(0, len(shown), SAMPLES_PER_FILE):
        rows = slice(start, min(start + SAMPLES_PER_FILE, len(shown)))
        codes = {
            kind: {name: _strongest(found[name][rows]) for name in shown.streams}
            for kind, found in (("codes", shown.encodings.solo), ("joint", shown.encodings.joint))
        }
        parts, explained = _reconstructions(shown, rows)
        block = []
        for place, sample in enumerate(range(rows.start, rows.stop)):
            there = [bool(shown.there[name][sample]) for name in shown.streams]
            text = shown.captions[sample]
            block.append(
                {
                    "caption": None if text is None else text[:READ],
                    "truncated": text is not None and len(text) > READ,
                    "labels": _labels(shown, sample),
                    "there": there,
                    "codes": {name: codes["codes"][name][place] for name in shown.streams},
                    "joint": {name: codes["joint"][name][place] for name in shown.streams},
                    "parts": {pair: found[place] for pair, found in parts.items() if found[place] is not None},
                    "explained": {pair: found[place] for pair, found in explained.items() if found[place] is not None},
                }
            )
        yield block


def _labels(shown: Shown, sample: int) -> list[str]:
    if shown.labels is None:
        return []
    matrix, taxonomy = shown.labels
    own = matrix.indices[matrix.indptr[sample] : matrix.indptr[sample + 1]]
    values = matrix.data[matrix.indptr[sample] : matrix.indptr[sample + 1]]
    return [clean(taxonomy.labels[label]) for label, value in zip(own.tolist(), values.tolist(), strict=True) if value]


def _strongest(codes: Codes) -> list[list[list[Any]]]:
    """Return, per sample, its active latents and their activations, strongest first."""
    values_BK, order_BK = codes.values.sort(dim=1, descending=True, stable=True)
    indices_BK = codes.indices.gather(1, order_BK)
    return [
        [[latent, significant(value)] for latent, value in zip(latents, values, strict=True) if value > 0]
        for latents, values in zip(indices_BK.cpu().tolist(), values_BK.cpu().tolist(), strict=True)
    ]


@torch.inference_mode()
def _reconstructions(
    shown: Shown, rows: slice
) -> tuple[dict[str, list[list[list[Any]] | None]], dict[str, list[float | None]]]:
    """Return, by pair of streams, what latents contribute to the target's features, and how much is explained.

    With y the target rebuilt, x its features and b its pre-bias: a latent contributes z <D, x - b> / |x - b|^2, which
    sum to <y - b, x - b> / |x - b|^2; explained is 1 - |x - y|^2 / |x - b|^2. None for a sample that lacks a stream.
    """
    space, features = shown.space, shown.encodings.features
    batch = space.normalize({name: features[name][rows] for name in shown.streams})
    parts: dict[str, list[list[list[Any]] | None]] = {}
    explained: dict[str, list[float | None]] = {}
    for target in shown.streams:
        centered_BD = space.centered(target, batch.features[target])
        energy_B1 = centered_BD.square().sum(dim=1, keepdim=True)
        decoder_LD = space.decoder[:, space.segments[target]].contiguous()
        for source in shown.streams:
            codes = shown.encodings.solo[source][rows]
            there_B = batch.present[source] & batch.present[target] & (energy_B1[:, 0] > 0)
            dots_BK = entry_dots(centered_BD.unsqueeze(1), decoder_LD, codes.indices).squeeze(1)
            share_BK = codes.values_for(target) * dots_BK / energy_B1.clamp(min=1e-30)
            error_B = (batch.features[target] - space.decode(codes, target)).square().sum(dim=1)
            pair = f"{source}>{target}"
            parts[pair] = _largest(codes.indices, share_BK, there_B)
            explained[pair] = [
                significant(value) if there else None
                for value, there in zip((1 - error_B / energy_B1[:, 0]).tolist(), there_B.tolist(), strict=True)
            ]
    return parts, explained


def _largest(indices_BK: Tensor, share_BK: Tensor, there_B: Tensor) -> list[list[list[Any]] | None]:
    order_BK = share_BK.abs().sort(dim=1, descending=True, stable=True).indices[:, :PARTS]
    latents = indices_BK.gather(1, order_BK).tolist()
    shares = share_BK.gather(1, order_BK).tolist()
    return [
        [[latent, significant(share)] for latent, share in zip(row, values, strict=True) if share] if there else None
        for row, values, there in zip(latents, shares, there_B.tolist(), strict=True)
    ]
