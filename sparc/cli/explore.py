"""`sparc explore`: what the latents of a run mean, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparc.cli.options import DataRoot, Device, StoreNow
from sparc.cli.progress import console
from sparc.cli.runs import RunPath, dry_warning, open_run, space_of
from sparc.errors import InvalidConfig, MissingData
from sparc.session_options import resolve_device


def explore(
    run: RunPath,
    latent: Annotated[
        int | None, typer.Option("--latent", help="One latent; without it, the most telling ones.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Picture to write. Without it: latents.png, or latent-N.png, in the run."),
    ] = None,
    data_root: DataRoot = None,
    store: StoreNow = None,
    device: Device = None,
) -> None:
    """Draw what latents mean: for each stream alone, the held-out samples that activate them most.

    Examples:

        sparc explore runs/openmoji

        sparc explore runs/openmoji --latent 93 --out latent-93.png
    """

    from sparc.explorer.contact_sheet import draw
    from sparc.explorer.meanings import meanings
    from sparc.session_measure import held_out
    from sparc.storage.latent_names import LATENTS, read_latent_names

    if out is not None and out.suffix.lower() != ".png":
        raise InvalidConfig(f"--out: expected a name that ends in .png, found {out}", hint="a sheet is a PNG")
    opened, options, registry, jobs = open_run(run, {"data-root": data_root, "store": store, "device": device})
    if options.features is not None:
        raise MissingData(
            "its features were imported, so there is no image and no caption to show", hint="see its table: sparc info"
        )
    resolved = resolve_device(options.device)
    space = space_of(opened, resolved)
    features, dataset = held_out(options, registry, jobs)
    raw = {name: rows.to(resolved) for name, rows in features.features.items()}
    names = read_latent_names(opened.pictures / LATENTS)
    found = meanings(space, raw, names, latent=latent, shared=features.rows)
    if not found:
        raise MissingData(
            f"no latent is active in several of the {len(features)} held-out samples in every stream",
            hint="hold more samples out, or train longer; or choose --latent",
        )
    default = "latents.png" if latent is None else f"latent-{latent}.png"
    path = out if out is not None else opened.path / default
    where = next(iter(jobs.values()))
    dry = f"  {dry_warning(features.random_weights)}" if features.random_weights else ""
    draw(
        found,
        lambda row: dataset[row],
        {name: registry.backbone(job.stream.name).modality for name, job in jobs.items()},
        path,
        title="One latent, every stream" if latent is not None else "What the latents mean",
        subtitle=f"Held-out samples of {where.dataset.name} ({where.split}), each stream encoded alone.{dry}",
    )
    console.print(str(path), markup=False, soft_wrap=True)
