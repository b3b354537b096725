"""`sparc explore`: a page of everything that the latents of a run mean, or a picture of a few of them."""

from __future__ import annotations

from typing import Any

from sparc.cli.options import RunPath, with_options
from sparc.cli.progress import Screen, console
from sparc.config import ExploreOptions
from sparc.system.memory import keep_freed_memory


@with_options(ExploreOptions)
def explore(run: RunPath, given: dict[str, Any]) -> None:
    """Write a page of what the latents mean: for each, the held-out samples that activate it in every stream.

    The page is RUN/explore/index.html. It needs no server and no network.

    Examples:

        sparc explore runs/openmoji

        sparc explore runs/openmoji --text "a cat"

        sparc explore runs/openmoji --serve

        sparc explore runs/openmoji --sheet --latent 50 --out latent-50.png
    """
    from sparc.session import explore as write

    keep_freed_memory()
    with Screen() as screen:
        path = write(run, listener=screen, **given)
    console.print(str(path), markup=False, soft_wrap=True)
