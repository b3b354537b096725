"""`localize`: find words, or what latents stand for, in images."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from sparc.config import LocalizeOptions, PluginRef, RunConfig, validated
from sparc.config.options import MeasureOptions
from sparc.config.references import parsed_streams
from sparc.config.signatures import LocalizeArguments
from sparc.errors import InvalidConfig, MissingData, SparcError, UnknownName
from sparc.localization.request import Request, check_modalities, checked_request, paired_request
from sparc.models.streams import checked_streams
from sparc.plotting.figures import check_name
from sparc.plugins.images import ImageLimits, limit_images
from sparc.plugins.registry import discover
from sparc.session.data import resolve_device
from sparc.session.files import check_output
from sparc.session.listener import SILENT, Listener
from sparc.session.options import as_options
from sparc.session.other_data import extract_held_out, open_measured
from sparc.session.session import missing_plugins
from sparc.storage.run import Run
from sparc.storage.space_config import read_config
from sparc.system.brief import Brief

if TYPE_CHECKING:
    from sparc.localization import HeldOutImages, Localization


@dataclass(frozen=True, repr=False)
class Localized(Brief):
    """Maps of each query in each image stream, and the picture of all maps."""

    maps: list[Localization]
    picture: Path
    random_weights: list[str]
    """Streams with random weights; their maps say nothing about the models."""


def localize(run: str | Path, *, listener: Listener = SILENT, **arguments: Unpack[LocalizeArguments]) -> Localized:
    """Find words, or what latents stand for, in images, and draw the maps, as `sparc localize` does.

    The score of each query is compared with its scores on the run's held-out images. Raises the SparcError that
    `sparc localize` ends with, such as InvalidConfig for `layers` with another method than `relevance`.
    """
    options = validated(LocalizeOptions, as_options(None, arguments, LocalizeOptions))
    if options.layers is not None and options.method != "relevance":
        raise InvalidConfig(
            f"--layers: expected --method relevance, found {options.method}, which goes through no layers",
            hint="add --method relevance, or leave --layers out",
        )
    opened = Run.open_space(Path(run))
    path = Path(options.out) if options.out is not None else opened.path / "localize.png"
    check_name(path)
    if options.out is not None:
        check_output(path, options.image, listener)
    streams = _backbones(opened, options)
    limit_images(ImageLimits.of(opened.provenance().options if opened.begun else RunConfig()))
    request = _request(options, read_config(opened.path).n_latents)
    registry = discover()
    with missing_plugins(opened.provenance()) if opened.begun else contextlib.nullcontext():
        modalities = {name: registry.backbone(ref.name).modality for name, ref in streams.items()}
    check_modalities(request, modalities)
    seen = {name: streams[name] for name, reads in modalities.items() if reads == "image"}
    held_out = _held_out(opened, options, seen, listener)
    device = resolve_device(options.device, listener)
    from sparc.localization import draw
    from sparc.localization import localize as find
    from sparc.localization.picture import save
    from sparc.models import load_models

    models = load_models(opened, streams, device=device, registry=registry, on_load=listener.loading)
    found = find(
        replace(models, layers=options.layers),
        request,
        lambda done, total, part: listener.progress("localize", "maps", done, total, part),
        held_out,
    )
    listener.doing(f"drawing {path}")
    save(draw(found, scale=options.scale), path)
    return Localized(found, path, list(models.random_weights))


def _request(options: LocalizeOptions, n_latents: int) -> Request:
    """Return what to look for in which images, decoded. Raises as `checked_request` and `paired_request`."""
    if not options.pair:
        return checked_request(
            options.images,
            n_latents=n_latents,
            text=options.text,
            latent=options.latents,
            method=options.method,
            selection=options.selection,
        )
    if options.latents:
        raise InvalidConfig(
            "--pair: expected pairs of --image and --text, found --latent too", hint="look for latents without --pair"
        )
    return paired_request(options.images, options.text, method=options.method, selection=options.selection)


def _backbones(run: Run, options: LocalizeOptions) -> dict[str, PluginRef]:
    """Return the backbones of a run by stream, or those that the options give for streams of an imported space.

    Raises as `checked_streams`, and UnknownName for a stream that the space does not have.
    """
    if run.begun:
        return checked_streams(run, options.stream)
    space = read_config(run.path).streams
    try:
        given = {ref.alias: ref for ref in parsed_streams(options.stream)}
    except ValueError as error:
        raise InvalidConfig(f"--stream: {error}", hint="--stream STREAM=BACKBONE") from error
    if unknown := [name for name in given if name not in space]:
        raise UnknownName(
            f"the space has no stream named '{unknown[0]}'", hint=f"--stream {next(iter(space))}={unknown[0]}"
        )
    if not given:
        raise MissingData(
            f"{run.path} is an imported space, whose backbones are not known",
            hint=f"name those to use: {' '.join(f'--stream {name}=BACKBONE' for name in space)}",
        )
    return given


def _held_out(
    run: Run, options: LocalizeOptions, streams: Mapping[str, PluginRef], listener: Listener
) -> HeldOutImages:
    """Open the held-out features of a run, or of the dataset that the options name, to compare scores with.

    Without them the maps are drawn all the same, and a note says why nothing is compared. Raises SparcError if the
    options name a place where they are not.
    """
    from sparc.localization.held_out import NO_IMAGES, held_out_images

    places = {name: getattr(options, name) for name in ("dataset", "data_root", "features", "store", "device")}
    if not run.begun:
        places["stream"] = tuple(streams.values())
    try:
        measured = validated(MeasureOptions, {name: place for name, place in places.items() if place is not None})
        session = open_measured(run.path, measured, listener, streams=streams)
        extract_held_out(session)
        return held_out_images(session.data.test, list(streams))
    except SparcError as error:
        if any(places[name] is not None for name in ("dataset", "data_root", "features", "store")):
            raise
        listener.note(f"scores are compared with no held-out images: {error.message} ({error.hint})")
        return NO_IMAGES
