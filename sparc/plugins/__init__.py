"""Everything that a plugin author imports: contracts of backbones and datasets, hooks, weights, and helpers.

A plugin is a Python package with an entry point in the group `sparc.plugins`, and functions marked `hookimpl`
that return specs. Nothing here imports torch.
"""

from sparc.errors import (
    BadSample,
    CorruptFile,
    InvalidConfig,
    MissingData,
    SparcError,
    UnknownName,
    WeightsUnavailable,
)
from sparc.plugins.contracts import (
    Backbone,
    BackboneSpec,
    Dataset,
    DatasetSpec,
    GridBackbone,
    Params,
    Sample,
    SegmentedDataset,
    Taxonomy,
    WordBackbone,
)
from sparc.plugins.datasets import Texts, held_out, read_taxonomy
from sparc.plugins.hookspecs import hookimpl
from sparc.plugins.weights import (
    cache_dir,
    hub_file,
    hub_folder,
    identify_weights,
    in_hub_cache,
    local_weights,
    read_weights,
    seeded,
)
from sparc.system.files import sha256, write_atomically

__all__ = [
    "Backbone",
    "BackboneSpec",
    "BadSample",
    "CorruptFile",
    "Dataset",
    "DatasetSpec",
    "GridBackbone",
    "InvalidConfig",
    "MissingData",
    "Params",
    "Sample",
    "SegmentedDataset",
    "SparcError",
    "Taxonomy",
    "Texts",
    "UnknownName",
    "WeightsUnavailable",
    "WordBackbone",
    "cache_dir",
    "held_out",
    "hookimpl",
    "hub_file",
    "hub_folder",
    "identify_weights",
    "in_hub_cache",
    "local_weights",
    "read_taxonomy",
    "read_weights",
    "seeded",
    "sha256",
    "write_atomically",
]
