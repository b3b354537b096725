"""The one composition: a configuration becomes features, a run, and what was measured on held-out samples.

The command line, Python and ablations all come through here, so all three warn, check, resume and write the same.

    options     what a caller, a file, the dataset's defaults and the paper say -> RunConfig
    data        features and samples of a configuration; `Data.extract` computes what the store lacks
    session     one run on such data: `Session.train`, then `Session.evaluate`
    verbs       extract, train, evaluate, explore, localize: each a few calls of these
    listener    how all of it reports

Importing this package imports no torch: mistakes that can be found without a model are found before it loads.
"""

from sparc.session.data import Data
from sparc.session.listener import SILENT, Listener
from sparc.session.session import Session
from sparc.session.verbs import (
    Features,
    Localized,
    Measured,
    Trained,
    evaluate,
    explore,
    extract,
    localize,
    train,
)

__all__ = [
    "SILENT",
    "Data",
    "Features",
    "Listener",
    "Localized",
    "Measured",
    "Session",
    "Trained",
    "evaluate",
    "explore",
    "extract",
    "localize",
    "train",
]
