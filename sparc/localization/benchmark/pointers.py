"""Ways to point at a thing: through the space, by each target, method and selection, and baselines without it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray

from sparc.localization import targets
from sparc.localization.benchmark.cases import Wanted
from sparc.localization.methods import Explained, last_grid
from sparc.localization.request import METHODS
from sparc.localization.targets import Target
from sparc.localization.view import Caption, View, read_caption
from sparc.models import Models


class Way(NamedTuple):
    """A way to point: a target, a method and a selection."""

    target: str
    """`caption`, `concept`, or an empty string for a baseline."""
    method: str
    selection: str = ""
    """`joint`, `solo`, or an empty string for a baseline."""


CENTRE, RANDOM = Way("", "centre"), Way("", "random")
GRADIENT, ACTIVATION = Way("", "gradient"), Way("", "activation")
SIMILARITY = Way("", "similarity")
"""Similarity of patches and caption without the space, for two towers of one model, whose features are comparable."""


@dataclass(frozen=True, eq=False)
class Pointer:
    """Makes the target and the map of every way, with the streams of `models`; captions are read once."""

    models: Models
    seed: int = 0
    _captions: dict[tuple[str, str], Caption] = field(default_factory=dict)

    @cached_property
    def text(self) -> str | None:
        """The text stream that reads captions, or None."""
        return next(iter(self.models.of("text")), None)

    @cached_property
    def _concepts(self) -> Mapping[str, list[int]]:
        """Latents by name."""
        found: dict[str, list[int]] = {}
        for latent, name in self.models.names.items():
            found.setdefault(name, []).append(latent)
        return found

    def ways(self, stream: str) -> list[Way]:
        """Return all ways for an image stream; its architecture may refuse some."""
        by_caption = [Way("caption", method, how) for how in ("joint", "solo") for method in METHODS]
        # A single image stream has no other to select jointly with.
        hows = ("joint", "solo") if len(self.models.of("image")) > 1 else ("solo",)
        by_concept = [Way("concept", method, how) for how in hows for method in METHODS]
        found = by_caption if self.text is not None else []
        found += by_concept if self._concepts else []
        return found + [CENTRE, RANDOM, GRADIENT, ACTIVATION] + ([SIMILARITY] if self._sibling(stream) else [])

    def target(self, way: Way, view: View, wanted: Wanted, others: Sequence[View] = ()) -> Target | None:
        """Return the target of a way's map; None for a baseline, or if no latent is named after the wanted thing.

        others: the same image as the other image streams see it, for joint selection of latents.
        """
        space = self.models.space
        if way.target == "caption" and self.text is not None:
            read = self._read(self.text, wanted.text)
            return targets.similarity(space, view.stream, self.text, read.features, joint=way.selection == "joint")
        if way.target == "concept":
            latents = next((self._concepts[name] for name in wanted.concepts if name in self._concepts), None)
            if latents is None:
                return None
            beside = {other.stream: other.features for other in others if way.selection == "joint"}
            gradient = way.method != "dense"
            return targets.latents_target(space, view.stream, latents, beside, view.features, gradient=gradient)
        sibling = self._sibling(view.stream)
        if way == SIMILARITY and sibling is not None:
            unit_1D = F.normalize(self._read(sibling, wanted.text).features, dim=1)
            return lambda rows_BD: F.normalize(rows_BD, dim=1) @ unit_1D[0]
        return None

    def map(self, way: Way, view: View, target: Target | None, number: int) -> NDArray[np.float32]:
        """Return the map of a target, or a baseline's map.

        number: place of the wanted thing in its case, for random maps; the other baselines give all things one map.
        """
        if target is not None:
            return view.map("dense" if way == SIMILARITY else way.method, target)
        if way == CENTRE:
            rows, columns = (np.abs(np.linspace(-1, 1, count)) for count in view.grid)
            return -np.hypot(rows[:, None], columns).astype(np.float32)
        if way == RANDOM:
            key = [self.seed, number, *view.sample.id.encode()]
            return np.random.default_rng(key).random(view.grid, dtype=np.float32)
        features_1D, trace = view.traced
        # The gradient of the features' norm, which needs no query.
        norm = Explained(features_1D, F.normalize(features_1D.detach(), dim=1), trace, view.grid)
        activations_PC, gradient_PC = last_grid(view.stream, norm)
        seen_PC = gradient_PC if way == GRADIENT else activations_PC
        values: NDArray[np.float32] = seen_PC.norm(dim=1).reshape(view.grid).float().cpu().numpy()
        return values

    def _read(self, stream: str, text: str) -> Caption:
        if (stream, text) not in self._captions:
            self._captions[stream, text] = read_caption(self.models, text, stream=stream)
        return self._captions[stream, text]

    def _sibling(self, stream: str) -> str | None:
        """Return the text stream whose features share a space with those of an image stream, or None."""
        spaces = self.models.shared_spaces
        same = (text for text in self.models.of("text") if text in spaces and spaces[text] == spaces.get(stream))
        return next(same, None)
