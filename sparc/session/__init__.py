"""The one composition: from a configuration to features, a run, and its evaluation on held-out samples.

The command line, Python and ablations all use this package, so all three check, warn, resume and write alike.

    files       options in TOML files
    options     caller, file, dataset defaults and paper, merged into a RunConfig
    data        features and samples of a configuration; `Data.extract` computes those that the store lacks
    session     one run on such data: `Session.train`, then `Session.evaluate`
    in_memory   features that a program has in memory
    other_data  a run, or an imported space, on data that are not the run's own
    verbs       extract, train, evaluate: each a few calls of these
    exploring   explore: the site of a run, or its contact sheet
    localizing  localize, for images that a user gives
    arguments   files, folders and texts that a user gives, told apart and checked
    gallery     held-out samples, or a folder of images, with an index per stream
    encoding    encode: the concepts of images and texts
    searching   search: images or texts near an image or a text
    planning    plan: time, disk and memory of the others, from `probing`, a process of its own
    completing  complete, for spaces without a completion
    attaching   attach and detach: a stream more or less
    stopping    stop cleanly after a signal, or when the time is up
    watching    notice features that change under a training
    listener    reports of progress, notes and warnings

Importing this package does not import torch, so that mistakes which need no model are found before torch loads.
"""

from sparc.session.attaching import attach, detach
from sparc.session.completing import Completed, complete
from sparc.session.data import Data
from sparc.session.encoding import Encoded, encode
from sparc.session.exploring import explore
from sparc.session.files import ABLATION_KEYS, read_options
from sparc.session.listener import SILENT, Listener
from sparc.session.localizing import Localized, localize
from sparc.session.planning import Plan, plan
from sparc.session.searching import Searched, search
from sparc.session.session import Session
from sparc.session.verbs import (
    Features,
    Measured,
    Trained,
    evaluate,
    extract,
    train,
)

__all__ = [
    "ABLATION_KEYS",
    "SILENT",
    "Completed",
    "Data",
    "Encoded",
    "Features",
    "Listener",
    "Localized",
    "Measured",
    "Plan",
    "Searched",
    "Session",
    "Trained",
    "attach",
    "complete",
    "detach",
    "encode",
    "evaluate",
    "explore",
    "extract",
    "localize",
    "plan",
    "read_options",
    "search",
    "train",
]
