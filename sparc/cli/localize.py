"""`sparc localize`: where in an image is what a caption says?"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparc.cli.options import Device
from sparc.cli.progress import console
from sparc.cli.runs import RunPath, dry_warning
from sparc.errors import InvalidConfig
from sparc.session_options import resolve_device
from sparc.storage.run import Run

if TYPE_CHECKING:
    from sparc.localization import Localization, Request

LETTERS, WORDS = 80, 12
"""Of what was looked for, shown at most."""


def localize(
    run: RunPath,
    image: Annotated[
        list[Path] | None, typer.Option("--image", metavar="FILE", help="Image to look in; repeat for more.")
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option("--text", metavar="WORDS", help="What to look for; repeat for more.")
    ] = None,
    latent: Annotated[
        list[str] | None,
        typer.Option("--latent", metavar="N[,N...]", help="A latent to look for, or several together; repeat."),
    ] = None,
    stream: Annotated[
        list[str] | None,
        typer.Option("--stream", metavar="NAME", help="Streams of the run to use; without it, all of them."),
    ] = None,
    method: Annotated[
        str, typer.Option("--method", help="dense: each patch encoded by itself; relevance, grad-cam, layer-cam.")
    ] = "dense",
    selection: Annotated[
        str | None,
        typer.Option(
            "--selection",
            help="joint: image and text, or for latents the image streams, keep the same latents; solo: each its own. "
            "Without it: joint for texts, solo for latents.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Picture to write. Without it: RUN/localize.png."),
    ] = None,
    device: Device = None,
) -> None:
    """Point at words, or at what a latent stands for, in images: each image stream's map, and what carried the match.

    The caption is read by the run's first text stream; an image stream needs no text of its own.

    Examples:

        sparc localize runs/openmoji --image photo.jpg --text "a red bus"

        sparc localize runs/openmoji --image photo.jpg --latent 93 --method grad-cam --out bus.png
    """
    from sparc.localization import draw, load_models
    from sparc.localization import localize as find
    from sparc.localization.picture import save

    path = out if out is not None else run / "localize.png"
    latents = [_numbers(word) for word in latent or []]
    request = _checked(
        run, path, stream, image=image or [], text=text or [], latent=latents, method=method, selection=selection
    )
    models = load_models(run, streams=stream or (), device=resolve_device(device or "auto"))
    found = find(models, request)
    if models.random_weights:
        console.print(dry_warning(list(models.random_weights)), style="bold yellow", markup=False, soft_wrap=True)
    for one in found:
        _print(one)
    save(draw(found), path)
    console.print(str(path), markup=False, soft_wrap=True)


def _checked(run: Path, out: Path, streams: list[str] | None, **given: Any) -> Request:
    """Check what a user may get wrong before models are loaded."""
    from sparc.localization.request import checked_request, checked_streams
    from sparc.plotting.figures import check_name
    from sparc.storage.checkpoint import read_config

    check_name(out)
    checked_streams(Run.open(run), streams or ())
    return checked_request(n_latents=read_config(run).n_latents, **given)


def _numbers(words: str) -> list[int]:
    try:
        return [int(word) for word in words.split(",")]
    except ValueError as error:
        raise InvalidConfig(f"--latent: expected numbers, found '{words}'", hint="such as 93, or 93,107") from error


def _print(one: Localization) -> None:
    where = "nothing of it"
    if one.peak is not None:
        x, y = one.peak
        where = f"strongest at ({x:.0f}, {y:.0f}) of {one.size[0]} x {one.size[1]}, score {one.score:.3f}"
    say = partial(console.print, markup=False, soft_wrap=True)
    say(f"{one.name}  {shorten(str(one.query), LETTERS)}  {one.stream}: {where}")
    for carrier in one.carriers:
        say(f"    latent {carrier.latent:<6} {carrier.share:4.0%}  {carrier.name}")
    if one.words:
        most = sorted(one.words, key=lambda word: -word.relevance)[:WORDS]
        shown = [word for word in one.words if word in most][:WORDS]
        say("    " + "  ".join(f"{word.text} {word.relevance:.0%}" for word in shown))
