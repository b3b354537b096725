"""`encode`: the strongest concepts of images and texts in each stream, compared with the run's held-out samples."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Unpack

from sparc.config import EncodeOptions, InputOptions, PluginRef, validated
from sparc.config.signatures import EncodeArguments
from sparc.errors import InvalidConfig, SparcError
from sparc.models.streams import all_of, checked_streams
from sparc.plugins.images import ImageLimits, limit_images
from sparc.plugins.registry import Registry, discover
from sparc.session.arguments import Argument, Input, checked_inputs
from sparc.session.data import resolve_device
from sparc.session.gallery import Part
from sparc.session.listener import SILENT, Listener
from sparc.session.options import as_options
from sparc.session.session import Session, missing_plugins
from sparc.storage.run import Run
from sparc.system.brief import Brief

if TYPE_CHECKING:
    from sparc.core.codes import Codes
    from sparc.extraction import Job
    from sparc.models import Concept, Models


class Activation(NamedTuple):
    """A latent that an input activates in a stream."""

    latent: int
    name: str | None
    """Its confirmed name; None without one."""
    activation: float
    percentile: float | None
    """Share, in percent, of the held-out images or captions that activate the latent less; None without them."""
    shared: bool
    """True if the input activates the latent in all streams that read it, and they are several."""

    def __str__(self) -> str:
        """Return the name, or `latent N`."""
        return self.name or f"latent {self.latent}"


@dataclass(frozen=True, repr=False)
class EncodedInput(Brief):
    """The strongest concepts of an image or a text."""

    shown: str
    """The path or the text, as it was given."""
    modality: str
    """`image` or `text`."""
    streams: Mapping[str, tuple[Activation, ...]]
    """By stream that reads it, encoded alone; the strongest first."""

    def to_json(self) -> dict[str, Any]:
        """Return the concepts as JSON has them."""
        streams = {stream: [one._asdict() for one in active] for stream, active in self.streams.items()}
        return {"input": self.shown, "kind": self.modality, "streams": streams}


@dataclass(frozen=True, repr=False)
class Encoded(Brief):
    """Concepts of all inputs, in their order."""

    inputs: tuple[EncodedInput, ...]
    random_weights: tuple[str, ...]
    """Streams with random weights; their concepts say nothing about the models."""


def encode(
    run: str | Path,
    inputs: Argument | Sequence[Argument] = (),
    *,
    listener: Listener = SILENT,
    **arguments: Unpack[EncodeArguments],
) -> Encoded:
    """Encode images and texts with the models of a run, as `sparc encode` does.

    inputs: a text that names a file or a folder is that; one that looks like a path without a file is an error; other
    texts, paths and PIL images are what they are. `text` and `image` take inputs of one kind. For many calls, load the
    models once: `sparc.load_models`. Raises the SparcError that `sparc encode` ends with.
    """
    options = validated(EncodeOptions, as_options(None, arguments, EncodeOptions))
    request = Request.checked(run, inputs, options, options.streams, listener)
    jobs = _held_out(request, options)
    models = request.load(request.streams)
    part = Part(jobs, models.space, request.registry, request.device, listener)
    listener.doing("encoding")
    found = [
        EncodedInput(one.shown, one.modality, _strongest(codes, models, part, options.top))
        for one, codes in zip(request.inputs, request.encoded(models), strict=True)
    ]
    return Encoded(tuple(found), tuple(models.random_weights))


def _held_out(request: Request, options: EncodeOptions) -> dict[str, Job]:
    """Return the jobs of the held-out features that the store has; warn of those that cannot be had."""
    try:
        jobs = Session.open(request.run.path, options, request.listener).data.held_out_jobs
    except SparcError as error:
        request.listener.warn(f"no percentiles, without the held-out samples: {error.message}")
        return {}
    if lacking := [stream for stream in request.used if not jobs[stream].done]:
        request.listener.warn(f"no percentiles in {', '.join(lacking)}: the store has no held-out features of it")
    return {stream: job for stream, job in jobs.items() if job.done}


def _strongest(codes: Mapping[str, Codes], models: Models, part: Part, top: int) -> dict[str, tuple[Activation, ...]]:
    """Return the strongest latents of one input by stream; `codes` have one row."""
    named = {stream: models.named(code)[0] for stream, code in codes.items()}
    latents = [{one.latent for one in active} for active in named.values()]
    everywhere = set.intersection(*latents) if len(latents) > 1 else set()
    return {
        stream: tuple(
            Activation(one.latent, models.names.get(one.latent), one.activation, percentile, one.latent in everywhere)
            for one, percentile in zip(active[:top], _percentiles(active[:top], stream, part), strict=True)
        )
        for stream, active in named.items()
    }


def _percentiles(active: Sequence[Concept], stream: str, part: Part) -> list[float | None]:
    import numpy as np

    if stream not in part.jobs:
        return [None] * len(active)
    latents = np.array([one.latent for one in active], np.int64)
    values = np.array([one.activation for one in active], np.float32)
    found = part.index(stream, latents).percentiles(latents, values)
    return [None if np.isnan(one) else float(one) for one in found]


@dataclass(frozen=True)
class Request:
    """A run and the inputs to encode with its models, checked before anything heavy loads."""

    run: Run
    streams: Mapping[str, PluginRef]
    """Streams of the run that may be used, in order."""
    all_streams: Mapping[str, PluginRef]
    """All streams of the run."""
    modalities: Mapping[str, str]
    """`image` or `text`, by stream of the run."""
    inputs: Sequence[Input]
    registry: Registry
    device: str
    listener: Listener

    @classmethod
    def checked(
        cls,
        run: str | Path,
        inputs: Argument | Sequence[Argument],
        options: InputOptions,
        streams: Collection[str],
        listener: Listener,
    ) -> Request:
        """Check a run, its streams and the inputs, and read the inputs.

        Raises InvalidConfig, MissingData, UnknownName, BadSample, StorageError or OutOfMemory.
        """
        opened = Run.open(Path(run))
        used = checked_streams(opened, streams)
        provenance = opened.provenance()
        limit_images(ImageLimits.of(provenance.options))
        given = list(inputs) if isinstance(inputs, Sequence) and not isinstance(inputs, str | bytes) else [inputs]
        read = checked_inputs(given, options.images, options.texts, listener)
        registry = discover()
        with missing_plugins(provenance):
            modalities = {ref.alias: registry.backbone(ref.name).modality for ref in provenance.options.streams}
        for one in read:
            try:
                all_of({stream: modalities[stream] for stream in used}, one.modality)
            except InvalidConfig as error:
                raise InvalidConfig(f"{one.modality} {one.shown}: {error.message}", hint=error.hint) from error
        every = {ref.alias: ref for ref in provenance.options.streams}
        return cls(opened, used, every, modalities, read, registry, resolve_device(options.device, listener), listener)

    @property
    def kinds(self) -> list[str]:
        """The modalities of the inputs, each once."""
        return list(dict.fromkeys(one.modality for one in self.inputs))

    @property
    def used(self) -> list[str]:
        """The streams that read one of the inputs."""
        return [stream for stream in self.streams if self.modalities[stream] in self.kinds]

    def load(self, streams: Collection[str]) -> Models:
        """Load the space and the backbones of some of `used`. Raises WeightsUnavailable."""
        from sparc.models import load_models

        return load_models(
            self.run,
            [stream for stream in self.used if stream in streams],
            device=self.device,
            registry=self.registry,
            on_load=self.listener.loading,
        )

    def encoded(self, models: Models) -> list[dict[str, Codes]]:
        """Return for each input its codes by stream, of one row."""
        found: list[dict[str, Codes]] = [{} for _ in self.inputs]
        for kind in self.kinds:
            places = [place for place, one in enumerate(self.inputs) if one.modality == kind]
            codes = models.encode_samples([self.inputs[place].sample for place in places], kind)
            for number, place in enumerate(places):
                found[place] = {stream: code[number : number + 1] for stream, code in codes.items()}
        return found
