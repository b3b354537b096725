"""Everything that a plugin author imports: the contracts of backbones and datasets, the hooks, and helpers.

A plugin is a module that an installed package declares in the entry-point group `sparc.plugins`. Its functions marked
`hookimpl` return specs, which describe backbones and datasets. Nothing here imports torch.

    contracts.py   what a plugin provides: specs, backbones, datasets, samples, taxonomies
    hookspecs.py   the two hooks
    weights.py     which weights a backbone has, and local files of weights
    state_dicts.py the tensors in such files, named as the model names them
    datasets.py    helpers for datasets
    label_lists.py lists of labels in a cell of a table
    formats.py     files among the images that are none
    images.py      images become RGB with 8 bits per channel, upright, within limits
    identity.py    which files a dataset has, by their content
    registry.py    how sparc finds the installed plugins
    geometry.py    which part of an image the grid of a backbone covers
    batches.py     batches that are a tensor or a dict of tensors
    problems.py    what is wrong with a dataset, before anything slow begins
    checks/        the contract as checks that run
    scaffold.py    `sparc plugins new`, from templates/

Letters in shapes, in this package: B samples of a batch, N samples of a dataset, d width of the features, H and W
height and width of an image in pixels.
"""

from sparc.config import is_url
from sparc.errors import (
    BadSample,
    CorruptFile,
    InvalidConfig,
    MissingData,
    Problems,
    SparcError,
    UnknownName,
    WeightsUnavailable,
    counted,
    install,
)
from sparc.plugins.contracts import (
    Backbone,
    BackboneSpec,
    CheckedDataset,
    Dataset,
    DatasetSpec,
    GridBackbone,
    Params,
    Planted,
    PlantedBackbone,
    Sample,
    SegmentedDataset,
    Taxonomy,
    WordBackbone,
)
from sparc.plugins.datasets import Texts, find_taxonomy, held_out, no_folder, read_taxonomy
from sparc.plugins.formats import head_fault, no_image, read_image, sample_file, upright_masks
from sparc.plugins.hookspecs import hookimpl
from sparc.plugins.identity import cache_key, identify_files
from sparc.plugins.registry import discover
from sparc.plugins.state_dicts import check_finite, library_of, read_weights, without_prefix
from sparc.plugins.weights import (
    identify_weights,
    local_weights,
    seeded,
    weight_files,
)
from sparc.system.cache import cache_dir
from sparc.system.file_cache import FileCache
from sparc.system.files import sha256, write_atomically
from sparc.system.hub import (
    asking_hub,
    hub_commit,
    hub_file,
    hub_folder,
    in_hub_cache,
    revision_from_name,
    split_revision,
    unavailable,
)
from sparc.system.memory import check_room
from sparc.system.names import find_path, same_name
from sparc.system.refusals import reading, refusal
from sparc.system.remote import (
    RemoteFile,
    below,
    can_list,
    check_protocol,
    describe_all,
    list_files,
    read_whole,
    shown,
)
from sparc.system.texts import open_text, read_text

__all__ = [
    "Backbone",
    "BackboneSpec",
    "BadSample",
    "CheckedDataset",
    "CorruptFile",
    "Dataset",
    "DatasetSpec",
    "FileCache",
    "GridBackbone",
    "InvalidConfig",
    "MissingData",
    "Params",
    "Planted",
    "PlantedBackbone",
    "Problems",
    "RemoteFile",
    "Sample",
    "SegmentedDataset",
    "SparcError",
    "Taxonomy",
    "Texts",
    "UnknownName",
    "WeightsUnavailable",
    "WordBackbone",
    "asking_hub",
    "below",
    "cache_dir",
    "cache_key",
    "can_list",
    "check_finite",
    "check_protocol",
    "check_room",
    "counted",
    "describe_all",
    "discover",
    "find_path",
    "find_taxonomy",
    "head_fault",
    "held_out",
    "hookimpl",
    "hub_commit",
    "hub_file",
    "hub_folder",
    "identify_files",
    "identify_weights",
    "in_hub_cache",
    "install",
    "is_url",
    "library_of",
    "list_files",
    "local_weights",
    "no_folder",
    "no_image",
    "open_text",
    "read_image",
    "read_taxonomy",
    "read_text",
    "read_weights",
    "read_whole",
    "reading",
    "refusal",
    "revision_from_name",
    "same_name",
    "sample_file",
    "seeded",
    "sha256",
    "shown",
    "split_revision",
    "unavailable",
    "upright_masks",
    "weight_files",
    "without_prefix",
    "write_atomically",
]
