"""The two questions sparc asks every plugin."""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from sparc.plugins.contracts import BackboneSpec, DatasetSpec

CONTRACT = 1
"""Version of what plugins and sparc promise each other. A plugin's module says the one that it was written for as
`SPARC_CONTRACT`; it changes when a plugin has to."""
OLDEST = 1
"""The oldest version that still works; a plugin for an older one than CONTRACT is loaded with a warning."""
GROUP = "sparc.plugins"
"""Entry-point group of plugins, ours and everybody's."""

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


@hookspec
def sparc_backbones() -> Iterable[BackboneSpec]:  # type: ignore[empty-body]
    """Frozen backbones that this plugin offers as streams."""


@hookspec
def sparc_datasets() -> Iterable[DatasetSpec]:  # type: ignore[empty-body]
    """Paired datasets that this plugin offers."""
