"""The verb `explore`: the site of a run, in its folder `explore`, or its contact sheet."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Unpack
from urllib.parse import quote

from sparc.config import ExploreOptions, validated
from sparc.config.signatures import ExploreArguments
from sparc.errors import InvalidConfig, MissingData, SparcError
from sparc.models.inputs import checked_text, decoded, image_sample
from sparc.models.streams import all_of
from sparc.plugins.contracts import Sample
from sparc.session.files import check_output
from sparc.session.listener import SILENT, Listener
from sparc.session.options import as_options
from sparc.session.other_data import extract_held_out, open_measured
from sparc.session.session import Session
from sparc.session.verbs import dry_warning
from sparc.storage.belonging import doubt_about_log
from sparc.storage.latent_names import LATENTS, read_latent_names
from sparc.storage.provenance import DISTRIBUTION, library_versions
from sparc.storage.space_config import COMPLETION, CONFIG, read_config
from sparc.storage.weight_files import weight_files
from sparc.system.refusals import reading

if TYPE_CHECKING:
    from sparc.explorer.heat import HeatMaps
    from sparc.explorer.shown import Shown
    from sparc.explorer.site import About
    from sparc.models import Models
    from sparc.storage.latent_names import LatentName

SITE = "explore"
"""Folder of the site, in the run."""
MOST_ACTIVATED = 64
"""Latents that the page is filtered to."""


def explore(run: str | Path, *, listener: Listener = SILENT, **arguments: Unpack[ExploreArguments]) -> Path:
    """Write the page of a run's latents, as `sparc explore` does, and return the path of its index.html.

    With `sheet`, draw the contact sheet instead and return the picture's path. With `serve`, return after Ctrl-C.
    Raises the SparcError that `sparc explore` ends with, such as InvalidConfig or MissingData.
    """
    options = validated(ExploreOptions, as_options(None, arguments, ExploreOptions))
    _check(options, listener)
    session = open_measured(run, options, listener)
    session.check_finished()
    extract_held_out(session)
    n_latents = read_config(session.run.path).n_latents
    if options.latent is not None and not 0 <= options.latent < n_latents:
        raise InvalidConfig(
            f"latent: expected 0 to {n_latents - 1}, found {options.latent}", hint="choose another --latent"
        )
    if options.sheet:
        return _sheet(session, options)
    exploring = _Exploring(session)
    fragment = exploring.fragment(options)
    path = exploring.write(anew=not fragment and not options.serve)
    if options.serve:
        from sparc.explorer.serving import serve

        serve(path.parent, lambda address: listener.note(f"serving {address}{fragment}  until Ctrl-C"))
    else:
        listener.note(f"open {path.resolve().as_uri()}{fragment}")
    return path


def _check(options: ExploreOptions, listener: Listener) -> None:
    """Raise InvalidConfig for options that do not fit each other."""
    out = None if options.out is None else Path(options.out)
    if out is not None and not options.sheet:
        raise InvalidConfig(
            f"--out: expected --sheet with it, found {out} alone", hint=f"the page is in RUN/{SITE}; add --sheet"
        )
    if out is not None and out.suffix.lower() != ".png":
        raise InvalidConfig(f"--out: expected a name that ends in .png, found {out}", hint="a sheet is a PNG")
    if out is not None:
        check_output(out, options.image, listener)
    if options.text is not None and not options.text.strip():
        raise InvalidConfig("--text: expected words, found an empty text", hint="say what to look for")
    places = [name for name in ("latent", "text", "image") if getattr(options, name) is not None]
    wrong = [name for name in ("text", "image", "serve") if getattr(options, name)]
    if options.sheet and wrong:
        raise InvalidConfig(f"--{wrong[0]}: expected the page, found --sheet too", hint="remove one of them")
    if len(places) > 1:
        raise InvalidConfig(
            f"expected one place to open the page at, found --{' and --'.join(places)}", hint="give one of them"
        )


class _Exploring:
    """The writing of one run's site."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._modalities = _modalities(session)

    def fragment(self, options: ExploreOptions) -> str:
        """Return the part of the page's address that names a place on it; empty for its beginning.

        Raises InvalidConfig for a text or an image that no stream reads, MissingData, BadSample, WeightsUnavailable.
        """
        if options.latent is not None:
            return f"#/latent/{options.latent}"
        if options.text is not None:
            text = checked_text(options.text)
            why, sample, modality = f'text "{text}"', Sample("the text", caption=text), "text"
        elif options.image is not None:
            sample, modality = image_sample(options.image), "image"
            why = f"image {Path(options.image).name}"
        else:
            return ""
        streams = all_of({name: self._modalities[name] for name in self._session.backbones()}, modality)
        if modality == "image":
            sample = decoded(sample)
            models = self.image_models
        else:
            models = self._load(streams)
        shares: Counter[int] = Counter()
        for codes in models.encode_samples([sample], modality).values():
            values, indices = codes.values[0].tolist(), codes.indices[0].tolist()
            total = sum(values) or 1.0
            shares.update({latent: value / total for latent, value in zip(indices, values, strict=True) if value > 0})
        strongest = sorted(shares, key=lambda latent: (-shares[latent], latent))[:MOST_ACTIVATED]
        return f"#/latents?only={','.join(map(str, strongest))}&why={quote(why, safe='', errors='replace')}"

    def write(self, *, anew: bool) -> Path:
        """Write the site, unless it is there, is of this run as it is now, and need not be written `anew`."""
        from sparc.explorer.site import INDEX, check_replaceable, is_made_of, write_site

        session = self._session
        folder, listener = session.results.path / SITE, session.listener
        about = _about(session)
        if anew or not is_made_of(folder, about.made_of):
            check_replaceable(folder)
            shown = _shown(session, self._modalities)
            heat = self._heat(shown)
            listener.doing(f"writing {folder}")
            for warning in write_site(
                folder, shown, about, heat, lambda what, done, total: listener.progress("write", what, done, total)
            ):
                listener.warn(warning)
        return folder / INDEX

    @cached_property
    def image_models(self) -> Models:
        """The run's space and the backbones of its image streams."""
        return self._load([name for name, modality in self._modalities.items() if modality == "image"])

    def _load(self, streams: list[str]) -> Models:
        from sparc.models import load_models

        session = self._session
        backbones = session.backbones()
        return load_models(
            session.run,
            {name: backbones[name] for name in streams},
            device=session.data.device,
            space=session.space,
            registry=session.data.registry,
            on_load=session.listener.loading,
        )

    def _heat(self, shown: Shown) -> HeatMaps:
        """Compute the heat maps. Without backbones there are none, and a note says why."""
        from sparc.explorer.heat import heat_maps, no_maps

        if "image" not in self._modalities.values():
            return no_maps()
        listener = self._session.listener
        try:
            return heat_maps(
                shown,
                self.image_models,
                lambda stream, done, total: listener.progress(f"heat maps {stream}", "images", done, total),
            )
        except Exception as error:  # a plugin's model fails in any way, and the page is worth having without its maps
            said = error.message if isinstance(error, SparcError) else f"{type(error).__name__}: {error}"
            return no_maps()._replace(notes=[f"the page has no heat maps: {said}"])


def _shown(session: Session, modalities: dict[str, str]) -> Shown:
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
        modalities=modalities,
        stored=_names(session),
        seed=session.config.seed,
    )


def _names(session: Session) -> Mapping[int, LatentName]:
    """Return the names of latents that an evaluation on these data found, else one on the run's own data."""
    return read_latent_names(session.results.pictures / LATENTS) or read_latent_names(session.run.pictures / LATENTS)


def _modalities(session: Session) -> dict[str, str]:
    jobs = session.data.held_out_jobs
    if session.config.features is not None:  # imported streams have names of their own, and no backbone
        return dict.fromkeys(jobs, "unknown")
    return {name: session.data.registry.backbone(job.stream.name).modality for name, job in jobs.items()}


def _about(session: Session) -> About:
    from sparc.evaluation.report import EvaluationFile
    from sparc.explorer.site import About

    run, data = session.run, session.data
    warnings = []
    if data.test.random_weights:
        warnings.append(dry_warning(data.test.random_weights))
    if (doubt := doubt_about_log(run.path)) is not None:
        warnings.append(f"{doubt}, and so are the training curves")
    report = None
    try:
        report = EvaluationFile.read(session.results.evaluation).report
    except MissingData:
        warnings.append("the run was never evaluated, so the page has no measures: sparc evaluate")
    except SparcError as error:
        warnings.append(f"the page has no measures: {error.message}")
    job = next(iter(data.held_out_jobs.values()))
    return About(
        name=run.path.resolve().name + ("" if session.other is None else f" on {session.other}"),
        version=library_versions().get(DISTRIBUTION, ""),
        held_out=len(data.test),
        metrics=run.metrics,
        dataset=None if session.config.features is not None else (job.dataset.name, job.split),
        random_weights=tuple(data.test.random_weights),
        report=report,
        warnings=warnings,
        made_of=_made_of(session),
    )


def _made_of(session: Session) -> str:
    """Return a digest of what the site is made of: sizes and times of the run's files, and the version of sparc."""
    from sparc.explorer.site import page_digest

    run = session.run
    parts = [library_versions().get(DISTRIBUTION, ""), page_digest()]
    files = [run.path / CONFIG, *weight_files(run.path), run.path / COMPLETION]
    names = [one.pictures / LATENTS for one in (session.results, run)]
    for path in [*files, session.results.evaluation, *names, run.metrics]:
        with reading(path):
            found = path.stat() if path.is_file() else None
        parts.append(f"{path.name} {found.st_size} {found.st_mtime_ns}" if found is not None else path.name)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


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
    names = _names(session)
    found = meanings(space, held_out.features, names, latent=latent, shared=held_out.rows)
    if not found:
        raise MissingData(
            f"no latent is active in several of the {len(data.test)} held-out samples in every stream",
            hint="hold out more samples, train longer, or choose a --latent",
        )
    name = "latents.png" if latent is None else f"latent-{latent}.png"
    path = Path(options.out) if options.out is not None else session.results.path / name
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
