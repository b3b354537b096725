"""`sparc localize`: where in an image is what a caption says?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sparc.cli.options import Device, resolve_device
from sparc.cli.progress import console
from sparc.cli.runs import RunPath
from sparc.errors import InvalidConfig

if TYPE_CHECKING:
    from sparc.attribute import Localization


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
        str, typer.Option("--selection", help="joint: image and text keep the same latents; solo: each its own.")
    ] = "joint",
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
    from sparc.attribute import draw, load_models
    from sparc.attribute import localize as find
    from sparc.attribute.picture import save

    if selection not in ("joint", "solo"):
        raise InvalidConfig(f"--selection: expected joint or solo, found '{selection}'", hint="leave it out")
    latents = [_numbers(word) for word in latent or []]
    models = load_models(run, streams=stream or (), device=resolve_device(device or "auto"))
    found = find(models, image or [], texts=text or [], latents=latents, method=method, joint=selection == "joint")
    for one in found:
        _print(one)
    path = out if out is not None else run / "localize.png"
    save(draw(found), path)
    console.print(str(path), markup=False, soft_wrap=True)


def _numbers(words: str) -> list[int]:
    try:
        return [int(word) for word in words.split(",")]
    except ValueError as error:
        raise InvalidConfig(f"--latent: expected numbers, found '{words}'", hint="such as 93, or 93,107") from error


def _print(one: Localization) -> None:
    x, y = one.peak
    console.print(
        f"{one.name}  {one.query}  {one.stream}: strongest at ({x:.0f}, {y:.0f}) of {one.size[0]} x {one.size[1]}, "
        f"score {one.score:.3f}",
        markup=False,
        soft_wrap=True,
    )
    for carrier in one.carriers:
        console.print(
            f"    latent {carrier.latent:<6} {carrier.share:4.0%}  {carrier.name}", markup=False, soft_wrap=True
        )
    words = "  ".join(f"{word.text} {word.relevance:.0%}" for word in one.words)
    if words:
        console.print(f"    {words}", markup=False, soft_wrap=True)
