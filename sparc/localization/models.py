"""The models of a run: its trained space, and the frozen backbones that it was trained on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sparc.config import PluginRef
from sparc.errors import InvalidConfig
from sparc.localization.request import checked_streams, first_of
from sparc.plugins.contracts import Backbone
from sparc.plugins.registry import Registry, checked_params, discover, shared_spaces
from sparc.storage.checkpoint import SharedLatentSpace, load
from sparc.storage.latent_names import LATENTS, read_latent_names
from sparc.storage.run import Run


@dataclass(frozen=True)
class Models:
    """A trained space and its backbones, by stream."""

    space: SharedLatentSpace
    backbones: Mapping[str, Backbone]
    modalities: Mapping[str, str]
    """`image` or `text`, by stream."""
    device: str = "cpu"
    names: Mapping[int, str] = field(default_factory=dict)
    """Names of latents, as `sparc evaluate` found them."""
    shared_spaces: Mapping[str, str] = field(default_factory=dict)
    """Name by stream of the feature space that its backbone shares with others, such as the two towers of one model."""
    random_weights: Sequence[str] = ()
    """Streams whose weights are random, so that their maps say nothing about a model."""
    layers: int | None = None
    """Number of last layers of an image stream that attention relevance goes through; None for all layers."""

    def of(self, modality: str) -> list[str]:
        """Return the streams of a modality, in order."""
        return [stream for stream in self.backbones if self.modalities[stream] == modality]

    def first_of(self, modality: str) -> str:
        """Return the first stream of a modality. Raises InvalidConfig if there is none."""
        return first_of({stream: self.modalities[stream] for stream in self.backbones}, modality)

    def with_grid(self) -> list[str]:
        """Return the image streams whose backbone has a grid of patches. Raises InvalidConfig if none has."""
        found = [name for name in self.of("image") if getattr(self.backbones[name], "grid", None) is not None]
        if not found:
            message = "no image stream of the run has a grid of patches"
            raise InvalidConfig(message, hint="train with a vision transformer, or a CNN")
        return found


def load_models(
    run: Run | str | Path,
    streams: Collection[str] = (),
    *,
    device: str = "cpu",
    space: SharedLatentSpace | None = None,
    registry: Registry | None = None,
    on_load: Callable[[str], None] = lambda stream: None,
) -> Models:
    """Load the space of a finished run and the backbones of `streams`, or of all its streams.

    space, registry: the run's space on `device` and the plugins, if the caller has them already.
    on_load: called with each stream before its backbone is loaded, which can take seconds.

    Raises:
        MissingData: no run at that path, or one that is not finished, or whose features were imported.
        UnknownName: a stream that the run does not have.
        WeightsUnavailable: a backbone whose weights are not on this machine and cannot be downloaded.
    """
    opened = run if isinstance(run, Run) else Run.open(Path(run))
    chosen = checked_streams(opened, streams)
    registry = discover() if registry is None else registry
    backbones: dict[str, Backbone] = {}
    for name, ref in chosen.items():
        on_load(name)
        backbones[name] = _loaded(registry, ref, device)
    return Models(
        space=load(opened.path, device=device) if space is None else space,
        backbones=backbones,
        modalities={name: registry.backbone(ref.name).modality for name, ref in chosen.items()},
        device=device,
        names=confirmed_names(opened),
        shared_spaces=shared_spaces(registry, chosen),
        random_weights=[name for name, ref in chosen.items() if _identity(registry, ref) == "random"],
    )


def _loaded(registry: Registry, ref: PluginRef, device: str) -> Backbone:
    spec = registry.backbone(ref.name)
    return spec.load(checked_params(spec, ref), device)


def _identity(registry: Registry, ref: PluginRef) -> str:
    spec = registry.backbone(ref.name)
    return spec.identify(checked_params(spec, ref))


def confirmed_names(run: Run) -> dict[int, str]:
    """Return the confirmed names of latents, as `sparc evaluate` found them."""
    names = read_latent_names(run.pictures / LATENTS)
    return {latent: name.label for latent, name in names.items() if name.confirmed}
