"""Files from the Hugging Face Hub through its local cache, and the place where sparc keeps its own."""

from __future__ import annotations

import os
from pathlib import Path

from sparc.errors import WeightsUnavailable


def cache_dir(*parts: str) -> Path:
    """Return a folder below the root of caches and stores: `$SPARC_CACHE`, else `~/.cache/sparc`. It may not exist."""
    return Path(os.environ.get("SPARC_CACHE") or Path.home() / ".cache" / "sparc").joinpath(*parts)


def hub_file(repo: str, filename: str, *, backbone: str, revision: str | None = None) -> Path:
    """Return the local path of a hub file, downloading it the first time.

    Raises:
        WeightsUnavailable: neither in the cache (`HF_HOME`) nor to be downloaded; names `backbone` and the file.
    """
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(huggingface_hub.hf_hub_download(repo, filename, revision=revision))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        reason = "no connection to the hub" if isinstance(error, LocalEntryNotFoundError) else type(error).__name__
        raise WeightsUnavailable(backbone, f"{repo}/{filename}", reason) from error
