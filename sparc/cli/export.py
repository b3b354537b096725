"""`sparc export`: write one stream of a trained space in the format of another library."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparc.cli.progress import Screen, console
from sparc.config import suggestion
from sparc.errors import InvalidConfig, MissingData, UnknownName
from sparc.interchange import EXPORT_FORMATS, check_new_folder
from sparc.storage.card import without_paths
from sparc.storage.nearby import near_run
from sparc.storage.run import Run
from sparc.storage.space_config import read_config


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Directory of a run or of a space.")],
    format_: Annotated[str, typer.Option("--format", help="saelens: a TopK SAE that SAELens loads from disk.")],
    stream: Annotated[str, typer.Option("--stream", metavar="NAME", help="Stream to export.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="New folder to write.")],
) -> None:
    """Export one stream of a trained space to another library. Latents keep their numbers.

    Example:

        sparc export runs/demo --format saelens --stream NAME --out sae
    """
    if format_ not in EXPORT_FORMATS:
        raise InvalidConfig(
            f"--format: expected {' or '.join(EXPORT_FORMATS)}, found '{format_}'",
            hint=suggestion(format_, [*EXPORT_FORMATS]),
        )
    if not run.is_dir():
        raise MissingData(f"no run at {run}", hint=near_run(run, "give the directory of a run"))
    opened = Run(run)
    made_by = (opened.provenance().streams if opened.begun else {}).get(stream)
    backbone = None
    if made_by is not None:
        backbone = {**made_by.model_dump(), "params": without_paths(made_by.params)}
    if stream not in (known := read_config(run).streams):
        raise UnknownName(f"the space has no stream named '{stream}'", hint=f"its streams: {', '.join(known)}")
    check_new_folder(out)
    with Screen() as screen:
        screen.loading("PyTorch")
        from sparc.interchange.export_saelens import write_saelens
        from sparc.storage.checkpoint import load

        screen.loading(str(run))
        space = load(run)
        screen.doing(f"writing {out}")
        write_saelens(space, stream, out, backbone=backbone)
    console.print(
        f"{out}: stream {stream}, {space.streams[stream]} wide, {space.n_latents} latents, {space.k} kept\n\n"
        f"Next:\n  python -c \"from sae_lens import SAE; print(SAE.load_from_disk('{out}').cfg)\"",
        markup=False,
        soft_wrap=True,
    )
