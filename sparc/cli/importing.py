"""`sparc import`: bring in features that were computed elsewhere, and spaces that were trained elsewhere."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from sparc.cli.progress import Screen, console
from sparc.errors import InvalidConfig

IDS_SHOWN = 5

app = typer.Typer(help="Import features, or a space, that other code computed.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Import features, or a space, that other code computed."""


@app.command("features")
def import_features(
    stream: Annotated[
        list[str], typer.Option("--stream", metavar="NAME=FILE", help="Features of a stream; repeat for more.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder to write, for `sparc train --features`.")],
    ids: Annotated[
        Path | None, typer.Option("--ids", help="Ids of the rows, one per line, for files without ids.")
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", help="train or test: the split of these samples. Default: drawn by id.")
    ] = None,
    holdout: Annotated[
        float,
        typer.Option("--holdout", min=0.0, max=1.0, help="Fraction of samples drawn for testing, without --split."),
    ] = 0.2,
) -> None:
    """Import features as .npy, .npz, .safetensors, Parquet or HDF5, joined by the ids of their samples.

    A file holds `features` of shape (samples, width), and `ids` or `indices` of shape (samples). For files without ids,
    use --ids.

    Examples:

        sparc import features --stream a=a.h5 --stream b=b.npz --out imported

        sparc import features --stream a=a.npy --stream b=b.npy --ids ids.txt --split train --out imported
    """
    from sparc.interchange import SPLITS
    from sparc.interchange.feature_files import open_source

    if split is not None and split not in SPLITS:
        raise InvalidConfig(f"--split: expected train or test, found '{split}'", hint="--split train")
    with contextlib.ExitStack() as stack, Screen() as screen:
        sources = {}
        for one in stream:
            name, equals, file = one.partition("=")
            if not (equals and file) or name != Path(name).name or name in ("..", "."):
                raise InvalidConfig(f"--stream: expected NAME=FILE, found '{one}'", hint="--stream a=a.npz")
            if name in sources:
                raise InvalidConfig(f"--stream: found '{name}' twice", hint="give one file per stream")
            screen.doing(f"reading the ids of {file}")
            sources[name] = stack.enter_context(open_source(Path(file).expanduser(), ids))
        screen.loading("PyTorch")
        from sparc.interchange.import_features import import_features as write

        screen.doing(f"writing {', '.join(sources)} into {out}")
        written = write(sources, out, split=split, holdout=holdout)
    for imported in written:
        console.print(f"{imported.split}: {imported.samples} samples", markup=False)
        for name, lacking in imported.lacking.items():
            if lacking:
                some = ", ".join(lacking[:IDS_SHOWN]) + (", ..." if len(lacking) > IDS_SHOWN else "")
                console.print(
                    f"[yellow]{len(lacking)} samples lack {escape(name)}: {escape(some)}[/yellow]", soft_wrap=True
                )
    lacking_split = next((name for name in SPLITS if not (out / name).is_dir()), None)
    follows = (
        f"sparc train --features {out}"
        if lacking_split is None
        else f"sparc import features --split {lacking_split} --out {out} ..."
    )
    console.print(f"\nNext:\n  {follows}", markup=False, soft_wrap=True)


@app.command("checkpoint")
def import_checkpoint(
    file: Annotated[Path, typer.Argument(metavar="FILE.pth", help="Checkpoint of the paper's research code.")],
    run_config: Annotated[Path, typer.Argument(metavar="RUN_CONFIG.json", help="Its configuration file.")],
    out: Annotated[Path, typer.Option("--out", help="New folder for the space.")],
) -> None:
    """Import a space that the paper's research code trained. On the same features it gives the same codes.

    Example:

        sparc import checkpoint last.pth run_config.json --out spaces/paper
    """
    from sparc.interchange.import_checkpoint import read_research_checkpoint
    from sparc.storage.run import Run

    Run.check_free(out)
    with Screen() as screen:
        screen.loading(f"PyTorch and {file}")
        space = read_research_checkpoint(file, run_config)
        screen.doing(f"writing {out}")
        space.save_pretrained(out)
    streams = ", ".join(f"{name} {width}" for name, width in space.streams.items())
    console.print(
        f"{out}: {space.n_latents} latents, {space.k} kept, {space.selection} selection; streams {streams}\n\n"
        f"Next:\n  python -c \"import sparc; print(sparc.load('{out}').streams)\"",
        markup=False,
        soft_wrap=True,
    )
