"""The verb `explore`: the site of a run, in its folder `explore`, or its contact sheet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from sparc.config import ExploreOptions, validated
from sparc.config.signatures import ExploreArguments
from sparc.errors import InvalidConfig, MissingData, SparcError
from sparc.session.listener import SILENT, Listener
from sparc.session.options import as_options
from sparc.session.session import Session
from sparc.session.verbs import dry_warning
from sparc.storage.latent_names import LATENTS, read_latent_names
from sparc.storage.space_config import read_config

if TYPE_CHECKING:
    from sparc.explorer.heat import HeatMaps
    from sparc.explorer.shown import Shown
    from sparc.explorer.site import About

SITE = "explore"
"""Folder of the site, in the run."""


def explore(run: str | Path, *, listener: Listener = SILENT, **arguments: Unpack[ExploreArguments]) -> Path:
    """Write the page of a run's latents, as `sparc explore` does, and return the path of its index.html.

    With `sheet`, draw the contact sheet instead and return the picture's path. Raises the SparcError that `sparc
    explore` ends with, such as InvalidConfig or MissingData.
    """
    options = validated(ExploreOptions, as_options(None, arguments, ExploreOptions))
    _check(options)
    session = Session.open(run, options, listener)
    session.check_finished()
    n_latents = read_config(session.run.path).n_latents
    if options.latent is not None and not 0 <= options.latent < n_latents:
        raise InvalidConfig(
            f"latent: expected 0 to {n_latents - 1}, found {options.latent}", hint="choose another --latent"
        )
    if options.sheet:
        return _sheet(session, options)
    return _site(session)


def _check(options: ExploreOptions) -> None:
    """Raise InvalidConfig for options that do not fit each other."""
    out = None if options.out is None else Path(options.out)
    if out is not None and not options.sheet:
        raise InvalidConfig(
            f"--out: expected --sheet with it, found {out} alone",
            hint=f"the page is written into RUN/{SITE}; add --sheet",
        )
    if out is not None and out.suffix.lower() != ".png":
        raise InvalidConfig(f"--out: expected a name that ends in .png, found {out}", hint="a sheet is a PNG")
    places = [name for name in ("latent", "text", "image") if getattr(options, name) is not None]
    if options.sheet and (wrong := [name for name in ("text", "image", "serve") if getattr(options, name)]):
        raise InvalidConfig(f"--{wrong[0]}: expected the page, found --sheet too", hint="remove one of them")
    if len(places) > 1:
        raise InvalidConfig(
            f"expected one place to open the page at, found --{' and --'.join(places)}", hint="give one of them"
        )


def _site(session: Session) -> Path:
    """Write the site of a run, and return the path of its first page."""
    from sparc.explorer.site import INDEX, write_site

    folder, listener = session.run.path / SITE, session.listener
    shown, about = _shown(session), _about(session)
    heat = _heat(session, shown)
    listener.doing(f"writing {folder}")
    for warning in write_site(
        folder, shown, about, heat, lambda what, done, total: listener.progress(f"write {what}", what, done, total)
    ):
        listener.warn(warning)
    return folder / INDEX


def _shown(session: Session) -> Shown:
    """Read and encode the samples that the site shows."""
    import torch

    from sparc.evaluation.encoding import encode
    from sparc.explorer.shown import MOST_SHOWN, Shown, evenly

    data, listener = session.data, session.listener
    places = evenly(len(data.test), MOST_SHOWN)
    space = session.space
    listener.doing(f"encoding {len(places):,} of {len(data.test):,} held-out samples")
    chosen = torch.from_numpy(places)
    features = {name: rows.to(data.device) for name, rows in data.test.some(chosen).items()}
    return Shown(
        encodings=encode(space, {name: features[name] for name in space.streams}),
        dataset=data.dataset,
        places=places,
        rows={name: data.test.rows[name][chosen].numpy() for name in space.streams},
        modalities=_modalities(session),
        stored=read_latent_names(session.run.pictures / LATENTS),
        seed=session.config.seed,
    )


def _modalities(session: Session) -> dict[str, str]:
    jobs = session.data.held_out_jobs
    if session.config.features is not None:  # imported streams have names of their own, and no backbone
        return dict.fromkeys(jobs, "unknown")
    return {name: session.data.registry.backbone(job.stream.name).modality for name, job in jobs.items()}


def _about(session: Session) -> About:
    import sparc
    from sparc.evaluation.report import EvaluationFile
    from sparc.explorer.site import About

    run, data = session.run, session.data
    warnings = []
    if data.test.random_weights:
        warnings.append(dry_warning(data.test.random_weights))
    report = None
    try:
        report = EvaluationFile.read(run.evaluation).report
    except MissingData:
        warnings.append("the run was never evaluated, so the page has no measures: sparc evaluate")
    except SparcError as error:
        warnings.append(f"the page has no measures: {error.message}")
    job = next(iter(data.held_out_jobs.values()))
    return About(
        name=run.path.resolve().name,
        version=sparc.__version__,
        held_out=len(data.test),
        metrics=run.metrics,
        dataset=None if session.config.features is not None else (job.dataset.name, job.split),
        random_weights=tuple(data.test.random_weights),
        report=report,
        warnings=warnings,
    )


def _heat(session: Session, shown: Shown) -> HeatMaps:
    """Compute the heat maps. Without backbones there are none, and a note says why."""
    from sparc.explorer.heat import heat_maps, no_maps

    streams = [name for name in shown.streams if shown.modalities[name] == "image"]
    if not streams:
        return no_maps()
    data, listener = session.data, session.listener
    try:
        from sparc.models import load_models

        models = load_models(
            session.run,
            streams,
            device=data.device,
            space=session.space,
            registry=data.registry,
            on_load=listener.loading,
        )
        return heat_maps(
            shown, models, lambda stream, done, total: listener.progress(f"heat maps {stream}", "images", done, total)
        )
    except Exception as error:  # a plugin's model fails in any way, and the page is worth having without its maps
        said = error.message if isinstance(error, SparcError) else f"{type(error).__name__}: {error}"
        return no_maps()._replace(notes=[f"the page has no heat maps: {said}"])


def _sheet(session: Session, options: ExploreOptions) -> Path:
    """Draw the contact sheet, and return its path."""
    if session.config.features is not None:
        raise MissingData(
            f"{session.run.path} was trained on imported features, without images and captions to draw",
            hint=f"see its latents on a page: sparc explore {session.run.path}",
        )
    data, latent, listener = session.data, options.latent, session.listener
    space = session.space
    listener.doing(f"encoding {len(data.test):,} held-out samples")
    from sparc.explorer.contact_sheet import draw
    from sparc.explorer.meanings import meanings

    held_out = data.held_out
    names = read_latent_names(session.run.pictures / LATENTS)
    found = meanings(space, held_out.features, names, latent=latent, shared=held_out.rows)
    if not found:
        raise MissingData(
            f"no latent is active in several of the {len(data.test)} held-out samples in every stream",
            hint="hold out more samples, train longer, or choose a --latent",
        )
    path = (
        Path(options.out)
        if options.out is not None
        else session.run.path / ("latents.png" if latent is None else f"latent-{latent}.png")
    )
    listener.doing(f"drawing {path}")
    where = next(iter(data.held_out_jobs.values()))
    dry = f"  {dry_warning(data.test.random_weights)}" if data.test.random_weights else ""
    draw(
        found,
        lambda row: data.dataset[row],
        {name: data.registry.backbone(job.stream.name).modality for name, job in data.held_out_jobs.items()},
        path,
        title="One latent, every stream" if latent is not None else "What the latents mean",
        subtitle=f"Held-out samples of {where.dataset.name} ({where.split}), each stream encoded alone.{dry}",
    )
    return path
