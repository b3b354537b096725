"""One sparse, interpretable concept dictionary shared by many frozen models.

What plugin authors and users of a trained space need is here. Names that need torch load it when first used, so that
`import sparc` stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sparc.errors import (
    BadSample,
    CorruptFile,
    InvalidConfig,
    MissingData,
    SparcDeprecationWarning,
    SparcError,
    UnknownName,
    WeightsUnavailable,
)
from sparc.plugins.contracts import (
    Backbone,
    BackboneSpec,
    Dataset,
    DatasetSpec,
    Params,
    Sample,
    SegmentedDataset,
    Taxonomy,
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

if TYPE_CHECKING:
    from sparc.config.options import SpaceConfig
    from sparc.core.codes import Codes
    from sparc.session import features, fit
    from sparc.storage.checkpoint import SharedLatentSpace, load

__version__ = "0.1.0"

__all__ = [
    "Backbone",
    "BackboneSpec",
    "BadSample",
    "Codes",
    "CorruptFile",
    "Dataset",
    "DatasetSpec",
    "InvalidConfig",
    "MissingData",
    "Params",
    "Sample",
    "SegmentedDataset",
    "SharedLatentSpace",
    "SpaceConfig",
    "SparcDeprecationWarning",
    "SparcError",
    "Taxonomy",
    "Texts",
    "UnknownName",
    "WeightsUnavailable",
    "__version__",
    "cache_dir",
    "features",
    "fit",
    "held_out",
    "hookimpl",
    "hub_file",
    "hub_folder",
    "identify_weights",
    "in_hub_cache",
    "load",
    "local_weights",
    "read_taxonomy",
    "read_weights",
    "seeded",
    "sha256",
    "write_atomically",
]

_LAZY = {
    "Codes": "sparc.core.codes",
    "SharedLatentSpace": "sparc.storage.checkpoint",
    "SpaceConfig": "sparc.config.options",
    "features": "sparc.session",
    "fit": "sparc.session",
    "load": "sparc.storage.checkpoint",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'sparc' has no attribute '{name}'")
