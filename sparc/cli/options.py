"""What the user may say about a run, and how the command line, a config file and a dataset's defaults come together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparc.config import OPTION_NAMES, PluginRef, RunOptions, read_options, validated
from sparc.errors import InvalidConfig, PluginError
from sparc.hub import cache_dir

if TYPE_CHECKING:
    from sparc.extract import How, Job
    from sparc.plugins import Registry
    from sparc.run import Run

PLACES = ("data-root", "features", "store", "device")
"""Options that say where things are, and nothing about a run."""
DEFAULT_DATASET = "openmoji"
"""The embedded demo: what `sparc train` uses where no dataset is named."""

Streams = Annotated[
    list[str] | None,
    typer.Option(
        "--stream",
        metavar="NAME[KEY=VALUE,...]",
        help="Backbone of a stream; repeat for more. 'other=NAME[...]' gives the stream another name.",
    ),
]
Dataset = Annotated[
    str | None, typer.Option("--dataset", metavar="NAME", help=f"Dataset. Without it: {DEFAULT_DATASET}, the demo.")
]
DataRoot = Annotated[Path | None, typer.Option("--data-root", help="Folder of the dataset.")]
Features = Annotated[
    Path | None,
    typer.Option("--features", help="Folder that `sparc import features` wrote, instead of a dataset and backbones."),
]
Store = Annotated[
    Path | None,
    typer.Option("--store", help="Where features are kept. Without it: $SPARC_CACHE, else ~/.cache/sparc."),
]
StoreNow = Annotated[
    Path | None, typer.Option("--store", help="Where features are kept now. Without it: where they were for the run.")
]
Device = Annotated[str | None, typer.Option("--device", help="auto (CUDA where it is), cpu, cuda, cuda:1, ...")]
SkipBad = Annotated[
    bool | None, typer.Option("--skip-bad", help="Go on without images that do not decode and empty captions.")
]
Precision = Annotated[
    str | None, typer.Option("--precision", help="Of the backbones' products: float32, bfloat16, float16.")
]
StoreDtype = Annotated[str | None, typer.Option("--store-dtype", help="Of features in the store: float32, float16.")]
Compile = Annotated[bool | None, typer.Option("--compile", help="Compile the backbones with torch.compile first.")]
Config = Annotated[
    Path | None, typer.Option("--config", help="TOML file with any of these options, by name, without the dashes.")
]
Out = Annotated[
    Path | None, typer.Option("--out", help="New directory of the run. Without it: runs/DATASET, or -2, -3, ...")
]
NLatents = Annotated[int | None, typer.Option("--n-latents", help="Latents shared by all streams (L); paper: 8192.")]
K = Annotated[int | None, typer.Option("--k", help="Latents kept per sample; paper: 64.")]
Selection = Annotated[
    str | None, typer.Option("--selection", help="global: one index set per sample; local: each stream its own.")
]
Normalization = Annotated[
    str | None, typer.Option("--normalization", help="Of raw features: unit (norm per sample), standard, none.")
]
Lambda = Annotated[float | None, typer.Option("--lambda", help="Weight of the cross-reconstruction loss; paper: 1.")]
Epochs = Annotated[int | None, typer.Option("--epochs", help="Passes over the training samples; paper: 50.")]
BatchSize = Annotated[int | None, typer.Option("--batch-size", help="Samples per step; paper: 256.")]
Lr = Annotated[float | None, typer.Option("--lr", help="Learning rate of Adam; paper: 1e-4.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of weights and sample order.")]
EncoderProduct = Annotated[
    str | None,
    typer.Option(
        "--encoder-product",
        help="float32; or bfloat16: the same latents, faster with large batches on a processor that has it.",
    ),
]
AdamState = Annotated[
    str | None, typer.Option("--adam-state", help="float32; or bfloat16: half the memory of the optimiser.")
]
Resume = Annotated[
    Path | None, typer.Option("--resume", metavar="RUN", help="Go on with an interrupted run, as it was started.")
]


def said_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What a command was told, by the names of the options: those of its arguments that are options of a run."""
    named = {name.rstrip("_").replace("_", "-"): value for name, value in arguments.items()}
    return {name: value for name, value in named.items() if name in OPTION_NAMES}


def resolve(said: Mapping[str, Any], config: Path | None, registry: Registry) -> RunOptions:
    """Merge options: the command line, else the config file, else the dataset's own defaults, else the paper's.

    Raises MissingData, InvalidConfig, UnknownName.
    """
    return merged(said, read_options(config) if config is not None else {}, registry).checked()


def merged(said: Mapping[str, Any], file: Mapping[str, Any], registry: Registry) -> RunOptions:
    """The same, with what the config file says, and where it is not known yet whether space and training make sense."""
    options = {**file, **{name: value for name, value in said.items() if value is not None and value != []}}
    if "features" in options:
        _refuse_beside_features(options)
        return _with_absolute_paths(validated(RunOptions, {**options, "dataset": "imported"}))
    options.setdefault("dataset", DEFAULT_DATASET)
    dataset = validated(RunOptions, {"dataset": options["dataset"]}).dataset
    defaults = registry.dataset(dataset.name).defaults
    try:
        validated(RunOptions, {"dataset": dataset.name, **defaults})
    except InvalidConfig as error:
        message = f"the defaults of dataset '{dataset.name}' are wrong: {error.message}"
        raise PluginError(message, hint="repair that plugin") from error
    return _with_absolute_paths(validated(RunOptions, {**defaults, **options}))


def _refuse_beside_features(options: Mapping[str, Any]) -> None:
    """Options that say how features are made."""
    for name in ("dataset", "data-root", "precision", "store-dtype", "compile", "skip-bad"):
        if name in options:
            raise InvalidConfig(
                f"--features gives features that were made elsewhere, found --{name} too", hint="leave one of them out"
            )


def _with_absolute_paths(options: RunOptions) -> RunOptions:
    """The same with absolute paths, so that a run can be resumed and evaluated from any folder."""
    places = {
        name: place.expanduser().resolve()
        for name in ("data_root", "features", "store")
        if (place := getattr(options, name))
    }
    refs = {"dataset": _absolute(options.dataset), "stream": tuple(_absolute(stream) for stream in options.stream)}
    return options.model_copy(update={**places, **refs})


def _absolute(ref: PluginRef) -> PluginRef:
    """`root` and `weights` are paths by convention, unless nothing is there: then they are another plugin's names."""
    params = {
        key: str(Path(value).expanduser().resolve())
        if key in ("root", "weights") and isinstance(value, str) and Path(value).expanduser().exists()
        else value
        for key, value in ref.params.items()
    }
    return ref.model_copy(update={"params": params})


def dataset_ref(options: RunOptions) -> PluginRef:
    """The dataset, with `--data-root` as its parameter `root`."""
    if options.data_root is None:
        return options.dataset
    return options.dataset.model_copy(update={"params": {**options.dataset.params, "root": str(options.data_root)}})


def store_root(options: RunOptions) -> Path:
    """Where features are kept."""
    return options.store if options.store is not None else cache_dir("store").resolve()


def options_of(run: Run, places: Mapping[str, Any]) -> RunOptions:
    """Options of a run, but for where things lie now: `data-root`, `features`, `store` and `device`."""
    said = {name: place for name, place in places.items() if place is not None}
    content = run.provenance().get("options", {})
    return _with_absolute_paths(validated(RunOptions, {**content, **said}, what=str(run.path)))


def jobs_of(options: RunOptions, registry: Registry, device: str, *, tokens: bool = False) -> dict[str, dict[str, Job]]:
    """What there is to extract, or was imported: split to stream to job."""
    from sparc.extract import imported, plan

    how = how_to_extract(options, device, tokens=tokens)
    if options.features is not None:
        return imported(options.features, options.stream, how)
    return plan(registry, dataset_ref(options), options.stream, root=store_root(options), how=how)


def how_to_extract(options: RunOptions, device: str, *, tokens: bool = False) -> How:
    """How features are computed and stored, on this device."""
    from sparc.extract import How

    return How(
        device=device,
        precision=options.precision,
        store_dtype=options.store_dtype,
        compile=options.compile,
        skip_bad=options.skip_bad,
        tokens=tokens,
    )


def resolve_device(device: str) -> str:
    """Turn `auto` into a device, and check that a named one is there. Raises InvalidConfig."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # a name, a build or a machine without it
        raise InvalidConfig(
            f"--device: '{device}' is not there: {str(error).splitlines()[0]}", hint="auto, cpu, cuda, cuda:1, ..."
        ) from error
    return device
