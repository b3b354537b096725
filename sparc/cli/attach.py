"""`sparc attach` and `sparc detach`: add a stream to a trained space, or take one out."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from sparc.cli.options import RunPath, with_options
from sparc.cli.progress import Screen, console
from sparc.cli.tables.evaluation import print_evaluation
from sparc.cli.train import finish, print_next
from sparc.config import AttachOptions, DetachOptions

SpacePath = Annotated[Path, typer.Argument(metavar="RUN", help="Directory of a run, or of another space.")]
Stream = Annotated[str, typer.Argument(metavar="STREAM", help="Name of the stream in the space.")]


@with_options(AttachOptions)
def attach(run: RunPath, given: dict[str, Any]) -> None:
    """Attach the stream of a new backbone to the space of a run, into a new run. The run itself does not change.

    The latents, and the codes of the old streams, stay as they are, to the bit. An encoder and a decoder of the new
    stream are fitted to the run's training samples: first in closed form, then by training with the run's own options.

    Examples:

        sparc attach runs/photos --stream my-model

        sparc attach runs/photos --stream large=my-model[size=large] --out runs/large
    """
    from sparc.session.attaching import begin_attached

    with Screen() as screen:
        session = begin_attached(run, given, screen)
        finish(session, screen)
    print_evaluation(session.run)
    print_next(session.run)


@with_options(DetachOptions)
def detach(run: SpacePath, stream: Stream, given: dict[str, Any]) -> None:
    """Take a stream out of a space, into a new directory. Trains nothing.

    Without an attached stream, the space is the one that it was attached to, to the bit.

    Examples:

        sparc detach runs/photos-my-model my-model
    """
    from sparc.session import detach as take_out
    from sparc.storage.run import Run

    with Screen() as screen:
        out = take_out(run, stream, listener=screen, **given)
    place = shlex.quote(str(out))
    follows = f"sparc evaluate {place}" if Run(out).begun else f'python -c "import sparc; sparc.load({str(out)!r})"'
    console.print(f"saved in {out}\n\nNext:\n  {follows}", markup=False, soft_wrap=True)
