"""Finds the installed plugins and indexes what they offer.

pluggy's own loader drops a colliding name silently and lets one plugin that fails to import take all others down, so
entry points are loaded here, one by one.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

import pluggy

from sparc.config import PluginRef, validated
from sparc.errors import PluginError, SparcDeprecationWarning, UnknownName
from sparc.plugins import hookspecs
from sparc.plugins.contracts import BackboneSpec, DatasetSpec, Params
from sparc.plugins.hookspecs import CONTRACT, GROUP, OLDEST

_Spec = TypeVar("_Spec", BackboneSpec, DatasetSpec)


@dataclass
class Registry:
    """What the installed plugins offer, by name, and which plugins did not load."""

    backbones: dict[str, BackboneSpec] = field(default_factory=dict)
    datasets: dict[str, DatasetSpec] = field(default_factory=dict)
    owners: dict[tuple[str, str], str] = field(default_factory=dict)
    """Kind (`stream`, `dataset`) and name to the distribution that offers it."""
    broken: dict[str, Exception] = field(default_factory=dict)
    """Entry point to the error with which it failed to load."""
    origins: dict[str, str] = field(default_factory=dict)
    """Stream to the distribution that offered it when a run was made."""

    def backbone(self, name: str) -> BackboneSpec:
        """Look a backbone up. Raises UnknownName, listing what there is."""
        if name not in self.backbones:
            raise self._unknown(["stream"], name, self.backbones)
        return self.backbones[name]

    def dataset(self, name: str) -> DatasetSpec:
        """Look a dataset up. Raises UnknownName, listing what there is."""
        if name not in self.datasets:
            raise self._unknown(["dataset"], name, self.datasets)
        return self.datasets[name]

    def either(self, name: str) -> BackboneSpec | DatasetSpec:
        """Look a dataset or a backbone up. Raises UnknownName, listing what there is."""
        if name in self.datasets:
            return self.datasets[name]
        if name not in self.backbones:
            raise self._unknown(["stream", "dataset"], name, [*self.backbones, *self.datasets])
        return self.backbones[name]

    def remember(self, streams: Mapping[str, Mapping[str, Any]]) -> None:
        """Note who offered the streams of a run, as its provenance says, for the hint where one is gone."""
        self.origins |= {
            made_by["backbone"]: made_by["plugin"] for made_by in streams.values() if made_by.get("plugin")
        }

    def _unknown(self, kinds: Sequence[str], name: str, known: Iterable[str]) -> UnknownName:
        names = sorted(known)
        hints = []
        if "stream" in kinds and name in self.origins:
            hints.append(f"it came from {self.origins[name]}: install that")
        hints += [f"did you mean '{match}'?" for match in difflib.get_close_matches(name, names, n=1)]
        every = " or ".join(f"{kind}s" for kind in kinds)
        hints.append(f"known {every}: {', '.join(names) or 'none; is sparc installed?'}")
        hints += [f"plugin '{plugin}' did not load: {error}" for plugin, error in self.broken.items()]
        return UnknownName(f"no plugin offers a {' or '.join(kinds)} named '{name}'", hint="; ".join(hints))


def discover(points: Iterable[EntryPoint] | None = None) -> Registry:
    """Index the installed plugins, or those of `points`. The same installation gives the same registry.

    Warns, SparcDeprecationWarning, of a plugin for an older contract that still works.

    Raises:
        PluginError: two plugins share a name or offer one name, a hook is misspelled, or a hook raises or returns
            something other than specs. A plugin that merely fails to import, or was written for another contract, is
            kept in `broken`.
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
        # One that says nothing was written when there was one contract only.
        contract = getattr(plugin, "SPARC_CONTRACT", 1)
        if not isinstance(contract, int) or not OLDEST <= contract <= CONTRACT:
            registry.broken[point.name] = _other_contract(contract)
            continue
        if contract < CONTRACT:
            _warn_of_old(_owner(point), contract)
        if manager.has_plugin(point.name) or manager.is_registered(plugin):
            raise PluginError(
                f"two installed plugins are both named '{point.name}', the second being {point.value}",
                hint="uninstall one of the two",
            )
        manager.register(plugin, name=point.name)
        _refuse_misspelled_hooks(manager)
        _index(registry, manager, plugin, _owner(point))
    return registry


def _other_contract(found: object) -> PluginError:
    """What is wrong with a plugin that was written for another version of the contract."""
    newer = isinstance(found, int) and found > CONTRACT
    what, package = ("sparc", "sparc-sae") if newer else ("it", "that plugin")
    return PluginError(
        f"it was written for contract {found} of plugins, this sparc has {CONTRACT}: upgrade {what}",
        hint=f"pip install --upgrade {package}",
    )


def _warn_of_old(owner: str, contract: int) -> None:
    warnings.warn(
        f"the plugin {owner} was written for contract {contract} of plugins, this sparc has {CONTRACT} and a later one "
        f"will leave it out: upgrade that plugin",
        SparcDeprecationWarning,
        stacklevel=2,
    )


def _owner(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.value


def _refuse_misspelled_hooks(manager: pluggy.PluginManager) -> None:
    """A misspelled hook would otherwise be a plugin that silently offers nothing."""
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        known = [hook for hook in vars(hookspecs) if hook.startswith("sparc_")]
        raise PluginError(str(error), hint=f"hooks: {', '.join(known)}") from error


def _index(registry: Registry, manager: pluggy.PluginManager, plugin: object, owner: str) -> None:
    """Enter what one plugin offers."""
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
    """What one plugin answers to a hook, checked."""
    try:
        specs = [spec for answer in manager.subset_hook_caller(hook, others)() for spec in answer]
    except Exception as error:
        message = f"hook '{hook}' of plugin {owner} failed: {error}"
        raise PluginError(message, hint="repair or uninstall that plugin") from error
    for spec in specs:
        if not isinstance(spec, kind):
            raise PluginError(
                f"hook '{hook}' of plugin {owner} returned {type(spec).__name__}, expected {kind.__name__}",
                hint="repair or uninstall that plugin",
            )
    return specs


def _claim(owners: dict[tuple[str, str], str], kind: str, name: str, owner: str) -> None:
    if (kind, name) in owners:
        raise PluginError(
            f"the {kind} '{name}' is offered twice, by {owners[kind, name]} and by {owner}",
            hint="uninstall one of the two",
        )
    owners[kind, name] = owner


def checked_params(spec: BackboneSpec | DatasetSpec, ref: PluginRef) -> Params:
    """Parameters of a plugin, from what the user wrote. Raises InvalidConfig.

    Warns, SparcDeprecationWarning, of a parameter that the plugin calls deprecated, as `pydantic.Field` takes it.
    """
    params = validated(spec.params, ref.params, what=f"'{ref.name}'")
    for name, parameter in spec.params.model_fields.items():
        if name in ref.params and parameter.deprecation_message is not None:
            message = f"'{ref.name}': the parameter '{name}' will go: {parameter.deprecation_message}"
            warnings.warn(message, SparcDeprecationWarning, stacklevel=2)
    return params


def shared_spaces(registry: Registry, streams: Mapping[str, PluginRef]) -> dict[str, str]:
    """The spaces that features lie in, of the streams whose backbones say that others lie there too."""
    found: dict[str, str] = {}
    for name, ref in streams.items():
        spec = registry.backbone(ref.name)
        if spec.shared_space is not None:
            found[name] = spec.shared_space(checked_params(spec, ref))
    return found
