"""The two hooks that sparc calls on every plugin."""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from sparc.plugins.contracts import BackboneSpec, DatasetSpec

CONTRACT = 1
"""Number of the contract between sparc and its plugins. A plugin's module states the number it was written for as
`SPARC_CONTRACT`. The number changes when plugins have to change."""
GROUP = "sparc.plugins"
"""Entry-point group in which every plugin is declared, ours included."""

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


@hookspec
def sparc_backbones() -> Iterable[BackboneSpec]:  # type: ignore[empty-body]
    """Return the frozen backbones that this plugin offers as streams."""


@hookspec
def sparc_datasets() -> Iterable[DatasetSpec]:  # type: ignore[empty-body]
    """Return the paired datasets that this plugin offers."""
