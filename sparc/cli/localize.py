"""`sparc localize`: find in an image the regions that match a text or a latent."""

from __future__ import annotations

from functools import partial
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from sparc.cli.options import RunPath, with_options
from sparc.cli.output import say as print_line
from sparc.cli.progress import Screen, console
from sparc.config import LocalizeOptions

if TYPE_CHECKING:
    from sparc.localization import Localization

LETTERS, WORDS = 80, 12
"""Most letters and words of a query that are printed."""


@with_options(LocalizeOptions)
def localize(run: RunPath, given: dict[str, Any]) -> None:
    """Find words, or what a latent stands for, in images: one map per image stream, and the latents behind the match.

    The run's first text stream encodes the words, so an image stream needs no text encoder of its own.

    Examples:

        sparc localize runs/openmoji --image photo.jpg --text "a red bus"

        sparc localize runs/openmoji --image photo.jpg --latent 50 --method grad-cam --out bus.png

        sparc localize runs/openmoji --pair --image one.jpg --text "a bus" --image two.jpg --text "a cat"
    """
    from sparc.session import localize as find
    from sparc.session.verbs import dry_warning

    with Screen() as screen:
        found = find(run, listener=screen, **given)
    if found.random_weights:
        console.print(dry_warning(found.random_weights), style="bold yellow", markup=False, soft_wrap=True)
    for one in found.maps:
        _print(one)
    console.print(str(found.picture), markup=False, soft_wrap=True)


def _print(one: Localization) -> None:
    where = "no match"
    if one.peak is not None:
        x, y = one.peak
        where = f"strongest at ({x:.0f}, {y:.0f}) of {one.size[0]} x {one.size[1]}, score {one.score:.3f}"
    say = partial(print_line, console)
    say(f"{one.name}  {shorten(str(one.query), LETTERS)}  {one.stream}: {where}")
    if (there := one.standing) is not None:
        say(f"    {there.words}; percentile {there.percentile:.1f}, by chance {there.chance:.2g} of the time")
    for carrier in one.carriers:
        say(f"    latent {carrier.latent:<6} {carrier.share:4.0%}  {carrier.name}")
    if one.words:
        most = sorted(one.words, key=lambda word: -word.relevance)[:WORDS]
        shown = [word for word in one.words if word in most][:WORDS]
        rest = f"  and {len(one.words) - len(shown)} weaker words" if len(shown) < len(one.words) else ""
        say("    " + "  ".join(f"{word.text} {word.relevance:.0%}" for word in shown) + rest)
