"""The commit of a dataset on the Hugging Face Hub, which identifies its data."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from sparc.plugins import MissingData, asking_hub, cache_dir, refusal, write_atomically

NO_CONNECTION = (
    "check the connection; or set HF_HOME to a cache that has it, or give a local folder: --data-root FOLDER"
)
COMMIT = re.compile(r"[0-9a-f]{40}")
TIMEOUT = 10
"""Seconds for which the hub may take to answer."""


@contextlib.contextmanager
def connection(repo: str) -> Iterator[bool]:
    """Run a block that loads a repository, and yield True if there is a connection to the hub.

    Without one, the block runs in the offline mode of the hub's client, since the client repeats each request for
    half a minute otherwise.
    Raises MissingData if the block then lacks a file.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    try:
        with asking_hub(connect=True):
            pass
    except ConnectionError:
        constants.HF_HUB_OFFLINE = True
    try:
        yield not constants.HF_HUB_OFFLINE
    except OSError as error:
        if before or not constants.HF_HUB_OFFLINE or refusal(error, f"load {repo}", {errno.ENOENT}) is not None:
            raise
        raise MissingData(f"hf: {repo} is not available: no connection to the hub", hint=NO_CONNECTION) from error
    finally:
        constants.HF_HUB_OFFLINE = before


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
        with asking_hub():
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
