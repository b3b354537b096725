"""Load the backbones of several streams."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sparc.config import PluginRef
from sparc.errors import WeightsUnavailable
from sparc.plugins.contracts import Backbone
from sparc.plugins.registry import Registry, checked_params
from sparc.system.hub import hub_is_silent


def load_backbones(
    registry: Registry, streams: Mapping[str, PluginRef], device: str, on_load: Callable[[str], None]
) -> dict[str, Backbone]:
    """Load each stream's backbone, and call `on_load` with the stream before.

    Without a network the error names the weights of all streams that are not on this machine.

    Raises:
        WeightsUnavailable: weights that are not on this machine and cannot be downloaded.
        SparcError: another error of a plugin.
    """
    found: dict[str, Backbone] = {}
    unavailable: list[WeightsUnavailable] = []
    for name, ref in streams.items():
        spec = registry.backbone(ref.name)
        params = checked_params(spec, ref)
        if not unavailable:
            on_load(name)
        try:
            found[name] = spec.load(params, device)
        except WeightsUnavailable as error:
            unavailable.append(error)
            if not hub_is_silent():  # the others may be downloaded for minutes before this error appeared
                break
    if unavailable:
        raise WeightsUnavailable.joined(unavailable)
    return found
