"""`sparc explore`: a picture of the samples that activate the latents of a run."""

from __future__ import annotations

from typing import Any

from sparc.cli.options import RunPath, with_options
from sparc.cli.progress import Screen, console
from sparc.config import ExploreOptions


@with_options(ExploreOptions, without=("features",))
def explore(run: RunPath, given: dict[str, Any]) -> None:
    """Draw what latents mean: the held-out samples that activate them most, for each stream encoded alone.

    Examples:

        sparc explore runs/openmoji

        sparc explore runs/openmoji --latent 93 --out latent-93.png
    """
    from sparc.session import explore as draw

    with Screen() as screen:
        path = draw(run, listener=screen, **given)
    console.print(str(path), markup=False, soft_wrap=True)
