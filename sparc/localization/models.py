"""A trained space together with the frozen backbones that it was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sparc.config import PluginRef
from sparc.errors import InvalidConfig, MissingData, UnknownName
from sparc.plugins.contracts import Backbone
from sparc.plugins.registry import Registry, checked_params, discover, shared_spaces
from sparc.storage.checkpoint import SharedLatentSpace, load
from sparc.storage.latent_names import LATENTS, read_latent_names
from sparc.storage.run import Run


@dataclass(frozen=True)
class Models:
    """A space and its backbones, by stream."""

    space: SharedLatentSpace
    backbones: Mapping[str, Backbone]
    modalities: Mapping[str, str]
    """`image` or `text` of each stream."""
    device: str = "cpu"
    names: Mapping[int, str] = field(default_factory=dict)
    """What `sparc evaluate` calls latents."""
    shared_spaces: Mapping[str, str] = field(default_factory=dict)
    """The space that features lie in, of streams whose backbones say that others lie there too."""
    random_weights: Sequence[str] = ()
    """Streams whose weights are random: what is found with them says nothing about the models."""

    def of(self, modality: str) -> list[str]:
        """Return the streams of a modality, in order."""
        return [stream for stream in self.backbones if self.modalities[stream] == modality]

    def with_grid(self) -> list[str]:
        """Return the image streams whose backbone has a grid of patches. Raises InvalidConfig where none has."""
        found = [name for name in self.of("image") if getattr(self.backbones[name], "grid", None) is not None]
        if not found:
            message = "no image stream of the run has a grid of patches"
            raise InvalidConfig(message, hint="train with a vision transformer, or a CNN")
        return found


def load_models(run: str | Path, *, streams: Sequence[str] = (), device: str = "cpu") -> Models:
    """Load the space of a finished run and its backbones; of some of its streams, or of all.

    Raises:
        MissingData: there is no such run, it is not finished, or its features were imported.
        UnknownName: a stream that it does not have.
        WeightsUnavailable: what a backbone says about weights that are not there.
    """
    opened = Run.open(Path(run))
    provenance = opened.provenance()
    options = provenance.options
    if options.features is not None:
        raise MissingData(
            f"the features of {run} were imported, so its backbones are not known",
            hint="train with --stream and --dataset to localise",
        )
    if not opened.finished:
        raise MissingData(f"the run {run} is not finished", hint=f"sparc train --resume {run}")
    known = {ref.alias: ref for ref in options.stream}
    for stream in streams:
        if stream not in known:
            raise UnknownName(f"the run has no stream named '{stream}'", hint=f"its streams: {', '.join(known)}")
    chosen = {name: ref for name, ref in known.items() if name in streams or not streams}
    registry = discover()
    return Models(
        space=load(opened.path, device=device),
        backbones={name: _loaded(registry, ref, device) for name, ref in chosen.items()},
        modalities={name: registry.backbone(ref.name).modality for name, ref in chosen.items()},
        device=device,
        names=latent_names(opened),
        shared_spaces=shared_spaces(registry, chosen),
        random_weights=[name for name, ref in chosen.items() if _identity(registry, ref) == "random"],
    )


def _loaded(registry: Registry, ref: PluginRef, device: str) -> Backbone:
    spec = registry.backbone(ref.name)
    return spec.load(checked_params(spec, ref), device)


def _identity(registry: Registry, ref: PluginRef) -> str:
    spec = registry.backbone(ref.name)
    return spec.identify(checked_params(spec, ref))


def latent_names(run: Run) -> dict[int, str]:
    """Return the confirmed names of latents, as `sparc evaluate` found them."""
    names = read_latent_names(run.pictures / LATENTS)
    return {latent: name.label for latent, name in names.items() if name.confirmed}


def one_of(models: Models, modality: str) -> str:
    """Return the first stream of a modality. Raises InvalidConfig where there is none."""
    streams = models.of(modality)
    if not streams:
        raise InvalidConfig(
            f"expected a stream that reads {modality}, found {', '.join(models.backbones)}",
            hint=f"name one with --stream too, or train with one that reads {modality}",
        )
    return streams[0]
