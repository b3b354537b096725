"""`sparc complete`: let a space guess the streams that a sample lacks."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from sparc.cli.options import with_options
from sparc.cli.progress import Screen, console
from sparc.config import CompleteOptions

SpacePath = Annotated[Path, typer.Argument(metavar="SPACE", help="Directory of a run, or of another space.")]


@with_options(CompleteOptions)
def complete(space: SpacePath, given: dict[str, Any]) -> None:
    """Let a space guess the streams that a sample lacks, from the covariance of its training features. Trains nothing.

    `sparc train` does so by itself. This is for spaces that have no completion: those of --recipe paper, and imported
    ones. Encoding all streams of a sample together stays the same.

    Examples:

        sparc complete runs/paper

        sparc complete spaces/imported --features features
    """
    from sparc.session import complete as fit
    from sparc.storage.run import Run

    with Screen() as screen:
        found = fit(space, listener=screen, **given)
    place = shlex.quote(str(space))
    follows = f"sparc evaluate {place}" if Run(space).begun else f'python -c "import sparc; sparc.load({str(space)!r})"'
    console.print(
        f"{found.path}: rank {found.rank}, fitted to {found.samples:,} training samples\n\nNext:\n  {follows}",
        markup=False,
        soft_wrap=True,
    )
