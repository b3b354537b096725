"""Provenance of a run that a test lays out by hand instead of training."""

from sparc.storage.provenance import Provenance

DEFAULTS = {
    "command": ["sparc", "train"],
    "started": "2026-01-31T12:00:00+0000",
    "seed": 0,
    "device": "cpu",
    "platform": "Linux",
    "versions": {},
    "random_weights": [],
    "streams": {},
    "samples": 100,
    "features": {},
    "options": {"dataset": "openmoji"},
}


def provenance(**changes):
    """A whole provenance, with these fields changed; options are named as on the command line."""
    return Provenance.model_validate({**DEFAULTS, **changes})
