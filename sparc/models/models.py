"""The models of a run: its trained space, and the frozen backbones that it was trained on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from sparc.config import PluginRef, RunConfig
from sparc.core.codes import Codes
from sparc.errors import InvalidConfig
from sparc.models.forward import check_features, forward
from sparc.models.inputs import ImageInput, checked_text, decoded, image_sample
from sparc.models.loading import load_backbones
from sparc.models.streams import all_of, checked_streams, first_of
from sparc.plugins.batches import mapped
from sparc.plugins.contracts import Backbone, Sample
from sparc.plugins.images import DEFAULT_LIMITS, ImageLimits, limit_images
from sparc.plugins.registry import Registry, checked_params, discover, shared_spaces
from sparc.storage.checkpoint import SharedLatentSpace, load
from sparc.storage.latent_names import LATENTS, read_latent_names
from sparc.storage.run import Run

_LOADING = threading.Lock()
"""Held while backbones load: their libraries import parts of themselves then, and threads would meet half of one."""
BATCH = 32
"""Images or texts that a backbone computes at once, and images that are in memory."""


class Concept(NamedTuple):
    """An active latent of a sample."""

    latent: int
    name: str
    """Its confirmed name, or `latent N`."""
    activation: float


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
    precision: str = "float32"
    """Precision of the backbones' matrix products, as in the extraction of the run."""
    limits: ImageLimits = DEFAULT_LIMITS
    """Largest image that is read, and its orientation, as in the extraction of the run."""

    def encode_images(self, images: Sequence[ImageInput]) -> dict[str, Codes]:
        """Return the codes of images, paths or PIL images, in each image stream.

        Each stream is encoded alone, as `space.encode` does, so that two models do not see each other's features.

        Raises:
            InvalidConfig: no images, or the run has no stream that reads them.
            MissingData, BadSample: a file that does not exist, or an image that does not decode or is too large.
            PluginError: a backbone breaks its contract.
            StorageError, OutOfMemory: the machine refuses to read a file.
        """
        return self.encode_samples(_listed(images, "image", image_sample), "image")

    def encode_texts(self, texts: Sequence[str]) -> dict[str, Codes]:
        """Return the codes of texts in each text stream, each stream encoded alone. Raises as `encode_images`."""
        samples = _listed(texts, "text", lambda text, number: Sample(f"text {number}", caption=checked_text(text)))
        return self.encode_samples(samples, "text")

    def encode_samples(self, samples: Sequence[Sample], modality: str) -> dict[str, Codes]:
        """Return the codes of the images or the texts of samples, in each stream that reads them.

        Samples with images are those of `sparc.models.inputs`. Raises as `encode_images`.
        """
        streams = all_of({stream: self.modalities[stream] for stream in self.backbones}, modality)
        parts: dict[str, list[Codes]] = {stream: [] for stream in streams}
        for features in self._features(samples, modality, streams):
            with torch.no_grad():
                for stream, x_BD in features.items():
                    parts[stream].append(self.space.encode({stream: x_BD})[stream])
        return {stream: Codes.joined(part) for stream, part in parts.items()}

    def features(self, samples: Sequence[Sample], modality: str) -> dict[str, Tensor]:
        """Return the raw features (B, D) of the images or the texts of samples, as `encode_samples` computes them."""
        streams = all_of({stream: self.modalities[stream] for stream in self.backbones}, modality)
        parts = list(self._features(samples, modality, streams))
        return {stream: torch.cat([part[stream] for part in parts]) for stream in streams}

    def named(self, codes: Codes) -> list[list[Concept]]:
        """Return the active latents of each sample with their names, the strongest first."""
        return [
            [
                Concept(latent, self.names.get(latent, f"latent {latent}"), value)
                for value, latent in sorted(zip(values, latents, strict=True), key=lambda one: (-one[0], one[1]))
                if value > 0
            ]
            for values, latents in zip(codes.values.tolist(), codes.indices.tolist(), strict=True)
        ]

    def _features(
        self, samples: Sequence[Sample], modality: str, streams: Sequence[str]
    ) -> Iterator[dict[str, Tensor]]:
        """Yield the features of a batch after the other by stream, (B, D) float32 on the device."""
        for start in range(0, len(samples), BATCH):
            batch = samples[start : start + BATCH]
            if modality == "image":
                limit_images(self.limits)
                batch = [decoded(sample) for sample in batch]
            yield {stream: self._computed(stream, batch) for stream in streams}

    def _computed(self, stream: str, batch: Sequence[Sample]) -> Tensor:
        backbone = self.backbones[stream]
        inputs = mapped(backbone.preprocess(batch), lambda tensor: tensor.to(self.device))
        output: Tensor = forward(backbone.forward, inputs, self.device, self.precision)
        check_features(stream, output, (len(batch), backbone.width))
        return output.float().clone()

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
    streams: Collection[str] | Mapping[str, PluginRef] = (),
    *,
    device: str = "cpu",
    space: SharedLatentSpace | None = None,
    registry: Registry | None = None,
    on_load: Callable[[str], None] = lambda stream: None,
) -> Models:
    """Load the space of a finished run and the backbones of `streams`, or of all its streams.

    streams: names; or backbones by name, for a space that does not know them.
    space, registry: the run's space on `device` and the plugins, if the caller has them already.
    on_load: called with each stream before its backbone is loaded, which can take seconds.

    Raises:
        MissingData: no run at that path, or one that is not finished, or whose features were imported.
        UnknownName: a stream that the run does not have.
        WeightsUnavailable: a backbone whose weights are not on this machine and cannot be downloaded.
    """
    given = dict(streams) if isinstance(streams, Mapping) else None
    opened = run if isinstance(run, Run) else Run.open(Path(run)) if given is None else Run.open_space(Path(run))
    options = opened.provenance().options if opened.begun else RunConfig()
    chosen = checked_streams(opened, streams) if given is None else given
    registry = discover() if registry is None else registry
    with _LOADING:
        backbones = load_backbones(registry, chosen, device, on_load)
    return Models(
        space=load(opened.path, device=device) if space is None else space,
        backbones=backbones,
        modalities={name: registry.backbone(ref.name).modality for name, ref in chosen.items()},
        device=device,
        names=confirmed_names(opened),
        shared_spaces=shared_spaces(registry, chosen),
        random_weights=[name for name, ref in chosen.items() if _identity(registry, ref) == "random"],
        precision=options.precision,
        limits=ImageLimits.of(options),
    )


def _listed(given: Any, modality: str, as_sample: Callable[[Any, int], Sample]) -> list[Sample]:
    """Return images or texts as samples. Raises InvalidConfig for one that is not in a list, and for an empty list."""
    if isinstance(given, str | Path | Image.Image):
        raise InvalidConfig(
            f"expected a list of {modality}s, found {type(given).__name__}",
            hint=f"write encode_{modality}s([{modality}])",
        )
    samples = [as_sample(one, number) for number, one in enumerate(given)]
    if not samples:
        raise InvalidConfig(f"expected at least one {modality}, found none", hint=f"give a list of {modality}s")
    return samples


def _identity(registry: Registry, ref: PluginRef) -> str:
    spec = registry.backbone(ref.name)
    return spec.identify(checked_params(spec, ref))


def confirmed_names(run: Run) -> dict[int, str]:
    """Return the confirmed names of latents, as `sparc evaluate` found them."""
    names = read_latent_names(run.pictures / LATENTS)
    return {latent: name.label for latent, name in names.items() if name.confirmed}
