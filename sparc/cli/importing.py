"""`sparc import`: bring in features that were computed elsewhere, and spaces that were trained elsewhere."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from sparc.cli.options import with_options
from sparc.cli.progress import Screen, console
from sparc.config.options import Location, Options, option
from sparc.config.references import check_stream_names
from sparc.errors import InvalidConfig

if TYPE_CHECKING:
    from sparc.interchange.import_features import ImportedSplit
    from sparc.interchange.sample_labels import Labelling

IDS_SHOWN = 5

app = typer.Typer(help="Import features, or a space, that other code computed.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Import features, or a space, that other code computed."""


class KeyOptions(Options):
    """Names of arrays in files: `KEY` for all streams, or `NAME=KEY` for one."""

    features_key: Sequence[str] = option(
        (), "Name of the features in the files, or in those of a stream; repeat for more.", metavar="[NAME=]KEY"
    )
    ids_key: Sequence[str] = option(
        (), "Name of the ids in the files, or in those of a stream; repeat for more.", metavar="[NAME=]KEY"
    )


class LabelOptions(KeyOptions):
    """Names of arrays, and files of labels."""

    labels: Location | None = option(
        None,
        "Labels of the samples: columns id and labels (a;b) of a .csv, .tsv or .jsonl, or an object in .json.",
        example="labels.csv",
    )
    taxonomy: Location | None = option(
        None,
        "JSON file with the parents of each label. Default: all labels are roots; only with --labels.",
        example="taxonomy.json",
    )


@app.command("features")
@with_options(LabelOptions)
def import_features(
    given: dict[str, Any],
    stream: Annotated[
        list[str],
        typer.Option("--stream", metavar="NAME=PATH", help="File or folder of features of a stream; repeat for more."),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder to write, for `sparc train --features`.")],
    ids: Annotated[
        Path | None,
        typer.Option("--ids", help="Ids as text, .npy, .json or .csv, for files without ids or with positions."),
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", help="train or test: the split of these samples. Default: drawn by id.")
    ] = None,
    holdout: Annotated[
        float,
        typer.Option("--holdout", min=0.0, max=1.0, help="Fraction of samples drawn for testing, without --split."),
    ] = 0.2,
) -> None:
    """Import features as .npy, .npz, .safetensors, .pt, Parquet or HDF5, joined by the ids of their samples.

    A file holds `features` of shape (samples, width), and `ids` or `indices` of shape (samples). For files without ids,
    use --ids. `indices` are positions in a split: --split makes them ids, such as train/0, or they number the lines of
    --ids. A folder holds the parts of one array, such as img_emb_0.npy and img_emb_1.npy.

    Examples:

        sparc import features --stream a=a.h5 --stream b=b.npz --out imported

        sparc import features --stream a=a.npy --stream b=b.npy --ids ids.txt --split train --out imported

        sparc import features --stream a=a.h5 --stream b=b.npz --labels labels.csv --out imported
    """
    from sparc.interchange import SPLITS
    from sparc.interchange.feature_files import Keys, open_source

    if split is not None and split not in SPLITS:
        raise InvalidConfig(f"--split: expected train or test, found '{split}'", hint="--split train")
    if "taxonomy" in given and "labels" not in given:
        raise InvalidConfig("--taxonomy: expected --labels too, found none", hint="add --labels FILE")
    files = _files_by_stream(stream)
    features_keys = _by_stream("features-key", given, files)
    ids_keys = _by_stream("ids-key", given, files)
    with Screen() as screen:
        sources = {}
        for name, path in files.items():
            screen.doing(f"reading the ids of {path}")
            sources[name] = open_source(path, ids, Keys(features_keys.get(name), ids_keys.get(name)))
        if ids is not None and not any(source.from_lines for source in sources.values()):
            raise _ids_twice(files)
        labels = _labelling(given)
        screen.loading("PyTorch")
        from sparc.interchange.import_features import import_features as write

        screen.doing(f"writing {', '.join(sources)} into {out}")
        written = write(sources, out, split=split, holdout=holdout, labels=labels)
    for imported in written:
        _print_imported(imported)
    _print_next(out)


def _ids_twice(files: Mapping[str, Path]) -> InvalidConfig:
    """Return the error of ids beside files that have their own."""
    return InvalidConfig(
        f"--ids: expected files without ids, or with positions, found ids in {', '.join(map(str, files.values()))}",
        hint="leave --ids out, or remove the ids from the files",
    )


def _labelling(given: Mapping[str, Any]) -> Labelling | None:
    """Read the labels and their taxonomy; None without labels. Raises as `read_labels` and `labelling`."""
    if "labels" not in given:
        return None
    from sparc.interchange.sample_labels import labelling, read_labels

    taxonomy = Path(given["taxonomy"]).expanduser() if "taxonomy" in given else None
    return labelling(read_labels(Path(given["labels"]).expanduser()), taxonomy)


def _print_next(out: Path) -> None:
    """Print the command that may follow: the import of the split that is missing, else a training."""
    from sparc.interchange import SPLITS

    lacking_split = next((name for name in SPLITS if not (out / name).is_dir()), None)
    place = shlex.quote(str(out))
    follows = (
        f"sparc train --features {place}"
        if lacking_split is None
        else f"sparc import features --split {lacking_split} --out {place} ..."
    )
    console.print(f"\nNext:\n  {follows}", markup=False, soft_wrap=True)


def _files_by_stream(stream: list[str]) -> dict[str, Path]:
    """Split each NAME=PATH. Raises InvalidConfig for another form, and for names that streams cannot have."""
    files: dict[str, Path] = {}
    for one in stream:
        name, equals, file = one.partition("=")
        if not (equals and file):
            raise InvalidConfig(f"--stream: expected NAME=PATH, found '{one}'", hint="--stream a=a.npz")
        if name in files:
            raise InvalidConfig(f"--stream: found '{name}' twice", hint="give one file or folder per stream")
        files[name] = Path(file).expanduser()
    try:
        check_stream_names(list(files))
    except ValueError as error:
        raise InvalidConfig(f"--stream: {error}", hint="--stream NAME=PATH") from error
    return files


def _print_imported(imported: ImportedSplit) -> None:
    """Print the samples of a split, and those that a stream lacks."""
    labelled = "" if imported.labelled is None else f", {imported.labelled} with labels"
    console.print(f"{imported.split}: {imported.samples} samples{labelled}", markup=False)
    for name, lacking in imported.lacking.items():
        if lacking:
            some = ", ".join(lacking[:IDS_SHOWN]) + (", ..." if len(lacking) > IDS_SHOWN else "")
            console.print(
                f"[yellow]{len(lacking)} samples lack {escape(name)}: {escape(some)}[/yellow]", soft_wrap=True
            )


def _by_stream(name_of_option: str, given: Mapping[str, Sequence[str]], streams: Collection[str]) -> dict[str, str]:
    """Return the key of each stream."""
    found: dict[str, str] = {}
    own: dict[str, str] = {}
    for one in given.get(name_of_option, ()):
        name, equals, key = one.partition("=")
        if not equals:
            found = dict.fromkeys(streams, one)
        elif name in streams:
            own[name] = key
        else:
            raise InvalidConfig(f"--{name_of_option}: no stream '{name}'", hint=f"streams: {', '.join(streams)}")
    return found | own


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
    from sparc.system.locks import owned

    Run.check_free(out)
    with Screen() as screen:
        screen.loading(f"PyTorch and {file}")
        space = read_research_checkpoint(file, run_config)
        screen.doing(f"writing {out}")
        with owned(out, "wait until it ends; or choose another --out"):
            Run.create(out)  # removes what an import that was killed has left
            space.save_pretrained(out)
    streams = ", ".join(f"{name} {width}" for name, width in space.streams.items())
    console.print(
        f"{out}: {space.n_latents} latents, {space.k} kept, {space.selection} selection; streams {streams}\n\n"
        f"Next:\n  sparc evaluate {shlex.quote(str(out))} --features FOLDER\n"
        f"  python -c \"import sparc; print(sparc.load('{out}').streams)\"",
        markup=False,
        soft_wrap=True,
    )
