"""Every option of sparc, declared once, and how options are read from text, files and plugins' defaults."""

from sparc.config.options import (
    ABLATION_KEYS,
    OPTION_NAMES,
    SETTINGS,
    ForwardPrecision,
    Normalization,
    PluginRef,
    Precision,
    RunConfig,
    Selection,
    SpaceConfig,
    StoreDtype,
    TrainingConfig,
    read_options,
    reference,
    suggestion,
    validated,
)

__all__ = [
    "ABLATION_KEYS",
    "OPTION_NAMES",
    "SETTINGS",
    "ForwardPrecision",
    "Normalization",
    "PluginRef",
    "Precision",
    "RunConfig",
    "Selection",
    "SpaceConfig",
    "StoreDtype",
    "TrainingConfig",
    "read_options",
    "reference",
    "suggestion",
    "validated",
]
