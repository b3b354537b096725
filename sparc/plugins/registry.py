"""Discovery: find the installed plugins and index their backbones and datasets by name.

pluggy's own loader drops a colliding name silently, and one plugin that fails to import stops all others. Entry points
are therefore loaded here, one by one.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

import pluggy

from sparc.config import PluginRef, validated
from sparc.errors import PluginError, UnknownName, said
from sparc.plugins import hookspecs
from sparc.plugins.contracts import BackboneSpec, DatasetSpec, Params
from sparc.plugins.hookspecs import CONTRACT, GROUP

_Spec = TypeVar("_Spec", BackboneSpec, DatasetSpec)


@dataclass
class Registry:
    """Backbones and datasets of the installed plugins by name, and the plugins that did not load."""

    backbones: dict[str, BackboneSpec] = field(default_factory=dict)
    datasets: dict[str, DatasetSpec] = field(default_factory=dict)
    owners: dict[tuple[str, str], str] = field(default_factory=dict)
    """Distribution that offers each (kind, name); the kind is `stream` or `dataset`."""
    broken: dict[str, Exception] = field(default_factory=dict)
    """Error of each entry point that did not load."""

    def backbone(self, name: str) -> BackboneSpec:
        """Return the backbone of that name. Raises UnknownName, which lists the known names."""
        if name not in self.backbones:
            raise self._unknown(["stream"], name, self.backbones)
        return self.backbones[name]

    def dataset(self, name: str) -> DatasetSpec:
        """Return the dataset of that name. Raises UnknownName, which lists the known names."""
        if name not in self.datasets:
            raise self._unknown(["dataset"], name, self.datasets)
        return self.datasets[name]

    def either(self, name: str) -> BackboneSpec | DatasetSpec:
        """Return the dataset or the backbone of that name. Raises UnknownName, which lists the known names."""
        if name in self.datasets:
            return self.datasets[name]
        if name not in self.backbones:
            raise self._unknown(["stream", "dataset"], name, [*self.backbones, *self.datasets])
        return self.backbones[name]

    def _unknown(self, kinds: Sequence[str], name: str, known: Iterable[str]) -> UnknownName:
        names = sorted(known)
        hints = [f"did you mean '{match}'?" for match in difflib.get_close_matches(name, names, n=1)]
        every = " or ".join(f"{kind}s" for kind in kinds)
        hints.append(f"known {every}: {', '.join(names) or 'none; is sparc installed?'}")
        hints += [f"plugin '{plugin}' did not load: {said(error)}" for plugin, error in self.broken.items()]
        return UnknownName(f"no plugin offers a {' or '.join(kinds)} named '{name}'", hint="; ".join(hints))


def discover(points: Iterable[EntryPoint] | None = None) -> Registry:
    """Index the installed plugins, or those of `points`. The same installation gives the same registry.

    A plugin that fails to import, or that was written for another contract, goes into `broken`.

    Raises:
        PluginError: two plugins share a name or offer the same name, a hook is misspelled, or a hook raises or returns
            something other than specs.
    """
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(hookspecs)
    registry = Registry()
    for point in sorted(entry_points(group=GROUP) if points is None else points, key=lambda p: (p.name, p.value)):
        try:
            plugin = point.load()
            _check_contract(plugin)
        except Exception as error:
            registry.broken[point.name] = error
            continue
        if manager.has_plugin(point.name) or manager.is_registered(plugin):
            raise PluginError(
                f"two installed plugins are both named '{point.name}', the second being {point.value}",
                hint="uninstall one of the two",
            )
        manager.register(plugin, name=point.name)
        _refuse_misspelled_hooks(manager)
        _index(registry, manager, plugin, _owner(point))
    return registry


def _check_contract(plugin: object) -> None:
    """Raise PluginError if a plugin was written for another contract. One that names none is taken to fit."""
    found = getattr(plugin, "SPARC_CONTRACT", CONTRACT)
    if found != CONTRACT:
        raise PluginError(
            f"it was written for contract {found} of plugins, this sparc has contract {CONTRACT}",
            hint="upgrade that plugin or sparc-sae, whichever is older",
        )


def _owner(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.value


def _refuse_misspelled_hooks(manager: pluggy.PluginManager) -> None:
    """Raise PluginError for a misspelled hook, which would otherwise be a plugin that silently offers nothing."""
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        known = [hook for hook in vars(hookspecs) if hook.startswith("sparc_")]
        raise PluginError(str(error), hint=f"hooks: {', '.join(known)}") from error


def _index(registry: Registry, manager: pluggy.PluginManager, plugin: object, owner: str) -> None:
    """Add the backbones and datasets of one plugin to the registry."""
    others = [other for other in manager.get_plugins() if other is not plugin]
    for backbone in _specs("sparc_backbones", BackboneSpec, manager, others, owner):
        _claim(registry.owners, "stream", backbone.name, owner)
        registry.backbones[backbone.name] = backbone
    for dataset in _specs("sparc_datasets", DatasetSpec, manager, others, owner):
        _claim(registry.owners, "dataset", dataset.name, owner)
        registry.datasets[dataset.name] = dataset


def _specs(
    hook: str, kind: type[_Spec], manager: pluggy.PluginManager, others: list[object], owner: str
) -> list[_Spec]:
    """Return the specs that a hook of one plugin returns. Raises PluginError."""
    try:
        specs = [spec for answer in manager.subset_hook_caller(hook, others)() for spec in answer]
    except Exception as error:
        message = f"hook '{hook}' of plugin {owner} failed: {said(error)}"
        raise PluginError(message, hint="fix or uninstall that plugin") from error
    for spec in specs:
        if not isinstance(spec, kind):
            raise PluginError(
                f"hook '{hook}' of plugin {owner} returned {type(spec).__name__}, expected {kind.__name__}",
                hint="fix or uninstall that plugin",
            )
    return specs


def _claim(owners: dict[tuple[str, str], str], kind: str, name: str, owner: str) -> None:
    """Record the owner of a name. Raises PluginError if the name has an owner already."""
    if (kind, name) in owners:
        raise PluginError(
            f"the {kind} '{name}' is offered twice, by {owners[kind, name]} and by {owner}",
            hint="uninstall one of the two",
        )
    owners[kind, name] = owner


def checked_params(spec: BackboneSpec | DatasetSpec, ref: PluginRef) -> Params:
    """Return the parameters of a plugin, checked, from the options of a run. Raises InvalidConfig."""
    return validated(spec.params, ref.params, what=f"'{ref.name}'")


def shared_spaces(registry: Registry, streams: Mapping[str, PluginRef]) -> dict[str, str]:
    """Return the name of the space of each stream whose features are comparable with another backbone's."""
    found: dict[str, str] = {}
    for name, ref in streams.items():
        spec = registry.backbone(ref.name)
        if spec.shared_space is not None:
            found[name] = spec.shared_space(checked_params(spec, ref))
    return found
