"""`sparc encode`: the latents that images and texts activate, for every model."""

from __future__ import annotations

import json
import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparc.cli.options import RunPath, with_options
from sparc.cli.output import PlainConsole
from sparc.cli.output import say as print_line
from sparc.cli.progress import Screen, console
from sparc.config import EncodeOptions

if TYPE_CHECKING:
    from sparc.session.arguments import Argument
    from sparc.session.encoding import EncodedInput

Inputs = Annotated[
    list[str] | None,
    typer.Argument(metavar="INPUT...", help="Images, folders of images, and texts; - reads more from standard input."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, and the progress elsewhere.")]
LEGEND = (
    "%  share of held-out images or texts that activate the latent less",
    "*  active in all streams that read the input",
)
LETTERS = 80
"""Most letters of a text that are printed."""


@with_options(EncodeOptions, without=("features",))
def encode(run: RunPath, given: dict[str, Any], inputs: Inputs = None, as_json: Json = False) -> None:
    """Print the latents that images and texts activate most in each stream, encoded alone.

    An input that names a file or a folder is that. One that looks like a path, with a slash or the end of an image's
    name, must exist. Anything else is a text. --image and --text say what an input is.

    The percentage is the share of the held-out images or texts that activate the latent less. A star marks latents that
    the input activates in all streams that read it.

    Examples:

        sparc encode runs/openmoji photo.jpg "a red bus"

        sparc encode runs/openmoji photos --json

        cat captions.txt | sparc encode runs/openmoji -
    """
    from sparc.session import encode as find
    from sparc.session.verbs import dry_warning

    with screen(as_json=as_json) as listener:
        found = find(run, expanded(inputs), listener=listener, **given)
    if as_json:
        print_json([one.to_json() for one in found.inputs])
        return
    if found.random_weights:
        console.print(dry_warning(found.random_weights), style="bold yellow", markup=False, soft_wrap=True)
    for one in found.inputs:
        _print(one)
    for line in LEGEND:
        print_line(console, line, style="dim")


def screen(*, as_json: bool) -> Screen:
    """Return the listener of a command: JSON has standard output for itself."""
    return Screen(PlainConsole(stderr=True, highlight=False)) if as_json else Screen()


def expanded(inputs: list[str] | None) -> list[Argument]:
    """Return arguments with those of standard input in place of `-`. Raises InvalidConfig if that is empty."""
    from sparc.session.arguments import arguments_in

    found: list[Argument] = []
    for one in inputs or []:
        if one == "-":
            found += arguments_in(sys.stdin.buffer.read() if sys.stdin is not None else b"")
        else:
            found.append(one)
    return found


def print_json(content: Any) -> None:
    """Print JSON in ASCII, which every terminal and pipe passes on."""
    print(json.dumps(content, indent=2))


def _print(one: EncodedInput) -> None:
    from sparc.index.results import plain

    say = partial(print_line, console)
    say(plain(one.shown, LETTERS))
    for stream, active in one.streams.items():
        say(f"  {stream}")
        for latent in active:
            below = "" if latent.percentile is None else f"{latent.percentile:5.1f} %"
            star = "*" if latent.shared else " "
            number = f"latent {latent.latent}"
            say(f"    {number:<13}{latent.activation:6.3f} {below} {star} {plain(latent.name or '', LETTERS)}".rstrip())
        if not active:
            say("    no latent")
