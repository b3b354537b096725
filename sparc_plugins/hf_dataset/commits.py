"""The commit of a dataset on the Hugging Face Hub, which identifies its data."""

from __future__ import annotations

import contextlib
import hashlib
import re
from functools import lru_cache
from pathlib import Path

from sparc.plugins import cache_dir, write_atomically

COMMIT = re.compile(r"[0-9a-f]{40}")
TIMEOUT = 10
"""Seconds for which the hub may take to answer."""


@lru_cache(maxsize=32)
def commit_of(name: str, revision: str | None) -> str | None:
    """Return the commit of a revision, by default of `main`; None if neither the hub nor a cache knows it.

    The hub is asked first. Without a connection this is the commit that it named last.
    """
    if revision is not None and COMMIT.fullmatch(revision):
        return revision
    from huggingface_hub import HfApi, constants

    key = hashlib.sha256(f"{name}@{revision}".encode()).hexdigest()[:16]
    noted = cache_dir("hf", f"{key}.commit")
    try:
        commit = HfApi().dataset_info(name, revision=revision, timeout=TIMEOUT).sha
    except Exception:  # errors of the HTTP library pass through the hub's client; loading the data words them
        commit = None
    if commit is not None:
        write_atomically(noted, lambda path: path.write_text(commit))
        return commit
    cached = Path(constants.HF_HUB_CACHE) / f"datasets--{name.replace('/', '--')}" / "refs" / (revision or "main")
    for file in (noted, cached):
        with contextlib.suppress(OSError):
            return file.read_text().strip()
    return None
