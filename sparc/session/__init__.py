"""The one composition: from a configuration to features, a run, and its evaluation on held-out samples.

The command line, Python and ablations all use this package, so all three check, warn, resume and write alike.

    files       options in TOML files
    options     caller, file, dataset defaults and paper, merged into a RunConfig
    data        features and samples of a configuration; `Data.extract` computes those that the store lacks
    session     one run on such data: `Session.train`, then `Session.evaluate`
    verbs       extract, train, evaluate, explore: each a few calls of these
    localizing  localize, for images that a user gives
    completing  complete, for spaces without a completion
    attaching   attach and detach: a stream more or less
    listener    reports of progress, notes and warnings

Importing this package does not import torch, so that mistakes which need no model are found before torch loads.
"""

from sparc.session.attaching import attach, detach
from sparc.session.completing import Completed, complete
from sparc.session.data import Data
from sparc.session.files import ABLATION_KEYS, read_options
from sparc.session.listener import SILENT, Listener
from sparc.session.localizing import Localized, localize
from sparc.session.session import Session
from sparc.session.verbs import (
    Features,
    Measured,
    Trained,
    evaluate,
    explore,
    extract,
    train,
)

__all__ = [
    "ABLATION_KEYS",
    "SILENT",
    "Completed",
    "Data",
    "Features",
    "Listener",
    "Localized",
    "Measured",
    "Session",
    "Trained",
    "attach",
    "complete",
    "detach",
    "evaluate",
    "explore",
    "extract",
    "localize",
    "read_options",
    "train",
]
