"""Where a run comes from: its data, its settings, and the software that made it."""

from __future__ import annotations

import platform
import re
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from typing import TYPE_CHECKING, Any

from sparc.plugins.registry import discover

if TYPE_CHECKING:
    from sparc.config import RunConfig
    from sparc.storage.store import FeatureStore, Manifest

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


def provenance(options: RunConfig, features: FeatureStore, *, device: str, command: Sequence[str]) -> dict[str, Any]:
    """Say where a run comes from, as far as it can be said when it starts."""
    owners = {} if options.features is not None else discover().owners  # imported features come from no plugin
    return {
        "command": list(command),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "seed": options.seed,
        "device": device,
        "platform": platform.platform(),
        "versions": library_versions(),
        "random_weights": features.random_weights,
        "streams": {
            name: {
                "backbone": manifest.backbone,
                "params": manifest.params,
                "weights": manifest.weights,
                "plugin": owners.get(("stream", manifest.backbone)),
            }
            for name, manifest in features.manifests.items()
        },
        "samples": len(features),
        "features": digests(features.manifests),
        "options": options.model_dump(mode="json", by_alias=True),
    }


def digests(manifests: Mapping[str, Manifest]) -> dict[str, list[str]]:
    """What features are, to the bit: per stream the checksums of their files."""
    return {
        name: [manifest.samples_file_sha256, *(shard.sha256 for shard in manifest.shards)]
        for name, manifest in manifests.items()
    }
