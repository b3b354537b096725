"""Columns of the table of all latents: names, states, rates, overlaps, and places on the map."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.sparse import csc_array, csr_array

from sparc.evaluation.alignment import latent_jaccard
from sparc.evaluation.sharing import DUPLICATE
from sparc.explorer.meanings import correlations
from sparc.explorer.shown import Shown
from sparc.explorer.statements import clean, shortened, significant, significants
from sparc.explorer.terms import Terms
from sparc.plugins.contracts import Taxonomy
from sparc.storage.latent_names import LatentName

CAPTION = 80
"""Characters of a caption beside a name."""
COSINES = 2**22
"""Cosines of a stream in memory at a time."""
SHARED, SOME, DEAD, TWIN = range(4)
"""States of a latent: it fires in every stream, in some, in none; or it is shared, and repeats an earlier latent."""
NEAREST = 10
ALIKE = 1e-6
"""Spread of the decoders below which the map has no directions."""
MOSAIC = 4
"""Top images on the card of a latent."""
FEWEST = 3
"""Samples of its branch that a latent on the map needs for a colour."""
WORDS = 8
"""Words and labels by which a latent is searched."""

Floats = NDArray[np.float64]


class Decoders:
    """Cosines between the decoder directions of latents, stream by stream."""

    def __init__(self, shown: Shown) -> None:
        self._shown = shown
        self.alive_L: NDArray[np.bool_] = np.any([fires > 0 for fires in shown.fires.values()], axis=0)
        self.shared_L: NDArray[np.bool_] = np.all([fires > 0 for fires in shown.fires.values()], axis=0)
        self.nearest: list[list[tuple[int, float, list[float]]]] = [[] for _ in range(shown.space.n_latents)]
        """Per alive latent: the nearest other alive ones, the mean cosine over streams, and the cosine per stream."""
        self.duplicate_of = np.full(shown.space.n_latents, -1, dtype=np.int64)
        """(L,) the first earlier shared latent whose decoder is alike in every stream; -1 without one."""
        self.nearest_pair: tuple[int, int, float] | None = None
        """The two shared latents that are nearest to being duplicates, and their least cosine over streams."""
        self._compare()

    @torch.inference_mode()
    def _compare(self) -> None:
        space = self._shown.space
        alive = np.flatnonzero(self.alive_L)
        if len(alive) < 2:
            return
        index = torch.from_numpy(alive).to(space.decoder.device)
        directions = [F.normalize(space.decoder[:, own][index], dim=1) for own in space.segments.values()]
        shared_A = torch.from_numpy(self.shared_L[alive]).to(index.device)
        count = min(NEAREST, len(alive) - 1)
        size = max(1, COSINES // len(alive))
        for start in range(0, len(alive), size):
            cosines = torch.stack([one[start : start + size] @ one.T for one in directions])
            mean_aA = cosines.mean(dim=0)
            least_aA = cosines.amin(dim=0)
            own = torch.arange(start, start + len(mean_aA), device=index.device)
            mean_aA[torch.arange(len(own)), own] = -torch.inf
            best = mean_aA.topk(count, dim=1)
            each = cosines.gather(2, best.indices.expand(len(directions), -1, -1)).permute(1, 2, 0).cpu().tolist()
            before_aA = shared_A & (torch.arange(len(alive), device=index.device) < own[:, None])
            self._meet(alive, start, torch.where(before_aA & shared_A[own][:, None], least_aA, -torch.inf))
            earlier_aA = (least_aA >= DUPLICATE) & before_aA
            first_a = torch.where(earlier_aA.any(dim=1), earlier_aA.int().argmax(dim=1), -1).cpu().numpy()
            rows = zip(best.indices.cpu().tolist(), best.values.cpu().tolist(), each, strict=True)
            for offset, (places, means, cosine) in enumerate(rows):
                latent = int(alive[start + offset])
                self.nearest[latent] = [
                    (int(alive[place]), mean, per) for place, mean, per in zip(places, means, cosine, strict=True)
                ]
                if self.shared_L[latent] and first_a[offset] >= 0:
                    self.duplicate_of[latent] = alive[first_a[offset]]

    def _meet(self, alive: NDArray[np.int64], start: int, cosine_aA: torch.Tensor) -> None:
        """Keep the nearest pair of those seen so far. cosine_aA: -inf where two latents are no pair."""
        cosine = float(cosine_aA.max())
        if cosine > (-np.inf if self.nearest_pair is None else self.nearest_pair[2]):
            row, column = divmod(int(cosine_aA.argmax()), cosine_aA.shape[1])
            self.nearest_pair = (int(alive[column]), int(alive[start + row]), cosine)


def duplicates(decoders: Decoders) -> dict[str, Any]:
    """Return the cosine from which two latents are duplicates, and the pair nearest to it."""
    pair = decoders.nearest_pair
    return {
        "duplicate": DUPLICATE,
        "nearest_pair": None if pair is None else [*pair[:2], significant(pair[2])],
    }


def branches(taxonomy: Taxonomy) -> list[str]:
    """Return the labels that divide the taxonomy: those of the least depth at which there are several."""
    for depth in range(taxonomy.max_depth + 1):
        found = [label for label in taxonomy.labels if taxonomy.depth(label) == depth]
        if len(found) > 1:
            return found
    return []


def latent_columns(shown: Shown, decoders: Decoders, terms: Terms, thumbs: NDArray[np.int64]) -> dict[str, Any]:
    """Return the columns of all latents, one entry per latent. thumbs: (n,) thumbnail of each sample, or -1."""
    n_latents = shown.space.n_latents
    confirmed = {latent: name for latent, name in shown.names.items() if name.confirmed}
    by = 1 if shown.labels is not None else 2
    state_L = np.where(decoders.shared_L, SHARED, np.where(decoders.alive_L, SOME, DEAD))
    state_L[decoders.duplicate_of >= 0] = TWIN
    solo_LH, null_LH = _jaccard(shown)
    mosaics = _mosaics(shown, thumbs)
    x_L, y_L = _map(shown, decoders.alive_L)
    return {
        "name": [confirmed[latent].label if latent in confirmed else None for latent in range(n_latents)],
        "named_by": [by if latent in confirmed else 0 for latent in range(n_latents)],
        "sure": significants(confirmed[latent].purity if latent in confirmed else None for latent in range(n_latents)),
        "branch": _branch_of(shown),
        "state": state_L.tolist(),
        "duplicate_of": decoders.duplicate_of.tolist(),
        "agreement": _agreement(shown, decoders.alive_L),
        "rate": {
            name: significants((fires / max(1, shown.there[name].sum())).tolist())
            for name, fires in shown.fires.items()
        },
        "jaccard": [significants(column) for column in solo_LH.T.tolist()],
        "null": [significants(column) for column in null_LH.T.tolist()],
        "purity": significants(_purity(terms, latent, confirmed) for latent in range(n_latents)),
        "thumb": [own[0] if own else -1 for own in mosaics],
        "thumbs": mosaics,
        "also": _also(shown, terms, confirmed),
        "words": [" ".join(terms.confirmed(latent)[:WORDS]) or None for latent in range(n_latents)],
        "pairs": {
            f"{shown.streams[a]}>{shown.streams[b]}": dict(zip(("a", "b", "both"), counts.T.tolist(), strict=True))
            for (a, b), counts in pair_counts(shown).items()
        },
        "caption": _captions(shown),
        "x": significants(x_L.tolist()),
        "y": significants(y_L.tolist()),
    }


def _agreement(shown: Shown, alive_L: NDArray[np.bool_]) -> list[int | float | None]:
    if len(shown.streams) < 2:
        return [None] * shown.space.n_latents
    found_L = correlations(list(shown.rows_of_samples.values()), [shown.there[name] for name in shown.streams])
    return significants(np.where(alive_L, found_L, np.nan).tolist())


def _jaccard(shown: Shown) -> tuple[Floats, Floats]:
    if shown.labels is None or len(shown.streams) < 2:
        return np.zeros((shown.space.n_latents, 0)), np.zeros((shown.space.n_latents, 0))
    return latent_jaccard(shown.encodings, *shown.labels, shown.seed)


def _branch_of(shown: Shown) -> list[int]:
    """Return the branch that more than half of a latent's samples have, counted over streams; -1 without one."""
    n_latents = shown.space.n_latents
    if shown.labels is None or shown.levels is None:
        return [-1] * n_latents
    number = {label: place for place, label in enumerate(shown.labels[1].labels)}
    own = [number[branch] for branch in branches(shown.labels[1])]
    if not own:
        return [-1] * n_latents
    of_samples = csr_array(csc_array(shown.levels.lifted)[:, own])
    fires_L, with_LB = np.zeros(n_latents), np.zeros((n_latents, len(own)))
    for active in shown.columns.values():
        ones = active.astype(np.float64)
        ones.data[:] = 1
        fires_L += np.diff(active.indptr)
        with_LB += (ones.T @ of_samples).toarray()
    most_L = with_LB.max(axis=1)
    clear_L = (most_L > fires_L / 2) & (most_L >= FEWEST)
    found: list[int] = np.where(clear_L, with_LB.argmax(axis=1), -1).tolist()
    return found


def _also(shown: Shown, terms: Terms, confirmed: Mapping[int, LatentName]) -> list[str | None]:
    """Return a further confirmed label or word of each named latent, which tells latents of one name apart.

    It is no label above the name, which all latents of that name have, and repeats no word of the name.
    """
    taxonomy = None if shown.labels is None else shown.labels[1]
    found: list[str | None] = [None] * shown.space.n_latents
    for latent, name in confirmed.items():
        known = taxonomy is not None and name.label in taxonomy.parents
        above = {taxonomy.lift(name.label, depth) for depth in range(name.depth)} if taxonomy and known else set()
        said = {name.label.casefold(), *name.label.casefold().split()}
        others = (one for one in terms.confirmed(latent) if one not in above and one.casefold() not in said)
        found[latent] = next(others, None)
    return found


def _purity(terms: Terms, latent: int, confirmed: Mapping[int, LatentName]) -> float | None:
    """Return the share of a latent's images that carry its name, or else its first label; None without labels."""
    name = clean(confirmed[latent].label) if latent in confirmed else None
    listed = terms.labels[latent]
    found = next((one for label, one in listed if label == name), listed[0][1] if listed else None)
    return None if found is None else found.both / found.active


def pair_counts(shown: Shown) -> dict[tuple[int, int], NDArray[np.int64]]:
    """Count, per pair of streams and latent, the samples that fire in the first, in the second, in both: (L, 3).

    Only samples that have both streams count.
    """
    found = {}
    for a, b in combinations(range(len(shown.streams)), 2):
        rows = np.flatnonzero(shown.there[shown.streams[a]] & shown.there[shown.streams[b]])
        one, other = (shown.rows_of_samples[shown.streams[place]][rows] > 0 for place in (a, b))
        counts = [matrix.sum(axis=0) for matrix in (one, other, one.multiply(other))]
        found[a, b] = np.stack([np.asarray(count, dtype=np.int64).ravel() for count in counts], axis=1)
    return found


def _mosaics(shown: Shown, thumbs: NDArray[np.int64]) -> list[list[int]]:
    """Return the thumbnails of the top images of each latent, of the first image stream that has some, else of any."""
    streams = sorted(shown.streams, key=lambda name: shown.modalities[name] != "image")
    found = []
    for latent in range(shown.space.n_latents):
        by_stream = (thumbs[shown.tops[name][latent].samples] for name in streams)
        own = next((best for some in by_stream if len(best := some[some >= 0])), np.zeros(0, np.int64))
        found.append(list(dict.fromkeys(own.tolist()))[:MOSAIC])
    return found


def _captions(shown: Shown) -> list[str | None]:
    """Return the top caption of each latent, of the first stream that has one, text streams first."""
    streams = sorted(shown.streams, key=lambda name: shown.modalities[name] != "text")
    found = []
    for latent in range(shown.space.n_latents):
        tops = (shown.tops[name][latent].samples[:1].tolist() for name in streams)
        texts = (shown.captions[sample] for top in tops for sample in top)
        text = next((text for text in texts if text is not None), None)
        found.append(None if text is None else shortened(text, CAPTION))
    return found


def _map(shown: Shown, alive_L: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Place the alive latents in the unit square by the first two principal components of their decoders."""
    from scipy.sparse.linalg import svds

    place_LX = np.full((len(alive_L), 2), np.nan)
    place_LX[alive_L] = 0.5
    directions = shown.space.decoder.detach()[torch.from_numpy(np.flatnonzero(alive_L))].cpu().double()
    unit = F.normalize(directions, dim=1).numpy()
    centred = unit - unit.mean(axis=0) if len(unit) else unit
    if min(centred.shape) > 2 and np.linalg.norm(centred) > ALIKE:
        # The first vector of the iteration is given, since a random one would change the signs from run to run.
        left, scales, _ = svds(centred, k=2, v0=np.ones(min(centred.shape)))
        found = (left * scales)[:, np.argsort(-scales)]
        found *= np.where(found[np.abs(found).argmax(axis=0), [0, 1]] < 0, -1, 1)
        low, high = found.min(axis=0), found.max(axis=0)
        place_LX[alive_L] = np.where(high > low, (found - low) / np.where(high > low, high - low, 1), 0.5)
    return place_LX[:, 0], place_LX[:, 1]
