"""`sparc doctor`: look at this machine, this installation, and a store."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from sparc.cli.output import say
from sparc.cli.progress import Screen, console

STYLES = {"ok": "", "warning": "yellow", "error": "bold red"}


def doctor(
    store: Annotated[
        Path | None,
        typer.Option(
            "--store",
            metavar="FOLDER",
            help="Verify the features in this folder too: a store, imported features, or one stream.",
        ),
    ] = None,
) -> None:
    """Look at versions, device, memory, caches and plugins, and say what to change. Exits with 1 if something fails.

    With --store, verify features: checksums, ids, manifests and numbers that are not finite, which are errors; and
    constant or duplicated columns and outliers of norms, which are warnings.

    Examples:

        sparc doctor

        sparc doctor --store features
    """
    from sparc.session.doctor import Finding, findings

    failed = _print(findings())
    if store is not None:
        from sparc.storage.verify import stream_directories, verify_stream

        directories = stream_directories(store)
        with Screen() as screen:
            for directory in directories:
                screen.note(f"verify {directory} ...")
                found = verify_stream(directory)
                levels = {True: "error", False: "warning"}
                lines = [Finding(levels[one.is_error], str(directory), one.message, one.hint) for one in found.doubts]
                failed |= _print(lines or [Finding("ok", str(directory), f"{found.samples:,} samples")])
    if failed:
        raise typer.Exit(1)


def _print(found: Iterable[object]) -> bool:
    """Print findings, a line each and a line for what to do. Return True if one is an error."""
    from sparc.session.doctor import Finding

    failed = False
    for one in found:
        assert isinstance(one, Finding)
        say(console, f"{one.level:8} {one.subject}: {one.text}", indent=9, style=STYLES[one.level])
        if one.hint:
            say(console, f"         hint: {one.hint}", indent=6)
        failed |= one.level == "error"
    return failed
