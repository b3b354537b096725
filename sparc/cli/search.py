"""`sparc search`: images by text, texts by image, images by image across models."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparc.cli.encode import LETTERS, Json, expanded, print_json, screen
from sparc.cli.options import RunPath, with_options
from sparc.cli.output import say as print_line
from sparc.cli.progress import console
from sparc.config import SearchOptions

if TYPE_CHECKING:
    from sparc.index.results import Found

Queries = Annotated[
    list[str] | None,
    typer.Argument(metavar="QUERY...", help="Images, folders of images, and texts; - reads more from standard input."),
]
SHARED = 3
"""Latents that are printed below a hit."""
INDENT, BELOW = 2, 9
"""Columns at which hits, and the lines below them, begin."""
LEGEND = {
    "latents": "score: cosine of the codes; below: the latents that query and hit share, and their parts of the score",
    "cross": "score: cosine of the decoded code with the features",
}


@with_options(SearchOptions, without=("features",))
def search(run: RunPath, given: dict[str, Any], queries: Queries = None, as_json: Json = False) -> None:
    """Find images or texts by a text or an image, among the held-out samples of a run or in a folder.

    Each side is encoded alone, and the score is the cosine of the codes. A query is told to be a file, a folder or a
    text as by `sparc encode`. Below a hit stand the latents that it shares with the query, and their shares of the
    score.

    Examples:

        sparc search runs/openmoji "a red bus"

        sparc search runs/openmoji photo.jpg --find text

        sparc search runs/openmoji photo.jpg --index photos --out found.html
    """
    from sparc.session import search as find
    from sparc.session.verbs import dry_warning

    with screen(as_json=as_json) as listener:
        found = find(run, expanded(queries), listener=listener, **given)
    if as_json:
        print_json([one.to_json() for one in found.found])
        return
    if found.random_weights:
        console.print(dry_warning(found.random_weights), style="bold yellow", markup=False, soft_wrap=True)
    for number, one in enumerate(found.found):
        if number:
            console.print()
        _print(one)
    if found.found:
        print_line(console, LEGEND[found.found[0].by], indent=0, style="dim")
    if found.page is not None:
        console.print(str(found.page), markup=False, soft_wrap=True)


def _print(found: Found) -> None:
    """Print the query, and for each hit its score, name and caption, with the latents on a line of their own."""
    from sparc.index.results import plain

    say = partial(print_line, console)
    say(f"{plain(found.query, LETTERS)}  {found.query_stream} → {found.target_stream}, {found.candidates:,} searched")
    for hit in found.hits:
        words = [plain(text, LETTERS) for text in (hit.name, hit.caption) if text]
        if found.target_modality == "text":
            words.reverse()
        say(f"{'':{INDENT}}{hit.score:.3f}  {'  '.join(words)}", indent=BELOW - INDENT)
        if hit.concepts:
            shared = ", ".join(f"{plain(str(one), LETTERS)} {one.share:.0%}" for one in hit.concepts[:SHARED])
            say(f"{'':{BELOW}}{shared}", indent=0)
    if not found.hits:
        say(f"{'':{INDENT}}nothing shares a latent with the query")
