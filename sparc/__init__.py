"""One sparse, interpretable concept dictionary shared by many frozen models.

The functions here do what the commands of the same names do, with the same options. Everything loads when it is first
used, so `import sparc` imports no torch. Plugin authors import `sparc.plugins`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sparc.errors import (
    BadFeatures,
    BadSample,
    CorruptFile,
    IncompatibleFormat,
    Interrupted,
    InUse,
    InvalidConfig,
    MisalignedStreams,
    MissingData,
    OutOfMemory,
    PluginError,
    SparcError,
    StorageError,
    UnknownName,
    WeightsUnavailable,
)

if TYPE_CHECKING:
    from sparc.ablation import ablate
    from sparc.config import PluginRef, RunConfig, SpaceConfig
    from sparc.core.codes import Codes
    from sparc.evaluation.report import Report
    from sparc.models import Models, load_models
    from sparc.session import (
        attach,
        complete,
        detach,
        encode,
        evaluate,
        explore,
        extract,
        localize,
        plan,
        search,
        train,
    )
    from sparc.storage.checkpoint import SharedLatentSpace, load
    from sparc.storage.store import FeatureStore

__version__ = "0.1.0"

_LAZY = {
    "Codes": "sparc.core.codes",
    "FeatureStore": "sparc.storage.store",
    "Models": "sparc.models",
    "PluginRef": "sparc.config",
    "Report": "sparc.evaluation.report",
    "RunConfig": "sparc.config",
    "SharedLatentSpace": "sparc.storage.checkpoint",
    "SpaceConfig": "sparc.config",
    "ablate": "sparc.ablation",
    "attach": "sparc.session",
    "complete": "sparc.session",
    "detach": "sparc.session",
    "encode": "sparc.session",
    "evaluate": "sparc.session",
    "explore": "sparc.session",
    "extract": "sparc.session",
    "load": "sparc.storage.checkpoint",
    "load_models": "sparc.models",
    "localize": "sparc.session",
    "plan": "sparc.session",
    "search": "sparc.session",
    "train": "sparc.session",
}

__all__ = [
    "BadFeatures",
    "BadSample",
    "Codes",
    "CorruptFile",
    "FeatureStore",
    "InUse",
    "IncompatibleFormat",
    "Interrupted",
    "InvalidConfig",
    "MisalignedStreams",
    "MissingData",
    "Models",
    "OutOfMemory",
    "PluginError",
    "PluginRef",
    "Report",
    "RunConfig",
    "SharedLatentSpace",
    "SpaceConfig",
    "SparcError",
    "StorageError",
    "UnknownName",
    "WeightsUnavailable",
    "__version__",
    "ablate",
    "attach",
    "complete",
    "detach",
    "encode",
    "evaluate",
    "explore",
    "extract",
    "load",
    "load_models",
    "localize",
    "plan",
    "search",
    "train",
]


def __dir__() -> list[str]:
    return __all__


_PACKAGES = ("localization", "plugins", "session")
"""Packages that `import sparc` is enough for."""


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(f"sparc.{name}")
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'sparc' has no attribute '{name}'")
