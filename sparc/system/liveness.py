"""Signs of life of a long wait: a download gives them, and the limit of the time to read a sample hears them."""

from __future__ import annotations

import threading
from collections.abc import Callable

_OWN = threading.local()


def _nobody() -> None:
    pass


def hear(beat: Callable[[], None]) -> None:
    """Call `beat` at each sign of life that this thread gives from now on."""
    _OWN.beat = beat


def beat() -> Callable[[], None]:
    """Return the function that gives a sign of life of this thread; another thread may call it."""
    found: Callable[[], None] = getattr(_OWN, "beat", _nobody)
    return found
