"""Samples with planted concepts, in a taxonomy: categories, their subcategories, and leaves below these.

A sample has a few leaves. It also shows the subcategories and categories of these, which are concepts of their own.
Leaves of one sample are related: a third of them is drawn from everything, a third from the category of the first leaf,
a third from its subcategory. Frequencies are Zipf's: among siblings, the r-th has the weight 1/r.
"""

from __future__ import annotations

import math
from functools import cached_property
from itertools import product
from random import Random
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, model_validator

from sparc.plugins import Params, Sample, Taxonomy, check_room
from sparc_plugins.synthetic.draws import ranked, seed_of, strength

if TYPE_CHECKING:
    from scipy.sparse import csr_array

ROOT = "all"
"""Label above the categories, so that depths are those of the demo's taxonomy: 1 is a category, 2 a subcategory."""

Path = tuple[int, ...]
"""Place of a concept in the taxonomy: (category,), (category, subcategory) or (category, subcategory, leaf)."""

SAMPLE_BYTES, CONCEPT_BYTES = 200, 1000
"""Memory of a sample, its id, its caption's digest and its row; and of a concept, its path, its names, its parent."""
Count = Annotated[int, Field(gt=0)]


class SyntheticParams(Params):
    """Parameters of the dataset."""

    samples: Count = 20_000
    """Training samples. Further samples leave the others as they are."""
    held_out: Count = 4_000
    """Held-out samples."""
    categories: Count = 8
    subcategories: Count = 4
    """Subcategories of each category."""
    leaves: Count = 8
    """Leaves of each subcategory."""
    active: Count = 4
    """Leaves of each sample."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the samples. Directions are those of the streams, and independent of it."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Categories, subcategories of each, leaves of each of these."""
        return self.categories, self.subcategories, self.leaves

    @model_validator(mode="after")
    def _check(self) -> Self:
        there = math.prod(self.shape)
        if self.active > there:
            raise ValueError(f"active: expected at most the {there} leaves that there are, found {self.active}")
        return self


class PlantedSamples:
    """One split of the dataset."""

    def __init__(self, params: SyntheticParams, split: str) -> None:
        """Name the samples. Raises OutOfMemory if their names or the concepts take more than there is."""
        count, name = (params.samples, "samples") if split == "train" else (params.held_out, "held_out")
        check_room(SAMPLE_BYTES * count, f"{name}: the ids of {count:,} samples", f"lower {name}")
        concepts = math.prod(params.shape)
        hint = "lower categories, subcategories or leaves"
        check_room(CONCEPT_BYTES * concepts, f"the names of {concepts:,} leaves", hint)
        self.params = params
        self.split = split
        self.ids = [f"{split}-{number}" for number in range(count)]
        self.groups = self.ids

    @cached_property
    def taxonomy(self) -> Taxonomy:
        """Taxonomy of all concepts."""
        shape = self.params.shape
        paths: list[Path] = [path for depth in (1, 2, 3) for path in product(*map(range, shape[:depth]))]
        return Taxonomy({ROOT: [], **{name(path): [name(path[:-1]) if path[1:] else ROOT] for path in paths}})

    def __len__(self) -> int:
        """Return the number of samples, N."""
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        """Return one sample. Its caption says which concepts it has, and how strongly."""
        number = range(len(self))[index]
        return Sample(self.ids[number], caption=" ".join(f"{one}={s:g}" for one, s in self.concepts(number).items()))

    def concepts(self, index: int) -> dict[str, float]:
        """Return the concepts of one sample with their strengths."""
        random = self._random(index)
        leaves = self._leaves(random)
        paths = sorted({path[:depth] for path in leaves for depth in (1, 2, 3)})
        return {name(path): strength(random) for path in paths}

    def labels(self) -> csr_array:
        """Return multi-hot labels (N, labels): each sample has its leaves; the taxonomy adds what is above them."""
        import numpy as np
        from scipy.sparse import csr_array

        column = {label: number for number, label in enumerate(self.taxonomy.labels)}
        columns = [column[name(leaf)] for index in range(len(self)) for leaf in self._leaves(self._random(index))]
        rows = np.arange(len(self)).repeat(self.params.active)
        return csr_array((np.ones(len(columns)), (rows, columns)), shape=(len(self), len(column)))

    def _random(self, index: int) -> Random:
        return Random(seed_of(self.params.seed, self.split, index))

    def _leaves(self, random: Random) -> set[Path]:
        """Draw the leaves of a sample: the first from everything, the others often near it."""
        first = self._leaf(random, ())
        leaves = {first}
        while len(leaves) < self.params.active:
            leaves.add(self._leaf(random, first[: int(random.random() * 3)]))
        return leaves

    def _leaf(self, random: Random, above: Path) -> Path:
        """Draw a leaf below a category or a subcategory; below () from everything."""
        return above + tuple(ranked(random, count) for count in self.params.shape[len(above) :])


def name(path: Path) -> str:
    """Return the name of a concept, such as `c3.1.7` for leaf 7 of subcategory 1 of category 3."""
    return f"c{'.'.join(map(str, path))}"
