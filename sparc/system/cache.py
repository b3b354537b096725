"""The folder in which sparc keeps its caches and stores."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir(*parts: str) -> Path:
    """Return a folder below the cache root, `$SPARC_CACHE` or else `~/.cache/sparc`. It may not exist yet."""
    return Path(os.environ.get("SPARC_CACHE") or Path.home() / ".cache" / "sparc").joinpath(*parts)
