"""Finds the installed plugins and indexes what they offer.

pluggy's own loader drops a colliding name silently and lets one plugin that fails to import take all others down, so
entry points are loaded here, one by one.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points

import pluggy

from sparc import hookspecs
from sparc.contracts import BackboneSpec, DatasetSpec
from sparc.errors import PluginError, UnknownName
from sparc.hookspecs import GROUP


@dataclass
class Registry:
    """What the installed plugins offer, by name, and which plugins did not load."""

    backbones: dict[str, BackboneSpec] = field(default_factory=dict)
    datasets: dict[str, DatasetSpec] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    """Name of a stream or dataset to the plugin and distribution that offer it."""
    broken: dict[str, Exception] = field(default_factory=dict)
    """Entry point to the error with which it failed to load."""

    def backbone(self, name: str) -> BackboneSpec:
        """Look a backbone up. Raises UnknownName, listing what there is."""
        if name not in self.backbones:
            raise self._unknown("stream", name, self.backbones)
        return self.backbones[name]

    def dataset(self, name: str) -> DatasetSpec:
        """Look a dataset up. Raises UnknownName, listing what there is."""
        if name not in self.datasets:
            raise self._unknown("dataset", name, self.datasets)
        return self.datasets[name]

    def _unknown(self, kind: str, name: str, known: Iterable[str]) -> UnknownName:
        names = sorted(known)
        hints = [f"did you mean '{match}'?" for match in difflib.get_close_matches(name, names, n=1)]
        hints.append(f"known {kind}s: {', '.join(names) or 'none; is sparc installed?'}")
        hints += [f"plugin '{plugin}' did not load: {error}" for plugin, error in self.broken.items()]
        return UnknownName(f"no plugin offers a {kind} named '{name}'", hint="; ".join(hints))


def discover(points: Iterable[EntryPoint] | None = None) -> Registry:
    """Index the installed plugins, or those of `points`. The same installation gives the same registry.

    Raises:
        PluginError: two plugins share a name or offer one name, a hook is misspelled, or a hook raises or returns
            something other than specs. A plugin that merely fails to import is kept in `broken`.
    """
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(hookspecs)
    registry = Registry()
    for point in sorted(entry_points(group=GROUP) if points is None else points, key=lambda p: (p.name, p.value)):
        try:
            plugin = point.load()
        except Exception as error:
            registry.broken[point.name] = error
            continue
        if manager.has_plugin(point.name) or manager.is_registered(plugin):
            raise PluginError(
                f"two installed plugins are both named '{point.name}', the second being {point.value}",
                hint="uninstall one of the two",
            )
        manager.register(plugin, name=point.name)
        _check_hooks(plugin, point.name)
        _index(registry, manager, plugin, _owner(point))
    return registry


def _owner(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.value


def _check_hooks(plugin: object, name: str) -> None:
    """A misspelled hook would otherwise be a plugin that silently offers nothing."""
    known = [hook for hook in vars(hookspecs) if hook.startswith("sparc_")]
    for attribute in vars(plugin):
        if hasattr(getattr(plugin, attribute), f"{GROUP}_impl") and attribute not in known:
            raise PluginError(f"plugin '{name}' implements an unknown hook '{attribute}'", hint=f"hooks: {', '.join(known)}")


def _index(registry: Registry, manager: pluggy.PluginManager, plugin: object, owner: str) -> None:
    """Enter what one plugin offers."""
    others = [other for other in manager.get_plugins() if other is not plugin]
    offers: list[tuple[str, type, dict[str, BackboneSpec] | dict[str, DatasetSpec]]] = [
        ("sparc_backbones", BackboneSpec, registry.backbones),
        ("sparc_datasets", DatasetSpec, registry.datasets),
    ]
    for hook, kind, index in offers:
        try:
            specs = [spec for answer in manager.subset_hook_caller(hook, others)() for spec in answer]
        except Exception as error:
            raise PluginError(
                f"hook '{hook}' of plugin {owner} failed: {error}", hint="repair or uninstall that plugin"
            ) from error
        for spec in specs:
            if not isinstance(spec, kind):
                raise PluginError(
                    f"hook '{hook}' of plugin {owner} returned {type(spec).__name__}, expected {kind.__name__}",
                    hint="repair or uninstall that plugin",
                )
            if spec.name in index:
                raise PluginError(
                    f"'{spec.name}' is offered twice, by {registry.owners[f'{hook}:{spec.name}']} and by {owner}",
                    hint="uninstall one of the two",
                )
            index[spec.name] = spec
            registry.owners[f"{hook}:{spec.name}"] = owner
