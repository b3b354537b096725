"""Which software made something."""

from __future__ import annotations

import platform
import re
from importlib.metadata import PackageNotFoundError, requires, version

DISTRIBUTION = "sparc-sae"


def library_versions() -> dict[str, str]:
    """Versions of Python, of sparc and of what it depends on, as far as they are installed."""
    versions = {"python": platform.python_version()}
    try:
        needed = [text for text in requires(DISTRIBUTION) or () if "extra ==" not in text]
    except PackageNotFoundError:  # run from a folder, never installed
        needed = []
    for name in [DISTRIBUTION, *(re.split(r"[^\w.-]", text, maxsplit=1)[0] for text in needed)]:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
