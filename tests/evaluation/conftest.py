"""Small spaces and labelled samples to evaluate."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from sparc.core.space import LatentSpace
from sparc.plugins.contracts import Taxonomy


def multi_hot(labels, taxonomy):
    """Sets of labels as a sparse matrix, one row per sample."""
    column = {label: number for number, label in enumerate(taxonomy.labels)}
    dense = np.zeros((len(labels), len(column)))
    for row, names in enumerate(labels):
        dense[row, [column[name] for name in names]] = 1
    return csr_array(dense)


@pytest.fixture
def plain_space():
    """Streams `a` and `b` of width 2: a latent per feature, encoders and decoders the identity, one latent kept."""

    def make(names=("a", "b"), k=1, **options):
        space = LatentSpace(dict.fromkeys(names, 2), 2, k, normalization="none", **options)
        with torch.no_grad():
            for encoder in space.encoders:
                encoder.copy_(torch.eye(2))
            space.decoder.copy_(torch.cat([torch.eye(2)] * len(names), dim=1))
        return space

    return make


@dataclass
class Held:
    """Samples to measure on, as given and as sets."""

    features: dict[str, torch.Tensor]
    labels: list[set[str]]
    taxonomy: Taxonomy
    groups: list[str]
    present: dict[str, list[bool]] = field(default_factory=dict)

    @property
    def matrix(self):
        return multi_hot(self.labels, self.taxonomy)


WIDTHS = {"a": 7, "b": 5, "c": 6}
PARENTS = {
    "thing": (),
    "alive": ("thing",),
    "made": ("thing",),
    "animal": ("alive",),
    "pet": ("alive", "animal"),  # depth 3, though it is also a child of a label at 1
    "robot dog": ("made", "pet"),
    "chair": ("made",),
    "other": (),
}


@pytest.fixture
def random_space():
    """A space with parameters all away from their initial zeros."""

    def make(names="abc", **options):
        torch.manual_seed(3)
        space = LatentSpace({name: WIDTHS[name] for name in names}, 16, 3, seed=4, **options).double()
        with torch.no_grad():
            for parameter in space.parameters():
                parameter += 0.05 * torch.randn_like(parameter)
        space.renormalize_decoder()
        return space

    return make


@pytest.fixture
def held():
    """50 samples in groups of one to three, of which some lack a stream, under a taxonomy that is a DAG."""
    torch.manual_seed(5)
    generator = np.random.default_rng(6)
    common = torch.randn(50, 4, dtype=torch.float64)
    features = {name: common @ torch.randn(4, width, dtype=torch.float64) for name, width in WIDTHS.items()}
    features["b"][[0, 7, 8]] = 0
    features["c"][[7, 20, 49]] = 0
    taxonomy = Taxonomy(PARENTS)
    labels = [set(generator.choice(taxonomy.labels, size=generator.integers(4), replace=False)) for _ in range(50)]
    groups = [f"image {row}" for row in np.sort(generator.integers(0, 30, size=50))]
    present = {name: rows.any(dim=1).tolist() for name, rows in features.items()}
    return Held(features, labels, taxonomy, groups, present)
